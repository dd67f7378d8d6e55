"""The measured systems. Each can start its workers, enqueue jobs, and find out when its queue is empty."""
from __future__ import annotations

import contextlib
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
from pathlib import Path

import peers
import pg
import psutil
from peers import Unavailable

BENCH = Path(os.environ.get('IR_ASYNC_BENCH', '/tmp'))
STATE = Path(os.environ.get('IR_ASYNC_STATE', '/tmp'))
ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / 'benchmarks'
ODOO = [sys.executable, os.environ.get('IR_ASYNC_ODOO', '')]
WORKERS = 4
PATIENCE = 900
STAMPS = Path(f'/tmp/ir_async_bench-{os.getpid()}')
CRITICAL = re.compile(r'^\S+ \S+ \d+ (ERROR|CRITICAL) ', re.MULTILINE)


def free_ports(count):
    sockets = [socket.socket() for _i in range(count)]
    try:
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Process:
    """A process of the benchmark, and its descendants."""

    def __init__(self, command, env, log=None, **kwargs):
        self.log = log
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open('ab')) if log else None
            self.popen = subprocess.Popen(
                command, env=os.environ | env, stderr=output, start_new_session=True, **kwargs)

    def cpu(self):
        return pg.process_cpu(self.popen.pid)

    def descendants(self):
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.popen.pid).children(recursive=True)
        return []

    def stop(self, patience=15):
        """End the process and all its descendants, which are in its session."""
        if self.popen.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.popen.stdin.close()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


class Client(Process):
    """A process that enqueues jobs: see odoo_client.py."""

    def __init__(self, system, database, conf, env):
        super().__init__(
            [sys.executable, HERE / 'odoo_client.py', system, '-c', conf, '-d', database, '--log-level=error'],
            env | {'PGUSER': 'bench_client'},
            log=BENCH / f'client-{database}.log', stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, command, **params):
        try:
            print(json.dumps([command, params]), file=self.popen.stdin, flush=True)
            answer = json.loads(self.popen.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise Unavailable(f'its client ended, see {self.log}') from None
        if 'error' in answer:
            raise Unavailable(answer['error'])
        return answer['result']


class System:
    """A measured system."""
    name = ''
    role = ''
    has_web = False

    def start(self):
        """Start the workers, and wait until they are ready.

        :raises Unavailable: when that is not possible here
        """

    def stop(self):
        pass

    def enqueue(self, method='noop', args=(), count=1, **options):
        """Enqueue jobs. Return the seconds that it took, and when COMMIT returned."""
        raise NotImplementedError

    def latency(self, count, pause):
        raise NotImplementedError

    def is_empty(self, cr):
        cr.execute(self.EMPTY)
        return cr.fetchone()[0]

    def wait_empty(self, since, patience=PATIENCE):
        """Wait until no job is left.

        :return: the seconds from ``since`` until then
        """
        with contextlib.closing(pg.connect(self.database)) as connection, connection.cursor() as cr:
            while not self.is_empty(cr):
                time.sleep(0.01)
                if time.time() > since + patience:
                    raise Unavailable(f'not done after {patience} s')
        return time.time() - since

    def processes(self):
        return []

    def cpu(self):
        return sum(process.cpu() for process in self.processes())

    def drain(self, method='noop', args=(), count=1, **options):
        """Enqueue jobs in one transaction, and wait until all are done.

        :return: the seconds since the return of COMMIT, CPU seconds of the workers and of PostgreSQL, statements
        :rtype: dict
        """
        committed = self.enqueue(method, args, count, **options)['committed']
        # CPU and statements count from here on, without those of enqueuing. About a millisecond of the jobs' is missing.
        postmaster = pg.postmaster()
        before = self.cpu(), pg.statements(self.role)
        evictions = pg.evictions()
        postgres_before = pg.process_cpu(postmaster)
        seconds = self.wait_empty(committed)
        result = {
            'count': count, 'seconds': seconds,
            'cpu': self.cpu() - before[0],
            'postgres_cpu': pg.process_cpu(postmaster) - postgres_before,
            'statements': pg.statements(self.role) - before[1] if pg.evictions() == evictions else None,
        }
        self.clean()
        return result

    def clean(self):
        with contextlib.closing(pg.connect(self.database)) as connection, connection.cursor() as cr:
            cr.execute(self.CLEAN)


# --------------------------------------------------------------
# In Odoo
# --------------------------------------------------------------

class OdooSystem(System):
    modules = ''
    has_web = True
    addons = ()
    packages = ()
    server_wide = 'base,rpc,web'
    copies = ()  # copies of its database, which its server does not visit

    def __init__(self):
        self.server = self.client = self.url = self.ports = None

    def env(self):
        addons = os.environ['ODOO_ADDONS_PATH'].split(',')
        addons = [path for path in addons if Path(path) != STATE / 'addons' or not self.addons] + [str(path) for path in self.addons]
        return {
            'ODOO_ADDONS_PATH': ','.join(addons), 'ODOO_RC': str(self.conf()),
            'PYTHONPATH': ':'.join([os.environ['PYTHONPATH'], *map(str, self.packages)]),
            'ODOO_IR_ASYNC_WORKERS': '0', 'PGUSER': self.role,
        }

    def conf(self, extra=''):
        path = BENCH / f'{self.database}.conf'
        path.write_text(f'''[options]
data_dir = {BENCH / 'data'}
db_host = {os.environ['PGHOST']}
db_user = {self.role}
server_wide_modules = {self.server_wide}
http_interface = 127.0.0.1
max_cron_threads = 0
log_level = warn
limit_memory_soft = 0
limit_memory_hard = 0
limit_time_cpu = 3600
limit_time_real = 3600
limit_request = 10000000
{extra}
''', encoding='utf-8')
        return path

    def install(self):
        """Create the database and its copies, unless they exist and are up to date."""
        made_of, stamp = self.fingerprint(), BENCH / f'{self.database}.stamp'
        if self.database in pg.databases() and stamp.exists() and stamp.read_text(encoding='utf-8') == made_of:
            return
        stamp.unlink(missing_ok=True)
        print(f'installing {self.modules} into {self.database}', file=sys.stderr, flush=True)
        pg.query(f'DROP DATABASE IF EXISTS {self.database} WITH (FORCE)')
        pg.query(f'CREATE DATABASE {self.database} OWNER {self.role} TEMPLATE template0')
        shutil.rmtree(BENCH / 'data' / 'filestore' / self.database, ignore_errors=True)
        done = subprocess.run(
            [*ODOO, '-c', self.conf(), '-d', self.database, '-i', self.modules, '--skip-auto-install', '--stop-after-init', '--no-http'],
            env=os.environ | self.env(), check=False, capture_output=True, text=True)
        if done.returncode or CRITICAL.search(done.stderr):
            raise Unavailable(f'cannot be installed: {(done.stderr.strip().splitlines() or ["?"])[-1]}')
        # Only jobs must run, no scheduled actions.
        with contextlib.closing(pg.connect(self.database)) as connection, connection.cursor() as cr:
            cr.execute("UPDATE ir_cron SET active = false")
            cr.execute("VACUUM ANALYZE")
        for copy in self.copies:
            pg.copy_database(self.database, copy)
        stamp.write_text(made_of, encoding='utf-8')

    def fingerprint(self):
        digest = hashlib.sha256(f'{self.modules} {ODOO[1]}'.encode())
        roots = [HERE / 'addons', *([] if self.addons else [ROOT / 'models', ROOT / 'security', ROOT / 'data', ROOT / '__manifest__.py'])]
        for root in roots:
            for path in [root] if root.is_file() else sorted(root.rglob('*.*')):
                if path.is_file() and path.suffix in {'.py', '.xml', '.csv'}:
                    digest.update(path.read_bytes())
        return digest.hexdigest() + ''.join(str(addon) for addon in self.addons)

    def start_client(self):
        return Client(self.kind, self.database, self.conf(), self.env())

    def start_server(self, *args, **env):
        self.ports = http, gevent = free_ports(2)
        self.url = f'http://127.0.0.1:{http}'
        self.log = BENCH / f'{self.database}.log'
        self.log.unlink(missing_ok=True)
        self.server = Process(
            [*ODOO, '-c', self.conf(), '-d', self.database, f'--http-port={http}', f'--gevent-port={gevent}',
             '--proxy-mode', *args],
            self.env() | {key: value.format(port=http) for key, value in env.items()}, log=self.log, stdin=subprocess.DEVNULL)

    def wait_log(self, text, patience=60):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if text in self.log.read_text(encoding='utf-8', errors='replace'):
                return
            if self.server.popen.poll() is not None:
                break
            time.sleep(0.1)
        raise Unavailable(f'its server does not start, see {self.log}')

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

    def latency(self, count, pause):
        STAMPS.unlink(missing_ok=True)
        try:
            return self.client('latency', path=str(STAMPS), count=count, pause=pause)
        finally:
            STAMPS.unlink(missing_ok=True)
            self.clean()

    def warm_up(self):
        """Run jobs until each worker has loaded its registry and filled its caches."""
        for _i in range(3):
            self.drain('sleep', [0.05], WORKERS * 3)
        self.drain('noop', [], 100)


class IrAsync(OdooSystem):
    """This addon: a prefork server with two HTTP workers and four job workers."""
    name = 'ir_async'
    kind = 'ir_async'
    role = 'bench_async'
    database = 'bench_async'
    modules = 'web,bus,ir_async,bench_ir_async'
    copies = ('bench_async_enqueue', 'bench_idle', 'bench_scale', 'bench_cron')
    server_wide = 'base,rpc,web,ir_async'
    EMPTY = """
        SELECT NOT EXISTS (SELECT FROM ir_async WHERE state = 'created' AND date_scheduled IS NULL AND NOT limited)
           AND NOT EXISTS (SELECT FROM ir_async WHERE state = 'processing')
    """  # each condition has a partial index
    CLEAN = "TRUNCATE ir_async CASCADE"

    def start(self, workers=WORKERS, http_workers=2):
        if http_workers:
            self.start_server(f'--workers={http_workers}', ODOO_IR_ASYNC_WORKERS=str(workers))
        else:
            http, gevent = free_ports(2)
            self.log = BENCH / f'{self.database}.log'
            self.server = Process(
                [*ODOO, 'ir_async', '-c', self.conf(), '-d', self.database, f'--workers={workers}',
                 f'--http-port={http}', f'--gevent-port={gevent}'],
                self.env(), log=self.log, stdin=subprocess.DEVNULL)
        self.client = self.client or self.start_client()
        self.wait_workers(workers)

    def wait_workers(self, workers, patience=60):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            [[listening]] = pg.query(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND query = 'LISTEN odoo_async'", [self.role])
            if listening >= workers:
                return
            if self.server.popen.poll() is not None:
                break
            time.sleep(0.05)
        raise Unavailable(f'its server does not start, see {self.log}')

    def workers(self):
        """Return the processes of the job workers."""
        return [process for process in self.server.descendants() if 'WorkerAsync' in ' '.join(process.cmdline())]


class IdleIrAsync(IrAsync):
    """Workers alone, in a copy of the database without jobs."""
    role = 'bench_idle'
    database = 'bench_idle'


class ScaleIrAsync(IrAsync):
    """Any number of workers alone, in another copy."""
    database = 'bench_scale'


class EnqueueIrAsync(IrAsync):
    """A database without workers, in which to measure enqueuing."""
    database = 'bench_async_enqueue'

    def start(self):
        self.client = self.start_client()


class QueueJob(OdooSystem):
    """OCA's queue_job as in its documentation: as many HTTP workers as its channel has slots, and two for the users."""
    name = 'queue_job'
    kind = 'queue_job'
    role = 'bench_queue_job'
    database = 'bench_queue_job'
    modules = 'web,queue_job,bench_ir_async'
    copies = ('bench_queue_job_enqueue',)
    server_wide = 'base,rpc,web,queue_job'
    EMPTY = "SELECT NOT EXISTS (SELECT FROM queue_job WHERE state IN ('wait_dependencies', 'pending', 'enqueued', 'started'))"
    CLEAN = "TRUNCATE queue_job CASCADE"

    def install(self):
        addons, packages = peers.queue_job()
        self.addons, self.packages = [addons], [packages]
        super().install()

    def start(self, workers=WORKERS, http_workers=2):
        self.start_server(
            f'--workers={workers + http_workers}', '--log-handler=odoo.addons.queue_job.jobrunner:INFO',
            ODOO_QUEUE_JOB_CHANNELS=f'root:{workers}', ODOO_QUEUE_JOB_HOST='127.0.0.1', ODOO_QUEUE_JOB_PORT='{port}')
        self.client = self.client or self.start_client()
        self.wait_log('database connections ready')


class CrowdedQueueJob(QueueJob):
    """queue_job with as many HTTP workers as its channel has slots, and none for the users."""
    name = 'queue_job, no HTTP workers in reserve'

    def start(self, workers=WORKERS, http_workers=0):
        super().start(workers, http_workers)


class EnqueueQueueJob(QueueJob):
    """A database without workers, in which to measure enqueuing."""
    database = 'bench_queue_job_enqueue'

    def start(self):
        self.client = self.start_client()


class Cron(OdooSystem):
    """Odoo's own scheduled actions, triggered: `ir.cron._trigger`."""
    name = 'ir.cron'
    kind = 'cron'
    role = 'bench_cron'
    database = 'bench_cron'

    def start(self, workers=WORKERS, http_workers=1):
        self.start_server(f'--workers={http_workers}', f'--max-cron-threads={workers}')
        self.client = self.client or self.start_client()
        self.latency(3, 0.2)

    def clean(self):
        pass

    def drain(self, method='noop', args=(), count=1, **options):
        msg = "not a queue: what is triggered twice before it runs, runs once"
        raise Unavailable(msg)


# --------------------------------------------------------------
# Without Odoo
# --------------------------------------------------------------

class BareLoop(System):
    """The ceiling of the comparison: see bare_loop.py."""
    name = 'bare loop'
    role = 'bench_peer'
    database = 'bench_peer'
    batch = 50
    EMPTY = """
        SELECT NOT EXISTS (SELECT FROM bare_job WHERE state = 'created')
           AND NOT EXISTS (SELECT FROM bare_job WHERE state != 'done')
    """  # the first condition has an index
    CLEAN = "TRUNCATE bare_job"

    def __init__(self):
        self.loops = []

    def install(self):
        if self.database not in pg.databases():
            pg.query(f'CREATE DATABASE {self.database} OWNER {self.role} TEMPLATE template0')
        with contextlib.closing(pg.connect(self.database, self.role)) as connection, connection.cursor() as cr:
            from bare_loop import TABLE  # noqa: PLC0415
            cr.execute(TABLE)

    def env(self):
        return {
            'BENCH_DSN': f"dbname={self.database} user={self.role} host={os.environ['PGHOST']}",
            'BENCH_DATABASE': self.database, 'BENCH_USER': self.role,
        }

    def command(self):
        return [sys.executable, HERE / 'bare_loop.py', str(self.batch)]

    def enqueue(self, method='noop', args=(), count=1, **options):
        from bare_loop import FILL  # noqa: PLC0415
        with contextlib.closing(pg.connect(self.database, 'postgres')) as connection, connection.cursor() as cr:
            start = time.perf_counter()
            cr.execute(FILL, [method, json.dumps(list(args)), count])
            return {'seconds': time.perf_counter() - start, 'committed': time.time()}

    def drain(self, method='noop', args=(), count=1, **options):
        # The processes live for one run. They connect, and then wait until all jobs are enqueued.
        self.enqueue(method, args, count)
        self.loops = [
            Process(self.command(), self.env(), log=BENCH / 'peers.log', stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _i in range(WORKERS)]
        try:
            for loop in self.loops:
                if loop.popen.stdout.readline() != 'ready\n':
                    raise Unavailable(f'its workers do not start, see {loop.log}')
            postmaster = pg.postmaster()
            before = self.cpu(), pg.statements(self.role), pg.process_cpu(postmaster)
            evictions = pg.evictions()
            start = time.time()
            for loop in self.loops:
                print(file=loop.popen.stdin, flush=True)
            seconds = self.wait_empty(start)
            return {
                'count': count, 'seconds': seconds,
                'cpu': self.cpu() - before[0],  # includes zombies
                'postgres_cpu': pg.process_cpu(postmaster) - before[2],
                'statements': pg.statements(self.role) - before[1] if pg.evictions() == evictions else None,
            }
        finally:
            for loop in self.loops:
                loop.stop()
            self.loops = []
            self.clean()

    def processes(self):
        return self.loops


class PgQueuer(BareLoop):
    """pgqueuer, with its defaults on asyncpg: see pgqueuer_loop.py."""
    name = 'pgqueuer'
    EMPTY = "SELECT NOT EXISTS (SELECT FROM pgqueuer)"
    CLEAN = "TRUNCATE pgqueuer, pgqueuer_log"
    batch = 10

    def env(self):
        return super().env() | {'PYTHONPATH': str(self.packages)}

    def install(self):
        self.packages = peers.pgqueuer()
        super().install()
        [[is_there]] = pg.query("SELECT to_regclass('pgqueuer') IS NOT NULL", database=self.database)
        if not is_there:
            self.run('install')

    def run(self, *args):
        done = subprocess.run(
            [sys.executable, HERE / 'pgqueuer_loop.py', *map(str, args)], env=os.environ | self.env(), check=False,
            capture_output=True, text=True)
        if done.returncode:
            raise Unavailable((done.stderr.strip().splitlines() or ['?'])[-1])
        return json.loads(done.stdout or 'null')

    def command(self, mode='drain'):
        return [sys.executable, HERE / 'pgqueuer_loop.py', 'work', str(self.batch), mode]

    def enqueue(self, method='noop', args=(), count=1, **options):
        return {'seconds': self.run('enqueue', count), 'committed': time.time()}

    def latency(self, count, pause):
        STAMPS.unlink(missing_ok=True)
        loops = [
            Process(self.command('continuous'), self.env(), log=BENCH / 'peers.log', stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _i in range(WORKERS)]
        try:
            for loop in loops:
                loop.popen.stdout.readline()
                print(file=loop.popen.stdin, flush=True)
            time.sleep(1)
            return self.run('latency', STAMPS, count, pause)
        finally:
            for loop in loops:
                loop.stop()
            STAMPS.unlink(missing_ok=True)
            self.clean()
