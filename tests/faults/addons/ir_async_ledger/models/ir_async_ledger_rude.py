import os
import signal
import subprocess
import sys
import threading
import time

from odoo import api, models

LEFT = []  # cursors that are never closed; the last ones, since a process may have so many connections
SETTINGS = {
    'search_path': "SET search_path = pg_catalog, public",
    'work_mem': "SET work_mem = '77kB'",
    'isolation': "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    'read_only': "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    'custom': "SELECT set_config('ir_async_ledger.left', 'x', false)",
    'table': "CREATE TEMPORARY TABLE left_table ()",
    'prepared': "PREPARE left_statement AS SELECT 1",
    'cursor': "DECLARE left_cursor CURSOR WITH HOLD FOR SELECT 1",
    'lock': "SELECT pg_advisory_lock(4711)",
    'listen': "LISTEN left_channel",
}


class IrAsyncLedger(models.Model):
    """Methods that leave something on their connection or in their process."""

    _inherit = 'ir.async.ledger'

    @api.model
    def blob(self, token, _argument, size):
        """Take and return large data."""
        with self._run(token):
            self._book(token)
            return 'x' * size

    @api.model
    def leave_setting(self, token, name):
        with self._run(token):
            self._book(token)
            self.env.cr.execute(SETTINGS[name])  # pylint: disable=sql-injection

    @api.model
    def change_isolation(self, token, level):
        with self._run(token):
            self.env.cr.commit()
            self.env.cr.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
            self._book(token)

    @api.model
    def leave_process(self, token):
        with self._run(token):
            self._book(token)
            os.environ['IR_ASYNC_LEDGER_LEFT'] = 'x'
            os.chdir('/usr')
            os.umask(0o007)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
            sys.setrecursionlimit(1777)

    @api.model
    def leave_cursor(self, token):
        with self._run(token):
            self._book(token)
            cr = self.env.registry.cursor()
            cr.execute("SELECT 1")
            LEFT[:] = [*LEFT[-2:], cr]

    @api.model
    def close_cursor(self, token):
        with self._run(token):
            self._book(token)
            self.env.cr.close()

    @api.model
    def fork(self, token):
        with self._run(token):
            self._book(token)
            if not (pid := os.fork()):
                time.sleep(0.1)
                os._exit(0)
            os.waitpid(pid, 0)
            subprocess.Popen(['sleep', '3'])

    @api.model
    def thread(self, token, seconds):
        """Start a thread that may outlive the job."""
        with self._run(token):
            self._book(token)
            threading.Thread(target=time.sleep, args=(seconds,), daemon=True).start()

    @api.model
    def failing_hook(self, token, when):
        with self._run(token):
            self._book(token)

            def fail():
                raise ValueError(token)

            getattr(self.env.cr, when).add(fail)

    @api.model
    def hanging_hook(self, token, when, seconds):
        with self._run(token):
            self._book(token)
            getattr(self.env.cr, when).add(lambda: self._sleep(seconds))
