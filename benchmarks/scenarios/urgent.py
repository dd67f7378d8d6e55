"""20,000 jobs queued, then an urgent one."""

import statistics
import time

import pg
from systems.system import Unavailable

SYSTEMS = ('ours', 'queue_job')


def run(bench):
    count = 10000 if bench.quick else 20000

    def ours(system, row):
        system.enqueue('noop', [], count)
        row.samples = system.latency(5 if bench.quick else 20, 0.1, priority=1)
        [[left]] = pg.query("SELECT count(*) FROM ir_async WHERE state = 'created'", database=system.database)
        system.wait_empty(time.time())
        system.clean()
        if not left:
            msg = "the backlog was drained before"
            raise Unavailable(msg)
        row.values.append(statistics.median(row.samples))
        row.note = f'max {max(row.samples):.0f} ms of {len(row.samples)}; {left:,} of the others were left'

    def queue_job(system, row):
        # The backlog is copies of one row, since queue_job's own method would take half a minute.
        if not system.server:
            system.start()
        system.enqueue('noop', [], 1)
        system.wait_empty(time.time())
        pg.copy_row(
            'queue_job', count, database=system.database, id=None, uuid='gen_random_uuid()::text', state="'pending'"
        )
        try:
            row.values += system.latency(1, 0, priority=1)
        finally:
            system.stop_server()  # the server keeps the backlog in memory
            system.clean()

    rows = bench.compare(
        f"{count:,} no-op jobs queued, then an urgent one: return of its COMMIT → first line, p50",
        1,
        {bench.ours: ours, bench.queue_job: queue_job},
        'ms',
        1,
    )
    if rows[bench.ours].values:
        rows[bench.ours].judge('≤ 50 ms', max(rows[bench.ours].samples) <= 50)
