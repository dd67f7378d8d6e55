"""The main thread of a worker while another one runs jobs: show their progress, stop those that must not go on, release the rest."""
from __future__ import annotations

import logging
import os
import select
import time

import psycopg2

from odoo.service.server import empty_pipe

from ..engine.claim import CLAIM_TIME
from ..engine.errors import Kind, kind_of
from ..tools.config import settings
from .batch import INTERRUPT_TIME
from .stop import kill_children, stop_job

# Seconds between two looks at the running job; not longer, so that no claim has to wake up the thread that looks.
STAND_BY_TIME = CLAIM_TIME
PROGRESS_INTERVAL = 0.2  # seconds between two messages about it
STOP_LOOK_INTERVAL = 5  # seconds between two looks whether the job is to be stopped, should the hint be lost


class Watchdog:
    """Looks after the batch that the work thread has in hand.

    :param int pipe: the descriptor by which signals, and the work thread, wake the main thread up
    :param threading.Thread thread: the work thread
    """

    def __init__(self, pipe, thread):
        self.batch = None  # what the work thread has in hand
        self.stands_by = False  # it looks by itself in time, so that the work thread need not wake it up
        self._pipe = pipe
        self._thread = thread
        self._next_progress = 0
        self._next_stop_look = 0

    def watch(self, batch):
        """Look after another batch from now on; called by the work thread.

        :param Batch batch: the batch
        """
        self.batch = batch
        self._next_stop_look = batch.begin + STOP_LOOK_INTERVAL

    def stand_by(self, stop_deadline):
        """Sleep until a signal or a batch comes, or it is time to look after the batch.

        :param float stop_deadline: when running jobs have to end, if the worker stops
        """
        # In this order: the work thread, which has a batch first, wakes this one up if it might sleep.
        self.stands_by = False
        batch = self.batch
        timeout = STAND_BY_TIME if batch else None
        if batch and (release_time := batch.release_time) and (wait := release_time - time.monotonic()) > 0:
            timeout = wait
        self.stands_by = timeout is not None
        if stop_deadline is not None:
            timeout = max(0, min(stop_deadline - time.monotonic(), timeout or settings().stop_timeout))
        select.select([self._pipe], [], [], timeout)
        empty_pipe(self._pipe)

    def look_after(self, stop_deadline):
        """Do what is due now.

        :param float stop_deadline: when running jobs have to end, if the worker stops
        """
        now = time.monotonic()
        batch = self.batch
        if not batch:
            if stop_deadline is not None and now >= stop_deadline + INTERRUPT_TIME:
                kill_children()
                logging.shutdown()
                os._exit(0)  # the work thread hangs between two jobs
            return
        if (release_time := batch.release_time) and now >= release_time:
            batch.release_prefetched()
        if execution := batch.running:
            if execution.progress and now >= self._next_progress:
                self._next_progress = now + PROGRESS_INTERVAL
                batch.runner.progress.save(execution)
            if reason := self._reason_to_stop(batch, execution, now):
                stop_job(batch, execution, reason, self._thread)
        if stop_deadline is not None and now >= stop_deadline:
            batch.release_prefetched()
            if execution := batch.running:
                stop_job(batch, execution, 'shutdown', self._thread)

    def _reason_to_stop(self, batch, execution, now):
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
