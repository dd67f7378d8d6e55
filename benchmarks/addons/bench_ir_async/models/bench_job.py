import os
import time

from odoo import api, fields, models


class BenchJob(models.Model):
    """The work of the jobs, the same for all systems."""

    _name = 'bench.job'
    _description = "Workload of the benchmark"

    name = fields.Char()
    value = fields.Integer()

    @api.model
    def noop(self):
        pass

    def write_one(self):
        self.value += 1

    def action_notify(self):
        self.env['ir.async'].call_notify("A click", self.noop)

    @api.model
    def sleep(self, seconds):
        time.sleep(seconds)

    @api.model
    def burn(self, seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    @api.model
    def stamp(self, path, label):
        """Note outside of the transaction when the first line of the method is reached."""
        now = time.time()
        line = f'{label} {now:.6f}\n'
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(file, line.encode())
        os.close(file)
