import contextlib
import os
import threading

from odoo import api, models, sql_db
from odoo.sql_db import PoolError

KEPT = []  # cursors that jobs leave open


class TestAsyncEffect(models.Model):
    """Jobs that use connections of Odoo's pools beside their own."""

    _inherit = 'test.async.effect'

    @api.model
    def open_cursors(self, name, count):
        """Open cursors of Odoo's pool, each on a connection of its own."""
        self._trace(name)
        with contextlib.ExitStack() as stack:
            for _i in range(count):
                stack.enter_context(self.env.registry.cursor()).execute("SELECT 1")

    @api.model
    def leave_cursors(self, name):
        """Leave cursors of Odoo's pools open: a read-only one, and all others that there are, one of which has locked a row."""
        self._trace(name)
        KEPT.append(sql_db.db_connect(self.env.cr.dbname, readonly=True).cursor())
        KEPT[-1].execute("SELECT 1")
        with contextlib.suppress(PoolError):
            while True:
                KEPT.append(self.env.registry.cursor())
                KEPT[-1].execute("SELECT FROM test_async_effect WHERE name = 'locked' FOR UPDATE SKIP LOCKED")

    @api.model
    def leave_querying_thread(self, name, lock):
        """Leave a thread that executes a statement on a cursor of Odoo's pool: it waits for an advisory lock."""
        self._trace(name)
        began = threading.Event()

        def query():
            with self.env.registry.cursor() as cr:
                began.set()
                cr.execute("SELECT pg_advisory_lock(%s)", [lock])

        threading.Thread(target=query, daemon=True).start()
        began.wait()

    @api.model
    def open_cursors_while_notifying(self, name, count, gate):
        """Open cursors while the other thread of the worker waits in the middle of a message about the progress."""
        self._trace(name)
        self._wait(gate)
        self.env['ir.async'].report_progress(1, 2)
        waiting = False
        while not waiting:
            self.env.cr._cnx.commit()  # for what others have written since
            self.env.cr.execute("SELECT FROM pg_stat_activity WHERE query ~ 'slow_notify' AND wait_event_type = 'Lock'")
            waiting = self.env.cr.rowcount
        with contextlib.ExitStack() as stack:
            for _i in range(count):
                stack.enter_context(self.env.registry.cursor()).execute("SELECT 1")

    @api.model
    def lock_on_another_cursor(self, name, lock, way):
        """Take a lock that the end of the transaction does not release."""
        self._trace(name)
        cr = self.env.registry.cursor()
        cr.execute("SELECT pg_advisory_lock(%s)", [lock])
        if way == 'close':
            cr.close()
        # Otherwise the finalizer gives its connection back.

    def leave_cursor_and_add(self, name, gate):
        """Leave a cursor open in each try, and add to the record's value when the gate of the try opens."""
        self._trace(name)
        KEPT.append(self.env.registry.cursor())
        KEPT[-1].execute("SELECT 1")
        value = self.value
        self._wait(f'{gate}{len(self._read_trace(name))}')
        self.value = value + 1

    @api.model
    def set_parameter(self, name, way, gate=None):
        """Write what other processes have cached."""
        self._trace(name)
        self.env['ir.config_parameter'].sudo().set_param('test_ir_async', way)
        hooks = self.env.cr.postcommit

        def fail():
            hooks.add(fail)
            raise ValueError(name)

        if way == 'full pool':
            self.leave_cursors(name)
        elif way == 'failing hook':
            hooks.add(fail)
            hooks.add(lambda: self._trace(f'{name}: next hook'))
        elif way == 'hanging hook':
            hooks.add(lambda: self._wait(gate))

    @api.model
    def read_parameter(self, gate):
        """Return the process, and what it knows."""
        self._wait(gate)
        return [os.getpid(), self.env['ir.config_parameter'].sudo().get_param('test_ir_async')]

    @api.model
    def trigger_crons(self, name):
        """Run the scheduled action that runs jobs on cron workers."""
        self._trace(name)
        self.env.ref('ir_async.ir_cron_run_jobs').sudo().method_direct_trigger()
