"""10,000 calls in one transaction, then one call with chunk_size."""

import contextlib

from report import Row
from systems.ir_async import IrAsync
from systems.odoo import OdooSystem
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
    count = 10000
    counts = {ours: count, theirs: 1000 if q else 5000, bench.pgqueuer: count, bench.bare: count}

    def measure(system, row, count, **options):
        if isinstance(system, OdooSystem) and not system.client:
            stack.callback(system.stop)
            system.start_client()
            measure(system, Row('', '', ''), count)  # a warm-up: the first time takes longer
        row.values.append(count / system.enqueue('noop', [], count, **options)['seconds'])
        system.clean()

    def measure_chunks(system, row):
        if not row.values:
            measure(system, Row('', '', ''), count, chunk_size=1)
        measure(system, row, count, chunk_size=1)

    with contextlib.ExitStack() as stack:
        rows = bench.compare_counts(title, runs, measure, counts)
        rows[bench.bare].add_note("one INSERT … SELECT")
        rows[ours].judge('≥ 4,000/s', rows[ours].values and rows[ours].value >= 4000)
        row = bench.compare(f'{title}, with chunk_size', runs, {ours: measure_chunks})[ours]
        row.judge('≥ 20,000/s', row.values and row.value >= 20000)
