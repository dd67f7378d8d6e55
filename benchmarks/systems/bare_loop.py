"""The ceiling of the comparison: psycopg2 without Odoo, see programs/bare_loop.py."""

import contextlib
import json
import subprocess
import sys
import time

import pg

from .process import Process
from .system import BENCH, PROGRAMS, WORKERS, System, Unavailable

TABLE = """
    CREATE TABLE IF NOT EXISTS bare_job (
        id bigserial PRIMARY KEY, state text NOT NULL DEFAULT 'created', priority int NOT NULL DEFAULT 10,
        model text, method text, args text, context text, worker int, date_start timestamp, date_done timestamp);
    CREATE INDEX IF NOT EXISTS bare_job_claim ON bare_job (priority, id) WHERE state = 'created'
"""
FILL = """
    INSERT INTO bare_job (model, method, args, context)
         SELECT 'bench.job', %s, %s, '{"lang": "en_US", "tz": "Europe/Brussels", "allowed_company_ids": [1]}'
           FROM generate_series(1, %s)
"""


class BareLoop(System):
    name = 'bare loop'
    role = 'bench_peer'
    database = 'bench_peer'
    batch = 50
    is_fresh = False  # whether each job begins on a session as new
    loops = ()
    EMPTY = """
        SELECT NOT EXISTS (SELECT FROM bare_job WHERE state = 'created')
           AND NOT EXISTS (SELECT FROM bare_job WHERE state != 'done')
    """  # the first condition has an index
    CLEAN = "TRUNCATE bare_job"

    def install(self):
        if self.database not in pg.databases():
            pg.copy_database('template0', self.database, self.role)
        pg.query(TABLE, database=self.database, user=self.role)

    def env(self):
        return {'PGDATABASE': self.database, 'PGUSER': self.role}

    def command(self):
        return ['bare_loop.py', str(self.batch), *(['fresh'] if self.is_fresh else [])]

    def enqueue(self, method='noop', args=(), count=1, **options):
        with contextlib.closing(pg.connect(self.database)) as connection, connection.cursor() as cr:
            start = time.perf_counter()
            cr.execute(FILL, [method, json.dumps(list(args)), count])
            return {'seconds': time.perf_counter() - start, 'committed': time.time()}

    @contextlib.contextmanager
    def looping(self, *args):
        """Start the processes, which live for one run. They connect, and then wait until :meth:`begin`."""
        name, *arguments = self.command(*args)
        self.loops = [
            Process(
                [sys.executable, PROGRAMS / name, *arguments],
                self.env(),
                log=BENCH / 'peers.log',
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _i in range(WORKERS)
        ]
        try:
            for loop in self.loops:
                if loop.popen.stdout.readline() != 'ready\n':
                    raise Unavailable(f'its workers do not start, see {loop.log}')
            yield
        finally:
            for loop in self.loops:
                loop.stop()
            self.loops = ()

    def begin(self):
        for loop in self.loops:
            print(file=loop.popen.stdin, flush=True)

    def drain(self, method='noop', args=(), count=1, **options):
        self.enqueue(method, args, count)
        try:
            with self.looping():
                return self.measure(count, self.run_loops)  # the CPU time of the workers includes zombies
        finally:
            self.clean()

    def run_loops(self):
        start = time.time()
        self.begin()
        return self.wait_empty(start)

    def processes(self):
        return self.loops
