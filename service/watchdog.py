"""The watchdog of a worker's batch: in the main thread, it saves progress, stops jobs, and releases prefetched jobs."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

import psycopg2

from odoo.service.server import empty_pipe

from ..engine.claim import CLAIM_TIME
from ..engine.errors import Kind, kind_of
from ..tools.config import settings
from .batch import INTERRUPT_TIME
from .stop import end_process, stop_job

if TYPE_CHECKING:
    from threading import Thread

    from .batch import Batch
    from .execution import Execution

# Seconds between two looks at the running job. At this interval, a claim need not wake the main thread up.
STAND_BY_TIME = CLAIM_TIME
PROGRESS_INTERVAL = 0.2  # seconds between two messages about the progress of a job
STOP_LOOK_INTERVAL = 5  # seconds between two looks for a request to stop the job, in case the hint is lost


class Watchdog:
    """Looks after the batch that the work thread has in hand.

    :param int pipe: the descriptor through which signals and the work thread wake the main thread up
    :param threading.Thread thread: the work thread
    """

    def __init__(self, pipe: int, thread: Thread) -> None:
        self.batch: Batch | None = None  # the batch that the work thread runs
        self.stands_by = False  # the main thread looks again in time, so the work thread need not wake it up
        self._pipe = pipe
        self._thread = thread
        self._next_progress = 0.0
        self._next_stop_look = 0.0

    def watch(self, batch: Batch) -> None:
        """Look after another batch from now on. The work thread calls this.

        :param Batch batch: the batch
        """
        self.batch = batch
        self._next_stop_look = batch.begin + STOP_LOOK_INTERVAL

    def stand_by(self, stop_deadline: float | None) -> None:
        """Sleep until a signal or a batch comes, or until it is time to look after the batch.

        :param float stop_deadline: when running jobs have to end; None unless the worker is stopping
        """
        # The order matters. The work thread sets `batch` and then reads `stands_by`, to wake this thread up if that may sleep.
        # So this thread clears `stands_by` before it reads `batch`.
        self.stands_by = False
        batch = self.batch
        timeout = None
        if batch:
            now = time.monotonic()
            timeout = min(
                at - now for at in (now + STAND_BY_TIME, batch.busy_time, batch.release_time) if at and at > now
            )
        self.stands_by = timeout is not None
        if stop_deadline is not None:
            timeout = max(0, min(stop_deadline - time.monotonic(), timeout or settings().stop_timeout))
        select.select([self._pipe], [], [], timeout)
        empty_pipe(self._pipe)

    def look_after(self, stop_deadline: float | None) -> None:
        """Do the work that is due now.

        :param float stop_deadline: when running jobs have to end; None unless the worker is stopping
        """
        now = time.monotonic()
        if batch := self.batch:
            self._look_after_batch(batch, now)
        if stop_deadline is None or now < stop_deadline:
            return
        if batch:
            batch.release_prefetched()
        if batch and (execution := batch.running):
            stop_job(batch, execution, 'shutdown', self._thread)
        elif now >= stop_deadline + INTERRUPT_TIME:
            # The work thread hangs between two jobs, for example because the tables of its registry are locked.
            end_process()

    def _look_after_batch(self, batch: Batch, now: float) -> None:
        if (release_time := batch.release_time) and now >= release_time:
            batch.release_prefetched()
        if execution := batch.running:
            if execution.progress and now >= self._next_progress:
                self._next_progress = now + PROGRESS_INTERVAL
                batch.runner.progress.save(execution)
            if reason := self._reason_to_stop(batch, execution, now):
                stop_job(batch, execution, reason, self._thread)

    def _reason_to_stop(self, batch: Batch, execution: Execution, now: float) -> str | None:
        if execution.deadline and now >= execution.deadline:
            return 'timeout'
        if execution.ended:
            return None
        try:
            if batch.session.has_stop_hint() or now >= self._next_stop_look:
                self._next_stop_look = now + STOP_LOOK_INTERVAL
                return batch.session.stop_reason(execution.job)
        except psycopg2.Error as exc:
            batch.runner.end_if_descriptor_is_closed(execution)
            return 'lost' if kind_of(exc) is Kind.LOST else None
        return None
