"""What workers cost that have nothing to do."""

import statistics
import threading
import time

import pg
from systems.ir_async import IDLE_AFTER, IrAsync
from systems.system import WORKERS, Unavailable

SYSTEMS = ('ours',)


def run(bench):
    rows = (
        bench.row("Idle: statements per minute, worker and database", bench.ours, '', 1),
        bench.row("Idle: memory that a worker has for itself (USS)", bench.ours, 'MB'),
    )
    # These workers are watched while the other scenarios run. They have a role of their own, and a copy of the database without jobs.
    system = IrAsync(role='bench_idle', database='bench_idle')
    bench.stack.callback(system.stop)
    try:
        system.start(http_workers=0)
        system.warm_up()
    except (Unavailable, pg.psycopg2.Error) as exc:
        rows[0].note = str(exc)
        return
    watch = Watch(system)
    bench.at_end.append(lambda: watch.finish(*rows, 60 if bench.quick else 150))


class Watch:
    """The measurement of idle workers. It begins by itself once they have left the database."""

    def __init__(self, system):
        self.system = system
        self.timer = threading.Timer(IDLE_AFTER, self.begin)
        self.timer.daemon = True
        self.timer.start()

    def begin(self):
        pg.reset_role(self.system.role)
        self.start, self.cpu = time.monotonic(), self.system.cpu()

    def finish(self, row, memory_row, seconds):
        self.timer.join()
        time.sleep(max(0, self.start + seconds - time.monotonic()))
        per = WORKERS * (time.monotonic() - self.start) / 60
        row.note = f'{(self.system.cpu() - self.cpu) / per * 1000:.0f} ms CPU per minute and worker, in {per / WORKERS:.1f} minutes'
        row.values.append(pg.statements(self.system.role) / per)
        row.judge('≤ 3', row.value <= 3)
        workers = self.system.workers()
        memory_row.values += [worker.memory_full_info().uss / 1e6 for worker in workers]
        memory_row.note = f'RSS {statistics.median(worker.memory_info().rss for worker in workers) / 1e6:.0f} MB'
