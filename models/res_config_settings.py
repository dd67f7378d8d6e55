from odoo import api, fields, models


class ResConfigSettings(models.TransientModel):
    _inherit = 'res.config.settings'

    async_export = fields.Boolean("Exports in the Background", config_parameter='ir_async.export')
    async_report = fields.Boolean("PDF Reports in the Background", config_parameter='ir_async.report')
    async_foreground_note = fields.Text(compute='_compute_async_foreground_note')

    @api.depends('async_export', 'async_report')
    def _compute_async_foreground_note(self):
        # Addons make some files in their own way, in place of Odoo's: a job would make others.
        partners, reports = self.env['res.partner'], self.env['ir.actions.report']
        for settings in self:
            extensions = {
                "CSV": settings.async_export and partners._find_export_extension('csv'),
                "XLSX": settings.async_export and partners._find_export_extension('xlsx'),
                "PDF": settings.async_report and reports._find_pdf_extension('ir_async.any'),
            }
            settings.async_foreground_note = '\n'.join(
                self.env._("%(format)s files stay in the foreground: %(extension)s makes them.", format=name, extension=extension)
                for name, extension in extensions.items() if extension)
