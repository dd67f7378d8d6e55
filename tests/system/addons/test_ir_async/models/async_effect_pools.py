import contextlib
import os
import threading

from psycopg2.extras import RealDictCursor

from odoo import api, models, sql_db
from odoo.sql_db import PoolError

from odoo.addons.ir_async.exceptions import RetryJob

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
    def spoil_connection(self, name, way):
        """Give a connection back that is not as it was."""
        self._trace(name)
        cr = self.env.registry.cursor()
        if way == 'open transaction':
            cr._cnx.autocommit = True
            cr.execute("BEGIN; SELECT FROM test_async_effect WHERE name = 'locked' FOR UPDATE")
        else:
            cr._cnx.cursor_factory = RealDictCursor
        cr.close()

    @api.model
    def fork_children(self, name, seconds):
        """Fork processes that use cursors of their own. Return how many have read what they asked for."""
        self._trace(name)
        self.env.registry.cursor().close()  # the pool has a connection now
        children = []
        for number in range(3):
            if not (pid := os.fork()):
                with contextlib.suppress(Exception), self.env.registry.cursor() as cr:
                    cr.execute("SELECT %s, pg_sleep(%s)", [number, seconds])
                    os._exit(cr.fetchone()[0] != number)
                os._exit(2)
            children.append(pid)
        return None if seconds else sum(not os.waitpid(pid, 0)[1] for pid in children)

    @api.model
    def connect_to(self, name, uri):
        """Connect through Odoo's pool, after a report of the progress."""
        self._trace(name)
        self.env['ir.async'].report_progress(1, 2)
        sql_db.db_connect(uri, allow_uri=True).cursor()

    @api.model
    def change_registry(self, name, way):
        """Fill the pool, change the registry and raise."""
        self._trace(name)

        def fill():
            with contextlib.suppress(PoolError):
                while True:
                    KEPT.append(self.env.registry.cursor())
            filled.set()
            if way == 'thread':
                threading.Event().wait()

        filled = threading.Event()
        threading.Thread(target=fill, daemon=True).start()
        filled.wait()
        model_id = self.env['ir.model'].sudo()._get_id('res.partner')
        self.env['ir.model.fields'].sudo().create(
            {'name': 'x_test', 'field_description': 'Test', 'ttype': 'char', 'model_id': model_id}
        )
        if way == 'retry' and len(self._read_trace(name)) == 1:
            raise RetryJob(way, delay=0)
        if way != 'retry':
            raise ValueError(way)

    @api.model
    def lose_session(self, name):
        """Leave a thread, and lose the session of the worker, once. Return whether the thread is there."""
        self._trace(name)
        if len(self._read_trace(name)) == 1:
            threading.Thread(target=threading.Event().wait, daemon=True, name='left').start()
            with self.env.registry.cursor() as cr:
                # The session of the worker has a lock as long as it lives.
                cr.execute(
                    """SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON oid = database
                        WHERE locktype = 'advisory' AND datname = current_database()
                        UNION ALL SELECT pg_terminate_backend(%s)""",
                    [self.env.cr._cnx.get_backend_pid()],
                )
        return any(thread.name == 'left' for thread in threading.enumerate())

    @api.model
    def set_parameter(self, name, way, gate=None):
        """Write what other processes have cached."""
        self._trace(name)
        self.env['ir.config_parameter'].sudo().set_param('test_ir_async', way)
        hooks = self.env.cr.postcommit
        if way == 'failing after a commit':
            self.env.cr.commit()
            raise ValueError(name)

        def fail():
            raise ValueError(name)

        def fail_again():
            hooks.add(fail_again)
            raise ValueError(name)

        if way == 'full pool':
            self.leave_cursors(name)
        elif way == 'failing hook':
            for _hook in range(25):
                hooks.add(fail)
            hooks.add(
                lambda: [hooks.add(fail), hooks.add(lambda: self._trace(f'{name}: next hook')), hooks.add(fail_again)]
            )
        elif way == 'refused connections':
            self._wait(gate)
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
