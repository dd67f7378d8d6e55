"""The fallback without workers, as on Odoo.sh: jobs run on the cron workers."""

from __future__ import annotations

import logging
from datetime import timedelta

import psycopg2

from odoo import fields, models
from odoo.tools import SQL

from ..service.execution import Execution

_logger = logging.getLogger(__name__)

RETRY_DELAY = 5  # seconds until the next try, after PostgreSQL has cut a connection
RUN_TIME = 30  # seconds during which one run of the scheduled action begins new jobs


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _run_jobs(self) -> None:
        """Run the queued jobs that no worker serves, on this cron worker."""
        # Imported here: the model is also loaded by processes that never run jobs.
        from ..service.inline import run_for  # noqa: PLC0415

        # A job that triggers the action must not run others inside of itself: their end would set the process back.
        if Execution.get(self.env.cr) or not self._has_unserved():
            return
        dbname = self.env.cr.dbname
        # End the transaction of the scheduled action, which must not stay open while jobs run. Report progress as well: when a
        # process dies three times in an action without progress, Odoo stops running the action. But here a job kills the process.
        self.env['ir.cron']._commit_progress(1)
        try:
            delay = run_for(dbname, RUN_TIME)
        except psycopg2.Error as exc:  # not raised: after five failures Odoo would switch the scheduled action off
            _logger.info("The cron workers look for jobs of database %s again in %ss: %s", dbname, RETRY_DELAY, exc)
            delay = RETRY_DELAY
        if delay is not None:
            self._trigger_fallback(delay)

    def _trigger_fallback(self, delay: float = 0) -> None:
        """Make the cron workers run the queued jobs, once this transaction is committed."""
        # sudo - ir.cron: any user who enqueues a job may trigger its run
        cron = self.sudo().env.ref('ir_async.ir_cron_run_jobs', raise_if_not_found=False)
        if cron and not cron.active and self.sudo().env['ir.config_parameter'].get_param('database.is_neutralized'):
            # Neutralization has switched off all scheduled actions, and cancelled the jobs of production. New jobs may run.
            self.env.cr.execute(SQL("UPDATE ir_cron SET active = true WHERE id = %s", cron.id))
            cron.invalidate_recordset(['active'])
        if cron:
            cron._trigger(fields.Datetime.now() + timedelta(seconds=delay) if delay else None)
