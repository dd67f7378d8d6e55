"""Connections of the workers while they drain many databases, and afterwards."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pg
from systems.ir_async_fleet import Fleet

SYSTEMS = ()


def run(bench):
    def measure(fleet, row):
        ended = threading.Event()

        def count():
            most = 0
            while not ended.wait(0.05):
                most = max(most, pg.connections(fleet.role))
            return most

        with fleet, ThreadPoolExecutor() as pool:
            fleet.warm_up()
            counting = pool.submit(count)
            try:
                drain = fleet.drain('sleep', [0.01], 150 if bench.quick else 1000)
            finally:
                ended.set()
            row.add_drain(drain, counting.result())
            row.add_note(f'{row.value / fleet.size:.1f} per worker; {pg.connections(fleet.role)} just after')

    bench.compare(
        "Connections of all workers while they drain jobs of 10 ms, at most",
        1,
        {Fleet(workers, max(bench.databases)): measure for workers in bench.workers},
        '',
    )
