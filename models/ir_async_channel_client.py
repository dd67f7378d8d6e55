"""Numbers and buttons of channels, for the views."""

from __future__ import annotations

from typing import Any, Literal

from odoo import api, fields, models
from odoo.tools import SQL

from .ir_async_channel import EVERYTHING


class IrAsyncChannel(models.Model):
    _inherit = 'ir.async.channel'

    running_count = fields.Integer("Running", compute='_compute_counts')
    queued_count = fields.Integer(
        "Queued", compute='_compute_counts', help="Jobs that wait for other jobs, a date or their turn"
    )
    failed_count = fields.Integer("Failed", compute='_compute_counts')

    paused_until = fields.Datetime(
        compute='_compute_paused_until', help="One of its jobs has asked that no other one starts until then"
    )

    @api.depends('name', 'capacity', 'interval', 'fair')
    def _compute_paused_until(self):
        ends = dict(self.env.execute_query(SQL(
            """
            SELECT split_part(channel, '/', 1) AS root, date_trunc('second', max(until))
              FROM ir_async_pause
             WHERE until > clock_timestamp() AT TIME ZONE 'UTC' GROUP BY root
            """)))  # fmt: skip
        for channel in self:
            channel.paused_until = channel._has_limits() and ends.get(channel.name, False)

    @api.depends('name')
    def _compute_counts(self):
        counts, _is_estimated = self.env['ir.async']._count_jobs()
        for channel in self:

            def count(*states, channel=channel):
                return sum(
                    number
                    for (state, name), number in counts.items()
                    if state in states and channel.name in (name, EVERYTHING)
                )

            channel.running_count = count('processing')
            channel.queued_count = count('waiting', 'created')
            channel.failed_count = count('failed')

    def action_open_jobs(self) -> dict[str, Any]:
        """Open the jobs of a channel.

        :return: the action
        :rtype: dict[str, Any]
        """
        self.ensure_one()
        action = self.env['ir.actions.act_window']._for_xml_id('ir_async.ir_async_action')
        if self.name != EVERYTHING:
            action['domain'] = ['|', ('channel', '=', self.name), ('channel', '=like', f'{_escape_like(self.name)}/%')]
        action['context'] = {'search_default_live': 1}
        return action

    @api.model
    def action_pause_everything(self) -> Literal[True]:
        """Start no more jobs of any channel. Running jobs go on."""
        self._pause_everything(True)
        return True

    @api.model
    def action_resume_everything(self) -> Literal[True]:
        """Start jobs again, except in channels that are paused themselves."""
        self._pause_everything(False)
        return True

    def _pause_everything(self, paused):
        everything = self.search([('name', '=', EVERYTHING)])
        if everything:
            everything.write({'paused': paused})
        elif paused:
            self.create({'name': EVERYTHING, 'paused': True})
        else:
            self.browse().check_access('write')


def _escape_like(text):
    return text.replace('\\', r'\\').replace('%', r'\%').replace('_', r'\_')
