"""What the system tests launch: a PostgreSQL cluster of their own, databases in it, Odoo servers."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg2
from psycopg2.extras import NamedTupleCursor

from odoo import SUPERUSER_ID, api, sql_db
from odoo.modules.registry import Registry
from odoo.service.model import retrying

STATE = Path(os.environ['IR_ASYNC_STATE'])
ODOO = [sys.executable, os.environ['IR_ASYNC_ODOO']]
# They end when pytest does, were it killed.
WITH_US = ['setpriv', '--pdeathsig']
TIMEOUT = 60  # seconds to wait for what takes one or two; others use this machine, too
LIVE = ('waiting', 'created', 'processing')
DEATH = 'WARNING .* died while it ran job'  # what the log says of a killed worker


def wait_until(condition, what='', timeout=TIMEOUT):
    """Return what the condition returns, as soon as that is true."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what or 'the condition'}: not within {timeout} seconds"
        time.sleep(0.05)
    return value


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


class Cluster:
    """A PostgreSQL server with a template of the databases. It may be restarted and searched for what it did."""

    TEMPLATE = 'system_template'
    PARAMETERS = {
        'listen_addresses': '',
        'max_connections': '150',
        'log_line_prefix': '%m [%p] db=%d app=%a ',
        'log_checkpoints': 'off',
        # We kill processes, not the machine: what was written is there. Each test has databases, of a thousand files each.
        'fsync': 'off',
        'full_page_writes': 'off',
    }

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / 'pg'
        self.log = folder / 'pg.log'
        # PostgreSQL refuses to run as root
        self._user = {'user': 'postgres', 'group': 'postgres', 'extra_groups': []} if os.getuid() == 0 else {}
        self._process = None
        self._bin = Path(os.environ['IR_ASYNC_PG_BIN'])
        self.version = int(
            re.search(r'\d+', subprocess.check_output([self._bin / 'postgres', '--version'], text=True))[0]
        )
        if self._user:
            shutil.chown(folder, 'postgres', 'postgres')

    def create(self):
        """Make it as a copy, where Odoo is installed already; installing takes a quarter of a minute."""
        key = hashlib.sha256(f'{self.version}{ODOO}'.encode()).hexdigest()[:10]
        cached = STATE / f'system_cluster-{key}'
        with (STATE / 'system_cluster.lock').open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several sessions of pytest begin at once
            if not cached.exists():
                self._install(cached)
        subprocess.run(['cp', '-a', '--reflink=auto', cached, self.data], check=True)
        self.start()
        self.create_database(self.TEMPLATE, 'system_base')
        self.odoo('-d', self.TEMPLATE, '-i', 'test_ir_async')

    def _install(self, cached):
        staged = cached.with_suffix('.new')
        shutil.rmtree(staged, ignore_errors=True)
        subprocess.run(
            [
                self._bin / 'initdb',
                '--username=postgres',
                '--auth=trust',
                '--encoding=UTF8',
                '--locale=C.UTF-8',
                '--wal-segsize=4',
                '--no-sync',
                '-D',
                self.data,
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd='/',
            **self._user,
        )
        self.start()
        self.sql("CREATE ROLE odoo LOGIN CREATEDB")
        self.sql("CREATE DATABASE system_base OWNER odoo IS_TEMPLATE true")
        self.odoo('-d', 'system_base', '-i', 'web,bus', '--load=base,rpc,web')
        self.stop(signal.SIGINT)
        subprocess.run(['cp', '-a', self.data, staged], check=True)
        shutil.rmtree(self.data)
        staged.rename(cached)

    def copy(self, other):
        """Make it as a standby of another cluster."""
        subprocess.run(
            [
                self._bin / 'pg_basebackup',
                '-h',
                other.folder,
                '-U',
                'postgres',
                '-D',
                self.data,
                '-R',
                '--checkpoint=fast',
                '--no-sync',
            ],
            check=True,
            cwd='/',
            **self._user,
        )

    def start(self):
        settings = [f'--{name}={value}' for name, value in self.PARAMETERS.items()]
        with self.log.open('a') as log:
            self._process = subprocess.Popen(
                [*WITH_US, 'QUIT', self._bin / 'postgres', '-D', self.data, '-k', self.folder, *settings],
                stdout=log,
                stderr=log,
                cwd='/',
                start_new_session=True,
                **self._user,
            )
        wait_until(self.accepts_connections, "PostgreSQL starts")

    def accepts_connections(self):
        assert self._process.poll() is None, self.log.read_text()
        with contextlib.suppress(psycopg2.OperationalError):
            return self.sql("SELECT true")

    def stop(self, how=signal.SIGQUIT):
        """Stop it; by default without any grace, as ``pg_ctl stop -m immediate`` does."""
        if self._process:
            self._process.send_signal(how)
            self._process.wait(TIMEOUT)
            self._process = None

    def kill(self):
        """End all of its processes at once, as a loss of its host does."""
        children = psutil.Process(self._process.pid).children()
        self.stop(signal.SIGKILL)
        for process in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def create_database(self, name, template):
        # The other strategy writes each page of each file to the log: ten times as long.
        strategy = 'STRATEGY file_copy' if self.version >= 15 else ''
        self.sql(f'CREATE DATABASE "{name}" OWNER odoo TEMPLATE "{template}" {strategy}')

    def connect(self, dbname='postgres'):
        """Return a connection in autocommit, as a superuser of the cluster, whose queries return named tuples."""
        connection = psycopg2.connect(
            host=str(self.folder),
            user='postgres',
            dbname=dbname,
            application_name='test',
            target_session_attrs='any',  # also where the environment wants a primary
            cursor_factory=NamedTupleCursor,
        )
        connection.autocommit = True
        return connection

    def sql(self, query, params=None, dbname='postgres'):
        """Execute a query and return its rows, if it has some."""
        with contextlib.closing(self.connect(dbname)) as connection, connection.cursor() as cr:
            cr.execute(query, params)
            return cr.fetchall() if cr.description else []

    def odoo(self, *args):
        """Run Odoo until it ends by itself, with nothing to complain about."""
        log = self.folder / 'odoo.log'
        done = subprocess.run(
            [*ODOO, *args, '--skip-auto-install', '--stop-after-init', '--no-http', '--max-cron-threads=0'],
            check=False,
            stderr=subprocess.PIPE,
            text=True,
        )
        log.write_text(done.stderr)
        assert not done.returncode, done.stderr
        assert not (lines := complaints(done.stderr)), '\n'.join(lines)


class Job(NamedTuple):
    """A run of a method, as the method itself noted."""

    name: str
    time: float
    pid: int


class Database:
    """A database with the addons, in which to enqueue jobs, from this very process, and to look at what they did."""

    def __init__(self, cluster, name, template=Cluster.TEMPLATE):
        self.cluster = cluster
        self.name = name
        cluster.create_database(name, template)

    def drop(self, force=True):
        self.leave()
        self.cluster.sql(f'DROP DATABASE IF EXISTS "{self.name}" {"WITH (FORCE)" if force else ""}')

    def leave(self):
        """Keep no connection to it."""
        Registry.delete(self.name)
        sql_db.close_db(self.name)

    def sql(self, query, params=None):
        """Execute a query and return its rows, if it has some."""
        return self.cluster.sql(query, params, self.name)

    def value(self, query, params=None):
        """Return the value that a query returns."""
        [[value]] = self.sql(query, params)
        return value

    @contextlib.contextmanager
    def env(self):
        """Provide an environment, in a transaction that is committed in the end."""
        registry = Registry(self.name).check_signaling()
        with registry.cursor() as cr:
            yield api.Environment(cr, SUPERUSER_ID, {})
        registry.signal_changes()

    def enqueue(self, method, *args, options=None, **kwargs):
        """Enqueue a method of ``test.async.effect`` and return the id of the job."""
        with self.env() as env:
            jobs = env['ir.async'].with_options(**options or {})
            return jobs.call(getattr(env['test.async.effect'], method), *args, **kwargs).id

    def enqueue_all(self, method, names, **kwargs):
        """Enqueue a method once for each name, in one transaction; return the ids of the jobs."""
        with self.env() as env:
            target = getattr(env['test.async.effect'], method)
            return [env['ir.async'].call(target, name, **kwargs).id for name in names]

    def act(self, method, *job_ids):
        """Call a public method of jobs, as a request does."""
        with self.env() as env:
            retrying(getattr(env['ir.async'].browse(job_ids), method), env)

    @contextlib.contextmanager
    def locked(self, *job_ids):
        """Keep the rows of jobs locked in somebody else's transaction."""
        with contextlib.closing(self.cluster.connect(self.name)) as connection:
            connection.autocommit = False
            with connection.cursor() as cr:
                cr.execute("SELECT FROM ir_async WHERE id IN %s FOR UPDATE", [job_ids])
                yield
            connection.rollback()

    def job(self, job_id):
        [job] = self.sql("SELECT * FROM ir_async WHERE id = %s", [job_id])
        return job

    def states(self):
        """Return how many jobs there are in each state."""
        return Counter(dict(tuple(row) for row in self.sql("SELECT state, count(*) FROM ir_async GROUP BY state")))

    def wait_for(self, job_id, *states, timeout=TIMEOUT):
        """Return the job once it is in one of the states; by default, once it has ended."""

        def reached():
            job = self.job(job_id)
            return job if (job.state in states if states else job.state not in LIVE) else None

        return wait_until(reached, f"job {job_id} {' or '.join(states) or 'ended'}", timeout)

    def wait_for_all(self, timeout=TIMEOUT):
        """Wait until all jobs have ended and return how many there are in each state."""
        wait_until(
            lambda: not self.value("SELECT EXISTS (SELECT FROM ir_async WHERE state IN %s)", [LIVE]),
            "all jobs ended",
            timeout,
        )
        return self.states()

    def effects(self):
        """Return how many times each effect is there."""
        return Counter(
            dict(tuple(row) for row in self.sql("SELECT name, count(*) FROM test_async_effect GROUP BY name"))
        )

    def runs(self, name=None):
        """Return the times that methods were run, in the order of time."""
        trace = self.cluster.folder / 'trace' / self.name
        runs = [Job(*json.loads(line)) for line in trace.read_text().splitlines()] if trace.exists() else []
        return [run for run in runs if name in (None, run.name)]

    def wait_for_run(self, name, count=1):
        """Return the first runs of that name once there are so many."""
        return wait_until(lambda: len(runs := self.runs(name)) >= count and runs, f"{name} runs {count} times")

    def backends(self, condition='true'):
        """Return the connections of Odoo's to it."""
        return self.cluster.sql(
            f"""
            SELECT pid, application_name, state, query, state_change
              FROM pg_stat_activity
             WHERE datname = %s AND application_name != 'test' AND backend_type = 'client backend' AND {condition}
        """,
            [self.name],
        )

    def control_backends(self):
        """Return the connections by which workers prove that they are alive."""
        return self.backends(f"""
            pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2
                                               AND classid = {int.from_bytes(b'iras', 'big')})""")


def complaints(log, expected=()):
    """Return the lines of a log that should not be there."""
    return [
        line
        for line in log.splitlines()
        if re.match(r'\S+ \S+ \d+ (WARNING|ERROR|CRITICAL) ', line)
        and not any(re.search(regex, line) for regex in expected)
    ]


class Server:
    """Odoo, in processes of its own; by default a prefork server without HTTP and crons.

    :param Cluster cluster: where its databases are
    :param Path folder: for its configuration and its log
    :param list args: arguments of the command line
    :param int workers: how many job workers there are to be
    :param dict settings: of the section ``[ir_async]``
    :param tuple expected: regular expressions of what it may complain about
    :param list prefix: a command that executes it
    """

    PREFORK = ('--workers=1', '--no-http', '--max-cron-threads=0')
    CRONS = {
        'prefork': ('--workers=1', '--no-http', '--max-cron-threads=1'),
        'threaded': ('--max-cron-threads=1',),
    }
    # A threaded server that stops closes the connections of its cron threads, whatever these do.
    CRON_NOISE = ('Exception in cron', 'cron0 encountered', 'server action #', 'bad query')

    def __init__(self, cluster, folder, args, workers=2, settings=(), expected=(), prefix=()):
        self.cluster = cluster
        self.workers_count = workers
        self.expected = list(expected)
        self.port = free_port()
        self.log_path = folder / 'odoo.log'
        conf = folder / 'odoo.conf'
        conf.write_text(
            '\n'.join(
                [
                    (cluster.folder / 'odoo.conf').read_text(),
                    f'http_port = {self.port}',
                    f'gevent_port = {free_port()}',
                    '[ir_async]',
                    *(f'{key} = {value}' for key, value in dict(settings).items()),
                ]
            )
        )
        env = os.environ | {
            'ODOO_IR_ASYNC_WORKERS': str(workers),
            'ODOO_RC': str(conf),
            # Odoo gives up a request that the proxy does not send within two seconds. A busy machine stands still that long.
            'ODOO_HTTP_SOCKET_TIMEOUT': '60',
        }
        with self.log_path.open('w') as log:
            self.process = subprocess.Popen(
                [*WITH_US, 'TERM', *prefix, *ODOO, *args],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def log(self):
        return self.log_path.read_text()

    def processes(self):
        """Return all processes that it started and that still are, whoever their parent is by now."""
        self.process.poll()  # no zombie of ours
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def workers(self):
        """Return the processes of the job workers."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if ''.join(process.cmdline()).startswith('odoo: WorkerAsync'):
                    found.append(process)
        return found

    def worker(self, pid):
        """Return the process of a job worker; killing by anything else than this might hit others."""
        [worker] = [worker for worker in self.workers() if worker.pid == pid]
        return worker

    def listening(self):
        """Return the backends of PostgreSQL on which its workers listen."""
        names = {f'odoo-{process.pid}' for process in self.processes()}
        return [
            backend.pid
            for backend in self.cluster.sql(
                "SELECT pid, application_name FROM pg_stat_activity"
                " WHERE datname = 'postgres' AND query ~ '^LISTEN odoo_async|ir_async_workers'"
            )
            if backend.application_name in names
        ]

    def wait_for_crons(self):
        """Wait until a cron worker listens for triggers: it looks at the queue at once then, not a minute later."""

        def listens():
            names = tuple(f'odoo-{process.pid}' for process in self.processes())
            return names and self.cluster.sql(
                "SELECT pid FROM pg_stat_activity WHERE datname = 'postgres' AND application_name IN %s AND state = 'idle'"
                " AND query = 'COMMIT'",
                [names],
            )

        wait_until(listens, "a cron worker listens")

    def wait_until_ready(self):
        def ready():
            assert self.process.poll() is None, f"The server ended: {self.process.returncode}"
            return len(self.listening()) >= self.workers_count

        wait_until(ready, "the workers listen")

    def wait_for_log(self, text):
        wait_until(lambda: text in self.log, f"the log says {text!r}")

    def send_signal(self, sig, group=False):
        if group:
            os.killpg(self.pid, sig)
        else:
            os.kill(self.pid, sig)

    def stop(self, sig=signal.SIGTERM, group=False):
        """Stop it and see that nothing is left behind; return its exit code."""
        self.send_signal(sig, group)
        self.process.wait(TIMEOUT)
        self.wait_until_gone()
        return self.process.returncode

    def wait_until_gone(self):
        wait_until(lambda: not self.processes(), "all processes of the server ended")

    def check(self):
        """Check that it has ended, and had nothing to complain about."""
        if self.process.poll() is None:
            self.stop()
        assert not self.processes()
        assert not (lines := complaints(self.log, self.expected)), '\n'.join(lines)

    def kill(self):
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(TIMEOUT)
