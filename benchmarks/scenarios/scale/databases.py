"""Drain of the same number of no-op jobs from one or many databases."""

from systems.ir_async_fleet import Fleet

SYSTEMS = ()


def run(bench):
    def measure(fleet, row):
        with fleet:
            fleet.warm_up()
            row.add_drain(fleet.drain('noop', [], 300 if bench.quick else 2000))

    bench.compare(
        "Drain of no-op jobs, by databases",
        1,
        {Fleet(workers, databases): measure for workers in bench.workers for databases in bench.databases},
    )
