"""Run jobs in the current process and thread: in cron workers where no job worker serves the database, and for a debugger."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

import psycopg2

from odoo.modules.registry import Registry
from odoo.tools import config

from ..engine.claim import claim_one
from ..engine.maintenance import LOOK_INTERVAL
from ..engine.origin import incomplete
from ..engine.registration import note_running
from ..engine.session import Session
from ..tools.error_text import first_line
from .execution import Execution, time_limit
from .hosting import awaited, is_prefork, is_stopping, replace
from .process_state import ProcessState
from .publisher import publish
from .runner import Runner
from .standby import Standby, take_note_back
from .thread_state import ThreadState

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..engine.job import Job

_logger = logging.getLogger(__name__)

MARGIN = 5  # seconds before the time limit of the cron worker at which a job is stopped
MAX_WAIT = 5  # maximum seconds that a cron worker waits for the next job
STOP_DELAY = 1  # minimum seconds until the next run, so that a stopping server does not run the action again and again
STOP_LOOK_INTERVAL = 0.2  # seconds between two looks for a stop of the server while the cron worker waits


WHY_NOT = {
    'waiting': "it waits for other jobs",
    'created': "it came with a copy of another database, call its method adopt() first",
    'processing': "a worker is running it",
    'failed': "retry it first",
    'cancelled': "retry it first",
    'succeeded': "it has ended",
    'done': "it has ended",
}


class CannotRun(Exception):
    """This server cannot run jobs of the database, or the job cannot begin."""


def run_one(dbname: str, job_id: int) -> str:
    """Run one given job, however long it takes.

    :param str dbname: its database
    :param int job_id: the job
    :return: its state afterwards
    :rtype: str
    :raises CannotRun: when this server cannot run jobs of the database, or that job cannot begin
    """
    # The session comes before the registry, which would install Odoo in a database that does not have it.
    try:
        session, _delay = Session.open(dbname, always=True)
    except psycopg2.Error as exc:
        msg = f"database {dbname} cannot be used: {first_line(exc)}"
        raise CannotRun(msg) from exc
    if not session:
        msg = f"database {dbname} does not have this version of ir_async: install or upgrade the module"
        if missing := incomplete.get(dbname):
            msg = f"the addons path lacks installed modules of database {dbname}: {', '.join(missing)}"
        raise CannotRun(msg)
    with _runner(session) as runner:
        Registry(dbname)
        try:
            jobs = claim_one(session, job_id)
        except psycopg2.errors.LockNotAvailable as exc:
            msg = f"another transaction has locked job {job_id}: try again later"
            raise CannotRun(msg) from exc
        for job in jobs:
            runner.prepare(job)
            runner.run(Execution(job))
            session.unblock([job.id])
        publish(session)
        states = [state for (state,) in session.execute("SELECT state FROM ir_async WHERE id = %s", [job_id])]
    if not states:
        msg = f"there is no job {job_id} in database {dbname}"
        raise CannotRun(msg)
    if not jobs:
        msg = f"job {job_id} is {states[0]}: {WHY_NOT[states[0]]}"
        raise CannotRun(msg)
    return states[0]


def run_for(dbname: str, seconds: float) -> float | None:
    """Run jobs for some time.

    :param str dbname: the database
    :param float seconds: the time after which no further job is begun
    :return: seconds until the next run; None: not before a job is enqueued
    :rtype: float | None
    """
    begin = time.monotonic()
    limit = _cron_limit()
    if limit:
        seconds = min(seconds, limit / 4)
    session, delay = Session.open(dbname)
    if not session:
        return delay
    session.channels = []  # the setting only applies to the job workers of this server
    with awaited(), _runner(session) as runner:
        delay, next_look = 0, begin + LOOK_INTERVAL
        while delay == 0 and time.monotonic() < begin + seconds and not (is_stopping() or runner.must_end):
            if jobs := session.claim(1):
                _run(session, runner, jobs[0], limit and begin + limit)
                if time.monotonic() >= next_look:
                    session.wake()  # nobody listens here
                    session.maintain(is_busy=True)
                    next_look = time.monotonic() + LOOK_INTERVAL
            else:
                delay = session.maintain()
                if delay and delay <= MAX_WAIT:  # triggers of crons are not accurate to the second
                    _wait(delay)
                    delay = 0
            publish(session)
    if delay is not None and is_stopping():
        return max(delay, STOP_DELAY)
    return delay


def _wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0 and not is_stopping():
        time.sleep(min(rest, STOP_LOOK_INTERVAL))


@contextlib.contextmanager
def _runner(session: Session) -> Generator[Runner]:
    # In a threaded server, requests run in the same process and change its state, too. So only the thread is set back.
    runner = Runner(session, ProcessState() if is_prefork() else ThreadState())
    try:
        yield runner
    finally:
        runner.close()
        session.close()
        if runner.must_end and is_prefork():
            _logger.warning("This cron worker is replaced: a job changed its process in a way that cannot be undone")
            replace()


def _cron_limit() -> float:
    """Return the seconds after which the server ends this cron worker, less a margin; 0: never."""
    limit = config['limit_time_real_cron']
    limit = config['limit_time_real'] if limit == -1 else limit
    return max(limit - MARGIN, limit / 2) if limit else 0


def _run(session: Session, runner: Runner, job: Job, end: float | None) -> None:
    execution = Execution(job)
    runner.prepare(job)
    begin, limit = time.monotonic(), time_limit(job)
    execution.deadline = min(filter(None, [limit and begin + limit, end]), default=None)
    try:
        # If this process dies and its server lives, the note lets the next run charge the job.
        note_running(session, job)
        Standby(session, runner, execution).run()
        note_running(session, None)
    except psycopg2.Error:  # the connection was cut, but this process lives
        take_note_back(session)
        raise
    session.unblock([job.id])
