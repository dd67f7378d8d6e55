"""This addon: a prefork server with two HTTP workers and four job workers, or workers alone."""

import copy

import pg

from .odoo import OdooSystem
from .system import WORKERS

CLAIM = '(claim AS|EXECUTE claim)'  # the statement that takes the next jobs
IDLE_AFTER = 35  # seconds after which workers have left an idle database


class IrAsync(OdooSystem):
    name = 'ir_async'
    version = ''
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

    def of_version(self, version):
        """Return the same system, not started, with another version of the addon and with databases of its own."""
        other = copy.copy(self)
        other.name, other.version, other.addons = f'{self.name}, {version.name}', version.name, [version.addons]
        other.role, other.database = f'{self.role}_against', f'{self.database}_against'
        other.copies = [f'{name}_against' for name in self.copies]
        return other

    def start(self, workers=WORKERS, http_workers=2):
        self.log.unlink(missing_ok=True)
        if http_workers:
            self.server = self.start_process(
                f'--workers={http_workers}', '--proxy-mode', ODOO_IR_ASYNC_WORKERS=str(workers)
            )
        else:
            self.server = self.start_process('ir_async', f'--workers={workers}')
        self.start_client()
        self.wait_workers(workers)

    def wait_workers(self, workers, patience=60):
        self.wait_ready(
            lambda: pg.query(
                "SELECT count(*) >= %s FROM pg_stat_activity JOIN pg_locks USING (pid)"
                " WHERE usename = %s AND locktype = 'advisory' AND classid = %s",
                [workers, self.role, int.from_bytes(b'irap', 'big')],  # PROCESS_LOCK_CLASS in engine/connection.py
            )[0][0],
            patience,
        )

    def workers(self):
        """Return the processes of the job workers."""
        return [
            worker
            for process in self.processes()
            for worker in process.descendants()
            if 'WorkerAsync' in ' '.join(worker.cmdline())
        ]

    def set_paused(self, paused, database=None):
        database = database or self.database
        pg.query(
            "INSERT INTO ir_async_channel (name, paused) VALUES ('*', %s) ON CONFLICT (name) DO UPDATE SET paused = excluded.paused",
            [paused],
            database=database,
        )
        if not paused:
            pg.query("SELECT pg_notify('odoo_async', %s)", [database])

    def claim_cost(self):
        """Return milliseconds per claim and per claimed job since the last reset, and how many jobs were claimed."""
        calls, jobs, milliseconds = pg.statement_times(self.role, CLAIM)
        return milliseconds / max(calls, 1), milliseconds / max(jobs, 1), jobs
