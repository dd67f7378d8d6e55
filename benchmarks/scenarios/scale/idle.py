"""Workers that have had nothing to do for a while: statements and CPU in a minute."""

import time

from systems.ir_async import IDLE_AFTER
from systems.ir_async_fleet import Fleet

SYSTEMS = ()


def run(bench):
    def measure(fleet, row):
        with fleet:
            fleet.warm_up()
            time.sleep(IDLE_AFTER)
            minute = fleet.watch(1, lambda: time.sleep(60))
            row.values.append(minute['statements'])
            row.add_note(f"CPU {minute['cpu'] * 1000:.0f} + {minute['postgres_cpu'] * 1000:.0f} ms")
            row.add_statements(fleet.statements())

    bench.compare(
        "Statements of all workers in an idle minute", 1, {Fleet(workers): measure for workers in bench.workers}, ''
    )
