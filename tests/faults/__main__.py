"""script/faults: run jobs under faults, then audit."""

import argparse
import contextlib
import random
import sys
import time
from collections import Counter

from . import audit, injector, model, workload, world

SHOWN = 20  # violations of one kind


def say(text=''):
    sys.stdout.write(f'{text}\n')
    sys.stdout.flush()


def arguments():
    parser = argparse.ArgumentParser(
        prog='script/faults', description="Run jobs under faults, then audit what they left behind."
    )
    parser.add_argument('--minutes', type=float, default=2, help="for how long faults happen (2)")
    parser.add_argument('--seed', help="repeat the choices of a run")
    parser.add_argument('--only', default='', help="these faults alone, comma separated; none: no fault at all")
    parser.add_argument('--workers', type=int, default=2, help="job workers of each of the two servers (2)")
    parser.add_argument('--rate', type=float, default=20, help="jobs a second (20)")
    parser.add_argument('--drain', type=float, default=180, help="seconds that the queue may take to drain (180)")
    parser.add_argument(
        '--model', action='store_true', help="random steps against a model of the queue, instead of servers"
    )
    args = parser.parse_args()
    args.only = [name for name in args.only.split(',') if name]
    if unknown := set(args.only) - {*injector.Faults.WEIGHTS, 'none'}:
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}; there are {', '.join(injector.Faults.WEIGHTS)}")
    args.seed = args.seed or str(random.randrange(10**6))
    return args


def run(args):
    with world.World(args.workers) as place:
        version = place.cluster.sql("SHOW server_version")[0][0]
        say(
            f"seed {args.seed}, PostgreSQL {version}, {len(place.servers)} servers × {args.workers} workers, "
            f"{len(place.databases)} databases, {args.minutes:g} minutes"
        )
        workloads = [
            workload.Workload(database, args.seed, args.rate / len(place.databases)) for database in place.databases
        ]
        faults = injector.Faults(place, args.seed, args.only)
        for load in workloads:
            load.prepare()
        for load in workloads:
            load.start()
        is_quiet = args.only == ['none']
        begin = time.monotonic()
        try:
            if is_quiet:
                time.sleep(args.minutes * 60)
            else:
                faults.run(args.minutes * 60)
        finally:
            for load in workloads:
                load.stop()
        stopped = time.monotonic()
        is_drained = injector.drained(place, args.drain)
        drain = time.monotonic() - stopped
        result = audit.Audit(place, workloads, faults.cleaned, is_quiet)
        result.run()
        report(args, faults, result, workloads, stopped - begin, drain if is_drained else None)
        return 1 if result.violations or faults.errors or any(load.errors for load in workloads) else 0


def report(args, faults, result, workloads, seconds, drain):
    calls = [call for load in workloads for call in load.calls]
    fates = Counter(call.fate for call in calls)
    say()
    say("| jobs | |\n|---|---|")
    say(f"| jobs in the queue | {result.counts['jobs']} in {seconds:.0f} s |")
    say(f"| calls | {', '.join(f'{count} {fate}' for fate, count in fates.items())} |")
    say(f"| by state | {', '.join(f'{count} {state}' for state, count in sorted(result.states.items()))} |")
    say(f"| methods begun | {len(result.runs)} |")
    say(f"| drained | {'no' if drain is None else f'after {drain:.0f} s'} |")
    say(f"| transactions of callers that a fault broke | {result.counts['transactions broken']} |")
    say(f"| servers that ended by themselves and were started again | {len(result.world.ended)} |")
    say()
    say("| fault | times |\n|---|---|")
    for name, count in sorted(faults.counts.items()):
        say(f"| {name}: {getattr(injector.Faults, name).__doc__} | {count} |")
    say()
    say("| result | |\n|---|---|")
    found = Counter(violation.result for violation in result.violations)
    for name, text in audit.RESULTS.items():
        say(f"| {text} ({name}) | {found[name]} |")
    shown = Counter()
    for violation in result.violations:
        shown[violation.result] += 1
        if shown[violation.result] <= SHOWN:
            say(f"{violation.result}: {violation.database} job {violation.job_id}: {violation.text}")
    with contextlib.suppress(ValueError):
        job_ids = {violation.job_id for violation in result.violations if violation.job_id}
        for line in result.log_lines(job_ids)[:200]:
            say(f"  {line}")
    for text in result.world.ended:
        say(f"a server ended: {text[:300]}")
    for error in Counter(faults.errors + [error for load in workloads for error in load.errors]).items():
        say(f"the suite itself: {error[1]} × {error[0]}")
    say(f"seed {args.seed}: {'violations' if result.violations else 'no violation'}")


if __name__ == '__main__':
    args = arguments()
    sys.exit(model.run(args.seed, args.minutes) if args.model else run(args))
