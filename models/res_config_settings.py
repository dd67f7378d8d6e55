from odoo import fields, models


class ResConfigSettings(models.TransientModel):
    _inherit = 'res.config.settings'

    async_export = fields.Boolean("Exports in the Background", config_parameter='ir_async.export')
    async_report = fields.Boolean("PDF Reports in the Background", config_parameter='ir_async.report')
