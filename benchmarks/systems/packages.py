"""Other systems, downloaded as Python packages. This repository has no code of theirs."""

import shutil
import subprocess
import sys

from .system import BENCH, Unavailable


def pip(*args):
    """Run pip.

    :raises Unavailable: when it fails
    """
    done = subprocess.run(
        [sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check', '--no-input', *args],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if 'ERROR' in line] or [f'pip: {done.returncode}']
        raise Unavailable(lines[-1].removeprefix('ERROR: '))


def fetched(name, fetch, kind='peers'):
    """Return the folder of a package. If it does not exist, ``fetch`` fills it."""
    folder = BENCH / kind / name
    if not folder.exists():
        staged = folder.with_name(f'{name}.new')
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        fetch(staged)
        staged.rename(folder)
    return folder
