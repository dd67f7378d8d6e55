"""The environment that script/lib.sh has prepared, for the scripts in Python."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = Path(os.environ['IR_ASYNC_STATE'])
CACHE = STATE.parent
ODOO = [sys.executable, os.environ['IR_ASYNC_ODOO']]
ADDON = STATE / 'addons' / 'ir_async'  # a link with the name of the module, since the checkout may have another name

BAD_LINE = re.compile(r'^\S+ \S+ \d+ (WARNING|ERROR|CRITICAL) ')
# The files that an installed database depends on. A change of other files needs no new installation.
INSTALLED = ('**/*.py', '**/*.xml', '**/*.csv', '**/*.sql', '**/*.po*')
NOT_INSTALLED = {'benchmarks', 'docs', 'engine', 'service', 'static', 'tests'}
STORED = {'engine/fence.py', 'engine/job.py'}  # their SQL is in functions and indexes of the database


@contextlib.contextmanager
def cluster():
    """Stop the cluster at the end if this script has started it, unless another script uses it by then."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        if os.environ.get('IR_ASYNC_STOP_CLUSTER'):
            os.close(7)  # this script does not use the cluster any more: see cluster_start in lib.sh
            subprocess.run([ROOT / 'script' / 'setup', '--stop'], check=False)


def fingerprint():
    digest = hashlib.sha256(ODOO[1].encode())
    for path in sorted({path for pattern in INSTALLED for path in ROOT.glob(pattern)}):
        relative = path.relative_to(ROOT)
        is_installed = relative.parts[0] not in NOT_INSTALLED and relative.parent != Path('script')
        if is_installed or str(relative) in STORED:
            digest.update(f'{relative} {path.stat().st_size}\n'.encode() + path.read_bytes())
    return digest.hexdigest()


def psql(query, database='postgres'):
    return subprocess.run(
        ['psql', '-XAtc', query, database],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.split()


def databases():
    return psql('SELECT datname FROM pg_database')


def create_database(name, modules, *options, template='template1'):
    """Install modules into a new database.

    :return: warnings and errors in the log; empty if all went well
    """
    log = STATE / f'{name}.log'
    log.unlink(missing_ok=True)
    filestore = STATE / 'data' / 'filestore'
    subprocess.run(
        ['dropdb', '--if-exists', '--force', name],
        check=True,
        env=os.environ | {'PGOPTIONS': '-c client_min_messages=warning'},
    )
    subprocess.run(['createdb', '-T', template, name], check=True)
    shutil.rmtree(filestore / name, ignore_errors=True)
    if (filestore / template).exists():
        shutil.copytree(filestore / template, filestore / name)
    done = subprocess.run(
        [
            *ODOO,
            '-d',
            name,
            '-i',
            modules,
            '--skip-auto-install',
            '--stop-after-init',
            '--no-http',
            '--max-cron-threads=0',
            f'--logfile={log}',
            *options,
        ],
        check=False,
        env=os.environ | {'ODOO_IR_ASYNC_WORKERS': '0'},
        capture_output=True,
        text=True,
    )
    lines = log.read_text(encoding='utf-8').splitlines() if log.exists() else []
    if done.returncode:
        return [*lines[-30:], done.stderr]
    return [line for line in lines if BAD_LINE.match(line)]
