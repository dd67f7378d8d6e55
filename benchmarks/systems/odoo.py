"""A system inside Odoo: its database, its server, and a client that enqueues."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pg

from .process import Process, free_ports
from .system import BENCH, PROGRAMS, ROOT, STAMPS, WORKERS, System, Unavailable

STATE = Path(os.environ.get('IR_ASYNC_STATE', '/tmp'))
ODOO = [sys.executable, os.environ.get('IR_ASYNC_ODOO', '')]
CRITICAL = re.compile(r'^\S+ \S+ \d+ (ERROR|CRITICAL) ', re.MULTILINE)
CONF = f'''[options]
data_dir = {BENCH / 'data'}
db_host = {os.environ.get('PGHOST')}
db_user = %s
server_wide_modules = %s
http_interface = 127.0.0.1
max_cron_threads = 0
log_level = warn
limit_memory_soft = 0
limit_memory_hard = 0
limit_time_cpu = 3600
limit_time_real = 3600
limit_request = 10000000
'''


class Client(Process):
    """A process that enqueues jobs: see odoo_client.py."""

    def __init__(self, system):
        super().__init__(
            [
                sys.executable,
                PROGRAMS / 'odoo_client.py',
                system.kind,
                '-c',
                system.conf(),
                '-d',
                system.database,
                '--log-level=error',
            ],
            system.env() | {'PGUSER': 'bench_client'},
            log=BENCH / f'client-{system.database}.log',
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, command, **params):
        try:
            print(json.dumps([command, params]), file=self.popen.stdin, flush=True)
            answer = json.loads(self.popen.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise Unavailable(f'its client ended, see {self.log}') from None
        if 'error' in answer:
            raise Unavailable(answer['error'])
        return answer['result']


class OdooSystem(System):
    modules = ''
    addons = ()
    packages = ()
    server_wide = 'base,rpc,web'
    copies = ()  # copies of its database, which its server does not visit
    server = client = None

    @property
    def log(self):
        return BENCH / f'{self.database}.log'

    def env(self):
        addons = os.environ['ODOO_ADDONS_PATH'].split(',')
        addons = [path for path in addons if Path(path) != STATE / 'addons' or not self.addons] + [
            str(path) for path in self.addons
        ]
        return {
            'ODOO_ADDONS_PATH': ','.join(addons),
            'ODOO_RC': str(self.conf()),
            'PYTHONPATH': ':'.join([os.environ['PYTHONPATH'], *map(str, self.packages)]),
            'ODOO_IR_ASYNC_WORKERS': '0',
            'PGUSER': self.role,
        }

    def conf(self):
        path = BENCH / f'{self.database}.conf'
        path.write_text(CONF % (self.role, self.server_wide), encoding='utf-8')
        return path

    def install(self):
        """Create the database and its copies, unless they exist and are up to date."""
        made_of, stamp = self.fingerprint(), BENCH / f'{self.database}.stamp'
        if self.database in pg.databases() and stamp.exists() and stamp.read_text(encoding='utf-8') == made_of:
            return
        stamp.unlink(missing_ok=True)
        print(f'installing {self.modules} into {self.database}', file=sys.stderr, flush=True)
        pg.copy_database('template0', self.database, self.role)
        shutil.rmtree(BENCH / 'data' / 'filestore' / self.database, ignore_errors=True)
        done = subprocess.run(
            [
                *ODOO,
                '-c',
                self.conf(),
                '-d',
                self.database,
                '-i',
                self.modules,
                '--skip-auto-install',
                '--stop-after-init',
                '--no-http',
            ],
            env=os.environ | self.env(),
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode or CRITICAL.search(done.stderr):
            raise Unavailable(f'cannot be installed: {(done.stderr.strip().splitlines() or ["?"])[-1]}')
        # Only jobs must run, no scheduled actions.
        pg.query("UPDATE ir_cron SET active = false", database=self.database)
        pg.query("VACUUM ANALYZE", database=self.database)
        for copy in self.copies:
            pg.copy_database(self.database, copy)
        stamp.write_text(made_of, encoding='utf-8')

    def fingerprint(self):
        digest = hashlib.sha256(f'{self.modules} {self.copies} {ODOO[1]}'.encode())
        own = (
            [] if self.addons else [ROOT / name for name in ('models', 'engine', 'security', 'data', '__manifest__.py')]
        )
        for root in (ROOT / 'benchmarks' / 'addons', *own):
            for path in [root] if root.is_file() else sorted(root.rglob('*.*')):
                if path.is_file() and path.suffix in {'.py', '.xml', '.csv'}:
                    digest.update(path.read_bytes())
        return digest.hexdigest() + ''.join(str(addon) for addon in self.addons)

    def start_client(self):
        self.client = self.client or Client(self)

    def start_process(self, *args, databases=None, **env):
        """Start a process of Odoo with free ports.

        :param args: its arguments, the first of which may be a command
        :param str databases: the value of ``-d``, by default its own database; all that it owns if empty
        :param env: variables of its environment, in which ``{port}`` is its HTTP port
        :rtype: Process
        """
        self.ports = http, gevent = free_ports(2)
        self.url = f'http://127.0.0.1:{http}'
        databases = self.database if databases is None else databases
        command = [
            *args,
            '-c',
            self.conf(),
            *(['-d', databases] if databases else []),
            f'--http-port={http}',
            f'--gevent-port={gevent}',
        ]
        return Process(
            [*ODOO, *command],
            self.env() | {key: value.format(port=http) for key, value in env.items()},
            log=self.log,
            stdin=subprocess.DEVNULL,
        )

    def wait_ready(self, is_ready, patience=60):
        end = time.monotonic() + patience
        while not is_ready():
            if time.monotonic() > end or any(process.popen.poll() is not None for process in self.processes()):
                raise Unavailable(f'its server does not start, see {self.log}')
            time.sleep(0.05)

    def stop_server(self):
        if self.server:
            self.server.stop()
        self.server = None

    def stop(self):
        self.stop_server()
        if self.client:
            self.client.stop()
        self.client = None

    def processes(self):
        return [self.server] if self.server else []

    def enqueue(self, method='noop', args=(), count=1, **options):
        return self.client('enqueue', method=method, args=list(args), count=count, **options)

    def latency(self, count, pause, **options):
        try:
            return self.client('latency', path=str(STAMPS), count=count, pause=pause, **options)
        finally:
            STAMPS.unlink(missing_ok=True)

    def warm_up(self):
        """Run jobs until each worker has loaded its registry and filled its caches."""
        for _i in range(3):
            self.drain('sleep', [0.05], WORKERS * 3)
        self.drain('noop', [], 100)
