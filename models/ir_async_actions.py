"""What the user does with a job: complete, cancel, retry, dismiss."""
import psycopg2.errors

from odoo import fields, models
from odoo.exceptions import UserError
from odoo.tools import SQL

from .ir_async import ENDED


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def complete(self):
        """Say that the result of these jobs was used: they are ``done``. Nothing happens to those that are already.

        :return: True
        :raises odoo.exceptions.AccessError: when one of them is not the user's, who is no manager either
        :raises odoo.exceptions.UserError: when one of them did not succeed (yet); none is changed then
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state not in ('succeeded', 'done')):
            raise UserError(self.env._("Only jobs that succeeded can be completed, not %(jobs)s.", jobs=others._label()))
        jobs.filtered(lambda job: job.state == 'succeeded')._update(state='done')
        return True

    def cancel(self):
        """Cancel these jobs: the queued ones at once, the running ones within a second. What they did is rolled back.

        :return: True
        :raises odoo.exceptions.AccessError: when one of them is not the user's, who is no manager either
        :raises odoo.exceptions.UserError: when one of them has ended; none is changed then
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state in ENDED):
            raise UserError(self.env._("Only jobs that did not end can be cancelled, not %(jobs)s.", jobs=others._label()))
        running = jobs.filtered(lambda job: job.state == 'processing' and not job.is_elsewhere)
        (jobs - running)._update(state='cancelled', date_done=fields.Datetime.now())
        for job in running:
            # Not in its row, that belongs to its worker. Within the transaction: the worker must see it then.
            self.env.cr.execute(SQL(
                "INSERT INTO ir_async_stop (job_id, reason) VALUES (%s, 'cancel')"
                " ON CONFLICT (job_id) DO UPDATE SET reason = 'cancel'", job.id))
            self.env.cr.execute(SQL("SELECT pg_notify('ir_async_stop', %s)", str(job.id)))
        self._wake_workers()  # for the children
        return True

    def retry(self):
        """Run these jobs, that failed or were cancelled, again. Their attempts and deaths start from zero.

        :return: True
        :raises odoo.exceptions.AccessError: when one of them is not the user's, who is no manager either
        :raises odoo.exceptions.UserError: when one of them did not fail and is not cancelled, waits for a cancelled
            job, or there is a live job of the same key; none is changed then
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state not in ('failed', 'cancelled')):
            raise UserError(self.env._(
                "Only jobs that failed or were cancelled can be tried again, not %(jobs)s.", jobs=others._label()))
        if parents := jobs.after_ids.filtered(lambda job: job.state == 'cancelled') - jobs:
            raise UserError(self.env._("First try again what they wait for: %(jobs)s.", jobs=parents._label()))
        waiting = jobs.filtered(lambda job: any(parent.state not in ('succeeded', 'done') for parent in job.after_ids))
        restart = {
            'attempts': 0, 'deaths': 0, 'payload': None, 'date_scheduled': None, 'date_done': None, 'dismissed': False,
            'origin': self._origin_sql(),
        }
        try:
            with self.env.cr.savepoint():
                self.env.cr.execute(SQL("DELETE FROM ir_async_stop WHERE job_id IN %s", self._ids or (0,)))
                self.env.cr.execute(SQL("DELETE FROM ir_async_progress WHERE job_id IN %s", self._ids or (0,)))
                waiting._update(state='waiting', **restart)
                (jobs - waiting)._update(state='created', **restart)
        except psycopg2.errors.UniqueViolation as exc:
            raise UserError(self.env._(
                "There is already a queued or running job of the same key: %(detail)s", detail=exc.diag.message_detail)) from None
        self._wake_workers()
        return True

    def dismiss(self):
        """Take these ended jobs off their owner's list, in all tabs. They stay in the job views.

        :return: True
        :raises odoo.exceptions.AccessError: when one of them is not the user's, who is no manager either
        :raises odoo.exceptions.UserError: when one of them did not end yet; none is changed then
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state not in ENDED):
            raise UserError(self.env._("Only jobs that ended can be dismissed, not %(jobs)s.", jobs=others._label()))
        jobs.filtered(lambda job: not job.dismissed)._update(dismissed=True)
        return True
