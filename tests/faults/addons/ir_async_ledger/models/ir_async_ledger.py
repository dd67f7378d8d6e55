import contextlib
import json
import os
import time
from pathlib import Path

import psycopg2

from odoo import api, fields, models

from .fresh import find_left, process_start
from odoo.addons.ir_async.exceptions import RetryJob


class NoText(Exception):
    def __str__(self):
        msg = "this error has no text"
        raise RuntimeError(msg)

    __repr__ = __str__


ODD = {
    'no_text': NoText,
    'system_exit': lambda: SystemExit(3),
    'generator_exit': GeneratorExit,
    'keyboard_interrupt': KeyboardInterrupt,
    'stop_iteration': lambda: StopIteration(1),
    'base_exception': BaseException,
    'recursion': RecursionError,
    'unicode': lambda: UnicodeDecodeError('utf-8', b'\xff', 0, 1, "\x00 \udc80"),
    'operational': lambda: psycopg2.OperationalError("raised by the method"),
    'interface': lambda: psycopg2.InterfaceError("raised by the method"),
}


class IrAsyncLedger(models.Model):
    """Effects of jobs, to be audited. The methods are what the jobs run.

    Effects are rolled back with the transaction. The trace is a file: it has each begin and end of a method.
    Each method has the token of its call as first argument.
    """

    _name = 'ir.async.ledger'
    _description = "Ledger of jobs"

    token = fields.Char(required=True)
    step = fields.Char(required=True)
    job_id = fields.Integer(required=True)
    dbname = fields.Char(required=True)
    pid = fields.Integer(required=True)
    value = fields.Integer()

    def _trace(self, event, token, job_id, **more):
        folder = Path(os.environ['IR_ASYNC_TEST_TRACE'])
        line = (
            json.dumps(
                {
                    'event': event,
                    'token': token,
                    'job': job_id,
                    'pid': os.getpid(),
                    'start': process_start(os.getpid()),
                    'db': self.env.cr.dbname,
                    'time': time.monotonic(),
                    **more,
                }
            )
            + '\n'
        )
        trace = os.open(folder / 'ledger', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(trace, line.encode())
        os.close(trace)

    @contextlib.contextmanager
    def _run(self, token):
        job_id = self.env['ir.async'].current().id
        self._trace('begin', token, job_id)
        if left := find_left(self.env.cr, job_id):
            self._trace('leaked', token, job_id, left=left)
        try:
            yield
        finally:
            self._trace('end', token, job_id)

    def _book(self, token, step='effect', value=0):
        self.create(
            {
                'token': token,
                'step': step,
                'job_id': self.env['ir.async'].current().id,
                'dbname': self.env.cr.dbname,
                'pid': os.getpid(),
                'value': value,
            }
        )
        self.env.flush_all()

    def _sleep(self, seconds):
        """Sleep in short steps: an exception from outside gets through between two."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))

    @api.model
    def noop(self, token):
        with self._run(token):
            pass

    @api.model
    def write_effect(self, token):
        with self._run(token):
            self._book(token)

    @api.model
    def write_with_start(self, token):
        """Note when the job was claimed."""
        job = self.env['ir.async'].current()
        self._trace('start', token, job.id, claimed=self._times(job)[1])
        self.write_effect(token)

    def _times(self, job):
        """Return the begin of the transaction and the last claim of the job, in seconds since 1970."""
        self.env.cr.execute(
            """
            SELECT extract(epoch FROM transaction_timestamp())::float,
                   (SELECT extract(epoch FROM date_start AT TIME ZONE 'UTC')::float FROM ir_async WHERE id = %s)
            """,
            [job.id],
        )
        return self.env.cr.fetchone()

    @api.model
    def write_as_user(self, token):
        """Note since when the transaction sees what it sees, and what the registry has."""
        job = self.env['ir.async'].current()
        since, claimed = self._times(job)
        self._trace('transaction', token, job.id, since=since, claimed=claimed, is_installed='note' in self._fields)
        self.write_effect(token)

    @api.model
    def sleep(self, token, seconds):
        """Write at first, then hold the transaction open."""
        with self._run(token):
            self._book(token)
            self._sleep(seconds)
            return {'token': token}

    @api.model
    def sleep_in_sql(self, token, seconds):
        with self._run(token):
            self._book(token)
            self.env.cr.execute("SELECT pg_sleep(%s)", [seconds])

    @api.model
    def use_pool(self, token, seconds):
        """Use a connection of Odoo's pool beside the job's own."""
        with self._run(token):
            self._book(token)
            with self.env.registry.cursor() as cr:
                cr.execute("SELECT pg_sleep(%s) -- of the pool", [seconds])

    @api.model
    def commit_inside(self, token, seconds):
        with self._run(token):
            self._book(token, 'before')
            self.env.cr.commit()
            self._sleep(seconds)
            self._book(token)

    @api.model
    def rollback_inside(self, token):
        with self._run(token):
            self._book(token, 'rolled back')
            self.env.cr.rollback()
            self._book(token)

    @api.model
    def fail_times(self, token, times):
        with self._run(token):
            self._book(token)
            if self.env['ir.async'].current().attempts < times:
                raise ValueError(token)

    @api.model
    def postpone(self, token, pause_channel=False):
        """Ask once to be run later."""
        with self._run(token):
            self._book(token)
            asked = Path(os.environ['IR_ASYNC_TEST_TRACE']) / f'postponed-{token}'
            if not asked.exists():
                asked.touch()
                raise RetryJob(token, delay=0.5, pause_channel=pause_channel)

    @api.model
    def raise_odd(self, token, kind):
        with self._run(token):
            self._book(token)
            raise ODD[kind]()

    @api.model
    def enqueue_more(self, token):
        with self._run(token):
            job = self.env['ir.async'].with_options(delay=0.3).call(self.sleep, f'{token}/more', 0.05)
            self._book(token, value=job.id)
            self._sleep(0.05)

    @api.model
    def progress(self, token, seconds):
        with self._run(token):
            self._book(token)
            for i in range(10):
                self.env['ir.async'].report_progress(i, 10, token)
                self._sleep(seconds / 10)

    @api.model
    def child(self, token, parents):
        """Book how many of the parents' effects are there."""
        with self._run(token):
            self._book(token, value=self.search_count([('token', 'in', parents), ('step', '=', 'effect')]))
