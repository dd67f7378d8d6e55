"""Create the channel of reports, as in a new database."""

from odoo import SUPERUSER_ID, api

from odoo.addons.ir_async.hooks import CHANNELS


def migrate(cr, version):
    env = api.Environment(cr, SUPERUSER_ID, {})
    if not env['ir.async.channel'].search_count([('name', '=', 'report')]):
        env['ir.async.channel'].create({'name': 'report', 'capacity': CHANNELS['report']})
