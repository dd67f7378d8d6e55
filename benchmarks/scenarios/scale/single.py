"""A single job on an idle cluster: latency, statements, CPU."""

import statistics
import time

from systems.ir_async import IDLE_AFTER
from systems.ir_async_fleet import Fleet

SYSTEMS = ()
SETTLE = 2  # seconds after a job until the workers are idle again


def run(bench):
    def measure(fleet, row, count, idle):
        with fleet:
            fleet.warm_up()
            time.sleep(idle)
            row.add_drain(fleet.watch(count, lambda: row.samples.extend(fleet.latency(count, 2 * SETTLE))), 0)
            row.values = [statistics.median(row.samples)]
            row.add_statements(fleet.statements(), count)

    def shortly_after(fleet, row):
        measure(fleet, row, 3 if bench.quick else 10, SETTLE)

    def long_after(fleet, row):
        measure(fleet, row, 1, IDLE_AFTER)

    for measure_when, when in (
        (shortly_after, "workers in the database"),
        (long_after, "workers have left the database"),
    ):
        bench.compare(
            f"A single job, {when}: return of COMMIT → first line of the method, p50",
            1,
            {Fleet(workers): measure_when for workers in bench.workers},
            'ms',
            1,
        )
