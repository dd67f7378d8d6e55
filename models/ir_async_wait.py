"""The reasons why queued jobs wait, and the button that runs a job anyway."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

from odoo import api, fields, models
from odoo.exceptions import AccessError, UserError
from odoo.tools import SQL, format_datetime

from ..engine.claim import NOW
from ..engine.slots import NEXT_OF_INTERVAL, PAUSE_END
from .ir_async_channel import EVERYTHING, root_of

if TYPE_CHECKING:
    from datetime import datetime

_logger = logging.getLogger(__name__)

PARENTS_MAX = 10  # unmet parents shown for a job


class IrAsync(models.Model):
    _inherit = 'ir.async'

    wait_reason = fields.Char("Waiting Reason", compute='_compute_wait_reason', help="Why the job has not started yet")
    is_blocked = fields.Boolean(
        "Blocked", compute='_compute_wait_reason', help="A job that this one waits for has failed"
    )
    blocking_ids = fields.Many2many(
        'ir.async',
        string="Waits For",
        compute='_compute_wait_reason',
        help="Jobs that must succeed before this one starts, and have not yet",
    )

    @api.depends('state', 'date_scheduled', 'channel')
    def _compute_wait_reason(self):
        self.update({'wait_reason': False, 'is_blocked': False, 'blocking_ids': False})
        waiting = self.filtered(lambda job: job.state == 'waiting')
        parents_by_job = waiting._unmet_parents()
        for job in waiting:
            states, job.blocking_ids = parents_by_job[job.id]
            job.is_blocked = 'failed' in states
            job.wait_reason = job._why_copied() or job._why_parents(states, job.blocking_ids)
        queue = _Queue(self.env)
        for job in self.filtered(lambda job: job.state == 'created'):
            job.wait_reason = job._why_queued(queue)

    def _unmet_parents(self):
        """Return, for each job, the states of its unmet parents, and the parents that the user may read."""
        self.env['ir.async']._insert_pending()
        states, ids = defaultdict(list), defaultdict(list)
        for job_id, parent_id, state in self.env.execute_query(SQL(
            """
            SELECT rel.job_id, parent.id, parent.state
              FROM ir_async_after_rel rel
              JOIN ir_async parent ON parent.id = rel.after_id
             WHERE rel.unmet AND rel.job_id IN %s
          ORDER BY parent.state != 'failed', parent.id
            """, self._ids or (0,))):  # fmt: skip
            states[job_id].append(state)
            ids[job_id].append(parent_id)
        shown = self.browse(id_ for parents in ids.values() for id_ in parents[:PARENTS_MAX])._filtered_access('read')
        return {job.id: (states[job.id], self.browse(ids[job.id][:PARENTS_MAX]) & shown) for job in self}

    def _why_parents(self, states, parents):
        names = ", ".join(f"{parent.display_name} ({parent.id})" for parent in parents if parent.state == 'failed')
        hidden = self.env._("a job of another user")
        failed = states.count('failed')
        if failed > 1:
            return self.env._(
                "%(count)s jobs that it waits for have failed: %(jobs)s. It starts once they are retried and succeed.",
                count=failed,
                jobs=names or hidden,
            )
        if failed:
            return self.env._(
                "A job that it waits for has failed: %(job)s. It starts once that job is retried and succeeds.",
                job=names or hidden,
            )
        if not states:
            return self.env._("The jobs it waited for have ended. It starts in a moment.")
        if len(states) > 1:
            return self.env._("It waits for %(count)s other jobs to end.", count=len(states))
        return self.env._(
            "It waits for another job to end: %(job)s.",
            job=", ".join(f"{parent.display_name} ({parent.id})" for parent in parents) or hidden,
        )

    def _why_queued(self, queue):
        self.ensure_one()
        root = root_of(self.channel)
        if reason := self._why_copied():
            return reason
        if self.date_scheduled and self.date_scheduled > queue.now:
            date = format_datetime(self.env, self.date_scheduled)
            if self.attempts:
                return self.env._("It failed and runs again on %(date)s.", date=date)
            return self.env._("It does not start before %(date)s.", date=date)
        match queue.why_unserved(root):
            case 'upgrading':
                return self.env._("Modules are being installed or upgraded. It starts once this is done.")
            case 'paused' if EVERYTHING in queue.paused:
                return self.env._("All channels are paused.")
            case 'paused':
                return self.env._("The channel %(channel)s is paused.", channel=root)
            case 'no_worker':
                return self.env._(
                    "No worker serves the channel %(channel)s. A scheduled action runs the job, which takes longer.",
                    channel=root,
                )
        if until := queue.paused_until(self.channel):
            return self.env._(
                "The channel %(channel)s is paused until %(date)s, since one of its jobs asked for that.",
                channel=self.channel,
                date=format_datetime(self.env, until),
            )
        capacity, interval, starts = queue.limits.get(root, (0, 0, 1))
        running = queue.running.get(self.channel, 0)
        if capacity and running >= capacity:
            return self.env._(
                "The channel %(channel)s is full: %(running)s of %(capacity)s jobs are running.",
                channel=self.channel,
                running=running,
                capacity=capacity,
            )
        if interval and queue.is_early(self.channel):
            if starts > 1:
                return self.env._(
                    "The channel %(channel)s starts %(count)s jobs every %(interval)s seconds.",
                    channel=self.channel,
                    count=starts,
                    interval=f'{interval:g}',
                )
            return self.env._(
                "The channel %(channel)s starts one job every %(interval)s seconds.",
                channel=self.channel,
                interval=f'{interval:g}',
            )
        return self.env._("It waits for a free worker.")

    def _why_copied(self):
        if self.is_elsewhere:
            return self.env._(
                "It came with a copy of another database. It runs here only if a manager chooses “Run in This Database”."
            )
        return False

    def run_anyway(self) -> Literal[True]:
        """Start waiting jobs although their parents have not ended well. Only managers may do this.

        :return: True
        :raises odoo.exceptions.AccessError: if the user is no manager
        :raises odoo.exceptions.UserError: if one of them does not wait for other jobs; then none is changed
        """
        if not (self.env.su or self.env.user.has_group('ir_async.ir_async_group_manager')):
            raise AccessError(
                self.env._("Only a manager of background jobs can start a job before the jobs it waits for.")
            )
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state != 'waiting'):
            raise UserError(self.env._("Only waiting jobs can be run anyway, not %(jobs)s.", jobs=others._label()))
        if jobs:
            self.env.cr.execute(
                SQL("UPDATE ir_async_after_rel SET unmet = false WHERE job_id IN %s AND unmet", jobs._ids)
            )
            jobs._update(wakes=True, state='created', late_parent_ids=None)
            _logger.info(
                "User %s (%s) lets jobs run before the jobs they wait for: %s",
                self.env.user.login,
                self.env.uid,
                jobs.ids,
            )
        return True


class _Queue:
    """The limits and the load of the queue, read once for many jobs."""

    def __init__(self, env: api.Environment) -> None:
        self.env = env
        self.now: datetime = env.cr.now()
        self._unserved: dict[str, str | None] = {}
        self._limits: tuple[set[str], dict[str, tuple[int, float, int]]] | None = None
        self._running: dict[str, int] | None = None

    def why_unserved(self, root: str) -> str | None:
        if root not in self._unserved:
            self._unserved[root] = self.env['ir.async']._why_unserved(root)
        return self._unserved[root]

    @property
    def paused(self) -> set[str]:
        return self._read_limits()[0]

    @property
    def limits(self) -> dict[str, tuple[int, float, int]]:
        return self._read_limits()[1]

    def _read_limits(self) -> tuple[set[str], dict[str, tuple[int, float, int]]]:
        if self._limits is None:
            self._limits = self.env['ir.async']._limits()
        return self._limits

    @property
    def running(self) -> dict[str, int]:
        if self._running is None:
            self._running = self.env['ir.async']._count_running()
        return self._running

    def paused_until(self, channel: str) -> datetime | None:
        until = self._of_channel(PAUSE_END, channel)
        return until if until and until > self.now else None

    def is_early(self, channel: str) -> bool:
        return bool(self._of_channel(f'{NEXT_OF_INTERVAL} > {NOW}', channel))

    def _of_channel(self, expression: str, channel: str) -> Any:
        """Return the value of an expression for a channel; None if it has no limits."""
        rows = self.env.execute_query(SQL(
            f"""
            SELECT {expression}
              FROM (SELECT %s::varchar) AS candidate (channel)
              JOIN ir_async_channel limits ON limits.name = split_part(candidate.channel, '/', 1)
            """, channel))  # fmt: skip
        return rows[0][0] if rows else None
