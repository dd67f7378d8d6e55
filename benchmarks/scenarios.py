"""The scenarios of the benchmark. Each is a function, and script/bench --list prints the first line of its docstring."""
from __future__ import annotations

import contextlib
import statistics
import sys
import threading
import time

import pg
import psutil
import requests
import systems
from peers import Unavailable
from report import Row, percentile
from systems import STAMPS, WORKERS

SCENARIOS = {}
LARGE = set()
CLAIM = '(claim AS|EXECUTE claim)'  # the statement that takes the next jobs
IDLE_AFTER = 35  # seconds after which workers have left an idle database


def scenario(name, *, large=False):
    def register(function):
        SCENARIOS[name] = function
        if large:
            LARGE.add(name)
        return function
    return register


class Bench:
    """The running systems, and the figures measured so far."""

    def __init__(self, quick):
        self.quick = quick
        self.rows = []
        self.ours = systems.IrAsync()
        self.queue_job = systems.QueueJob()
        self.crowded = systems.CrowdedQueueJob()
        self.cron = systems.Cron()
        self.pgqueuer = systems.PgQueuer()
        self.bare = systems.BareLoop()
        self.napping = systems.BareLoop()
        self.idle = systems.IdleIrAsync()
        self.problems = {}
        self.idle_start = self.idle_before = None
        self.idle_statements = 0

    def start(self, names):
        """Install, start and warm up the systems. A system that fails has the reason in its rows."""
        for system in (self.ours, self.queue_job, self.pgqueuer, self.bare, self.napping):
            self.attempt(system, system.install)
        if self.ours in self.problems:
            raise SystemExit(f"script/bench: ir_async {self.problems[self.ours]}")
        starting = [self.ours, self.queue_job, *([self.cron] if 'latency' in names else [])]
        threads = [threading.Thread(target=self.attempt, args=(system, system.start)) for system in starting]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for system in (self.ours, self.queue_job):
            self.attempt(system, system.warm_up)
        if self.ours in self.problems:
            raise SystemExit(f"script/bench: ir_async {self.problems[self.ours]}")

    def attempt(self, system, function):
        if system not in self.problems:
            try:
                function()
            except (Unavailable, OSError, pg.psycopg2.Error) as exc:
                self.problems[system] = ' '.join(str(exc).split())
                print(f'{system.name}: {self.problems[system]}', file=sys.stderr, flush=True)

    def close(self):
        for system in (self.ours, self.queue_job, self.crowded, self.cron, self.idle):
            system.stop()

    def run(self, name):
        SCENARIOS[name](self)
        # Reset pg_stat_statements, since it would not count statements that it evicts. Savepoints of other systems fill it, as
        # each has a name of its own.
        if self.idle_before:
            self.idle_statements += pg.statements(self.idle.role)
        pg.reset()
        if self.idle_start and not self.idle_before and time.monotonic() > self.idle_start + IDLE_AFTER:
            watch_idle(self)

    def finish(self):
        """End the measurement that ran beside the other scenarios."""
        if self.idle_start:
            finish_idle(self)

    def row(self, title, system, unit='/s', digits=0):
        row = Row(title, system if isinstance(system, str) else system.name, unit, digits)
        self.rows.append(row)
        return row

    def compare(self, title, runs, plan, unit='/s', digits=0):
        """Measure systems in turns.

        :param dict plan: by system, a function of the row that measures once
        :return: the rows, by system
        :rtype: dict
        """
        rows = {system: self.row(title, system, unit, digits) for system in plan}
        for _run in range(runs):
            for system, measure in plan.items():
                row = rows[system]
                if system in self.problems:
                    row.note = self.problems[system]
                elif not (row.note and not row.values):  # a system that failed in its first turn is not tried again
                    try:
                        measure(row)
                    except (Unavailable, OSError, pg.psycopg2.Error) as exc:
                        row.add_note(' '.join(str(exc).split()))
        return rows

    def compare_drains(self, title, runs, method, args, counts, **options):
        return self.compare(title, runs, {
            system: lambda row, system=system, count=count: row.add_drain(system.drain(method, args, count, **options))
            for system, count in counts.items()})


def judge_ratio(rows, ours, other, factor, text):
    if rows[ours].values and rows[other].values:
        # Ratios are per turn, since the machine may be busy with something else for a while.
        ratio = statistics.median(one / another for one, another in zip(rows[ours].values, rows[other].values))
        rows[ours].judge(f'{text}: ' + (f'{ratio:.1f} ×' if factor > 1 else f'{ratio:.0%}'), ratio >= factor)


# --------------------------------------------------------------
# Latency
# --------------------------------------------------------------

@scenario('latency')
def latency(bench):
    """Return of COMMIT → first line of the method, one job after the other."""
    q = bench.quick
    counts = {bench.ours: 80 if q else 300, bench.queue_job: 40 if q else 150, bench.pgqueuer: 40 if q else 150, bench.cron: 20 if q else 60}

    def measure(system, count):
        def once(row):
            samples = system.latency(count, 0.03)
            row.samples += samples
            row.values.append(statistics.median(samples))
        return once
    rows = bench.compare(
        "A single job, nothing else running: return of COMMIT → first line of the method, p50", 1 if q else 3,
        {system: measure(system, count) for system, count in counts.items()}, 'ms', 1)
    for row in rows.values():
        if row.samples:
            p95, p99 = percentile(row.samples, 0.95), percentile(row.samples, 0.99)
            row.add_note(f'p95 {p95:.1f}, p99 {p99:.1f} ms of {len(row.samples)}')
    if samples := rows[bench.ours].samples:
        rows[bench.ours].judge(
            'p50 ≤ 2 ms, p95 ≤ 5 ms', statistics.median(samples) <= 2 and percentile(samples, 0.95) <= 5)
    bench.cron.stop()


@scenario('browser')
def browser(bench):
    """A click → the top bar shows that the job is done, in Chromium behind nginx."""
    from browser import click_latencies  # noqa: PLC0415 -- playwright

    def measure(row):
        bench.ours.enqueue('noop', [], 1, with_record=True)  # creates a record to open
        row.samples = click_latencies(bench.ours, 20 if bench.quick else 100)
        row.values.append(statistics.median(row.samples))
        row.add_note(f'p95 {percentile(row.samples, 0.95):.0f}, max {max(row.samples):.0f} ms of {len(row.samples)}')
        bench.ours.clean()
    rows = bench.compare(
        "A click on a button → the top bar shows the no-op job as done, prefork server behind nginx, Chromium, p50", 1,
        {bench.ours: measure}, 'ms')
    if rows[bench.ours].values:
        rows[bench.ours].judge('≤ 150 ms', rows[bench.ours].value <= 150)


# --------------------------------------------------------------
# Idle: watched while the other scenarios run, with a role of its own
# --------------------------------------------------------------

@scenario('idle')
def idle(bench):
    """What workers cost that have nothing to do."""
    bench.idle_row = bench.row("Idle: statements per minute, worker and database", bench.ours, '', 1)
    bench.memory_row = bench.row("Idle: memory that a worker has for itself (USS)", bench.ours, 'MB')
    try:
        bench.idle.start(http_workers=0)
        bench.idle.warm_up()
        bench.idle_start = time.monotonic()
    except (Unavailable, pg.psycopg2.Error) as exc:
        bench.idle_row.note = str(exc)


def watch_idle(bench):
    bench.idle_statements -= pg.statements(bench.idle.role)
    bench.idle_before = time.monotonic(), bench.idle.cpu()


def finish_idle(bench):
    while not bench.idle_before:
        time.sleep(max(0, bench.idle_start + IDLE_AFTER - time.monotonic()))
        watch_idle(bench)
    start, cpu = bench.idle_before
    time.sleep(max(0, start + (60 if bench.quick else 150) - time.monotonic()))
    per = WORKERS * (time.monotonic() - start) / 60
    row = bench.idle_row
    row.note = f'{(bench.idle.cpu() - cpu) / per * 1000:.0f} ms CPU per minute and worker, in {per / WORKERS:.1f} minutes'
    row.values.append((bench.idle_statements + pg.statements(bench.idle.role)) / per)
    row.judge('≤ 3', row.value <= 3)
    workers = bench.idle.workers()
    bench.memory_row.values += [worker.memory_full_info().uss / 1e6 for worker in workers]
    bench.memory_row.note = f'RSS {statistics.median(worker.memory_info().rss for worker in workers) / 1e6:.0f} MB'


# --------------------------------------------------------------
# Throughput
# --------------------------------------------------------------

@scenario('noop')
def drain_noop(bench):
    """Drain of no-op jobs, each in a transaction of its own, durable."""
    q = bench.quick
    rows = bench.compare_drains("Drain of no-op jobs, each in its own transaction, durable", 3 if q else 5, 'noop', [], {
        bench.ours: 3000 if q else 6000, bench.queue_job: 250 if q else 600, bench.bare: 4000 if q else 10000,
        bench.pgqueuer: 4000 if q else 10000, bench.cron: 100,
    })
    judge_ratio(rows, bench.ours, bench.queue_job, 12, '≥ 12 × queue_job')
    judge_ratio(rows, bench.ours, bench.bare, 0.55, '≥ 55 % of the bare loop')
    rows[bench.bare].add_note("no Odoo; what a process had claimed is lost when it dies")
    rows[bench.pgqueuer].add_note("no Odoo, no transaction for each: outcomes are written in batches, work may be done twice")


@scenario('write')
def drain_write(bench):
    """Drain of jobs that write one record each through the ORM."""
    q = bench.quick
    rows = bench.compare_drains("Drain of jobs that write one record through the ORM", 2 if q else 5, 'write_one', [], {
        bench.ours: 2000 if q else 4000, bench.queue_job: 250 if q else 600}, with_record=True)
    judge_ratio(rows, bench.ours, bench.queue_job, 6, '≥ 6 × queue_job')


@scenario('sleep')
def drain_sleep(bench):
    """Jobs that sleep, for 10 ms and for 1 s: how much of the workers' time is used."""
    q = bench.quick
    for seconds, ours, theirs, runs, target in (
        (0.01, 800 if q else 8000, 200 if q else 600, 2 if q else 5, 92),
        (1, WORKERS * (5 if q else 10), WORKERS * (5 if q else 10), 1 if q else 2, 99),
    ):
        def measure(system, count, seconds=seconds):
            def once(row):
                drain = system.drain('sleep', [seconds], count)
                row.add_drain(drain, 100 * count * seconds / WORKERS / drain['seconds'])
            return once
        bench.napping.batch = 4 if seconds < 1 else 1
        rows = bench.compare(
            f"Jobs that sleep for {seconds:g} s: share of workers × time that is used", runs, {
                bench.ours: measure(bench.ours, ours), bench.queue_job: measure(bench.queue_job, theirs),
                bench.napping: measure(bench.napping, ours)}, '%', 1)
        rows[bench.napping].add_note(f'claims {bench.napping.batch} at a time')
        if rows[bench.ours].values:
            rows[bench.ours].judge(f'≥ {target} %', rows[bench.ours].value >= target)


@scenario('enqueue')
def enqueue(bench):
    """10,000 calls in one transaction."""
    title = "Enqueue in one transaction, COMMIT and NOTIFY included"
    q = bench.quick
    ours, theirs = systems.EnqueueIrAsync(), systems.EnqueueQueueJob()
    runs = 3 if q else 5
    try:
        ours.start()
        theirs.addons, theirs.packages = bench.queue_job.addons, bench.queue_job.packages
        if bench.queue_job not in bench.problems:
            theirs.start()

        def measure(system, count, **options):
            def once(row):
                row.values.append(count / system.enqueue('noop', [], count, **options)['seconds'])
                system.clean()
            return once
        plan = {
            bench.ours: measure(ours, 10000), bench.queue_job: measure(theirs, 1000 if q else 5000),
            bench.pgqueuer: measure(bench.pgqueuer, 10000), bench.bare: measure(bench.bare, 10000),
        }
        for system in (bench.ours, bench.queue_job):
            if system not in bench.problems:
                plan[system](Row('', '', ''))  # a warm-up: the first time takes longer
        rows = bench.compare(title, runs, plan)
        rows[bench.bare].add_note("one INSERT … SELECT")
        rows[bench.ours].judge('≥ 4,000/s', rows[bench.ours].values and rows[bench.ours].value >= 4000)
        row = bench.row(title, 'ir_async, chunk_size')
        ours.enqueue('noop', [], 10000, chunk_size=1)
        ours.clean()
        for _run in range(runs):
            measure(ours, 10000, chunk_size=1)(row)
        row.judge('≥ 20,000/s', row.value >= 20000)
    finally:
        ours.stop()
        theirs.stop()


@scenario('scaling')
def scaling(bench):
    """1 → 2 → 4 → 8 workers, CPU-bound jobs of 10 ms."""
    title = "CPU-bound jobs of 10 ms, by workers"
    scale = systems.ScaleIrAsync()
    rates = {}
    try:
        scale.client = scale.start_client()
        for workers in (1, 2, 4, 8):
            row = bench.row(title, f'{workers} worker' + 's' * (workers > 1))
            try:
                scale.start(workers, http_workers=0)
                scale.drain('sleep', [0.05], workers * 3)
                scale.drain('burn', [0.01], workers * 10)
                for _run in range(1 if bench.quick else 3):
                    row.add_drain(scale.drain('burn', [0.01], (120 if bench.quick else 300) * min(workers, 2)))
                rates[workers] = row.value
                note_wake_ups(scale, row)
            except (Unavailable, pg.psycopg2.Error) as exc:
                row.note = str(exc)
            scale.stop_server()
        cores = psutil.cpu_count() or 1
        if len(rates) == 4 and cores in rates:
            up, flat = rates[cores] / rates[1], rates[8] / rates[cores]
            row.judge(f'linear to the cores: {up:.2f} × with {cores}; then flat: {flat:.0%} of that with 8', up >= 0.9 * cores and flat >= 0.9)
    finally:
        scale.stop()


def note_wake_ups(system, row):
    """Note how many claims and wake-ups a single job causes when all workers are idle."""
    count = 10
    system.latency(1, 0.05)
    calls, switches = pg.statement_times(system.role, CLAIM)[0], context_switches(system)
    system.latency(count, 0.05)
    claims = (pg.statement_times(system.role, CLAIM)[0] - calls) / count
    wake_ups = (context_switches(system) - switches) / count
    row.add_note(f'a single job causes {claims:.1f} claims and {wake_ups:.0f} wake-ups of threads')


def context_switches(system):
    total = 0
    for process in system.workers():
        for thread in process.threads():
            with contextlib.suppress(OSError), open(f'/proc/{process.pid}/task/{thread.id}/status', encoding='utf-8') as file:
                total += next(int(line.split()[1]) for line in file if line.startswith('voluntary_ctxt_switches'))
    return total


# --------------------------------------------------------------
# Web pages and urgent jobs while workers are busy
# --------------------------------------------------------------

@scenario('web')
def web(bench):
    """A web page while all workers are busy."""
    q = bench.quick
    seconds = 2 if q else 5

    def page_times(system, seconds):
        session, times, end = requests.Session(), [], time.monotonic() + seconds
        while time.monotonic() < end or not times:
            start = time.perf_counter()
            session.get(f'{system.url}/web/login', timeout=60).raise_for_status()
            times.append((time.perf_counter() - start) * 1000)
            time.sleep(0.01)
        return times

    def measure(system, method, seconds):
        def once(row):
            if not system.server:
                system.start()
                system.warm_up()
            page_times(system, 1)
            idle = page_times(system, seconds)
            args, count = ([seconds + 0.5], WORKERS) if method == 'sleep' else ([0.01], int(seconds * 250))
            committed = system.enqueue(method, args, count)['committed']
            time.sleep(0.1)
            busy = page_times(system, seconds)
            system.wait_empty(committed)
            system.clean()
            row.values.append(statistics.median(busy))
            row.ratio = statistics.median(busy) / statistics.median(idle)
            row.note = (f'p95 {percentile(busy, 0.95):.1f}, max {max(busy):.0f} ms; '
                        f'idle p50 {statistics.median(idle):.1f}, p95 {percentile(idle, 0.95):.1f} ms')
        return once
    for method, name, factor in (('burn', 'CPU-bound jobs of 10 ms', 2), ('sleep', 'jobs that sleep', 1.5)):
        plan = {bench.ours: measure(bench.ours, method, seconds)}
        if not q:
            plan[bench.queue_job] = measure(bench.queue_job, method, seconds)
        if method == 'sleep':
            if bench.queue_job in bench.problems:
                bench.problems[bench.crowded] = bench.problems[bench.queue_job]
            bench.crowded.addons, bench.crowded.packages = bench.queue_job.addons, bench.queue_job.packages

            def crowded(row):
                bench.queue_job.stop_server()
                measure(bench.crowded, 'sleep', 3 if q else 8)(row)
            plan[bench.crowded] = crowded
        rows = bench.compare(f'A web page (/web/login), all workers busy with {name}, p50', 1, plan, 'ms', 1)
        if rows[bench.ours].values:
            ratio = rows[bench.ours].ratio
            rows[bench.ours].judge(f'≤ {factor:g} × idle: {ratio:.2f}', ratio <= factor)
    bench.crowded.stop()


@scenario('urgent')
def urgent(bench):
    """20,000 jobs queued, then an urgent one."""
    count = 10000 if bench.quick else 20000

    def ours(row):
        bench.ours.enqueue('noop', [], count)
        row.samples = bench.ours.client('latency', path=str(STAMPS), count=5 if bench.quick else 20, pause=0.1, priority=1)
        [[left]] = pg.query("SELECT count(*) FROM ir_async WHERE state = 'created'", database=bench.ours.database)
        STAMPS.unlink(missing_ok=True)
        bench.ours.wait_empty(time.time())
        bench.ours.clean()
        if not left:
            msg = "the backlog was drained before"
            raise Unavailable(msg)
        row.values.append(statistics.median(row.samples))
        row.note = f'max {max(row.samples):.0f} ms of {len(row.samples)}; {left:,} of the others were left'

    def queue_job(row):
        # The backlog is copies of one row, since queue_job's own method would take half a minute.
        if not bench.queue_job.server:
            bench.queue_job.start()
        client, database = bench.queue_job.client, bench.queue_job.database
        client('enqueue', method='noop', args=[], count=1)
        bench.queue_job.wait_empty(time.time())
        columns = ', '.join(name for name, in pg.query(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_name = 'queue_job' AND column_name NOT IN ('id', 'uuid', 'state')", database=database))
        pg.query(f"INSERT INTO queue_job (uuid, state, {columns}) SELECT gen_random_uuid()::text, 'pending', {columns}"
                 f" FROM (SELECT * FROM queue_job LIMIT 1) job, generate_series(1, {count})", database=database)
        try:
            row.values += client('latency', path=str(STAMPS), count=1, pause=0, priority=1)
        finally:
            STAMPS.unlink(missing_ok=True)
            bench.queue_job.stop_server()  # the server keeps the backlog in memory
            bench.queue_job.clean()
    rows = bench.compare(
        f"{count:,} no-op jobs queued, then an urgent one: return of its COMMIT → first line, p50", 1,
        {bench.ours: ours, bench.queue_job: queue_job}, 'ms', 1)
    if rows[bench.ours].values:
        rows[bench.ours].judge('≤ 50 ms', max(rows[bench.ours].samples) <= 50)


# --------------------------------------------------------------
# Size
# --------------------------------------------------------------

def fill(bench, count):
    """Queue no-op jobs as copies of one row. Workers can only claim them once all are there."""
    database = bench.ours.database
    columns = ', '.join(name for name, in pg.query(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'ir_async' AND column_name != 'id'",
        database=database))
    set_paused(bench, True)
    bench.ours.clean()
    bench.ours.enqueue('noop', [], 1)
    pg.query(f"INSERT INTO ir_async ({columns}) SELECT {columns} FROM (SELECT * FROM ir_async LIMIT 1) job, generate_series(2, {count})",
             database=database)
    pg.query("ANALYZE ir_async", database=database)  # autovacuum would do that a little later
    pg.reset_role(bench.ours.role)
    set_paused(bench, False)
    pg.query("SELECT pg_notify('odoo_async', %s)", [database])


def set_paused(bench, paused):
    pg.query(
        "INSERT INTO ir_async_channel (name, paused) VALUES ('*', %s) ON CONFLICT (name) DO UPDATE SET paused = excluded.paused",
        [paused], database=bench.ours.database)


def claim_cost(bench):
    """Return milliseconds per claim and per claimed job since the last reset, and how many jobs were claimed."""
    calls, jobs, milliseconds = pg.statement_times(bench.ours.role, CLAIM)
    return milliseconds / max(calls, 1), milliseconds / max(jobs, 1), jobs


@scenario('million', large=True)
def million(bench):
    """1,000,000 jobs queued: claim time, worker memory, then the size of the table."""
    title = "Claim time per job, by jobs that are queued"
    costs, memory = {}, {}
    try:
        for size in (1000, 1_000_000):
            row = bench.row(title, f'{size:,} queued', 'ms', 3)
            for run in range(10 if size == 1000 else 5):
                if size == 1000 or not run:
                    fill(bench, size)
                start = time.monotonic()
                if size == 1000:
                    bench.ours.wait_empty(time.time())
                else:
                    time.sleep(5)
                per_claim, per_job, jobs = claim_cost(bench)
                row.values.append(per_job)
                pg.reset_role(bench.ours.role)
                memory[size] = statistics.median(worker.memory_full_info().uss for worker in bench.ours.workers()) / 1e6
                row.note = f'{per_claim:.2f} ms per claim, {jobs / (time.monotonic() - start):.0f} jobs/s, {memory[size]:.0f} MB per worker'
            costs[size] = row.value
        cost, growth = costs[1_000_000] / costs[1000], memory[1_000_000] / memory[1000]
        row.judge(f'≤ 1.3 ×: claim {cost:.2f}, memory {growth:.2f}', max(cost, growth) <= 1.3)
        bench.ours.wait_empty(time.time())
        measure_size(bench, size)
    finally:
        set_paused(bench, True)
        time.sleep(0.5)
        bench.ours.clean()
        set_paused(bench, False)


def measure_size(bench, count):
    """Note the size of the table on disk after the end of all these jobs, and after it is written anew."""
    def size():
        [row] = pg.query(
            "SELECT pg_total_relation_size(relid), autovacuum_count"
            "  FROM pg_stat_user_tables WHERE relname = 'ir_async'", database=bench.ours.database)
        return row
    row = bench.row(f"Size of the table after {count:,} jobs", bench.ours, 'bytes per job')
    total, vacuums = size()
    row.values.append(total / count)
    pg.query("VACUUM FULL ir_async", database=bench.ours.database)
    least = size()[0]
    row.add_note(f'{total / least:.2f} × that of a table written anew, after {vacuums} automatic vacuums')


@scenario('snapshot', large=True)
def snapshot(bench):
    """An old snapshot held open while 200,000 jobs pass."""
    count, block = 200_000, 20_000
    title = f"Claim time per job, while {count:,} jobs pass"
    costs = {}
    for held in (False, True):
        row = bench.row(title, f"{'with' if held else 'without'} an old REPEATABLE READ snapshot held open", 'ms', 3)
        with contextlib.closing(pg.connect(bench.ours.database)) as connection, connection.cursor() as cr:
            if held:
                cr.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                cr.execute("SELECT count(*) FROM ir_async")
            for number in range(count // block):
                bench.ours.enqueue('noop', [], block)
                pg.reset_role(bench.ours.role)
                seconds = bench.ours.wait_empty(time.time())
                if number >= count // block - 3:  # only the last three blocks count, each by itself
                    per_claim, per_job, _jobs = claim_cost(bench)
                    row.values.append(per_job)
                    row.note = f'{per_claim:.2f} ms per claim, {block / seconds:.0f} jobs/s'
        costs[held] = row.value
        bench.ours.clean()
    row.judge(f'≤ 1.5 ×: {costs[True] / costs[False]:.2f}', costs[True] / costs[False] <= 1.5)
