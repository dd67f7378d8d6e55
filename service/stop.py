"""End a running job by force: fence it off, interrupt its method, end the process.

From the first step on, the method can commit nothing. The job stays ``processing`` and keeps its slot until the method has been
left. If the process has to end before that, the next worker reads the outcome from the mark and writes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
from typing import TYPE_CHECKING

import psutil
import psycopg2

from ..engine.fence import fence_off
from ..engine.release import release
from ..engine.rescue import take_over
from ..exceptions import JobInterrupted
from ..tools.config import settings
from ..tools.error_text import where_it_is
from .batch import INTERRUPT_TIME
from .runner import finish_stopped

if TYPE_CHECKING:
    from threading import Thread
    from typing import NoReturn

    from ..engine.job import Job
    from .batch import Batch, MarkedExecution

_logger = logging.getLogger(__name__)


def stop_job(batch: Batch, execution: MarkedExecution, reason: str, thread: Thread) -> None:
    """End a running job, and this process with it.

    This only returns when the job had ended by itself, or when only its hooks run and still have time.

    :param Batch batch: the batch of the job
    :param MarkedExecution execution: the job
    :param str reason: ``cancel``, ``timeout``, ``shutdown``, or ``lost`` when its claim was lost with the connection
    :param threading.Thread thread: the thread that runs its method
    """
    is_outcome = reason in ('cancel', 'timeout')
    with batch.lock:  # keeps other jobs from beginning
        if batch.running is not execution:
            return
        if execution.ended:
            if reason == 'cancel':
                return
            batch.begin_stop(2 * INTERRUPT_TIME)  # a hook may hold the lock of the log
            _logger.warning(
                "The hooks after the commit of job %s take too long. This worker is replaced", execution.job
            )
            _interrupt(batch, thread)
            end_process()
        # If this code hangs, for example on a lock that the job holds, the kernel ends the process.
        batch.begin_stop(2 * INTERRUPT_TIME if reason == 'shutdown' else INTERRUPT_TIME)
        debug = where_it_is(thread) if reason == 'timeout' else None
        if is_outcome:
            batch.mark(execution, cause=reason)
        else:
            batch.unmark()
        job = None
        if reason == 'lost':
            _logger.warning(
                "This worker lost the claim of job %s with its connection. The job runs again", execution.job
            )
        else:
            try:
                # The job goes back into the queue, also if the process ends before its method has been left.
                starts = 0 if is_outcome else execution.starts
                job = fence_off(batch.session, execution.job, reason if is_outcome else None, debug, starts)
            except psycopg2.Error as exc:
                # The end of the session frees the job, and the next worker writes the outcome.
                _logger.info(
                    "Job %s could not be fenced off. The next worker writes its outcome: %s", execution.job, exc
                )
            else:
                if not job:
                    _restore(batch, execution)
                    return
                if is_outcome:
                    batch.mark(execution, job, reason)
                _logger.info("Job %s is interrupted: %s", job, reason)
    has_left = _interrupt(batch, thread)
    if job and has_left:
        try:
            _finish_or_release(batch, job, reason, execution)
            batch.unmark()
        except Exception as exc:  # noqa: BLE001 -- the next worker writes the outcome
            _logger.info("The outcome of job %s could not be written. The next worker writes it: %s", job, exc)
    end_process()


def _restore(batch: Batch, execution: MarkedExecution) -> None:
    """Let a job go on that has ended by itself in the meantime, so that its hooks run."""
    batch.unmark()
    with batch.alarm_lock:
        batch.is_stopping = False
        execution.limit(settings().limit_time_real)


def _finish_or_release(batch: Batch, job: Job, reason: str, execution: MarkedExecution) -> None:
    signal.setitimer(signal.ITIMER_REAL, 10)  # writing the outcome may have to wait for a lock
    if reason == 'shutdown':
        release(batch.session, [job], claim_count=execution.job.claim_number, is_begun=execution.starts > 0)
        return
    [taken] = take_over(batch.session, job.id, job.worker_id, job.claim_number, reason)
    finish_stopped(batch.session, taken, execution.starts, execution.job.claim_number)


def _interrupt(batch: Batch, thread: Thread) -> bool:
    """Raise an exception in the method, and cancel its statement. Return whether the thread has ended."""
    # The alarm comes after the wait below: until then this process can still end the programs that the job started.
    signal.setitimer(signal.ITIMER_REAL, 2 * INTERRUPT_TIME)
    raise_in(thread, JobInterrupted)
    batch.runner.interrupt()
    thread.join(INTERRUPT_TIME)
    return not thread.is_alive()


def raise_in(thread: Thread, exception: type[BaseException] | None) -> None:
    """Raise an exception in another thread, as soon as that thread executes Python code.

    :param threading.Thread thread: the thread
    :param type exception: the class of the exception; None: take back an exception that has not arrived yet
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), exception and ctypes.py_object(exception)
    )


def end_process() -> NoReturn:
    """End this process and all its descendants at once. Its threads may hold locks, so it does nothing more.

    An exception that was raised in another thread may have left a lock taken for ever, such as that of the log. Then the kernel
    ends the process.
    """
    signal.setitimer(signal.ITIMER_REAL, INTERRUPT_TIME)
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
    logging.shutdown()
    os._exit(0)
