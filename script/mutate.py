"""Plant faults in a copy of the checkout, and count the ones that no test finds: see script/mutate."""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from mutations import FAULTS

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 600  # seconds for the tests of one fault, since a fault may make them hang
FAILED = re.compile(r'^(?:FAILED|ERROR|SUBFAILED.*?) \S*?(\w+\.py::\S+)', re.MULTILINE)


def copy_checkout(copy):
    """Copy the files of the checkout, with the changes that are not committed."""
    shutil.rmtree(copy, ignore_errors=True)
    listed = subprocess.check_output(['git', 'ls-files', '-z', '-co', '--exclude-standard'], cwd=ROOT, text=True)
    for name in listed.split('\0'):
        if name and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)


def run(copy, tests):
    """Run tests in the copy, up to the first failure.

    :return: whether they passed, the name of the test that failed, and the output
    """
    command = [copy / 'script' / 'test', *(f'tests/{test}' for test in tests), '-x']
    with subprocess.Popen(
        command, cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _errors = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            return False, "the time limit", process.communicate()[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
    found = FAILED.search(output)
    return process.returncode == 0, found and found[1], output


def try_out(copy, fault):
    """Plant a fault and take it back. Return what became of it, and whether that is good."""
    path = copy / fault.path
    source = path.read_text(encoding='utf-8')
    try:
        changed = fault.plant(source)
    except ValueError as exc:
        return str(exc), False
    path.write_text(changed, encoding='utf-8')
    try:
        passed, test, output = run(copy, fault.tests)
    finally:
        path.write_text(source, encoding='utf-8')
    if passed:
        return "SURVIVED", False
    if not test:
        return f"NO TEST RAN\n{output[-2000:]}", False
    return f"found by {test}", True


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the tests are ended, too
    parser = argparse.ArgumentParser(prog='script/mutate')
    parser.add_argument('copy', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('names', nargs='*', help="faults, or files whose faults are planted; by default all")
    parser.add_argument('--list', action='store_true', help="name the faults")
    args = parser.parse_args()
    faults = [
        fault for fault in FAULTS if not args.names or any(name in (fault.path, fault.name) for name in args.names)
    ]
    if unknown := set(args.names) - {name for fault in FAULTS for name in (fault.path, fault.name)}:
        parser.error(f"no fault and no file with faults: {', '.join(sorted(unknown))}; see --list")
    if args.list:
        print(*(f'{fault.name}  {fault.path}' for fault in faults), sep='\n')
        return 0
    copy_checkout(args.copy)
    for kind in ('system/', 'test_'):
        tests = sorted({test for fault in faults for test in fault.tests if test.startswith(kind)})
        if tests and not (result := run(args.copy, tests))[0]:
            print(result[2], f"Without a fault, {result[1]} fails", sep='\n')
            return 1
    bad = 0
    for fault in faults:
        begin = time.monotonic()
        result, good = try_out(args.copy, fault)
        bad += not good
        print(f'{fault.name}: {result} ({time.monotonic() - begin:.0f} s)', flush=True)
    print(f'\nfound: {len(faults) - bad}, not found: {bad}')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
