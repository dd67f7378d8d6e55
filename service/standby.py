"""A second thread that looks after a job in a cron worker: progress, cancel, time-out, shutdown.

The main thread of a job worker does the same: see :mod:`.watchdog`. To stop a job, the thread first fences it off, so that its
method can commit nothing more. Then it raises an exception in the method. It writes the outcome when the method has been left,
or when it has waited long enough for that.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from typing import TYPE_CHECKING

import psycopg2

from ..engine.errors import Kind, kind_of
from ..engine.fence import fence_off
from ..engine.registration import note_running
from ..engine.release import release
from ..engine.rescue import take_over
from ..engine.session import Session
from ..exceptions import JobInterrupted
from ..tools.config import settings
from ..tools.error_text import where_it_is
from .batch import INTERRUPT_TIME
from .hosting import is_prefork, is_stopping
from .publisher import publish
from .runner import finish_stopped
from .stop import end_process, raise_in
from .thread_state import unlock_log

if TYPE_CHECKING:
    from .execution import Execution
    from .runner import Runner

_logger = logging.getLogger(__name__)

LOOK_INTERVAL = 0.2  # seconds between two looks at the running job
EXIT_TIME = 10  # seconds after which the kernel ends a process that hangs while it is being replaced


class Standby:
    """Looks after one job.

    :param Session session: the session that claimed it
    :param Runner runner: the runner of the job
    :param Execution execution: the job
    """

    def __init__(self, session: Session, runner: Runner, execution: Execution) -> None:
        self._session = session
        self._runner = runner
        self._execution = execution
        self._begin = time.monotonic()
        self._thread = threading.current_thread()
        self._left = threading.Event()  # its method has been left
        self._stop_time: float | None = None  # when the job must end because the server stops

    def run(self) -> None:
        """Run the job in this thread. After the return, no exception is on its way to this thread any more."""
        watcher = threading.Thread(target=self._watch, name="ir_async.standby", daemon=True)
        watcher.start()
        try:
            try:
                self._runner.run(self._execution)
            finally:
                self._left.set()
        except JobInterrupted:
            self._runner.must_end = True  # the exception came during the clean-up after the job, which is half done
        finally:
            # An exception may arrive anywhere in this block, but no new one is raised after the watcher has ended.
            while True:
                try:
                    self._left.set()
                    unlock_log()  # the watcher may log before it ends
                    watcher.join()
                    raise_in(self._thread, None)
                    break
                except JobInterrupted:
                    continue
        if self._execution.fenced:
            self._finish_or_release()

    def _watch(self) -> None:
        while not self._left.wait(LOOK_INTERVAL):
            self._runner.progress.save(self._execution)
            try:
                if (reason := self._reason_to_stop()) and self._stop(reason):
                    return
            except psycopg2.Error as exc:
                if kind_of(exc) is Kind.LOST:
                    self._leave_alone(exc)
                    return
                _logger.info("Could not check whether job %s has to stop: %s", self._execution.job, exc)

    def _reason_to_stop(self) -> str | None:
        execution, now = self._execution, time.monotonic()
        if self._stop_time is None and is_stopping():
            self._stop_time = now + settings().stop_timeout
        is_over = self._stop_time is not None and now >= self._stop_time
        if execution.ended:  # only hooks still run
            return 'shutdown' if is_over else None
        if reason := self._session.stop_reason(execution.job):
            return reason
        if execution.deadline and now >= execution.deadline:
            return 'timeout'
        return 'shutdown' if is_over else None

    def _stop(self, reason: str) -> bool:
        """Stop the job. Return False if it had ended by itself."""
        execution = self._execution
        if not execution.ended:
            debug = where_it_is(self._thread) if reason == 'timeout' else None
            job = fence_off(self._session, execution.job, None if reason == 'shutdown' else reason, debug)
            if not job:
                return False
            execution.fenced = job, reason
            note_running(self._session, None)  # from here on, no job is to blame for the end of this process
        elif not is_prefork():
            return True  # its hooks do not end; they end with the server
        self._interrupt()
        # Not earlier: the job may have the log locked until it is interrupted.
        _logger.info("Job %s is interrupted: %s", execution.job, reason)
        return True

    def _leave_alone(self, exc: psycopg2.Error) -> None:
        """Stop a job whose claim was lost with the connection. The job runs again."""
        take_note_back(self._session)
        self._interrupt()
        # Not earlier: the job may have the log locked until it is interrupted.
        _logger.warning(
            "This cron worker lost the claim of job %s with its connection. The job runs again: %s",
            self._execution.job,
            exc,
        )

    def _interrupt(self) -> None:
        """Have the method left. If that takes too long and the process runs only this job, end it with all its children."""
        self._execution.interrupted = True  # its next statement raises
        raise_in(self._thread, JobInterrupted)
        self._runner.interrupt()
        if self._left.wait(INTERRUPT_TIME):
            return
        if is_prefork():
            # The next statements may wait for a lock that the job holds.
            signal.setitimer(signal.ITIMER_REAL, EXIT_TIME)
        if self._execution.fenced:
            with contextlib.suppress(Exception):  # otherwise the worker that rescues the job writes its outcome
                self._finish_or_release()
                publish(self._session)
        if is_prefork():
            _logger.warning("Job %s does not stop. This cron worker is replaced", self._execution.job)
            end_process()
        _logger.warning("Job %s does not stop. It occupies its cron thread until it does", self._execution.job)
        while not self._left.wait(INTERRUPT_TIME):
            raise_in(self._thread, JobInterrupted)

    def _finish_or_release(self) -> None:
        """Write the outcome of the job that was stopped."""
        execution = self._execution
        fenced, execution.fenced = execution.fenced, None
        if not fenced:
            return
        job, reason = fenced
        if reason == 'shutdown':
            release(self._session, [job], starts=execution.starts, claim_count=execution.job.claim_number)
            return
        limit = execution.deadline and round(execution.deadline - self._begin)
        for taken in take_over(self._session, job.id, job.worker_id, job.claim_number, reason):
            finish_stopped(self._session, taken, execution.starts, execution.job.claim_number, limit)


def take_note_back(session: Session) -> None:
    """Note on another session that no job would be to blame for the end of this process: the session's own connection is lost."""
    with contextlib.suppress(psycopg2.Error):
        other, _delay = Session.open(session.dbname)
        if other:
            note_running(other, None, session.worker_id)
            other.close()
