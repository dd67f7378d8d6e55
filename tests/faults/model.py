"""script/faults --model: random steps of callers, workers and users, each compared with a model of the queue."""

import itertools
import sys
import time
from importlib import import_module

import hypothesis
from hypothesis.stateful import run_state_machine_as_test

from . import world

SETTINGS = hypothesis.settings(
    max_examples=50,
    stateful_step_count=50,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def run(seed, minutes):
    """Run the machine for some time.

    :param str seed: repeats a run
    :param float minutes: the time after which no further round is begun
    :raises Exception: when a step differs from the model, with the steps as its notes
    """
    end = time.monotonic() + minutes * 60
    with world.World(0, servers=0, names=('model',)) as place:
        machine = import_module('queue_machine').QueueMachine
        machine.database = place.databases[0]
        for number in itertools.count():
            round_seed = f'{seed}/{number}' if number else seed
            sys.stdout.write(f"--model --seed {round_seed}\n")
            sys.stdout.flush()
            run_state_machine_as_test(hypothesis.seed(round_seed)(machine), settings=SETTINGS)
            if time.monotonic() >= end:
                return
