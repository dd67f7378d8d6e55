"""Drain of no-op jobs: jobs/s, and the time that PostgreSQL spends on each kind of statement."""

from systems.ir_async_fleet import Fleet

SYSTEMS = ()


def run(bench):
    def measure(fleet, row):
        with fleet:
            fleet.warm_up()
            for _turn in range(1 if bench.quick else 3):
                row.add_drain(fleet.drain('noop', [], 1000 if bench.quick else 5000))
            row.add_statements(fleet.statements(), row.drains[-1]['count'], 'milliseconds', 'PostgreSQL, ms per job: ')

    bench.compare("Drain of no-op jobs, by workers", 1, {Fleet(workers): measure for workers in bench.workers})
