import time
from datetime import timedelta

from odoo import fields, models

from ..service.execution import Execution
from odoo.addons.ir_async.service.pg import workers_alive

RUN_TIME = 30  # seconds for which one run of the cron takes new jobs


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _run_jobs(self):
        """Run what is queued, on a cron worker: where there are no workers of our own, as on Odoo.sh.

        There, nobody looks after the running job: it cannot be cancelled, and shows no progress.
        """
        # Not at the top: the model is loaded where no worker will ever be.
        from odoo.addons.ir_async.service.runner import Runner, tell  # noqa: PLC0415
        from odoo.addons.ir_async.service.session import Session  # noqa: PLC0415
        if workers_alive(self.env.cr):
            return
        dbname, cron = self.env.cr.dbname, self.env.ref('ir_async.ir_cron_run_jobs')
        self.env.cr.commit()  # the cron's transaction is not to be open while jobs run
        session, delay = Session.open(dbname)
        if session:
            runner = Runner(session)
            try:
                end, delay = time.monotonic() + RUN_TIME, 0
                while delay == 0 and time.monotonic() < end:
                    if jobs := session.claim(1):
                        runner.prepare(jobs[0])
                        runner.run(Execution(jobs[0]))
                        runner.renew()
                    else:
                        delay = session.watch()
                    tell(session)
            finally:
                runner.close()
                session.close()
        if delay is not None:
            cron._trigger(fields.Datetime.now() + timedelta(seconds=delay))
