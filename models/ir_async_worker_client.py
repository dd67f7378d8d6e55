"""Fields and buttons of workers, for the views."""

from __future__ import annotations

from typing import Any

from odoo import api, fields, models
from odoo.fields import Domain
from odoo.tools import SQL

from ..engine.connection import LIVE_SESSIONS


class IrAsyncWorker(models.Model):
    _inherit = 'ir.async.worker'

    is_alive = fields.Boolean(compute='_compute_is_alive', search='_search_is_alive')
    current_job_id = fields.Many2one('ir.async', "Runs", compute='_compute_current_job_id')
    job_duration = fields.Float(
        "For", compute='_compute_current_job_id', digits=(16, 3), help="Seconds that the job has been running"
    )
    user_id = fields.Many2one('res.users', "User", compute='_compute_current_job_id')

    @api.depends('host', 'pid')
    def _compute_display_name(self):
        for worker in self:
            worker.display_name = f"{worker.host} ({worker.pid})"

    def _alive_ids(self):
        return {
            worker_id
            for (worker_id,) in self.env.execute_query(
                SQL(
                    "SELECT id FROM (%s) AS serving UNION SELECT id FROM ir_async_worker WHERE id IN (%s)",
                    self.env['ir.async']._serving(),
                    SQL(LIVE_SESSIONS),
                )
            )
        }

    def _compute_is_alive(self):
        alive = self._alive_ids()
        for worker in self:
            worker.is_alive = worker.id in alive

    @api.model
    def _search_is_alive(self, operator, value):
        if operator != 'in':
            return NotImplemented
        return Domain('id', 'in', self._alive_ids()) if True in value else Domain('id', 'not in', self._alive_ids())

    def _compute_current_job_id(self):
        # the running job is the first of its batch; the others are prefetched
        job_ids = dict(
            self.env.execute_query(
                SQL(
                    """
            SELECT DISTINCT ON (worker_id) worker_id, id
              FROM ir_async
             WHERE worker_id IN %s AND state = 'processing'
          ORDER BY worker_id, priority, id
            """,
                    self._ids or (0,),
                )
            )
        )
        for worker in self:
            worker.current_job_id = job_ids.get(worker.id, False)
            worker.job_duration = worker.current_job_id.duration
            worker.user_id = worker.current_job_id.user_id

    def action_open_job(self) -> dict[str, Any] | None:
        """Open the job that the worker runs.

        :return: the action; None if the job has ended meanwhile
        :rtype: dict[str, Any] | None
        """
        self.ensure_one()
        return self.current_job_id.get_formview_action() if self.current_job_id else None
