"""Decide what becomes of a job that was stopped or that raised: it fails, is tried again, or goes back into the queue."""

from __future__ import annotations

import logging
import random
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, cast

import psycopg2

from odoo import sql_db
from odoo.exceptions import UserError
from odoo.sql_db import PoolError

from ..engine.errors import Kind, kind_of
from ..engine.fence import holds
from ..engine.job import Outcome
from ..engine.release import fail, release
from ..engine.rescue import MAX_DEATHS
from ..exceptions import ClaimLost, JobInterrupted, JobTimeout, RetryJob
from ..tools.error_text import (
    first_line,
    minimal_payload,
    safe_text,
    safe_traceback,
    tame,
)
from .execution import time_limit

if TYPE_CHECKING:
    from odoo.api import Environment

    from ..engine.job import Job
    from ..engine.session import Session
    from .execution import Execution
    from .runner import Runner

# All ends of jobs go to one logger, since tests of other addons mute it by this name.
_logger = logging.getLogger(f'{__package__}.runner')

# Setbacks, over more than half an hour, after which trouble of the server, or lost connections, count as an error of the method.
MAX_SETBACKS = 50
MAX_DELAY = 60  # maximum seconds until a job runs again after lost races or trouble of the server


class CannotBegin(Exception):  # noqa: N818 -- no error, but its cause
    """PostgreSQL refuses the statement by which jobs begin."""

    __cause__: psycopg2.Error


def is_taken_away(session: Session, job: Job, exc: BaseException) -> bool:
    """Return whether an exception means that a job was taken away from its method.

    The claim is looked up, since a method may raise these exceptions itself.

    :param Session session: the session that claimed it
    :param Job job: the job
    :param BaseException exc: the exception
    :rtype: bool
    """
    return type(exc) in (ClaimLost, JobInterrupted) and not holds(session, job)


def settle(runner: Runner, execution: Execution, exc: BaseException, begin: float) -> None:
    """Bring a job whose method or end has raised into a state that says so, whatever the exception.

    :param Runner runner: the runner of the job
    :param Execution execution: the job
    :param BaseException exc: the exception
    :param float begin: when the job began, by :func:`time.monotonic`
    """
    if execution.ended:  # a rollback hook raised when the cursor was closed
        log_failed_hook(execution, exc)
        return
    session, exc = runner.session, tame(exc)
    try:
        _handle(runner, execution, exc, begin)
    except (CannotBegin, psycopg2.Error):
        raise
    except BaseException as second:  # noqa: BLE001 -- the job must end
        if is_taken_away(session, execution.job, second):
            raise
        # From here on, an exception is only read by functions that catch anything it raises.
        _logger.error(
            "Job %s failed, and handling its failure raised an error\n%s", execution.job, safe_traceback(second)
        )
        fail(session, execution.job, minimal_payload(exc))


def _handle(runner: Runner, execution: Execution, exc: BaseException, begin: float) -> None:
    session, job = runner.session, execution.job
    if _kind(runner, execution, exc) is not Kind.METHOD:
        _send_back(session, execution, exc)
        return
    if job.deaths > MAX_DEATHS:  # a worker died while it failed the job
        _logger.error("Job %s failed, without its hook for failures: %s", job, first_line(exc))
        fail(session, job, minimal_payload(exc), starts=0)
        return
    try:
        execution.reset_registry(session.dbname)  # the hook for failures must not see values that were rolled back
        runner.run_in_place(execution, partial(record_failure, exc=exc))
    except (ClaimLost, JobInterrupted):
        raise
    except BaseException as second:  # noqa: BLE001 -- the job must end
        if kind_of(second) is Kind.METHOD:
            _logger.error("Job %s failed, but its error could not be stored in full\n%s", job, safe_traceback(second))
            fail(session, job, minimal_payload(exc))
        else:
            _send_back(session, execution, second)
    else:
        _log_failure(execution, exc, time.monotonic() - begin)


def _kind(runner: Runner, execution: Execution, exc: BaseException) -> Kind:
    """Return the kind of an exception, in the light of what else is known about the job.

    :raises psycopg2.Error: when the session is gone, and the job with it
    """
    kind = kind_of(exc)
    if issubclass(type(exc), PoolError) and runner.owns_process:
        return Kind.METHOD  # it has reached its own limit: see `pools`
    if kind is Kind.LOST and not (cast('psycopg2.Error', exc).pgcode or '').startswith('57P'):
        runner.session.execute("SELECT")
        if not execution.was_lost:
            # A connection of Odoo's pool could not be opened or was lost, or the method uses another server.
            kind = Kind.SERVER if _comes_from_pool(exc) else Kind.METHOD
    elif kind is Kind.METHOD and execution.was_lost and not isinstance(exc, RetryJob):
        kind = Kind.LOST  # the method raised because its statement could not be executed any more
    if kind in (Kind.SERVER, Kind.LOST) and _setbacks(execution) >= MAX_SETBACKS:
        return Kind.METHOD  # the trouble does not pass
    return kind


def _comes_from_pool(exc: BaseException) -> bool:
    """Return whether a connection of Odoo's pool failed. Its wrong use, such as of a closed cursor, is another class of errors."""
    frames = list(traceback.walk_tb(exc.__traceback__))
    return issubclass(type(exc), psycopg2.OperationalError) and any(
        frame.f_code.co_filename == sql_db.__file__ for frame, _line in frames[-4:]
    )


def _setbacks(execution: Execution) -> int:
    """Return the setbacks of a job: how often its method began and did not end by itself, without a death of its worker."""
    job = execution.job
    return job.starts + execution.starts - job.attempts - job.deaths


def record_failure(env: Environment, execution: Execution, exc: BaseException) -> None:
    """Decide and write the outcome of a job whose method raised.

    :param odoo.api.Environment env: an environment of the superuser, on the cursor of the job
    :param Execution execution: the job
    :param BaseException exc: the exception
    """
    job = execution.job
    # A job that was cancelled while its method was raising is not tried again.
    outcome = outcome_of_stop(env, execution) if job.stop else env['ir.async']._outcome_of_error(job, exc)
    execution.outcome = outcome
    env['ir.async']._finish(job, outcome, execution.starts)
    execution.on_failure()  # not before: the error's text and the hook for failures are the job's own code


def outcome_of_stop(env: Environment, execution: Execution) -> Outcome:
    """Decide the outcome of a job that was cancelled or ran out of time.

    :param odoo.api.Environment env: an environment of the superuser, on the cursor of the job
    :param Execution execution: the job
    :rtype: Outcome
    """
    job = execution.job
    if job.stop == 'cancel':
        _logger.info("Job %s was cancelled", job)
        return Outcome('cancelled', attempts=0)
    exc = JobTimeout(f"The job took longer than {execution.given_time or time_limit(job):g} seconds")
    _logger.error("Job %s failed: %s", job, exc)
    return env['ir.async']._outcome_of_error(
        job, exc, job.stop_debug or "Where it was: in code that let no other thread run\n"
    )


def _send_back(session: Session, execution: Execution, exc: BaseException) -> None:
    """Put a job back into the queue, with a growing delay. The job is not to blame, so this costs no attempt."""
    job = execution.job
    delay = min(MAX_DELAY, 0.5 * 1.3 ** min(_setbacks(execution), 40)) * random.uniform(0.2, 1)
    _logger.info("Job %s is put back into the queue and runs again in %.1fs: %s", job, delay, first_line(exc))
    payload = minimal_payload(exc)
    execution.on_failure()
    # An error alone does not prove that the claim is lost. So the claim is looked up.
    if not release(session, [job], starts=execution.starts, delay=delay, payload=payload):
        if not holds(session, job):
            raise ClaimLost from exc
        msg = f"another transaction has locked job {job}"  # this session ends with the error, and rescue then finds the job
        raise psycopg2.OperationalError(msg) from exc


def log_failed_hook(execution: Execution, exc: BaseException) -> None:
    """Log the exception of a hook that ran after the outcome of its job was committed."""
    _logger.error(
        "The outcome of job %s is committed, but a hook after it failed\n%s", execution.job, safe_traceback(exc)
    )


def _log_failure(execution: Execution, exc: BaseException, duration: float) -> None:
    job, outcome = execution.job, execution.outcome
    if job.stop:
        return  # `outcome_of_stop` has logged it
    assert outcome, "`record_failure` has decided"
    again = ""
    if outcome.state == 'created':
        again = f", attempt {job.attempts + 1} of {job.max_attempts}, runs again in {outcome.delay:.0f}s"
    if isinstance(exc, RetryJob):
        _logger.info("Job %s runs again in %.0fs: %s", job, outcome.delay, safe_text(exc))
    elif isinstance(exc, UserError):
        _logger.warning("Job %s failed after %.3fs%s: %s", job, duration, again, safe_text(exc))
    else:
        level = logging.WARNING if again else logging.ERROR
        _logger.log(level, "Job %s failed after %.3fs%s\n%s", job, duration, again, safe_traceback(exc))
