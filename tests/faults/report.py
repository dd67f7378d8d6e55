"""What a run found, in Markdown."""

import contextlib
import sys
from collections import Counter

from .faults import Faults
from .log import lines_of
from .violations import RESULTS

SHOWN = 20  # violations of one kind


def say(text=''):
    sys.stdout.write(f'{text}\n')
    sys.stdout.flush()


def title(name):
    return f"{name}: {getattr(Faults, name).__doc__}"


def report(args, faults, result, workloads, errors, seconds, drain):
    calls = [call for load in workloads for call in load.calls]
    fates = Counter(call.fate for call in calls)
    say()
    say("| jobs | |\n|---|---|")
    say(f"| jobs in the queue | {result.counts['jobs']} in {seconds:.0f} s |")
    say(
        f"| calls | {', '.join(f'{count} {fate}' for fate, count in fates.items())} (unknown: the answer of the COMMIT was lost) |"
    )
    say(
        f"| by state, as intended but for the results below | {', '.join(f'{count} {state}' for state, count in sorted(result.states.items()))} |"
    )
    say(f"| methods begun, with repetitions | {len(result.runs)} |")
    say(f"| drained | {'no' if drain is None else f'after {drain:.0f} s'} |")
    say(f"| the latest begin of a dated job | {max(result.waits, default=0):.1f} s after its date |")
    say(f"| transactions of callers that a fault broke | {result.counts['transactions broken']} |")
    say(f"| servers that ended by themselves and were started again | {len(result.world.ended)} |")
    if faults.guests:
        states = ', '.join(f'{count} {state}' for state, count in sorted(faults.guests.items()))
        say(f"| jobs of databases that came and went | {states} |")
    for when, megabytes in result.world.memory.items():
        say(f"| memory of each worker {when}, MB (PSS) | {', '.join(f'{size:.0f}' for size in megabytes)} |")
    say()
    if args.each:
        say("| fault, alone | times | seconds | methods begun |\n|---|---|---|---|")
        for turn in faults.turns:
            [name], begun = turn.names, sum(turn.begin <= run.begin < turn.end for run in result.runs)
            say(f"| {title(name)} | {faults.counts[name]} | {turn.end - turn.begin:.0f} | {begun} |")
    else:
        say("| fault | times |\n|---|---|")
        for name, count in sorted(faults.counts.items()):
            say(f"| {title(name)} | {count} |")
    for name, reason in sorted(result.world.skipped.items()):
        say(f"| {name} | skipped: {reason} |{' | |' * args.each}")
    say()
    say("| result | |\n|---|---|")
    found = Counter(violation.result for violation in result.violations)
    for name, text in RESULTS.items():
        say(f"| {text} ({name}) | {found[name]} |")
    shown = Counter()
    for violation in result.violations:
        shown[violation.result] += 1
        if shown[violation.result] <= SHOWN:
            say(f"{violation.result}: {violation.database} job {violation.job_id}: {violation.text}")
    with contextlib.suppress(ValueError):
        job_ids = {violation.job_id for violation in result.violations if violation.job_id}
        for line in lines_of(result.world, job_ids)[:200]:
            say(f"  {line}")
    for text in result.world.ended:
        say(f"a server ended: {text[:300]}")
    for error, count in Counter(errors).items():
        say(f"the suite itself: {count} × {error}")
    say(f"seed {args.seed}: {'violations' if result.violations else 'no violation'}")
    if errors:
        say("The suite itself had errors, so this run proves less.")
