import json
import os
import signal
import time
from pathlib import Path

from odoo import api, fields, models


class TestAsyncEffect(models.Model):
    """What a job leaves behind, to be counted: the methods are what the system tests enqueue.

    Effects are rolled back with the transaction; the trace tells of every time that a method was run.
    """

    _name = 'test.async.effect'
    _description = "Effect of a job"

    name = fields.Char()
    value = fields.Integer()

    def _trace(self, name):
        """Note outside of the transaction that a method begins: when, and in which process."""
        now = time.time()
        line = json.dumps([name, now, os.getpid()]) + '\n'
        trace = os.open(
            Path(os.environ['IR_ASYNC_TEST_TRACE']) / self.env.cr.dbname, os.O_WRONLY | os.O_CREAT | os.O_APPEND
        )
        os.write(trace, line.encode())
        os.close(trace)

    def _wait(self, gate):
        """Sleep until a file appears."""
        while not os.path.exists(gate):
            time.sleep(0.01)

    @api.model
    def nothing(self):
        pass

    @api.model
    def scratch(self):
        """Do something to the connection that outlives the transaction."""
        self.env.cr.execute("CREATE TEMP TABLE scratch (a int)")

    @api.model
    def effect(self, name, seconds=0):
        """Write one row; take some time before and after."""
        self._trace(name)
        time.sleep(seconds / 2)
        self.create({'name': name})
        self.env.cr.flush()
        time.sleep(seconds / 2)

    @api.model
    def effect_then_wait(self, name, gate, commits=()):
        """Write one row before the gate opens and one after; commit then, ``before`` or ``after``, as wanted."""
        self._trace(name)
        self.create({'name': f'{name} before'})
        self.env.cr.flush()
        if 'before' in commits:
            self.env.cr.commit()
        self._trace(f'{name} waits')
        self._wait(gate)
        self.create({'name': f'{name} after'})
        if 'after' in commits:
            self.env.cr.commit()

    @api.model
    def effect_then_kill(self, name):
        self._trace(name)
        self.create({'name': name})
        self.env.cr.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    @api.model
    def effect_then_sleep_in_sql(self, name, seconds):
        """Write one row, which stays locked, and wait for PostgreSQL; only the first time."""
        self._trace(name)
        self.create({'name': name})
        self.env.cr.flush()
        if len(self._read_trace(name)) == 1:
            self.env.cr.execute("SELECT pg_sleep(%s)", [seconds])

    def _read_trace(self, name):
        trace = Path(os.environ['IR_ASYNC_TEST_TRACE']) / self.env.cr.dbname
        return [line for line in trace.read_text().splitlines() if json.loads(line)[0] == name]

    def add(self, name, value, gate):
        """Add to the record's value, which somebody else writes between our reading and our writing."""
        self._trace(name)
        total = self.value + value
        self._wait(gate)
        self.value = total

    @api.model
    def burn_cpu(self, name, seconds):
        self._trace(name)
        start = time.process_time()
        while time.process_time() < start + seconds:
            sum(range(10000))
        self.create({'name': name})

    @api.model
    def read_back(self, name):
        """Return what the database made of it."""
        effect = self.create({'name': name})
        self.env.invalidate_all()
        return [effect.name, effect.create_date]

    @api.model
    def setting(self, name):
        """Return a setting of the session."""
        self.env.cr.execute("SELECT current_setting(%s, true)", [name])
        return self.env.cr.fetchone()[0]

    @api.model
    def parameter(self, key):
        """Return what is cached in the registry."""
        return self.env['ir.config_parameter'].sudo().get_param(key)
