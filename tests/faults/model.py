"""script/faults --model: random steps of callers, workers and users, each compared with a model of the queue."""

import itertools
import sys
import time
from importlib import import_module
from unittest.mock import patch

import hypothesis
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import run_state_machine_as_test

from . import world

SHRINK_TIME = 60  # seconds that reducing a failure may take
SETTINGS = hypothesis.settings(
    max_examples=10,  # few, since the time is looked at between two rounds
    stateful_step_count=50,
    deadline=None,
    database=None,
    phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],  # explaining a failure takes minutes
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def run(seed, minutes):
    """Run the machine for some time.

    :param str seed: repeats a run
    :param float minutes: the time after which no further round is begun
    :raises Exception: when a step differs from the model, with the steps as its notes; to reduce these may take a minute more
    """
    end = time.monotonic() + minutes * 60
    with world.World(0, [], names=('model',)) as place:
        machine = import_module('queue_machine').QueueMachine
        machine.database = place.databases[0]
        for number in itertools.count():
            round_seed = f'{seed}/{number}' if number else seed
            sys.stdout.write(f"--model --seed {round_seed}\n")
            sys.stdout.flush()
            with patch.object(engine, 'MAX_SHRINKING_SECONDS', SHRINK_TIME):
                run_state_machine_as_test(hypothesis.seed(round_seed)(machine), settings=SETTINGS)
            if time.monotonic() >= end:
                sys.stdout.write(f"no difference in {number + 1} rounds of random steps\n")
                return
