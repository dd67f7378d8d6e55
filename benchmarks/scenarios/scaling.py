"""1 → 2 → 4 → 8 workers, CPU-bound jobs of 10 ms; claims and wake-ups that a single job causes."""

import contextlib

import pg
import psutil
from systems.ir_async import CLAIM, IrAsync

SYSTEMS = ('ours',)


def run(bench):
    def measure(system, row, count):
        try:
            system.start(count, http_workers=0)
            system.drain('sleep', [0.05], count * 3)
            system.drain('burn', [0.01], count * 10)
            for _run in range(1 if bench.quick else 3):
                row.add_drain(system.drain('burn', [0.01], (120 if bench.quick else 300) * min(count, 2)))
            note_wake_ups(system, row)
        finally:
            system.stop()

    # Workers alone, in a copy of the database
    counts = {
        IrAsync(database='bench_scale', name=f'{count} worker' + 's' * (count > 1)): count for count in (1, 2, 4, 8)
    }
    rows = bench.compare_counts("CPU-bound jobs of 10 ms, by workers", 1, measure, counts)
    rates = {count: rows[system].value for system, count in counts.items() if rows[system].values}
    cores = psutil.cpu_count() or 1
    if len(rates) == 4 and cores in rates:
        up, flat = rates[cores] / rates[1], rates[8] / rates[cores]
        rows[list(counts)[-1]].judge(
            f'linear to the cores: {up:.2f} × with {cores}; then flat: {flat:.0%} of that with 8',
            up >= 0.9 * cores and flat >= 0.9,
        )


def note_wake_ups(system, row):
    """Note how many claims and wake-ups a single job causes when all workers are idle."""
    count = 10
    system.latency(1, 0.05)
    system.clean()
    calls, switches = pg.statement_times(system.role, CLAIM)[0], context_switches(system)
    system.latency(count, 0.05)
    claims = (pg.statement_times(system.role, CLAIM)[0] - calls) / count
    wake_ups = (context_switches(system) - switches) / count
    system.clean()
    row.add_note(f'a single job causes {claims:.1f} claims and {wake_ups:.0f} wake-ups of threads')


def context_switches(system):
    total = 0
    for process in system.workers():
        for thread in process.threads():
            with (
                contextlib.suppress(OSError),
                open(f'/proc/{process.pid}/task/{thread.id}/status', encoding='utf-8') as file,
            ):
                total += next(int(line.split()[1]) for line in file if line.startswith('voluntary_ctxt_switches'))
    return total
