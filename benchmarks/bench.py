"""The command of the benchmark: see script/bench."""
import argparse
import contextlib
import os
import signal
import sys
import time

import scenarios
from scenarios import SCENARIOS


def main():
    parser = argparse.ArgumentParser(prog='script/bench', description="How fast, beside others.")
    parser.add_argument('--quick', action='store_true', help="under three minutes; without the largest rows")
    parser.add_argument('--json', metavar='FILE', help="write all figures there")
    parser.add_argument('--list', action='store_true', help="name the scenarios")
    parser.add_argument('scenarios', nargs='*', metavar='SCENARIO', help="these alone")
    args = parser.parse_args()
    if args.list:
        for name, function in SCENARIOS.items():
            print(f'{name:10} {function.__doc__.splitlines()[0]}')
        return 0
    if unknown := set(args.scenarios) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")

    import pg  # noqa: PLC0415 -- both modules need the environment of script/bench
    import report  # noqa: PLC0415
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pg.prepare_roles()
    names = args.scenarios or [
        name for name in SCENARIOS if not (args.quick and name in scenarios.LARGE)]
    head = report.header(scenarios.WORKERS, args.quick)
    start = time.monotonic()
    with contextlib.closing(scenarios.Bench(args.quick)) as bench:
        bench.start(names)
        ready = time.monotonic()
        for name in names:
            print(f'{time.monotonic() - start:5.0f} s  {name}', file=sys.stderr, flush=True)
            bench.run(name)
        bench.finish()
    head['duration'] = f'{ready - start:.0f} s to start, {time.monotonic() - ready:.0f} s to measure'
    print(report.markdown(head, bench.rows))
    if args.json:
        report.dump(os.path.expanduser(args.json), head, bench.rows)
    return 0


if __name__ == '__main__':
    sys.exit(main())
