"""1,000,000 jobs queued: claim time, worker memory, then the size of the table."""

import statistics
import time

import pg

SYSTEMS = ('ours',)
LARGE = True


def run(bench):
    system = bench.ours
    costs, memory = {}, {}
    try:
        for size in (1000, 1_000_000):
            row = bench.row("Claim time per job, by jobs that are queued", f'{size:,} queued', 'ms', 3)
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
                memory[size] = statistics.median(worker.memory_full_info().uss for worker in system.workers()) / 1e6
                row.note = f'{per_claim:.2f} ms per claim, {jobs / (time.monotonic() - start):.0f} jobs/s, {memory[size]:.0f} MB per worker'
            costs[size] = row.value
        cost, growth = costs[1_000_000] / costs[1000], memory[1_000_000] / memory[1000]
        row.judge(f'≤ 1.3 ×: claim {cost:.2f}, memory {growth:.2f}', max(cost, growth) <= 1.3)
        system.wait_empty(time.time())
        measure_size(bench, size)
    finally:
        system.set_paused(True)
        time.sleep(0.5)
        system.clean()
        system.set_paused(False)


def fill(system, count):
    """Queue no-op jobs as copies of one row. Workers can only claim them once all are there."""
    system.set_paused(True)
    system.clean()
    system.enqueue('noop', [], 1)
    pg.copy_row('ir_async', count - 1, database=system.database, id=None)
    pg.query("ANALYZE ir_async", database=system.database)  # autovacuum would do that a little later
    pg.reset_role(system.role)
    system.set_paused(False)


def measure_size(bench, count):
    """Note the size of the table on disk after the end of all these jobs, and after it is written anew."""
    database = bench.ours.database

    def size():
        [row] = pg.query(
            "SELECT pg_total_relation_size(relid), autovacuum_count FROM pg_stat_user_tables WHERE relname = 'ir_async'",
            database=database,
        )
        return row

    row = bench.row(f"Size of the table after {count:,} jobs", bench.ours, 'bytes per job')
    total, vacuums = size()
    row.values.append(total / count)
    pg.query("VACUUM FULL ir_async", database=database)
    least = size()[0]
    row.add_note(f'{total / least:.2f} × that of a table written anew, after {vacuums} automatic vacuums')
