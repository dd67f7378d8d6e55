"""The command of the benchmark: see script/bench. Scenarios are in scenarios/, the measured systems in systems/."""

import argparse
import contextlib
import functools
import importlib
import os
import signal
import sys
import threading
import time

import pg
import psutil
import report
from systems.bare_loop import BareLoop
from systems.earlier import version_of
from systems.ir_async import IrAsync
from systems.ir_cron import IrCron
from systems.pgqueuer import PgQueuer
from systems.queue_job import QueueJob
from systems.system import WORKERS, Unavailable

# In this order: `idle` watches its workers while the others run.
NAMES = (
    'latency',
    'browser',
    'idle',
    'noop',
    'write',
    'sleep',
    'enqueue',
    'scaling',
    'web',
    'urgent',
    'million',
    'snapshot',
    'scale/single',
    'scale/last',
    'scale/idle',
    'scale/drain',
    'scale/databases',
    'scale/connections',
    'scale/strangers',
)
SCENARIOS = {name: importlib.import_module(f"scenarios.{name.replace('/', '.')}") for name in NAMES}


class Bench:
    """The running systems, and the figures measured so far."""

    def __init__(self, args, stack):
        self.quick = args.quick
        self.workers = args.workers or ([4, 16] if args.quick else [4, 64])
        self.databases = args.databases or ([1, 3] if args.quick else [1, 10])
        self.stack = stack  # ends with the benchmark
        self.at_end = []  # functions that end measurements which ran beside the other scenarios
        self.rows = []
        self.ours = IrAsync()
        self.queue_job = QueueJob()
        self.pgqueuer = PgQueuer()
        self.bare = BareLoop()
        self.cron = IrCron()
        self.against = args.against
        self.before = args.against and self.ours.of_version(args.against)
        self.counterparts = {self.ours: self.before}

    def start(self, systems):
        """Install, start and warm up systems. A system that fails has the reason in its rows."""
        if self.before and 'ours' in systems:
            systems = {*systems, 'before'}
        systems = [system for name, system in vars(self).items() if name in systems]
        for system in systems:
            self.stack.callback(system.stop)
            self.attempt(system, system.install)
        threads = [threading.Thread(target=self.attempt, args=(system, system.start)) for system in systems]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for system in systems:
            self.attempt(system, system.warm_up)

    def attempt(self, system, function):
        if not system.problem:
            try:
                function()
            except (Unavailable, OSError, pg.psycopg2.Error) as exc:
                system.problem = ' '.join(str(exc).split())
                print(f'{system.name}: {system.problem}', file=sys.stderr, flush=True)
        if self.ours.problem:
            sys.exit(f"script/bench: ir_async {self.ours.problem}")

    def run(self, scenario):
        scenario.run(self)
        # pg_stat_statements does not count statements that it evicts. Savepoints of other systems fill it, as each has a name of
        # its own.
        pg.reset_role(*set(pg.ROLES) - {'bench_idle'})

    def row(self, title, system, unit='/s', digits=0):
        row = report.Row(title, system.name, unit, digits, system.version)
        self.rows.append(row)
        return row

    def beside(self, plan):
        """Return a plan in which the version of ``--against``, if any, comes after each system with the present one."""
        both = {}
        for system, measure in plan.items():
            both[system] = measure
            if self.against and isinstance(system, IrAsync):
                if system not in self.counterparts:
                    self.counterparts[system] = system.of_version(self.against)
                    self.counterparts[system].problem = self.before.problem
                both[self.counterparts[system]] = measure
        return both

    @contextlib.contextmanager
    def turn(self, system):
        """Freeze the servers of the versions that are not measured. A NOTIFY would wake the workers of both."""
        versions = (self.ours, self.before) if self.before else ()
        frozen = [process for one in versions if one.version != system.version for process in one.processes()]
        for process in frozen:
            process.each(psutil.Process.suspend)
        try:
            yield
        finally:
            for process in frozen:
                process.each(psutil.Process.resume)

    def compare(self, title, runs, plan, unit='/s', digits=0):
        """Measure systems in turns, and the version of ``--against`` beside the present one.

        :param dict plan: by system, a function of the system and its row that measures once
        :return: the rows, by system
        :rtype: dict
        """
        plan = self.beside(plan)
        rows = {system: self.row(title, system, unit, digits) for system in plan}
        for _run in range(runs):
            for system, measure in plan.items():
                row = rows[system]
                if system.problem:
                    row.note = system.problem
                elif not (row.note and not row.values):  # a system that failed in its first turn is not tried again
                    try:
                        with self.turn(system):
                            measure(system, row)
                    except (Unavailable, OSError, pg.psycopg2.Error) as exc:
                        row.add_note(' '.join(str(exc).split()))
        return rows

    def compare_counts(self, title, runs, measure, counts, unit='/s', digits=0):
        """Measure systems in turns by one function, whose third parameter is a system's number of jobs."""
        plan = {system: functools.partial(measure, count=count) for system, count in counts.items()}
        return self.compare(title, runs, plan, unit, digits)

    def compare_drains(self, title, runs, method, counts, **options):
        def measure(system, row, count):
            row.add_drain(system.drain(method, [], count, **options))

        return self.compare_counts(title, runs, measure, counts)


def counts(text):
    values = [int(number) for number in text.split(',')]
    if min(values) < 1:
        raise ValueError
    return values


def path(text):
    """Return the path of a file that can be written, so that no figure is lost at the end."""
    try:
        with open(os.path.expanduser(text), 'a', encoding='utf-8') as file:
            return file.name
    except OSError as exc:
        raise argparse.ArgumentTypeError(exc) from exc


def parse():
    parser = argparse.ArgumentParser(prog='script/bench', description="How fast, beside others.")
    parser.add_argument('--quick', action='store_true', help="under three minutes; without the largest rows")
    parser.add_argument('--json', type=path, metavar='FILE', help="write all figures there")
    parser.add_argument('--against', metavar='COMMIT', help="measure that version of this addon, too")
    parser.add_argument('--list', action='store_true', help="name the scenarios")
    parser.add_argument('--workers', type=counts, metavar='N,…', help="how many workers, for scale")
    parser.add_argument('--databases', type=counts, metavar='N,…', help="how many databases, for scale")
    parser.add_argument(
        'scenarios', nargs='*', metavar='SCENARIO', help="these alone; scale: all that begin with scale/"
    )
    args = parser.parse_args()
    try:
        args.against = args.against and version_of(args.against)
    except (Unavailable, OSError) as exc:
        parser.error(f"--against: {exc}")
    asked = args.scenarios or [
        name for name in SCENARIOS if '/' not in name and not (args.quick and getattr(SCENARIOS[name], 'LARGE', False))
    ]
    args.names = [name for one in asked for name in SCENARIOS if name == one or name.startswith(f'{one}/')]
    if unknown := [one for one in asked if not any(name == one or name.startswith(f'{one}/') for name in SCENARIOS)]:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if len({'/' in name for name in args.names}) > 1:
        parser.error("scale runs by itself, since the other scenarios have servers of their own")
    return args


def main():
    args = parse()
    if args.list:
        for name, scenario in SCENARIOS.items():
            print(f'{name:18} {scenario.__doc__.splitlines()[0]}')
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pg.prepare_roles()
    with contextlib.ExitStack() as stack:
        bench = Bench(args, stack)
        is_scale = '/' in args.names[0]
        workers = ', '.join(map(str, bench.workers)) if is_scale else f'{WORKERS} of each system, which took turns'
        head = report.header(workers, args.quick)
        start = time.monotonic()
        bench.start({system for name in args.names for system in SCENARIOS[name].SYSTEMS})
        ready = time.monotonic()
        for name in args.names:
            print(f'{time.monotonic() - start:5.0f} s  {name}', file=sys.stderr, flush=True)
            bench.run(SCENARIOS[name])
        for finish in bench.at_end:
            finish()
    head['duration'] = f'{ready - start:.0f} s to start, {time.monotonic() - ready:.0f} s to measure'
    print(report.markdown(head, bench.rows))
    if args.json:
        report.dump(args.json, head, bench.rows)


if __name__ == '__main__':
    main()
