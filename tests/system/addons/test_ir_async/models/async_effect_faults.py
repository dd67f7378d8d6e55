import contextlib
import json
import logging
import os
import signal
import socket
import stat
import subprocess
import tempfile
import time

import psycopg2

from odoo import api, models
from odoo.exceptions import UserError
from odoo.service.model import retrying

LOCKS = []  # connections that hold locks for as long as the process lives, or until `release_locks`


class TestAsyncEffect(models.Model):
    """Jobs that meet with trouble, or make some."""

    _inherit = 'test.async.effect'

    def _connect(self):
        """Return a connection of our own, in a transaction."""
        return psycopg2.connect(
            host=os.environ['PGHOST'], user='odoo', dbname=self.env.cr.dbname, application_name='test'
        )

    @api.model
    def break_connections(self, name):
        """Lock the jobs that were claimed with this one, and terminate the connections of this process; once."""
        self._trace(name)
        if len(self._read_trace(name)) > 1:
            return
        connection = self._connect()
        LOCKS.append(connection)
        with connection.cursor() as cr:
            cr.execute(
                """
                SELECT id FROM ir_async
                 WHERE state = 'processing' AND worker_id = (SELECT worker_id FROM ir_async WHERE id = %s) AND id != %s
                   FOR UPDATE
            """,
                [self.env['ir.async'].current().id] * 2,
            )
            if cr.fetchall():
                self._trace(name.replace('breaking', 'locked'))
            cr.execute(
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = %s AND datname = current_database()
            """,
                [f'odoo-{os.getpid()}'],
            )
        self.env.cr.execute("SELECT 1")

    @api.model
    def release_locks(self, name):
        self._trace(name)
        while LOCKS:
            LOCKS.pop().close()

    # ------------------------------------------------------------
    # Stopped, retried, killed
    # ------------------------------------------------------------

    @api.model
    def hang_at_first(self, name):
        """Hang when it is run for the first time; afterwards take long enough for a late signal to arrive."""
        self._trace(name)
        self.create({'name': name})
        self.env.cr.flush()
        time.sleep(600 if len(self._read_trace(name)) == 1 else 0.5)

    @api.model
    def lock_log(self, name):
        """Lose the connections of this process, once. When interrupted, leave the log locked, as an exception inside of it can."""
        self._write_effect(name)
        if len(self._read_trace(name)) > 1:
            return
        with self._connect() as connection, connection.cursor() as cr:
            cr.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND datname = %s",
                [f'odoo-{os.getpid()}', self.env.cr.dbname],
            )
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            logging.getLogger().handlers[0].acquire()
            raise

    @api.model
    def poll_sql(self, name, gate):
        """Execute a statement now and then until the gate opens."""
        self._trace(name)
        self.create({'name': name})
        while not os.path.exists(gate):
            self.env.cr.execute("SELECT 1", log_exceptions=False)
            time.sleep(0.02)

    @api.model
    def swallow(self, name, seconds):
        """Go on for a while, however often it is interrupted, and trace that it does."""
        self._trace(name)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(BaseException):
                time.sleep(0.01)
            self._trace(f'{name} goes on')

    @api.model
    def leave_child(self, name, path, hangs=True, detaches=False):
        """Start programs, perhaps one in a session of its own, make temporary files, write down which, and hang."""
        children = [subprocess.Popen(['sleep', '600']), subprocess.Popen(['sh', '-c', 'trap "" TERM; sleep 600; true'])]  # noqa: S607
        if detaches:
            children.append(subprocess.Popen(['sleep', '600'], start_new_session=True))  # noqa: S607
        handle, file = tempfile.mkstemp()
        os.close(handle)
        with tempfile.NamedTemporaryFile(delete=False) as named:
            files = [file, tempfile.mkdtemp(), named.name]
        with open(path, 'w', encoding='utf-8') as report:
            json.dump([[child.pid for child in children], files], report)
        self._trace(name)
        if hangs:
            time.sleep(600)
        for child in children:
            child.kill()
            child.wait()

    @api.model
    def close_descriptors(self, name, which, gate):
        """Close descriptors of the process: of the connection of jobs, of all others, or of all files; wait."""
        self._trace(name)
        own = self.env.cr._cnx.fileno()
        others = [fd for fd in map(int, os.listdir('/proc/self/fd')) if fd > 2 and fd != own]
        for fd in {'all': [own, *others], 'own': [own], 'sockets': [fd for fd in others if self._is_socket(fd)]}[which]:
            with contextlib.suppress(OSError):
                os.close(fd)
        if which == 'sockets':
            self._wait(gate)
        self.create({'name': name})

    def _is_socket(self, fd):
        with contextlib.suppress(OSError):
            return stat.S_ISSOCK(os.fstat(fd).st_mode)

    @api.model
    def lock_neighbours(self, name, gate):
        """Lock the rows of all other jobs until the gate opens."""
        self.env.cr.execute(
            "SELECT FROM ir_async WHERE id != %s FOR NO KEY UPDATE", [self.env['ir.async'].current().id]
        )
        self._trace(name)
        self._wait(gate)

    @api.model
    def cancel_neighbours(self, name):
        """Cancel the jobs that were claimed with this one, before they begin; then lock them for a second."""
        self._trace(name)
        connection = self._connect()
        with self.env.registry.cursor() as cr:
            env = self.env(cr=cr)
            cr.execute(
                "SELECT id FROM ir_async WHERE state = 'processing' AND id != %s", [self.env['ir.async'].current().id]
            )
            ids = [id_ for (id_,) in cr.fetchall()]
            retrying(env['ir.async'].browse(ids).cancel, env)
        LOCKS.append(connection)
        with connection.cursor() as cr:
            # So that they cannot be put back into the queue instead.
            cr.execute("SET idle_in_transaction_session_timeout = '1s'")
            cr.execute(
                "SELECT id FROM ir_async WHERE state = 'processing' AND id = ANY(%s) FOR UPDATE SKIP LOCKED", [ids]
            )
            for (job_id,) in cr.fetchall():
                self._trace(f'cancelled {job_id}')

    @api.model
    def trace_job(self, name):
        self._trace(f'began {self.env["ir.async"].current().id}')
        self.create({'name': name})

    # ------------------------------------------------------------
    # Hooks
    # ------------------------------------------------------------

    @api.model
    def sleep_in_hook(self, name, seconds, commits=False):
        """Write one row, and take long after the commit."""
        self._trace(name)

        def hook():
            self._trace(f'{name} hook')
            time.sleep(seconds)
            self._trace(f'{name} hook end')

        self.create({'name': name})
        self.env.cr.postcommit.add(hook)
        if commits:
            self.env.cr.commit()

    @api.model
    def lock_log_in_hook(self, name):
        """Hang in a hook with the log locked, as a handler does that writes to a pipe which nobody reads."""

        def hook():
            logging.getLogger().handlers[0].acquire()
            self._trace(f'{name} hook')
            time.sleep(600)

        self._trace(name)
        self.create({'name': name})
        self.env.cr.postcommit.add(hook)

    @api.model
    def hold_log(self, name):
        """Have the log locked until it is interrupted, as a handler has that writes to a pipe which nobody reads."""
        self._trace(name)
        with logging.getLogger().handlers[0].lock:
            end = time.monotonic() + 30
            while time.monotonic() < end:
                time.sleep(0.01)

    @api.model
    def die_in_hook(self, name):
        """Write one row, and kill the process after the commit."""
        self._trace(name)
        self.create({'name': name})
        self.env.cr.postcommit.add(lambda: os.kill(os.getpid(), signal.SIGKILL))

    @api.model
    def die_while_failing(self, name, where):
        """Write one row and raise; what is made of the error kills the process."""

        class Lethal(Exception):  # noqa: N818
            def __str__(self):  # noqa: PLE0307 -- it does not return
                os.kill(os.getpid(), signal.SIGKILL)

        self._write_effect(name)
        raise Lethal if where == 'text' else ValueError(name)

    @api.model
    def exit_with(self, name, status):
        self._write_effect(name)
        os._exit(status)

    @api.model
    def effect_then_kill_server(self, name):
        """As a host that is lost just after the commit."""
        self._write_effect(name)

        @self.env.cr.postcommit.add
        def kill():
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    # ------------------------------------------------------------
    # Races
    # ------------------------------------------------------------

    def increment(self, name, seconds):
        """Read, sleep, write: whoever was faster makes this one begin again."""
        self._trace(name)
        value = self.value
        time.sleep(seconds)
        self.value = value + 1

    def increment_badly(self, name, how):
        """Do the same, and make something else of a lost race."""
        try:
            self.increment(name, 0.5)
            self.flush_recordset()
        except psycopg2.Error as exc:
            if how == 'wrapped':
                raise UserError(f"could not: {exc}") from exc

    def fail_and_swallow(self, name):
        """Fail; `_on_failed` swallows an SQL error."""
        self._trace(name)
        raise ValueError(name)

    def fail_and_count(self, name):
        """Fail; `_on_failed` counts on this record."""
        self._trace(name)
        raise ValueError(name)

    @api.model
    def end_its_session(self, name):
        """Have PostgreSQL end the session of the job, as each time that the method runs."""
        self._trace(name)
        self.env.cr.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    @api.model
    def lose_second_cursor(self, name):
        """Use a cursor of Odoo's pool, whose connection breaks the first time."""
        self._trace(name)
        self.create({'name': name})
        with self.env.registry.cursor() as cr:
            if len(self._read_trace(name)) == 1:
                with socket.socket(fileno=os.dup(cr._cnx.fileno())) as connection:
                    connection.shutdown(socket.SHUT_RDWR)
            cr.execute("SELECT 1", log_exceptions=False)


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _on_failed(self):
        super()._on_failed()
        if self.method == 'die_while_failing' and '_on_failed' in self.sudo().args:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.method == 'fail_and_count':
            record = self.env['test.async.effect'].browse(json.loads(self.res_ids))
            record.increment('count', 0.3)
            self.env.flush_all()
        if self.method == 'fail_and_swallow':
            with contextlib.suppress(psycopg2.Error):
                self.env.cr.execute("SELECT 1 / 0", log_exceptions=False)
