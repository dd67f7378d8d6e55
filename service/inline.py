"""Run jobs in this very process and thread: for the cron workers, where there are no workers of ours, and for a debugger."""
from __future__ import annotations

import contextlib
import logging
import os
import threading
import time

import psycopg2

import odoo
from odoo.modules.registry import Registry
from odoo.service.server import PreforkServer
from odoo.tools import config

from ..engine.session import Session
from .execution import Execution
from .process_state import ProcessState
from .publisher import publish
from .runner import Runner, conclude, time_limit, where_it_is

_logger = logging.getLogger(__name__)

LOOK_INTERVAL = 0.5  # seconds between two looks at the running job
MARGIN = 5  # seconds before the limit of the cron worker, at which a job is stopped
MAX_WAIT = 5  # seconds for which the cron worker waits for what is due soon
LEAVE_TIME = 3  # seconds that a stopped method gets


def run_one(dbname, job_id):
    """Run one certain job, however long it takes.

    :param str dbname: its database
    :param int job_id: the job
    :return: whether it could be claimed
    :rtype: bool
    """
    Registry(dbname)
    session, _delay = Session.open(dbname, always=True)
    if not session:
        return False
    with _runner(session) as runner:
        jobs = session.claim_one(job_id)
        for job in jobs:
            runner.prepare(job)
            runner.run(Execution(job))
            session.unblock([job.id])
        publish(session)
    return bool(jobs)


def run_for(dbname, seconds):
    """Run jobs for some time.

    :param str dbname: the database
    :param float seconds: the time after which no further job is begun
    :return: in how many seconds to do it again; None: when a job is enqueued
    :rtype: float | None
    """
    begin = time.monotonic()
    limit = _cron_limit()
    if limit:
        seconds = min(seconds, limit / 4)
    session, delay = Session.open(dbname)
    if not session:
        return delay
    session.channels = []  # the setting is that of this server's own workers
    with _runner(session) as runner:
        delay = 0
        while delay == 0 and time.monotonic() < begin + seconds:
            if jobs := session.claim(1):
                _run(session, runner, jobs[0], limit and begin + limit)
            else:
                delay = session.maintain()
                if delay and delay <= MAX_WAIT:  # a cron cannot be triggered to the second
                    time.sleep(delay)
                    delay = 0
            publish(session)
    return delay


@contextlib.contextmanager
def _runner(session):
    # A threaded server shares its process with requests, which change it as well.
    is_own_process = isinstance(odoo.service.server.server, PreforkServer)
    runner = Runner(session, ProcessState() if is_own_process else None)
    try:
        yield runner
    finally:
        runner.close()
        session.close()


def _cron_limit():
    """Return after how many seconds the server would end this cron worker, but for a margin; 0: never."""
    limit = config['limit_time_real_cron']
    limit = config['limit_time_real'] if limit == -1 else limit
    return max(limit - MARGIN, limit / 2) if limit else 0


def _run(session, runner, job, end):
    execution = Execution(job)
    begin, limit = time.monotonic(), time_limit(job)
    execution.deadline = min(filter(None, [limit and begin + limit, end]), default=None)
    runner.prepare(job)
    # Should this process die, the next run charges the job.
    session.note_running(job)
    with _watched(session, runner, execution):
        runner.run(execution)
    try:
        if execution.fenced:
            for taken in session.take_over(*execution.fenced):
                conclude(session, taken, execution.starts, job.claims, execution.deadline and round(execution.deadline - begin))
        session.note_running(None)
    except psycopg2.Error:
        with contextlib.suppress(psycopg2.Error):  # the connection was cut, this process lives
            other, _delay = Session.open(session.dbname)
            if other:
                other.note_running(None, session.key)
                other.close()
        raise
    session.unblock([job.id])


@contextlib.contextmanager
def _watched(session, runner, execution):
    """Look after the running job from another thread: progress, cancel and time-out, as the main thread of a worker does."""
    done = threading.Event()
    watcher = threading.Thread(
        target=_look_after, args=(session, runner, execution, done, threading.current_thread()),
        name="ir_async.watcher", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _look_after(session, runner, execution, done, thread):
    while not done.wait(LOOK_INTERVAL):
        runner.save_progress(execution)
        try:
            late = execution.deadline and time.monotonic() >= execution.deadline
            reason = session.stop_reason(execution.job) or ('timeout' if late else None)
            if reason and not execution.ended:
                _stop(session, runner, execution, reason, thread, done)
                return
        except psycopg2.Error as exc:
            _logger.info("Job %s cannot be looked after: %s", execution.job, exc)
            return


def _stop(session, runner, execution, reason, thread, done):
    debug = where_it_is(thread) if reason == 'timeout' else None
    job = session.fence_off(execution.job, reason, debug)
    if not job:
        return
    execution.fenced = (job.id, job.session, job.claims, reason)
    execution.interrupted = True  # its next statement raises
    runner.interrupt()
    if not done.wait(LEAVE_TIME) and isinstance(odoo.service.server.server, PreforkServer):
        # The next run of the cron finds the job, and why it was stopped.
        _logger.warning("Job %s does not stop: this cron worker is replaced", job)
        session.note_running(None)
        logging.shutdown()
        os._exit(0)
