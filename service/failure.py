"""What becomes of a job that was stopped, or whose method or end raised: it fails, is tried again, or goes back into the queue."""
from __future__ import annotations

import logging
import random
import time
import traceback
from functools import partial

import psycopg2

from odoo import sql_db
from odoo.exceptions import UserError

from ..engine.errors import Kind, kind_of
from ..engine.fence import holds
from ..engine.job import Outcome
from ..engine.release import fail, release
from ..exceptions import ClaimLost, JobInterrupted, JobTimeout, RetryJob
from ..tools.error_text import (
    first_line,
    minimal_payload,
    safe_text,
    safe_traceback,
    tame,
)
from .execution import time_limit

# One logger says how jobs end: tests of other addons mute it by this name.
_logger = logging.getLogger(f'{__package__}.runner')

MAX_SETBACKS = 50  # from which on, after more than half an hour, trouble of the server is taken for the method's
MAX_DELAY = 60  # seconds before a job is run again that lost races, or met trouble of the server


class CannotBegin(Exception):  # noqa: N818 -- no error, but its cause
    """PostgreSQL refuses the statement by which jobs begin."""


def is_taken_away(session, job, exc):
    """Return whether an exception says that a job was taken from its method. The claim is looked up: a method may raise anything.

    :param Session session: the session that claimed it
    :param Job job: the job
    :param BaseException exc: what was raised
    :rtype: bool
    """
    return type(exc) in (ClaimLost, JobInterrupted) and not holds(session, job)


def settle(runner, execution, exc, begin):
    """Have a job end in a state that says so, whatever its method, or its end, raised.

    :param Runner runner: what ran it
    :param Execution execution: the job
    :param BaseException exc: what was raised
    :param float begin: when the job began, as :func:`time.monotonic` says it
    """
    if execution.ended:  # a hook of the rollback, when the cursor was closed
        log_failed_hook(execution, exc)
        return
    session, exc = runner.session, tame(exc)
    try:
        _handle(runner, execution, exc, begin)
    except (CannotBegin, psycopg2.Error):
        raise
    except BaseException as second:  # noqa: BLE001 -- there must be an end
        if is_taken_away(session, execution.job, second):
            raise
        # From here on an exception is looked at only where whatever that raises is caught.
        _logger.error("The failure of job %s could not be handled\n%s", execution.job, safe_traceback(second))
        fail(session, execution.job, minimal_payload(exc))


def _handle(runner, execution, exc, begin):
    session, job = runner.session, execution.job
    if _kind(session, execution, exc) is not Kind.METHOD:
        _send_back(session, execution, exc)
        return
    try:
        execution.reset_registry(session.dbname)  # the hook for failures must not see what was rolled back
        runner.run_in_place(execution, partial(record_failure, exc=exc))
    except (ClaimLost, JobInterrupted):
        raise
    except BaseException as second:  # noqa: BLE001 -- whatever it is, the job ends
        if kind_of(second) is Kind.METHOD:
            _logger.error("The failure of job %s could not be recorded in full\n%s", job, safe_traceback(second))
            fail(session, job, minimal_payload(exc))
        else:
            _send_back(session, execution, second)
    else:
        _log_failure(execution, exc, time.monotonic() - begin)


def _kind(session, execution, exc):
    """Return the kind of an exception, after a look at what else is known about the job.

    :raises psycopg2.Error: when the session is gone, and the job with it
    """
    kind = kind_of(exc)
    if kind is Kind.LOST and not (exc.pgcode or '').startswith('57P'):
        session.execute("SELECT")
        if not execution.was_lost:
            # Odoo's pool could not connect to our server; or the method has to do with another one.
            kind = Kind.SERVER if _comes_from_pool(exc) else Kind.METHOD
    elif kind is Kind.METHOD and execution.was_lost and not isinstance(exc, RetryJob):
        return Kind.LOST  # it stumbled over a statement that could not be executed any more
    if kind is Kind.SERVER and _setbacks(execution) >= MAX_SETBACKS:
        return Kind.METHOD  # it does not pass
    return kind


def _comes_from_pool(exc):
    """Return whether an error was raised when Odoo's pool opened a connection: psycopg2 gives it no code."""
    frames = list(traceback.walk_tb(exc.__traceback__))
    return any(
        frame.f_code.co_name == 'borrow' and frame.f_code.co_filename == sql_db.__file__ for frame, _line in frames[-4:])


def _setbacks(execution):
    """Return how often a method was begun, and neither it nor its worker was to blame that it did not end."""
    job = execution.job
    return (job.starts or 0) + execution.starts - (job.attempts or 0) - (job.deaths or 0)


def record_failure(env, execution, exc):
    """Write what becomes of a job whose method raised.

    :param odoo.api.Environment env: the superuser's, on the cursor of the job
    :param Execution execution: the job
    :param BaseException exc: what was raised
    """
    execution.on_failure()
    job = execution.job
    # A cancel that came while the method was raising: the job is not tried again.
    outcome = outcome_of_stop(env, execution) if job.stop else env['ir.async']._outcome_of_error(job, exc)
    execution.outcome = outcome
    env['ir.async']._finish(job, outcome, execution.starts)


def outcome_of_stop(env, execution):
    """Decide how a job ends that was cancelled, or whose time was over.

    :param odoo.api.Environment env: the superuser's, on the cursor of the job
    :param Execution execution: the job
    :rtype: Outcome
    """
    job = execution.job
    if job.stop == 'cancel':
        _logger.info("Job %s is cancelled", job)
        return Outcome('cancelled', attempts=0)
    exc = JobTimeout(f"The job took longer than {execution.given_time or time_limit(job):g} seconds")
    _logger.error("Job %s failed: %s", job, exc)
    return env['ir.async']._outcome_of_error(
        job, exc, job.stop_debug or "Where it was: in code that did not let anything else run\n")


def _send_back(session, execution, exc):
    """Put a job back into the queue. It is not its fault, so it costs no attempt; the delay grows."""
    job = execution.job
    delay = min(MAX_DELAY, 0.5 * 1.3 ** min(_setbacks(execution), 40)) * random.uniform(0.2, 1)
    _logger.info("Job %s goes back into the queue for %.1fs: %s", job, delay, first_line(exc))
    # The claim is looked up, not concluded from an error.
    if not release(session, [job], starts=execution.starts, delay=delay, payload=minimal_payload(exc)):
        if not session.execute("SELECT FROM ir_async WHERE id = %s AND session = %s", [job.id, session.key]):
            raise ClaimLost from exc
        msg = f"somebody has job {job} locked"  # it is found again without this session
        raise psycopg2.OperationalError(msg) from exc


def log_failed_hook(execution, exc):
    """Log what a hook raised when the outcome of its job was committed."""
    _logger.error("Job %s is done, but a hook after its commit failed\n%s", execution.job, safe_traceback(exc))


def _log_failure(execution, exc, duration):
    job, outcome = execution.job, execution.outcome
    if job.stop:
        return  # said already
    again = ""
    if outcome.state == 'created':
        again = f", attempt {job.attempts + 1} of {job.max_attempts}, tried again in {outcome.delay:.0f}s"
    if isinstance(exc, RetryJob):
        _logger.info("Job %s is tried again in %.0fs: %s", job, outcome.delay, safe_text(exc))
    elif isinstance(exc, UserError):
        _logger.warning("Job %s failed after %.3fs%s: %s", job, duration, again, safe_text(exc))
    else:
        _logger.error("Job %s failed after %.3fs%s\n%s", job, duration, again, safe_traceback(exc))
