"""Delete the fields, indexes and tables that only the version before had.

Odoo does so after it has committed the new version, when workers are back. They would lock the same tables, in another order.
The rest, such as views, is left to Odoo: modules that are upgraded next may still refer to it.
"""

from odoo import SUPERUSER_ID, api


def migrate(cr, version):
    env = api.Environment(cr, SUPERUSER_ID, {})
    xmlids = env.registry.loaded_xmlids  # Odoo deletes what is not among them
    loaded = set(xmlids)
    cr.execute(r"""
        SELECT module || '.' || name FROM ir_model_data WHERE module = 'ir_async' AND model !~ '^ir\.model($|\.(fields|constraint))'
    """)
    xmlids.update(xmlid for [xmlid] in cr.fetchall())
    env['ir.model.data']._process_end(['ir_async'])
    xmlids.clear()
    xmlids.update(loaded)  # it deletes in all modules at the end
