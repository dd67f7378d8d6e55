"""The actions of users on jobs: complete, cancel, retry, dismiss."""

from __future__ import annotations

from typing import Any, Literal

import psycopg2.errors

from odoo import fields, models
from odoo.exceptions import UserError
from odoo.tools import SQL

from ..exceptions import KeyTaken
from .ir_async import ENDED, KEY_OWNER, TAKES_KEY
from .ir_async_key import KEY_WAIT


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def complete(self) -> Literal[True]:
        """Mark these jobs as ``done``: their results were used. Jobs that are ``done`` already stay as they are.

        :return: True
        :raises odoo.exceptions.AccessError: if one of them is another user's, and the user is no manager
        :raises odoo.exceptions.UserError: if one of them has not succeeded; then none is changed
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state not in ('succeeded', 'done')):
            raise UserError(
                self.env._("Only jobs with a ready result can be completed, not %(jobs)s.", jobs=others._label())
            )
        jobs.filtered(lambda job: job.state == 'succeeded')._update(state='done')
        return True

    def cancel(self) -> Literal[True]:
        """Cancel these jobs: queued ones at once, running ones within a second. The work of running ones is rolled back.

        :return: True
        :raises odoo.exceptions.AccessError: if one of them is another user's, and the user is no manager
        :raises odoo.exceptions.UserError: if one of them has ended; then none is changed
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state in ENDED):
            raise UserError(self.env._("Jobs that have ended cannot be cancelled: %(jobs)s.", jobs=others._label()))
        running = jobs.filtered(lambda job: job.state == 'processing' and not job.is_elsewhere)
        (jobs - running)._update(wakes=True, state='cancelled', date_done=fields.Datetime.now())  # for the children
        for job in running:
            # The job's row belongs to its worker, so the request has a row of its own. The NOTIFY comes with the commit: the
            # worker must see that row then.
            self.env.cr.execute(
                SQL(
                    "INSERT INTO ir_async_stop (job_id, reason) VALUES (%s, 'cancel')"
                    " ON CONFLICT (job_id) DO UPDATE SET reason = 'cancel'",
                    job.id,
                )
            )
            self.env.cr.execute(SQL("SELECT pg_notify('ir_async_stop', %s)", str(job.id)))
        return True

    def retry(self) -> Literal[True] | dict[str, Any]:
        """Run failed or cancelled jobs again. Their attempts and deaths start from zero.

        A job whose key is held by a live job stays as it is. The others are run again.

        :return: True; or, if some stay as they are, an action that names them to the user
        :raises odoo.exceptions.AccessError: if one of them is another user's, and the user is no manager
        :raises odoo.exceptions.UserError: if one of them is neither failed nor cancelled, or waits for a cancelled job; then
            none is changed. Also if live jobs hold the keys of all of them
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state not in ('failed', 'cancelled')):
            raise UserError(
                self.env._("Only failed or cancelled jobs can be retried, not %(jobs)s.", jobs=others._label())
            )
        live_jobs = jobs._find_live_jobs()
        retried = jobs.filtered(lambda job: job.id not in live_jobs)
        if parents := retried.after_ids.filtered(lambda job: job.state == 'cancelled') - retried:
            raise UserError(self.env._("Retry the jobs that they wait for first: %(jobs)s.", jobs=parents._label()))
        refused = [
            self.env._(
                "%(job)s: job %(live_id)s with the same key is queued or running.",
                job=job._label(),
                live_id=live_jobs[job.id],
            )
            for job in jobs - retried
        ]
        if refused and not retried:
            raise UserError(
                '\n'.join([self.env._("There is already a queued or running job with the same key."), *refused])
            )
        retried._restart()
        if not refused:
            return True
        return {
            'type': 'ir.actions.client',
            'tag': 'display_notification',
            'params': {
                'type': 'warning',
                'sticky': True,
                'title': self.env._(
                    "%(count)s jobs run again, %(refused)s do not", count=len(retried), refused=len(refused)
                ),
                'message': '\n'.join(refused),
                'next': {'type': 'ir.actions.client', 'tag': 'soft_reload'},
            },
        }

    def _find_live_jobs(self) -> dict[int, int]:
        """Return, for each job whose key is taken, the job that holds it. Of several jobs with one key, the first gets it.

        :return: the ids of the holders, by the ids of these jobs
        :rtype: dict[int, int]
        """
        keyed = self.filtered('key')
        if not keyed:
            return {}
        live_ids = {
            (key, owner): id_
            for key, owner, id_ in self.env.execute_query(
                SQL(
                    "SELECT key, %s, id FROM ir_async WHERE key IN %s AND %s AND origin = %s",
                    KEY_OWNER,
                    tuple(set(keyed.mapped('key'))),
                    TAKES_KEY,
                    self._origin_sql(),
                )
            )
        }
        found = {}
        for job in keyed:
            live_id = live_ids.setdefault((job.key, job.user_id.id if job.notify else 0), job.id)
            if live_id != job.id:
                found[job.id] = live_id
        return found

    def _restart(self) -> None:
        """Put ended jobs back into the queue.

        :raises KeyTaken: if another transaction has enqueued a job with one of their keys meanwhile
        :raises odoo.exceptions.UserError: if another transaction is about to do so and does not end in time
        """
        # A job that a manager let run anyway has no unmet dependency, so it does not wait again.
        waiting = self.browse(id_ for id_, in self.env.execute_query(SQL(
            """
            SELECT DISTINCT job_id FROM ir_async_after_rel JOIN ir_async parent ON parent.id = after_id
             WHERE job_id IN %(ids)s AND unmet AND parent.state NOT IN ('succeeded', 'done')
             UNION
            SELECT id FROM ir_async WHERE id IN %(ids)s AND late_parent_ids IS NOT NULL
            """, ids=self._ids or (0,))))  # fmt: skip
        restart = {
            'attempts': 0,
            'deaths': 0,
            'payload': None,
            'date_scheduled': None,
            'date_done': None,
            'dismissed': False,
            'origin': self._origin_sql(),
        }
        self.env.cr.execute(SQL("DELETE FROM ir_async_stop WHERE job_id IN %s", self._ids or (0,)))
        self.env.cr.execute(SQL("DELETE FROM ir_async_progress WHERE job_id IN %s", self._ids or (0,)))
        keys = ', '.join(sorted(set(self.filtered('key').mapped('key'))))
        [[lock_timeout]] = self.env.execute_query(SQL("SELECT current_setting('lock_timeout')"))
        try:
            with self.env.cr.savepoint():
                self.env.cr.execute(SQL("SET LOCAL lock_timeout = %s", KEY_WAIT))
                waiting._update(wakes=True, state='waiting', **restart)
                (self - waiting)._update(wakes=True, state='created', **restart)
        except psycopg2.errors.UniqueViolation as exc:
            raise KeyTaken(keys) from exc
        except psycopg2.errors.LockNotAvailable:
            raise self._key_busy(keys) from None
        self.env.cr.execute(SQL("SET LOCAL lock_timeout = %s", lock_timeout))
        self._pending()  # the savepoint's flush has dropped the precommit hook: add it again

    def dismiss(self) -> Literal[True]:
        """Remove ended jobs from the list of their owner, in all tabs. They stay in the job views.

        :return: True
        :raises odoo.exceptions.AccessError: if one of them is another user's, and the user is no manager
        :raises odoo.exceptions.UserError: if one of them has not ended; then none is changed
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state not in ENDED):
            raise UserError(self.env._("Jobs that have not ended cannot be dismissed: %(jobs)s.", jobs=others._label()))
        jobs.filtered(lambda job: not job.dismissed)._update(dismissed=True)
        return True
