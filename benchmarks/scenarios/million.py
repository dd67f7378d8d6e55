"""1,000,000 jobs queued: claim time, worker memory, then the size of the table."""

import functools
import statistics
import time

import pg

SYSTEMS = ('ours',)
LARGE = True


def run(bench):
    def measure(system, row, size):
        try:
            for turn in range(10 if size == 1000 else 5):
                if size == 1000 or not turn:
                    fill(system, size)
                start = time.monotonic()
                if size == 1000:
                    system.wait_empty(time.time())
                else:
                    time.sleep(5)
                per_claim, per_job, jobs = system.claim_cost()
                row.values.append(per_job)
                pg.reset_role(system.role)
                row.memory = statistics.median(worker.memory_full_info().uss for worker in system.workers()) / 1e6
                row.note = f'{per_claim:.2f} ms per claim, {jobs / (time.monotonic() - start):.0f} jobs/s, {row.memory:.0f} MB per worker'
            if size == 1_000_000:
                system.wait_empty(time.time())
                measure_size(bench, system, size)
        finally:
            system.set_paused(True)
            time.sleep(0.5)
            system.clean()
            system.set_paused(False)

    few, many = (
        bench.compare(
            f"Claim time per job, {size:,} jobs queued", 1, {bench.ours: functools.partial(measure, size=size)}, 'ms', 3
        )[bench.ours]
        for size in (1000, 1_000_000)
    )
    if few.values and many.values:
        cost, growth = many.value / few.value, many.memory / few.memory
        many.judge(f'≤ 1.3 ×: claim {cost:.2f}, memory {growth:.2f}', max(cost, growth) <= 1.3)


def fill(system, count):
    """Queue no-op jobs as copies of one row. Workers can only claim them once all are there."""
    system.set_paused(True)
    system.clean()
    system.enqueue('noop', [], 1)
    pg.copy_row('ir_async', count - 1, database=system.database, id=None)
    pg.query("ANALYZE ir_async", database=system.database)  # autovacuum would do that a little later
    pg.reset_role(system.role)
    system.set_paused(False)


def measure_size(bench, system, count):
    """Note the size of the table on disk after the end of all these jobs, and after it is written anew."""

    def size():
        [row] = pg.query(
            "SELECT pg_total_relation_size(relid), autovacuum_count FROM pg_stat_user_tables WHERE relname = 'ir_async'",
            database=system.database,
        )
        return row

    row = bench.row(f"Size of the table after {count:,} jobs", system, 'bytes per job')
    total, vacuums = size()
    row.values.append(total / count)
    pg.query("VACUUM FULL ir_async", database=system.database)
    least = size()[0]
    row.add_note(f'{total / least:.2f} × that of a table written anew, after {vacuums} automatic vacuums')
