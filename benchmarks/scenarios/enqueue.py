"""10,000 calls in one transaction, then one call with chunk_size."""

import contextlib

from report import Row
from systems.ir_async import IrAsync
from systems.queue_job import QueueJob

SYSTEMS = ('ours', 'queue_job', 'bare', 'pgqueuer')


def run(bench):
    title = "Enqueue in one transaction, COMMIT and NOTIFY included"
    q = bench.quick
    runs = 3 if q else 5
    # Databases without workers
    ours, theirs = (
        IrAsync(database='bench_async_enqueue'),
        QueueJob(database='bench_queue_job_enqueue', problem=bench.queue_job.problem),
    )
    counts = {ours: 10000, theirs: 1000 if q else 5000, bench.pgqueuer: 10000, bench.bare: 10000}

    def measure(system, row, **options):
        row.values.append(counts[system] / system.enqueue('noop', [], counts[system], **options)['seconds'])
        system.clean()

    with contextlib.ExitStack() as stack:
        for system in (ours, theirs):
            stack.callback(system.stop)
            if not system.problem:
                system.start_client()
                measure(system, Row('', '', ''))  # a warm-up: the first time takes longer
        rows = bench.compare(title, runs, dict.fromkeys(counts, measure))
        rows[bench.bare].add_note("one INSERT … SELECT")
        rows[ours].judge('≥ 4,000/s', rows[ours].values and rows[ours].value >= 4000)
        row = bench.row(title, 'ir_async, chunk_size')
        ours.enqueue('noop', [], 10000, chunk_size=1)
        ours.clean()
        for _run in range(runs):
            measure(ours, row, chunk_size=1)
        row.judge('≥ 20,000/s', row.value >= 20000)
