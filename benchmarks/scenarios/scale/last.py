"""A single job in one of many databases, which the workers have left: latency."""

import statistics
import time

from systems.ir_async_fleet import Fleet

from .single import SETTLE

SYSTEMS = ()


def run(bench):
    def measure(fleet, row):
        with fleet:
            fleet.warm_up()
            time.sleep(SETTLE)
            for database in reversed(fleet.databases[-10:]):
                row.samples.extend(fleet.latency(1, SETTLE, database=database))
            row.values = [statistics.median(row.samples)]

    bench.compare(
        "A single job in the last of many databases: return of COMMIT → first line of the method, p50",
        1,
        {Fleet(workers, max(bench.databases)): measure for workers in bench.workers},
        'ms',
        1,
    )
