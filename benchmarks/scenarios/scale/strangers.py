"""NOTIFYs of a stranger, each with the name of another unknown database: connections that they cost in 10 s."""

import contextlib
import time

import pg
from systems.ir_async_fleet import Fleet

SYSTEMS = ()
SECONDS, RATE = 10, 10


def run(bench):
    def disturb(row):
        with contextlib.closing(pg.connect()) as connection, connection.cursor() as cr:
            before = pg.sessions(cr)
            for number in range(SECONDS * RATE):
                cr.execute("SELECT pg_notify('odoo_async', %s)", [f'stranger_{number}'])
                time.sleep(1 / RATE)
            time.sleep(1)  # the statistics are a little late
            row.values.append(pg.sessions(cr) - before)

    def measure(fleet, row):
        with fleet:
            time.sleep(5)  # until the workers have visited the database
            costs = fleet.watch(1, lambda: disturb(row))
            row.add_note(f"CPU {costs['cpu'] * 1000:.0f} + {costs['postgres_cpu'] * 1000:.0f} ms")
            row.add_statements(fleet.statements())

    bench.compare(
        f"Connections opened in {SECONDS} s in which a stranger sends {RATE} NOTIFYs a second",
        1,
        {Fleet(workers, is_open=True): measure for workers in bench.workers},
        '',
    )
