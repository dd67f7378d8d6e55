"""pgqueuer, with its defaults on asyncpg and without Odoo: see programs/pgqueuer_loop.py."""

import functools
import json
import os
import subprocess
import sys
import time

import pg

from .bare_loop import BareLoop
from .packages import fetched, pip
from .system import PROGRAMS, STAMPS, Unavailable

PACKAGE = 'pgqueuer[asyncpg]==1.6.0'


class PgQueuer(BareLoop):
    name = 'pgqueuer'
    EMPTY = "SELECT NOT EXISTS (SELECT FROM pgqueuer)"
    CLEAN = "TRUNCATE pgqueuer, pgqueuer_log"
    batch = 10

    @functools.cached_property
    def packages(self):
        return fetched(PACKAGE, lambda folder: pip('install', '--target', folder, PACKAGE))

    def env(self):
        return super().env() | {'PYTHONPATH': str(self.packages)}

    def install(self):
        self.packages  # noqa: B018 -- fetch them
        super().install()
        [[is_there]] = pg.query("SELECT to_regclass('pgqueuer') IS NOT NULL", database=self.database)
        if not is_there:
            self.run('install')

    def run(self, *args):
        done = subprocess.run(
            [sys.executable, PROGRAMS / 'pgqueuer_loop.py', *map(str, args)],
            env=os.environ | self.env(),
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Unavailable((done.stderr.strip().splitlines() or ['?'])[-1])
        return json.loads(done.stdout or 'null')

    def command(self, mode='drain'):
        return ['pgqueuer_loop.py', 'work', str(self.batch), mode]

    def enqueue(self, method='noop', args=(), count=1, **options):
        return {'seconds': self.run('enqueue', count), 'committed': time.time()}

    def latency(self, count, pause, **options):
        try:
            with self.looping('continuous'):
                self.begin()
                time.sleep(1)
                return self.run('latency', STAMPS, count, pause)
        finally:
            STAMPS.unlink(missing_ok=True)
