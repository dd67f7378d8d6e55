"""This addon on many servers: any number of workers, eight a server, for any number of databases."""

from __future__ import annotations

import contextlib
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pg

from .ir_async import IrAsync

PER_SERVER = 8
# The kind of a statement is the first whose pattern matches. A session is the presence of a worker in a database.
KINDS = {
    'claim': r'^PREPARE claim |^WITH (RECURSIVE )?(head|candidate) ',
    'maintenance': r'^PREPARE (look|watch) |^WITH |running_job_id|^SET LOCAL synchronous_commit',
    'session': r'ir_async_worker|^SELECT EXISTS|^SELECT count|set_config|has_function_privilege|quote_ident|system_identifier|^LISTEN',
    'list of databases': r'datname from pg_database',
    'job': r'ir_async_begin|ir_async_finish|^(BEGIN|COMMIT|ROLLBACK|RESET|DISCARD|UNLISTEN|CLOSE|SET SESSION)|unlock_all|orm_signaling',
    'other': r'',
}


class Fleet(IrAsync):
    """Servers of workers alone, in databases of their own.

    :param int size: the number of workers
    :param int databases: the number of databases
    :param bool is_open: whether the servers list the databases, instead of being given their names
    """

    role = 'bench_fleet'
    servers = ()

    def __init__(self, size, databases=1, is_open=False):
        self.name = f'{size} workers' + (f', {databases} databases' if databases > 1 else '')
        self.original = IrAsync()
        self.size = size
        self.is_open = is_open
        self.databases = [f'{self.role}_{number}' for number in range(1, databases + 1)]
        self.database = self.databases[0]

    def of_version(self, version):
        other = super().of_version(version)
        other.original = self.original.of_version(version)
        other.databases = [f'{database}_against' for database in self.databases]
        return other

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(self))
            self.install()
            self.start()
            stack.pop_all()
        return self

    def __exit__(self, *_exc):
        self.close()

    def install(self):
        self.original.install()
        self.original.clean()
        for database in self.databases:
            pg.copy_database(self.original.database, database, self.role)

    def start(self):
        self.log.unlink(missing_ok=True)
        names = '' if self.is_open else ','.join(self.databases)
        self.servers = [
            self.start_process('ir_async', f'--workers={min(PER_SERVER, self.size - first)}', databases=names)
            for first in range(0, self.size, PER_SERVER)
        ]
        self.start_client()
        self.wait_workers(self.size, patience=120 + 5 * len(self.servers) * len(self.databases))

    def close(self):
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.stop(), self.servers))
        self.stop()
        for database in self.databases:
            pg.drop_database(database)

    def processes(self):
        return self.servers

    def warm_up(self):
        """Run jobs until each worker has had some."""
        for _i in range(2):
            self.drain('sleep', [0.05], 3 * max(self.size, len(self.databases)))

    def drain(self, method='noop', args=(), count=1, **options):
        """Enqueue jobs, as many in each database, let the workers have them, and wait until all are done.

        :return: the figures of :meth:`measure`
        :rtype: dict
        """
        share = count // len(self.databases)
        for database in self.databases:
            self.set_paused(True, database)
            self.enqueue(method, args, share, database=database, **options)
        drain = self.watch(share * len(self.databases), self.run_jobs)
        self.clean()
        return drain

    def watch(self, count, work):
        """Measure any work, and only its statements."""

        def timed():
            start = time.time()
            work()
            return time.time() - start

        pg.reset_role(self.role)
        return self.measure(count, timed)

    def run_jobs(self):
        start = time.time()
        for database in self.databases:
            self.set_paused(False, database)
        for database in self.databases:
            self.wait_empty(start, database=database)

    def clean(self):
        for database in self.databases:
            pg.query(self.CLEAN, database=database)

    def statements(self):
        """Return the statements since the last reset, those that took the longest first.

        :return: dicts of kind, text, calls, milliseconds
        :rtype: list[dict]
        """
        return [
            {
                'kind': next(kind for kind, pattern in KINDS.items() if re.search(pattern, text)),
                'text': text,
                'calls': calls,
                'milliseconds': milliseconds,
            }
            for text, calls, milliseconds in pg.by_statement(self.role)
        ]
