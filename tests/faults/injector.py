"""The faults. Each one is a method of :class:`Faults`; its docstring is what the report says."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter

import psutil
import psycopg2
from harness import TIMEOUT, wait_until

from odoo import SUPERUSER_ID, api
from odoo.modules.registry import Registry

LONGEST = 6  # seconds that a lock or a stop lasts
GARBAGE = ['', 'x', '-1', '0', '99999999999999999999', '1; SELECT 1', '{"id": 1}', 'nul', 'ä' * 500, '*']


class Faults:
    """Do harm, by chance, alone and mixed.

    :param World world: to what
    :param str seed: repeats the choices
    :param list only: names of the faults to choose from, all by default
    """

    # A fault that takes a restart is rarer: it hides the others.
    WEIGHTS = {
        'kill_worker': 4, 'stop_worker': 2, 'freeze_worker': 3, 'hang_up_worker': 1,
        'cut_connection': 4, 'cut_all_connections': 1,
        'kill_server': 0.7, 'restart_server': 0.7, 'hang_up_server': 0.5,
        'postgres_fast': 0.5, 'postgres_immediate': 0.5,
        'lock_row': 3, 'lock_table': 1, 'vacuum_full': 0.7, 'reindex': 1, 'old_snapshot': 1, 'timeouts': 1,
        'touch_rows': 3, 'garbage': 2, 'foreign_burst': 1, 'clean_up': 1,
    }  # fmt: skip

    def __init__(self, world, seed, only=()):
        self.world = world
        self.rng = random.Random(f'{seed} faults')
        self.weights = {name: weight for name, weight in self.WEIGHTS.items() if not only or name in only}
        self.counts = Counter()
        self.errors = []
        self.history = []
        self.cleaned = set()  # (database, job) that the clean-up may have deleted
        self._threads = []

    def run(self, seconds):
        """Do harm for so long; return when nothing of it goes on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(max(0, end - time.monotonic()), self.rng.uniform(0.3, 2.5)))
            count = self.rng.choice([1, 1, 1, 2, 3])
            for name in self.rng.choices(list(self.weights), self.weights.values(), k=count):
                self.history.append((time.monotonic(), name))
                self.counts[name] += 1
                with self._expected_trouble(name):
                    getattr(self, name)()
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self.world.supervise()
        for thread in self._threads:
            thread.join()
        self._reset_timeouts()
        self.world.wait_until_ready()

    @contextlib.contextmanager
    def _expected_trouble(self, name):
        try:
            yield
        except (psycopg2.Error, psutil.Error, ProcessLookupError):
            pass  # another fault was faster
        except Exception as exc:  # noqa: BLE001 -- reported at the end
            self.errors.append(f"{name}: {type(exc).__name__}: {exc}")

    def _meanwhile(self, function, *args):
        def run():
            with self._expected_trouble(function.__name__):
                function(*args)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _database(self):
        return self.rng.choice(self.world.databases)

    def _worker(self):
        workers = self.world.workers()
        return self.rng.choice(workers) if workers else None

    # ------------------------------------------------------------
    # Processes
    # ------------------------------------------------------------

    def kill_worker(self):
        """kill -9 of a worker"""
        if worker := self._worker():
            self.world.kill_worker(worker)

    def stop_worker(self):
        """SIGTERM to a worker"""
        if worker := self._worker():
            worker.terminate()

    def hang_up_worker(self):
        """SIGHUP to a worker"""
        if worker := self._worker():
            worker.send_signal(signal.SIGHUP)

    def freeze_worker(self):
        """SIGSTOP of a worker, SIGCONT after up to 6 s"""

        def freeze(worker, seconds):
            worker.suspend()
            time.sleep(seconds)
            worker.resume()

        if worker := self._worker():
            self._meanwhile(freeze, worker, self.rng.uniform(0.3, LONGEST))

    def kill_server(self):
        """kill -9 of a server with its workers, restart"""
        index = self.rng.randrange(len(self.world.servers))
        self.world.kill_server(index)
        self.world.start_server(index)

    def restart_server(self):
        """SIGTERM of a server, restart"""
        index = self.rng.randrange(len(self.world.servers))
        server = self.world.servers[index]
        server.send_signal(signal.SIGTERM)
        try:
            server.process.wait(TIMEOUT)
            server.wait_until_gone()
        finally:
            server.kill()
            self.world.start_server(index)

    def hang_up_server(self):
        """SIGHUP to a server"""
        server = self.rng.choice(self.world.servers)
        # While it starts, it has no handler for it yet, and would end.
        if server.listening():
            server.send_signal(signal.SIGHUP)

    # ------------------------------------------------------------
    # Connections
    # ------------------------------------------------------------

    def _backends(self):
        ours = {f'odoo-{process.pid}': process.pid for server in self.world.servers for process in server.processes()}
        rows = self.world.cluster.sql("""
            SELECT pid, application_name, datname,
                   EXISTS (SELECT FROM pg_locks WHERE pid = activity.pid AND locktype = 'advisory') AS has_lock
              FROM pg_stat_activity activity
             WHERE usename = 'odoo' ORDER BY pid
        """)
        return [(row, ours[row.application_name]) for row in rows if row.application_name in ours]

    def _cut(self, backends):
        for row, pid in backends:
            self.world.note('cut', pid)
            self.world.cluster.sql("SELECT pg_terminate_backend(%s)", [row.pid])

    def cut_connection(self):
        """pg_terminate_backend of one connection: listening, control, job or another one"""
        kinds = {}
        for row, pid in self._backends():
            kind = 'listen' if row.datname == 'postgres' else 'control' if row.has_lock else 'job'
            kinds.setdefault(kind, []).append((row, pid))
        if kinds:
            self._cut([self.rng.choice(kinds[self.rng.choice(sorted(kinds))])])

    def cut_all_connections(self):
        """pg_terminate_backend of all connections, or of all of a worker's"""
        backends = self._backends()
        if backends and self.rng.random() < 0.7:
            victim = self.rng.choice(backends)[1]
            backends = [(row, pid) for row, pid in backends if pid == victim]
        self._cut(backends)

    def _restart_postgres(self, how):
        self.world.note_all_cut()
        self.world.cluster.stop(how)
        self.world.note_all_cut()
        time.sleep(self.rng.choice([0, 0.5, 2]))
        self.world.cluster.start()

    def postgres_fast(self):
        """fast restart of PostgreSQL"""
        self._restart_postgres(signal.SIGINT)

    def postgres_immediate(self):
        """immediate restart of PostgreSQL"""
        self._restart_postgres(signal.SIGQUIT)

    # ------------------------------------------------------------
    # Locks and other trouble in the database
    # ------------------------------------------------------------

    def _hold(self, database, statements, seconds):
        with contextlib.closing(self.world.cluster.connect(database.name)) as connection, connection.cursor() as cr:
            cr.execute("BEGIN")
            for statement in statements:
                cr.execute(statement)
            time.sleep(seconds)
            cr.execute("ROLLBACK")

    def lock_row(self):
        """a row of a queued or running job locked for 1 to 6 s"""
        state = self.rng.choice(['processing', 'processing', 'created', 'waiting'])
        mode = self.rng.choice(['UPDATE', 'NO KEY UPDATE', 'SHARE', 'KEY SHARE'])
        self._meanwhile(
            self._hold,
            self._database(),
            [
                f"SELECT FROM ir_async WHERE state = '{state}' ORDER BY random() LIMIT 1 FOR {mode} SKIP LOCKED",
            ],
            self.rng.uniform(1, LONGEST),
        )

    def lock_table(self):
        """LOCK TABLE ir_async for up to 6 s"""
        mode = self.rng.choice(['ACCESS EXCLUSIVE', 'SHARE', 'EXCLUSIVE'])
        self._meanwhile(
            self._hold,
            self._database(),
            ["SET LOCAL lock_timeout = '5s'", f"LOCK TABLE ir_async IN {mode} MODE"],
            self.rng.uniform(0.5, LONGEST),
        )

    def _statement(self, database, statement):
        with contextlib.closing(self.world.cluster.connect(database.name)) as connection, connection.cursor() as cr:
            cr.execute("SET lock_timeout = '10s'")
            cr.execute(statement)

    def vacuum_full(self):
        """VACUUM FULL ir_async"""
        self._meanwhile(self._statement, self._database(), "VACUUM FULL ir_async")

    def reindex(self):
        """REINDEX TABLE ir_async, also CONCURRENTLY"""
        how = self.rng.choice(['', 'CONCURRENTLY'])
        self._meanwhile(self._statement, self._database(), f"REINDEX TABLE {how} ir_async")

    def old_snapshot(self):
        """a snapshot open for 3 to 15 s"""
        self._meanwhile(
            self._hold,
            self._database(),
            [
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                "SELECT count(*) FROM ir_async",
            ],
            self.rng.uniform(3, 15),
        )

    def touch_rows(self):
        """UPDATE of the rows of running or all live jobs"""
        which = self.rng.choice(["state = 'processing'", "state IN ('waiting', 'created', 'processing')"])
        column = self.rng.choice(['priority', 'name', 'stack', 'create_date'])
        self._meanwhile(self._statement, self._database(), f"UPDATE ir_async SET {column} = {column} WHERE {which}")

    def timeouts(self):
        """lock_timeout, statement_timeout or idle_in_transaction_session_timeout of the role or database, for up to 10 s"""
        setting, value = self.rng.choice(
            [('lock_timeout', '500ms'), ('statement_timeout', '2s'), ('idle_in_transaction_session_timeout', '300ms')]
        )
        scope = self.rng.choice(['ROLE odoo', f'DATABASE "{self._database().name}"'])
        is_cut = self.rng.random() < 0.5

        def toggle(seconds):
            self.world.cluster.sql(f"ALTER {scope} SET {setting} = '{value}'")
            if is_cut:  # connections made from now on have it
                self._cut(self._backends())
            time.sleep(seconds)
            self.world.cluster.sql(f"ALTER {scope} RESET {setting}")

        self._meanwhile(toggle, self.rng.uniform(3, 10))

    def _reset_timeouts(self):
        self.world.cluster.sql("ALTER ROLE odoo RESET ALL")
        for database in self.world.databases:
            self.world.cluster.sql(f'ALTER DATABASE "{database.name}" RESET ALL')

    # ------------------------------------------------------------
    # Messages, maintenance
    # ------------------------------------------------------------

    def garbage(self):
        """NOTIFY of garbage on odoo_async and ir_async_stop, also of running jobs that nobody cancelled"""
        database = self._database()
        for payload in self.rng.sample(GARBAGE, 5):
            self.world.cluster.sql("SELECT pg_notify('odoo_async', %s)", [payload])
            database.sql("SELECT pg_notify('ir_async_stop', %s)", [payload])
        database.sql("SELECT pg_notify('ir_async_stop', id::text) FROM ir_async WHERE state = 'processing'")

    def foreign_burst(self):
        """a burst of NOTIFYs for databases that are not ours"""
        self.world.cluster.sql("SELECT pg_notify('odoo_async', 'stranger' || i) FROM generate_series(1, 200) i")

    def clean_up(self):
        """Odoo's clean-up, with ended jobs made old: those that enqueued others first"""
        database = self._database()
        with contextlib.closing(self.world.cluster.connect(database.name)) as connection, connection.cursor() as cr:
            cr.execute("SET lock_timeout = '2s'")
            cr.execute(
                "SELECT id FROM ir_async WHERE state = 'done' ORDER BY (method = 'enqueue_more') DESC, id DESC LIMIT 10"
            )
            ids = [row.id for row in cr.fetchall()]
            if not ids:
                return
            self.cleaned |= {(database.name, job_id) for job_id in ids}
            cr.execute("UPDATE ir_async SET date_done = date_done - interval '100 days' WHERE id = ANY(%s)", [ids])

        def clean():
            with Registry(database.name).cursor() as cr:
                env = api.Environment(cr, SUPERUSER_ID, {})
                cron = env.ref('base.autovacuum_job')
                env['ir.autovacuum'].with_context(cron_id=cron.id)._run_vacuum_cleaner()

        self._meanwhile(clean)


def drained(world, seconds):
    """Wait until no job is left that could go on; return whether that was within so many seconds."""

    def idle():
        with contextlib.suppress(psycopg2.Error):
            return not any(
                database.value("""
                SELECT EXISTS (SELECT FROM ir_async WHERE state IN ('created', 'processing'))
                    OR EXISTS (SELECT FROM ir_async job WHERE state = 'waiting' AND NOT EXISTS (
                        SELECT FROM ir_async_after_rel JOIN ir_async parent ON parent.id = after_id
                         WHERE job_id = job.id AND parent.state IN ('failed', 'waiting')))
            """)
                for database in world.databases
            )
        return False

    try:
        wait_until(idle, "the queue drains", seconds)
    except AssertionError:
        return False
    return True
