"""Delete the fields, indexes and records that only the version before had.

Odoo does so after it has committed the new version, when workers are back. They would lock the same tables, in another order.
"""

from odoo import SUPERUSER_ID, api


def migrate(cr, version):
    env = api.Environment(cr, SUPERUSER_ID, {})
    loaded = set(env.registry.loaded_xmlids)
    env['ir.model.data']._process_end(['ir_async'])
    env.registry.loaded_xmlids.update(loaded)  # Odoo deletes what is not among them in the other modules, too
