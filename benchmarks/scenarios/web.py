"""A web page while all workers are busy."""

import statistics
import time

import requests
from report import percentile
from systems.queue_job import QueueJob
from systems.system import WORKERS

SYSTEMS = ('ours', 'queue_job')


def run(bench):
    q = bench.quick
    seconds = 2 if q else 5

    def burn(system, row):
        measure(system, row, 'burn', [0.01], int(seconds * 250), seconds)

    def sleep(system, row, seconds=seconds):
        measure(system, row, 'sleep', [seconds + 0.5], WORKERS, seconds)

    def crowded_sleep(system, row):
        bench.queue_job.stop_server()
        sleep(system, row, 3 if q else 8)

    crowded = QueueJob(name='queue_job, no HTTP workers in reserve', reserve=0, problem=bench.queue_job.problem)
    bench.stack.callback(crowded.stop)
    systems = [bench.ours] if q else [bench.ours, bench.queue_job]
    for plan, name, factor in (
        (dict.fromkeys(systems, burn), 'CPU-bound jobs of 10 ms', 2),
        (dict.fromkeys(systems, sleep) | {crowded: crowded_sleep}, 'jobs that sleep', 1.5),
    ):
        rows = bench.compare(f'A web page (/web/login), all workers busy with {name}, p50', 1, plan, 'ms', 1)
        if rows[bench.ours].values:
            ratio = rows[bench.ours].ratio
            rows[bench.ours].judge(f'≤ {factor:g} × idle: {ratio:.2f}', ratio <= factor)
    crowded.stop()


def measure(system, row, method, args, count, seconds):
    """Measure the page while no job runs, and while jobs keep all workers busy for at least these seconds."""
    if not system.server:
        system.start()
        system.warm_up()
    page_times(system, 1)
    idle = page_times(system, seconds)
    committed = system.enqueue(method, args, count)['committed']
    time.sleep(0.1)
    busy = page_times(system, seconds)
    system.wait_empty(committed)
    system.clean()
    row.values.append(statistics.median(busy))
    row.ratio = statistics.median(busy) / statistics.median(idle)
    row.note = (
        f'p95 {percentile(busy, 0.95):.1f}, max {max(busy):.0f} ms; '
        f'idle p50 {statistics.median(idle):.1f}, p95 {percentile(idle, 0.95):.1f} ms'
    )


def page_times(system, seconds):
    session, times, end = requests.Session(), [], time.monotonic() + seconds
    while time.monotonic() < end or not times:
        start = time.perf_counter()
        session.get(f'{system.url}/web/login', timeout=60).raise_for_status()
        times.append((time.perf_counter() - start) * 1000)
        time.sleep(0.01)
    return times
