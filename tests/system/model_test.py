"""The queue against a model of it: random steps of callers, workers and users, each compared."""

import logging
from importlib import import_module

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test


def test_random_steps(database, caplog):
    """In each run the same steps. ``script/faults --model`` takes others."""
    caplog.set_level(logging.CRITICAL, 'odoo')
    machine = import_module('queue_machine').QueueMachine
    machine.database = database
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=50, stateful_step_count=50, deadline=None, database=None, derandomize=True),
    )
