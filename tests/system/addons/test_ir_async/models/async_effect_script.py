from queue import Queue

from odoo import models

from odoo.addons.ir_async.exceptions import RetryJob

DAY = 24 * 3600


class Script:
    """The lines that a test in the same process has a method follow, and what the method has done so far."""

    by_job = {}  # by the id of the job

    def __init__(self, job_id):
        self.lines = Queue()
        self.events = Queue()
        self.by_job[job_id] = self

    def next_line(self, event):
        """Tell what the method has done, and wait for its next line."""
        self.events.put(event)
        return self.lines.get()


class TestAsyncEffect(models.Model):
    _inherit = 'test.async.effect'

    def follow(self, tag):
        """Write one row, then do line by line what the script of the job says.

        After ``rest``, unlike ``commit``, the next transaction begins with the next line.
        """
        job = self.env['ir.async'].current()
        script = Script.by_job[job.id]
        event, line = 'begun', None
        while True:
            self.create({'name': tag, 'value': job.id})
            self.env.cr.flush()
            line = line or script.next_line(event)
            if line not in ('commit', 'rest'):
                break
            self.env.cr.commit()
            event = 'committed'
            line = script.next_line(event) if line == 'rest' else None
        if line == 'failed':
            raise ValueError(tag)
        if line == 'retry':
            raise RetryJob(tag, delay=DAY)
        return tag if line == 'succeeded' else None
