"""A short run of the fault suite: see script/faults."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_faults():
    path = os.pathsep.join([os.environ['PYTHONPATH'], str(TESTS), str(TESTS / 'system')])
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'faults',
            '--minutes=0.5',
            '--seed=1',
            '--only=kill_worker,cut_at_message,lock_row,archive_user',
        ],
        check=False,
        env=os.environ | {'PYTHONPATH': path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert not done.returncode, done.stdout
