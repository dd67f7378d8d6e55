"""Where it happens: a PostgreSQL cluster, databases with the ledger, servers. It remembers what was done to which process."""

import contextlib
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from harness import STATE, TIMEOUT, Cluster, Database, Server, wait_until

from odoo import sql_db
from odoo.tools import config as odoo_config

from .harm import disk
from .parts import Clock, HostPart, PoolerPart
from .proxy import Proxy
from .standby import Standby

HERE = Path(__file__).parent
NAMES = ('alpha', 'beta')
# All but `named` serve whatever databases there are.
SERVERS = {
    'prefork': Server.PREFORK,
    'named': (*Server.PREFORK, '-d', ','.join(NAMES)),
    'threaded': ('--workers=0', '--no-http', '--max-cron-threads=0'),
    'fleet': ('ir_async',),
}
PARTS = {
    'step_clock': Clock,
    'restart_pooler': PoolerPart,
    'cut_host': HostPart,
    'failover': Standby,
}  # by their faults
PROCESS = re.compile(rb'"pid": (\d+), "start": (\d+)')


class Cut(NamedTuple):
    """A process that was killed (``kill``), or lost a connection (``cut``)."""

    what: str
    pid: int
    time: float


class Lifetimes:
    """When processes were last seen alive. One that ends by itself leaves no other trace."""

    def __init__(self, world):
        self.seen = {}
        self._world = world
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        self._stopped.set()
        self._thread.join()

    def _watch(self):
        alive, next_look = set(), 0
        while not self._stopped.wait(0.05):
            now = time.monotonic()
            if now >= next_look:
                next_look = now + 1
                alive |= self._world.started_processes()
            for pid, start in list(alive):
                try:
                    state = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()
                except OSError:
                    state = 'X'
                if state[0] in 'XZ' or int(state[19]) != start:
                    alive.discard((pid, start))
                else:
                    self.seen[pid, start] = now


class World:
    """Everything that a run needs, to be used in a ``with`` block.

    :param int workers: job workers of each server
    :param list kinds: the kind of each server, a key of ``SERVERS``
    :param list names: the databases
    :param list faults: the faults that will happen; some need things around the servers
    """

    def __init__(self, workers, kinds, names=NAMES, faults=()):
        self.workers_count = workers
        self.kinds = kinds
        self.names = names
        self.servers = [None] * len(kinds)
        self.cuts = []
        self.logs = []  # of all servers, those that were replaced, too
        self.ended = []  # exit code and last lines of servers that ended by themselves
        self.skipped = {}  # faults that are impossible here, and why
        self.faults = faults
        self.parts = {}
        self.disk = None
        self.server_pids = []
        self.memory = {}  # of the workers, by when it was measured
        self.lifetimes = Lifetimes(self)
        self._trace_offset = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            # Short: the path of a socket has at most 107 bytes.
            self.folder = Path(tempfile.mkdtemp(prefix='ir_async-'))
            self.folder.chmod(0o755)
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._configure()
            if 'disk_full' in self.faults:
                self.disk = stack.enter_context(disk.mounted(self.folder / 'disk'))
            if 'disk_full' in self.faults and not self.disk:
                self.skipped['disk_full'] = "only root can mount a file system"
            self.cluster = Cluster(self.folder)
            self._make_parts(stack)
            stack.callback(lambda: self.cluster.stop(signal.SIGINT))
            stack.callback(sql_db.close_all)
            self.cluster.create()
            self.cluster.odoo('-d', Cluster.TEMPLATE, '-i', 'ir_async_ledger')
            self.cluster.sql(f"ALTER DATABASE {Cluster.TEMPLATE} IS_TEMPLATE true")  # no server serves it
            self.proxy = Proxy(self)
            self.proxy.start()
            stack.callback(self.proxy.stop)
            self.databases = [Database(self.cluster, name) for name in self.names]
            disk.prepare(self)
            for part in self.parts.values():
                part.enter()
            stack.callback(self.kill_servers)
            for index in range(len(self.servers)):
                self.start_server(index)
            self.wait_until_ready()
            self.lifetimes.start()
            stack.callback(self.lifetimes.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        return self._stack.__exit__(*exc)

    def _make_parts(self, stack):
        for name in PARTS.keys() & self.faults:
            if missing := PARTS[name].missing():
                self.skipped[name] = missing
            else:
                self.parts[name] = part = PARTS[name](self)
                part.make()
                stack.callback(part.leave)

    def _configure(self):
        core = os.environ['ODOO_ADDONS_PATH'].split(',')[0]
        addons_path = f"{core},{STATE / 'addons'},{HERE.parent / 'system' / 'addons'},{HERE / 'addons'}"
        (self.folder / 'odoo.conf').write_text(
            f"[options]\naddons_path = {addons_path}\ndata_dir = {self.folder / 'data'}\ndb_host = {self.folder}\n"
            "db_port = 5432\ndb_user = odoo\nhttp_interface = 127.0.0.1\nserver_wide_modules = base,rpc,web,ir_async\n"
        )
        (self.folder / 'trace').mkdir()
        os.environ.update(
            {
                'PGHOST': str(self.folder),
                'ODOO_RC': str(self.folder / 'odoo.conf'),
                'ODOO_ADDONS_PATH': addons_path,
                'ODOO_IR_ASYNC_WORKERS': '0',
                'IR_ASYNC_TEST_TRACE': str(self.folder / 'trace'),
            }
        )
        odoo_config.parse_config(['--load=base,web'], setup_logging=False)
        logging.getLogger('odoo').setLevel(logging.CRITICAL)  # faults hit the transactions of this process, too

    def start_server(self, index):
        """Start a server of its kind. From the main thread: they end with the thread that started them."""
        folder = self.folder / f'server-{len(self.logs)}'
        folder.mkdir()
        arguments = [*SERVERS[self.kinds[index]], f'--db_host={self.proxy.folder}']
        settings, prefix = {'stop_timeout': 3}, []
        for part in self.parts.values():
            if part.server == index:
                arguments += part.arguments
                settings |= part.settings
                prefix += part.prefix
        self.servers[index] = server = Server(
            self.cluster, folder, arguments, workers=self.workers_count, settings=settings, prefix=prefix
        )
        self.logs.append(server.log_path)
        self.server_pids.append(server.pid)
        return server

    def use_cluster(self, cluster):
        """Look at another cluster from now on."""
        for user in (self, *self.databases, *self.servers):
            user.cluster = cluster

    def supervise(self):
        """Start the servers again that ended by themselves, as a service manager does."""
        for index, server in enumerate(self.servers):
            if server.process.poll() is not None:
                self.kill_server(index)  # its workers may be on their way out
                self.ended.append(f"exit code {server.process.returncode}: " + ' / '.join(server.log.splitlines()[-2:]))
                self.start_server(index)

    def wait_until_ready(self):
        """Wait until all workers listen."""

        def ready():
            self.supervise()
            return all(len(server.listening()) >= self.workers_count for server in self.servers)

        wait_until(ready, "the workers listen", 2 * TIMEOUT)

    def kill_servers(self):
        """End all servers at once."""
        for server in self.servers:
            if server:
                server.kill()

    @property
    def trace(self):
        return self.folder / 'trace' / 'ledger'

    def started_processes(self):
        """Return the processes that ran a method since the last call, each with its start in ticks since the boot."""
        if not self.trace.exists():
            return set()
        with self.trace.open('rb') as trace:
            trace.seek(self._trace_offset)
            lines = trace.read()
        self._trace_offset += len(lines)
        return {tuple(map(int, process)) for process in PROCESS.findall(lines)}

    def workers(self):
        return [worker for server in self.servers if server for worker in server.workers()]

    def measure(self, when):
        """Remember how much memory the workers have of their own."""
        self.memory[when] = []
        for worker in self.workers():
            with contextlib.suppress(psutil.Error):
                self.memory[when].append(worker.memory_full_info().pss / (1 << 20))

    def note(self, what, pid):
        self.cuts.append(Cut(what, pid, time.monotonic()))

    def note_all_cut(self):
        for worker in self.workers():
            self.note('cut', worker.pid)

    def kill_worker(self, process):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            self.note('kill', process.pid)

    def kill_server(self, index):
        """End all processes of a server at once."""
        server = self.servers[index]
        workers = {worker.pid for worker in server.workers()}
        for process in server.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                if process.pid in workers:
                    self.note('kill', process.pid)
        server.process.wait(TIMEOUT)

    def log_text(self):
        return '\n'.join(path.read_text(encoding='utf-8', errors='replace') for path in self.logs)
