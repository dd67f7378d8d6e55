"""Jobs that sleep, for 10 ms and for 1 s: how much of the workers' time is used."""

from systems.bare_loop import BareLoop
from systems.system import WORKERS

SYSTEMS = ('ours', 'queue_job', 'bare')


def run(bench):
    q = bench.quick
    few = WORKERS * (5 if q else 10)
    measure_share(bench, 0.01, 800 if q else 8000, 200 if q else 600, runs=2 if q else 5, batch=4, target=92)
    measure_share(bench, 1, few, few, runs=1 if q else 2, batch=1, target=99)


def measure_share(bench, seconds, ours, theirs, runs, batch, target):
    napping = BareLoop(batch=batch, problem=bench.bare.problem)
    counts = {bench.ours: ours, bench.queue_job: theirs, napping: ours}

    def measure(system, row, count):
        drain = system.drain('sleep', [seconds], count)
        row.add_drain(drain, 100 * count * seconds / WORKERS / drain['seconds'])

    rows = bench.compare_counts(
        f"Jobs that sleep for {seconds:g} s: share of workers × time that is used",
        runs,
        measure,
        counts,
        '%',
        1,
    )
    rows[napping].add_note(f'claims {batch} at a time')
    if rows[bench.ours].values:
        rows[bench.ours].judge(f'≥ {target} %', rows[bench.ours].value >= target)
