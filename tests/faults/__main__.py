"""script/faults: run jobs under faults, then audit."""

import argparse
import random
import signal
import subprocess
import sys
import time

from . import audit, model, workload, world
from .drain import drained
from .faults import Faults
from .report import report, say, title

# The standby has no disk and no address of its own, and other databases would stay with the old primary.
NOT_WITH_FAILOVER = {'disk_full', 'cut_host', 'drop_database', 'copy_database', 'replace_database'}


def arguments():
    parser = argparse.ArgumentParser(
        prog='script/faults', description="Run jobs under faults, then audit what they left behind."
    )
    parser.add_argument('--minutes', type=float, default=2, help="for how long faults happen (2)")
    parser.add_argument('--seed', help="any text; the same one repeats the choices of a run")
    parser.add_argument('--only', default='', help="these faults alone, comma separated; none: no fault at all")
    parser.add_argument(
        '--each', action='store_true', help="one kind of fault after the other, each with its share of the time"
    )
    parser.add_argument(
        '--failover', action='store_true', help="with a standby, which takes over when the primary is lost"
    )
    parser.add_argument('--workers', type=int, default=2, help="job workers of each of the two servers (2)")
    parser.add_argument('--server', choices=world.SERVERS, help="the kind of the second server (by chance)")
    parser.add_argument('--rate', type=float, default=20, help="jobs a second (20)")
    parser.add_argument(
        '--drain', type=float, default=180, help="seconds that the queue may stand still while it drains (180)"
    )
    parser.add_argument(
        '--model', action='store_true', help="random steps against a model of the queue, instead of servers"
    )
    parser.add_argument('--list', action='store_true', help="name the faults")
    args = parser.parse_args()
    if args.list:
        say('\n'.join(map(title, Faults.WEIGHTS)))
        parser.exit()
    args.only = [name for name in args.only.split(',') if name]
    if unknown := set(args.only) - {*Faults.WEIGHTS, 'none'}:
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}; there are {', '.join(Faults.WEIGHTS)}")
    if args.failover or 'failover' in args.only:
        if excluded := set(args.only) & NOT_WITH_FAILOVER:
            parser.error(f"not together with failover: {', '.join(sorted(excluded))}")
        args.faults = args.only or [name for name in Faults.WEIGHTS if name not in NOT_WITH_FAILOVER]
    else:
        args.faults = args.only or [name for name in Faults.WEIGHTS if name != 'failover']
    for name, value in (
        ('minutes', args.minutes),
        ('workers', args.workers),
        ('rate', args.rate),
        ('drain', args.drain),
    ):
        if value <= 0:
            parser.error(f"--{name} must be more than 0, not {value:g}")
    if args.model and (args.only or args.each or args.failover or args.server):
        parser.error("--model takes only --minutes and --seed")
    args.seed = args.seed or str(random.randrange(10**6))
    args.server = args.server or random.Random(f'{args.seed} servers').choice(list(world.SERVERS))
    return args


def _commit():
    command = ['git', 'describe', '--always', '--dirty']
    return (
        subprocess.run(command, check=False, cwd=world.HERE, capture_output=True, text=True).stdout.strip() or 'unknown'
    )


def run(args):
    with world.World(args.workers, ['prefork', args.server], faults=args.faults) as place:
        version = place.cluster.sql("SHOW server_version")[0][0]
        say(
            f"commit {_commit()}, seed {args.seed}, Python {sys.version.split()[0]}, PostgreSQL {version}, servers {' and '.join(place.kinds)} × {args.workers} workers, "
            f"{len(place.databases)} databases, {args.minutes:g} minutes"
        )
        workloads = [
            workload.Workload(database, args.seed, args.rate / len(place.databases)) for database in place.databases
        ]
        faults = Faults(place, args.seed, args.faults, workloads)
        if not faults.weights and args.only != ['none']:
            say(f"skipped: {place.skipped}")
            return 3
        for load in workloads:
            load.prepare()
        for load in workloads:
            load.start()
        place.measure('at the begin')
        is_quiet = args.only == ['none']
        begin = time.monotonic()
        try:
            if is_quiet:
                time.sleep(args.minutes * 60)
            else:
                faults.run(args.minutes * 60, args.each)
        finally:
            for load in workloads:
                load.stop()
        stopped = time.monotonic()
        is_drained = drained(place, args.drain)
        drain = time.monotonic() - stopped
        place.measure('at the end')
        place.kill_servers()  # if the queue did not drain, the audit would else see jobs begin
        result = audit.Audit(place, workloads, faults, is_quiet, set(args.faults) <= {'none', 'step_clock'})
        result.run()
        result.violations += faults.violations
        errors = faults.errors + [error for load in workloads for error in load.errors]
        report(args, faults, result, workloads, errors, stopped - begin, drain if is_drained else None)
        return 1 if result.violations else 3 if errors else 0


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers, mounts and namespaces are removed
    args = arguments()
    sys.exit(model.run(args.seed, args.minutes) if args.model else run(args))
