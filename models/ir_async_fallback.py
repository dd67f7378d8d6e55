"""Where there are no workers of ours, as on Odoo.sh, jobs run on the cron workers."""
import logging
from datetime import timedelta

import psycopg2

from odoo import fields, models
from odoo.tools import SQL

_logger = logging.getLogger(__name__)

RETRY_DELAY = 5  # seconds before it is tried again when PostgreSQL cut a connection
RUN_TIME = 30  # seconds for which one run of the cron begins new jobs


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _run_jobs(self):
        """Run what is queued and served by no worker, on a cron worker."""
        # Not at the top: the model is loaded where no worker will ever be.
        from ..service.inline import run_for  # noqa: PLC0415
        if not self._has_unserved():
            return
        dbname = self.env.cr.dbname
        # The cron's transaction is not to be open while jobs run. With progress, since Odoo takes a cron that its process did not
        # survive three times for one that always takes too long, and does not run it: but it is the job that ends the process.
        self.env['ir.cron']._commit_progress(1)
        try:
            delay = run_for(dbname, RUN_TIME)
        except psycopg2.Error as exc:  # no failure of the scheduled action: five of these would switch it off
            _logger.info("Jobs of %s run again in %s s: %s", dbname, RETRY_DELAY, exc)
            delay = RETRY_DELAY
        if delay is not None:
            self._trigger_fallback(delay)

    def _trigger_fallback(self, delay=0):
        """Have the cron workers run what is queued, once this transaction is committed."""
        # sudo - ir.cron: whoever enqueues a job may have it run
        cron = self.sudo().env.ref('ir_async.ir_cron_run_jobs', raise_if_not_found=False)
        if cron and not cron.active and self.sudo().env['ir.config_parameter'].get_param('database.is_neutralized'):
            # To neutralize a copy switches off all scheduled actions. The jobs that production had are cancelled there.
            self.env.cr.execute(SQL("UPDATE ir_cron SET active = true WHERE id = %s", cron.id))
            cron.invalidate_recordset(['active'])
        if cron:
            cron._trigger(fields.Datetime.now() + timedelta(seconds=delay) if delay else None)
