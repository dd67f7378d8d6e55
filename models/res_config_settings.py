"""Settings of background jobs, and their state at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odoo import api, fields, models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from odoo.api import ValuesType


class ResConfigSettings(models.TransientModel):
    _inherit = 'res.config.settings'

    async_export = fields.Boolean("Exports in the Background", config_parameter='ir_async.export')
    async_report = fields.Boolean("PDF Reports in the Background", config_parameter='ir_async.report')
    async_metrics_token = fields.Char("Monitoring Token", config_parameter='ir_async.metrics_token')
    async_summary = fields.Char("State of Background Jobs", compute='_compute_async_summary')
    async_foreground_note = fields.Text("Files Made in the Foreground", compute='_compute_async_foreground_note')
    async_trouble = fields.Char("Problem with Background Jobs", compute='_compute_async_summary')

    @api.model
    def default_get(self, fields: Sequence[str]) -> ValuesType:
        # Odoo reads the parameters in sudo, whoever asks for the defaults.
        if not self.env['ir.config_parameter'].has_access('read'):
            fields = [name for name in fields if name != 'async_metrics_token']
        return super().default_get(fields)

    def _compute_async_summary(self):
        jobs = self.env['ir.async']
        counts, _is_estimated = jobs._count_jobs()
        by_state: dict[str, int] = {}
        for (state, _channel), count in counts.items():
            by_state[state] = by_state.get(state, 0) + count
        self.async_summary = self.env._(
            "%(workers)s workers are alive. Jobs: %(running)s running, %(queued)s queued, %(failed)s failed.",
            workers=jobs._count_workers(),
            running=by_state.get('processing', 0),
            queued=by_state.get('waiting', 0) + by_state.get('created', 0),
            failed=by_state.get('failed', 0),
        )
        self.async_trouble = {
            'upgrading': self.env._("Modules are being installed or upgraded. Jobs start once this is done."),
            'paused': self.env._("Jobs are paused."),
            'no_worker': self.env._("No worker is alive. A scheduled action runs the jobs, which takes longer."),
        }.get(jobs._why_unserved('default'), False)

    @api.depends('async_export', 'async_report')
    def _compute_async_foreground_note(self):
        # Some addons replace Odoo's way to make files. A job would make other files than these addons do.
        partners, reports = self.env['res.partner'], self.env['ir.actions.report']
        for settings in self:
            extensions = {
                "CSV": settings.async_export and partners._find_export_extension('csv'),
                "XLSX": settings.async_export and partners._find_export_extension('xlsx'),
                "PDF": settings.async_report and reports._find_pdf_extension('ir_async.any'),
            }
            settings.async_foreground_note = '\n'.join(
                self.env._(
                    "%(format)s files are made in the foreground, since %(extension)s extends them.",
                    format=name,
                    extension=extension,
                )
                for name, extension in extensions.items()
                if extension
            )
