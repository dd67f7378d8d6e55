import os
import signal
import time

from odoo import fields, models

from odoo.addons.ir_async.exceptions import RetryJob


class TestAsyncEffect(models.Model):
    """What a job leaves behind, to be counted: the methods are what the system tests enqueue."""
    _name = 'test.async.effect'
    _description = "Effect of a job"

    name = fields.Char()
    pid = fields.Integer()
    started = fields.Float(digits=0, help="Seconds since 1970, by the worker's clock")

    def effect(self, name, seconds=0, started=None):
        """Write one row, whose name is to appear exactly once; take some time before and after."""
        started = started or time.time()
        time.sleep(seconds / 2)
        self.create({'name': name, 'pid': os.getpid(), 'started': started})
        time.sleep(seconds / 2)

    def effect_then_kill(self, name):
        self.create({'name': name})
        self.env.cr.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def effect_in_sql(self, name, seconds):
        self.env.cr.execute("SELECT pg_sleep(%s)", [seconds])
        return self.effect(name)

    def effect_with_commits(self, name, count, seconds):
        """Write and commit row after row."""
        for i in range(count):
            time.sleep(seconds)
            self.create({'name': f'{name}-{i}', 'pid': os.getpid()})
            self.env.cr.commit()

    def burn_cpu(self, seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            sum(range(1000))
        return seconds

    def noop(self):
        return

    def fail(self, message):
        raise ValueError(message)

    def loop(self, name):
        self.create({'name': name})
        self.env.cr.flush()
        while True:
            pass

    def sleep(self, name, seconds):
        """Write, then sleep in Python."""
        self.create({'name': name})
        self.env.cr.flush()
        time.sleep(seconds)

    def progress(self, count, seconds=0):
        for i in range(count):
            self.env['ir.async'].report_progress(i + 1, count, f"{i + 1} of {count}")
            time.sleep(seconds)

    def retry_later(self, reason, delay):
        raise RetryJob(reason, delay=delay)

    def result(self, value):
        return value

    def parents_results(self):
        return [job.payload['result'] for job in self.env['ir.async'].current().after_ids.sorted('id')]
