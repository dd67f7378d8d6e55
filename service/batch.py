"""The jobs that one claim gave: what a worker has in hand, and the lock between its two threads."""
from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque

import psycopg2

from ..engine.claim import CLAIM_TIME
from ..engine.release import release
from ..tools.config import settings
from .execution import Execution, time_limit
from .obituary import Obituary

_logger = logging.getLogger(__name__)

MAX_SIZE = 50  # jobs in one claim, at most
INTERRUPT_TIME = 0.6  # seconds that an interrupted job gets, its `finally` blocks included


class Batch:
    """Claimed jobs, and the session that they belong to. Nothing of it outlives the visit to their database.

    :param Session session: the session that claimed them
    :param Runner runner: what runs them
    :param Mark mark: where to note what this process runs
    :param list[Job] jobs: the jobs
    """

    def __init__(self, session, runner, mark, jobs):
        self.session = session
        self.runner = runner
        self.begin = time.monotonic()
        self.count = 0  # jobs that were run
        self.running = None
        self.is_stopping = False  # the process ends, and another thread writes the outcome
        self.lock = threading.Lock()  # held by whoever takes a job out of it
        self._mark = mark
        self._prefetched = deque(_MarkedExecution(job, self) for job in jobs)

    @property
    def release_time(self):
        """When the jobs that did not begin go back into the queue; None when there are none."""
        return self.begin + CLAIM_TIME if self._prefetched else None

    def next(self, is_alive):
        """Return the next job to run.

        :param bool is_alive: whether the worker takes any more
        :rtype: Execution | None
        """
        with self.lock:
            self.running = self._prefetched.popleft() if is_alive and self._prefetched else None
            if self.running:
                self.running.limit()
            return self.running

    def end(self):
        """Note that no job is running any more."""
        with self.lock:
            self.running = None
            self._mark.clear()
            signal.setitimer(signal.ITIMER_REAL, 0)

    def release_prefetched(self):
        """Put the jobs that did not begin back into the queue; those that somebody has locked stay in hand."""
        try:
            with self.lock:
                if self._prefetched:
                    released = release(self.session, [execution.job for execution in self._prefetched])
                    self._prefetched = deque(
                        execution for execution in self._prefetched if execution.job.id not in released)
        except psycopg2.Error as exc:  # they are free once the session is over, see `WorkerAsync._run_batch`
            _logger.info("Claimed jobs could not be released yet: %s", exc)

    def next_size(self):
        """Return how many jobs to claim next.

        As many as are begun in half of the time that the last one of them may wait, if there are as many: where the queue is
        short, the others are for those workers that are idle. It may be longer now: step by step.

        :rtype: int
        """
        elapsed = time.monotonic() - self.begin
        return min(MAX_SIZE, 1 + int(self.count * CLAIM_TIME * 0.5 / elapsed), max(1, self.count * 2))

    def mark(self, execution, job=None, cause=None):
        """Note what this process runs, for whoever finds it dead.

        :param Execution execution: the job
        :param Job job: the job with another claim
        :param str cause: ``cancel`` or ``timeout`` when the process is about to end for that
        """
        job = job or execution.job
        deadline = execution.deadline and execution.deadline + INTERRUPT_TIME
        self._mark.set(Obituary(self.session.dbname, job.id, job.session, job.claims, deadline, execution.job.claims, cause))

    def unmark(self):
        """Note that the end of this process would be nobody's fault."""
        self._mark.clear()


class _MarkedExecution(Execution):
    """An execution that notes in the mark when its method begins and ends."""

    def __init__(self, job, batch):
        super().__init__(job)
        self._batch = batch

    def limit(self, limit=None):
        """Give the method, or the hooks after its commit, their time.

        :param float limit: seconds, 0: no limit; by default, as long as the method may run
        """
        limit = time_limit(self.job) if limit is None else limit
        self.deadline = limit and time.monotonic() + limit
        # The kernel's alarm ends the process when nothing else can, as when C code keeps the GIL.
        signal.setitimer(signal.ITIMER_REAL, limit and limit + INTERRUPT_TIME)

    def on_begin(self):
        self._batch.mark(self)

    def on_failure(self):
        self._batch.unmark()

    def on_end(self):
        self._batch.unmark()
        self.limit(settings().limit_time_real)  # the job's own time-out is that of its method
