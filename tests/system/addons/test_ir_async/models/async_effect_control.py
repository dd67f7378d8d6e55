import ctypes
import os
import socket
import time

from odoo import api, models

from odoo.addons.ir_async.exceptions import RetryJob


class TestAsyncEffect(models.Model):
    """Methods to be held up, stopped, and to depend on each other."""

    _inherit = 'test.async.effect'

    @api.model
    def noop(self):
        return

    @api.model
    def timed(self, name, seconds):
        """Trace the beginning and the end."""
        self._trace(name)
        time.sleep(seconds)
        self._trace(f'{name} end')

    # ------------------------------------------------------------
    # Hard to stop: each writes one row, then does its thing for minutes
    # ------------------------------------------------------------

    def _write_effect(self, name):
        self.create({'name': name})
        self.env.cr.flush()
        self._trace(name)

    @api.model
    def hang_in_sql(self, name):
        self._write_effect(name)
        self.env.cr.execute("SELECT pg_sleep(600)")

    @api.model
    def hang_in_loop(self, name):
        self._write_effect(name)
        while True:
            pass

    @api.model
    def hang_in_sleep(self, name):
        self._write_effect(name)
        time.sleep(600)

    @api.model
    def hang_in_http(self, name):
        """As a client whose server does not answer."""
        self._write_effect(name)
        listener = socket.create_server(('127.0.0.1', 0))
        client = socket.create_connection(listener.getsockname())
        client.recv(1)

    @api.model
    def hang_in_c(self, name):
        """C code that releases the GIL."""
        self._write_effect(name)
        ctypes.CDLL(None).sleep(600)

    @api.model
    def hang_in_c_with_gil(self, name):
        """C code that keeps the GIL: no other thread of the process runs, nor does a signal handler of Python."""
        self._write_effect(name)
        ctypes.PyDLL(None).sleep(600)

    @api.model
    def hang_and_swallow(self, name):
        """Code that does not want to be stopped."""
        self._write_effect(name)
        while True:
            try:
                time.sleep(0.01)
                self.env.cr.execute("SELECT 1")
            except BaseException:  # noqa: BLE001, S110 -- that is the point
                pass

    @api.model
    def hang_then_clean_up(self, name, path):
        self._write_effect(name)
        try:
            while True:
                time.sleep(0.01)
        finally:
            with open(path, 'w', encoding='utf-8') as file:
                file.write("cleaned up")

    @api.model
    def hang_then_commit(self, name):
        """Save its work when it is stopped."""
        self._write_effect(name)
        try:
            while True:
                time.sleep(0.01)
        finally:
            self.env.cr.commit()

    # ------------------------------------------------------------
    # Failures
    # ------------------------------------------------------------

    @api.model
    def fail_unless(self, name, gate):
        """Fail as long as a file is not there."""
        self._write_effect(name)
        if not os.path.exists(gate):
            raise ValueError(name)

    @api.model
    def fail_first(self, name, times):
        """Fail so many times."""
        self._write_effect(name)
        if self.env['ir.async'].current().attempts < times:
            raise ValueError(name)

    @api.model
    def postpone_first(self, name):
        """Ask to be tried again, once."""
        self._write_effect(name)
        if len(self._read_trace(name)) == 1:
            raise RetryJob(name, delay=0.05)

    @api.model
    def pause_first(self, name, seconds):
        """Ask that its channel waits, once."""
        self._trace(name)
        if len(self._read_trace(name)) == 1:
            raise RetryJob(name, delay=seconds, pause_channel=True)

    # ------------------------------------------------------------
    # Others
    # ------------------------------------------------------------

    @api.model
    def wait_for_gate(self, name, gate):
        self._trace(name)
        self._wait(gate)
        self.create({'name': name})

    @api.model
    def wait_for_writer(self, name, fifo):
        """Block, in one call that nothing interrupts, until the other end of a FIFO is opened."""
        self._trace(name)
        with open(fifo, encoding='utf-8'):
            self.create({'name': name})

    @api.model
    def enqueue_then_wait(self, name, gate):
        """Enqueue a job, so that the transaction holds a lock on the table of jobs, and wait."""
        self.env['ir.async'].with_options(delay=3600).call(self.noop)._insert_pending()
        self.wait_for_gate(name, gate)

    @api.model
    def sum_of_parents(self, name):
        parents = self.env['ir.async'].current().after_ids
        self.create({'name': name, 'value': sum(parent.payload['result'] for parent in parents)})

    @api.model
    def report_until(self, name, gate):
        """Report progress until a file appears."""
        self._write_effect(name)
        done = 0
        while not os.path.exists(gate):
            self.env['ir.async'].report_progress(done := done + 1)
            time.sleep(0.01)

    @api.model
    def report(self, name, seconds, fail=False):
        """Report progress 10,000 times a second, then roll it all back if wanted."""
        self._write_effect(name)
        start, count = time.monotonic(), 0
        while (elapsed := time.monotonic() - start) < seconds:
            while count < elapsed * 10_000:
                count += 1
                self.env['ir.async'].report_progress(count, seconds * 10_000, f"{count} reported")
            time.sleep(0.001)
        self.env['ir.async'].report_progress(seconds * 10_000, seconds * 10_000, "all of it")
        if fail:
            raise ValueError(name)
        return count

    @api.model
    def enqueue_keyed(self, key, gate):
        """Called by RPC: enqueue under a key, be slow to commit, and answer with the job's id."""
        job = self.env['ir.async'].with_options(key=key).call(self.wait_for_gate, key, gate)
        job_id = job.id
        time.sleep(0.02)
        return job_id


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _on_failed(self):
        super()._on_failed()
        if self.method.startswith(('hang_in', 'hang_and', 'fail_unless', 'report')):
            self.env['test.async.effect'].create({'name': f'failed {self.id}'})
