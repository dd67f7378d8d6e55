"""An old snapshot held open while 200,000 jobs pass."""

import contextlib
import functools
import time

import pg

SYSTEMS = ('ours',)
LARGE = True


def run(bench):
    count, block = 200_000, 20_000

    def measure(system, row, held):
        with contextlib.closing(pg.connect(system.database)) as connection, connection.cursor() as cr:
            if held:
                cr.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                cr.execute("SELECT count(*) FROM ir_async")
            for number in range(count // block):
                system.enqueue('noop', [], block)
                pg.reset_role(system.role)
                seconds = system.wait_empty(time.time())
                if number >= count // block - 3:  # only the last three blocks count, each by itself
                    per_claim, per_job, _jobs = system.claim_cost()
                    row.values.append(per_job)
                    row.note = f'{per_claim:.2f} ms per claim, {block / seconds:.0f} jobs/s'
        system.clean()

    title = f"Claim time per job, while {count:,} jobs pass"
    costs = {}
    for held, addition in ((False, ''), (True, ', with an old REPEATABLE READ snapshot held open')):
        plan = {bench.ours: functools.partial(measure, held=held)}
        row = bench.compare(title + addition, 1, plan, 'ms', 3)[bench.ours]
        costs[held] = row.value
    if all(costs.values()):
        row.judge(f'≤ 1.5 ×: {costs[True] / costs[False]:.2f}', costs[True] / costs[False] <= 1.5)
