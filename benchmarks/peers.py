"""The other systems, downloaded as Python packages. This repository has no code of theirs."""
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PEERS = Path(os.environ.get('IR_ASYNC_BENCH', '/tmp')) / 'peers'
QUEUE_JOB = 'odoo-addon-queue-job==19.0.2.4.0.1'
PGQUEUER = 'pgqueuer[asyncpg]==1.6.0'


class Unavailable(Exception):
    """A system cannot be measured here; the text says why."""


def _pip(*args):
    done = subprocess.run(
        [sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check', '--no-input', *args],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if 'ERROR' in line] or [f'pip: {done.returncode}']
        raise Unavailable(lines[-1].removeprefix('ERROR: '))


def _fetched(name, fetch):
    folder = PEERS / name
    if not folder.exists():
        staged = PEERS / f'{name}.new'
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        fetch(staged)
        staged.rename(folder)
    return folder


def queue_job():
    """Return the folder of queue_job, and the folder of the packages that it needs."""
    def fetch(folder):
        _pip('download', '--no-deps', '-d', folder, QUEUE_JOB)
        for wheel in folder.glob('*.whl'):
            zipfile.ZipFile(wheel).extractall(folder)
        _pip('install', '--no-deps', '--target', folder / 'packages', 'openupgradelib', 'cssselect')
    folder = _fetched(QUEUE_JOB, fetch)
    return folder / 'odoo' / 'addons', folder / 'packages'


def pgqueuer():
    """Return the folder of pgqueuer and the packages that it needs."""
    return _fetched(PGQUEUER, lambda folder: _pip('install', '--target', folder, PGQUEUER))
