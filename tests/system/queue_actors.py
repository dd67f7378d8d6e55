"""The callers, runs and workers of the machine, on real connections.

Import this module when Odoo's configuration has been read: it needs the addons.
"""

import contextlib
import threading

import psycopg2
from harness import TIMEOUT
from queue_model import Transaction

from odoo import SUPERUSER_ID, api
from odoo.modules.registry import Registry

from odoo.addons.ir_async.engine.session import Session
from odoo.addons.ir_async.service.execution import Execution
from odoo.addons.ir_async.service.runner import Runner
from odoo.addons.test_ir_async.models.async_effect_script import Script


class Caller:
    """A transaction that enqueues jobs."""

    def __init__(self, database, model):
        self.cr = Registry(database.name).check_signaling().cursor()
        self.cr.execute("SELECT 1")  # the snapshot is taken
        self.env = api.Environment(self.cr, SUPERUSER_ID, {})
        self.model = Transaction(model)
        self.locked = set()  # the jobs that it holds
        self.keys = set()  # the keys that it has inserted
        self.inserted = []  # its jobs that are in the database

    def __repr__(self):
        return f'caller since step {self.model.began}'


class Run:
    """A job whose method runs in a thread, until the script ends it."""

    def __init__(self, worker, job):
        self.job, self.worker = job, worker
        self.starts = 1
        self.began = None  # the step of its snapshot; None: its transaction begins with the next line
        self.fenced = None  # the job with its new claim number, and the reason
        self.script = Script(job.id)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        self.event = self._next_event()

    def __repr__(self):
        return f'run of job {self.job.id}'

    def _run(self):
        with contextlib.suppress(psycopg2.Error):  # the connection of the session is lost
            try:
                self.worker.runner.prepare(self.job)
                self.worker.runner.run(Execution(self.job))
            finally:
                self.script.events.put('ended')

    def _next_event(self):
        event = self.script.events.get(timeout=TIMEOUT)
        if event == 'ended':
            self.thread.join()
        return event

    def say(self, line):
        """Give the method its next line. Return the next event."""
        self.script.lines.put(line)
        return self._next_event()


class Worker:
    def __init__(self, database):
        self.session, _delay = Session.open(database.name, always=True)
        self.runner = Runner(self.session)
        self.jobs = []  # claimed and not begun
        self.run = None

    def __repr__(self):
        return f'worker {self.session.worker_id}'

    def close(self):
        if self.run and self.run.thread.is_alive():
            while self.run.say('failed') != 'ended':
                pass
        self.runner.close()
        self.session.close()
