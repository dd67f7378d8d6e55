"""What all measured systems have in common."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pg

BENCH = Path(os.environ.get('IR_ASYNC_BENCH', '/tmp'))
ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = ROOT / 'benchmarks' / 'programs'
STAMPS = Path(f'/tmp/ir_async_bench-{os.getpid()}')
WORKERS = 4
PATIENCE = 900


class Unavailable(Exception):
    """A system cannot be measured here; the text says why."""


class System:
    """A measured system.

    :param variant: attributes that differ from those of the class
    """

    name = ''
    version = None  # the version of this addon, if it is one: '' for the present one
    role = ''
    problem = ''  # the reason why it cannot be measured

    def __init__(self, **variant):
        vars(self).update(variant)

    def install(self):
        pass

    def start(self):
        """Start the workers, and wait until they are ready.

        :raises Unavailable: when that is not possible here
        """

    def warm_up(self):
        pass

    def stop(self):
        pass

    def processes(self):
        return []

    def enqueue(self, method='noop', args=(), count=1, **options):
        """Enqueue jobs. Return the seconds that it took, and when COMMIT returned."""
        raise NotImplementedError

    def latency(self, count, pause, **options):
        raise NotImplementedError

    def is_empty(self, cr):
        cr.execute(self.EMPTY)
        return cr.fetchone()[0]

    def wait_empty(self, since, patience=PATIENCE, database=None):
        """Wait until no job is left.

        :return: the seconds from ``since`` until then
        """
        with contextlib.closing(pg.connect(database or self.database)) as connection, connection.cursor() as cr:
            while not self.is_empty(cr):
                time.sleep(0.01)
                if time.time() > since + patience:
                    raise Unavailable(f'not done after {patience} s')
        return time.time() - since

    def cpu(self):
        return sum(process.cpu() for process in self.processes())

    def measure(self, count, work):
        """Measure a drain.

        :param int count: the number of jobs
        :param work: a function that waits for them, and returns the seconds that they took
        :return: the seconds, CPU seconds of the workers and of PostgreSQL, statements
        :rtype: dict
        """
        postmaster = pg.postmaster()
        cpu, statements, evictions = self.cpu(), pg.statements(self.role), pg.evictions()
        postgres_cpu = pg.process_cpu(postmaster)
        seconds = work()
        return {
            'count': count,
            'seconds': seconds,
            'cpu': self.cpu() - cpu,
            'postgres_cpu': pg.process_cpu(postmaster) - postgres_cpu,
            'statements': pg.statements(self.role) - statements if pg.evictions() == evictions else None,
        }

    def drain(self, method='noop', args=(), count=1, **options):
        """Enqueue jobs in one transaction, and wait until all are done.

        :return: the seconds since the return of COMMIT, and the other figures of :meth:`measure`
        :rtype: dict
        """
        committed = self.enqueue(method, args, count, **options)['committed']
        # CPU and statements count from here on, without those of enqueuing. About a millisecond of the jobs' is missing.
        drain = self.measure(count, lambda: self.wait_empty(committed))
        self.clean()
        return drain

    def clean(self):
        pg.query(self.CLEAN, database=self.database)
