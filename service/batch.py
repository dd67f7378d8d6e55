"""The batch of jobs that one claim gave a worker, and the lock between the worker's two threads."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import psycopg2

from ..engine.claim import CLAIM_TIME
from ..engine.release import release
from ..tools.config import settings
from .execution import Execution, time_limit
from .obituary import Obituary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..engine.job import Job
    from ..engine.session import Session
    from .obituary import Mark
    from .runner import Runner

_logger = logging.getLogger(__name__)

MAX_SIZE = 50  # maximum jobs in one claim
BUSY_TIME = 0.02  # seconds; see `Batch.busy_time`
INTERRUPT_TIME = 0.6  # seconds that an interrupted job has to end, including its `finally` blocks


class Batch:
    """Claimed jobs and their session. A batch lasts no longer than the worker's visit to the database.

    :param Session session: the session that claimed them
    :param Runner runner: the runner of the database
    :param Mark mark: the memory in which to note the running job
    :param list[Job] jobs: the jobs
    """

    def __init__(self, session: Session, runner: Runner, mark: Mark, jobs: Iterable[Job]) -> None:
        self.session = session
        self.runner = runner
        self.begin = time.monotonic()
        self.count = 0  # jobs that have run
        self.running: MarkedExecution | None = None
        # The process is ending, and the main thread writes the outcome. Only that thread changes the alarm now, so that the process
        # ends whatever the interrupted job has left locked in it.
        self.is_stopping = False
        self.lock = threading.Lock()  # held while a job is taken out of the batch, or stopped
        # Held while the alarm or `is_stopping` is set. Unlike `lock`, never while a statement is executed: the hooks of a job that
        # has ended must not wait for it, with the alarm of its method set.
        self.alarm_lock = threading.Lock()
        self._mark = mark
        self._prefetched = deque(MarkedExecution(job, self) for job in jobs)

    @property
    def release_time(self) -> float | None:
        """The time at which prefetched jobs go back into the queue; None when there are none."""
        return self.begin + CLAIM_TIME if self._prefetched else None

    @property
    def busy_time(self) -> float:
        """The time from which the worker counts as busy. Shorter batches do not wake the others up."""
        return self.begin + BUSY_TIME

    def next(self, is_alive: bool) -> MarkedExecution | None:
        """Return the next job to run.

        :param bool is_alive: whether the worker still takes jobs
        :rtype: MarkedExecution | None
        """
        with self.lock:
            self.running = self._prefetched.popleft() if is_alive and self._prefetched else None
            if self.running:
                self.running.limit()
            return self.running

    def end(self) -> None:
        """Note that no job is running any more."""
        with self.lock:
            self.running = None
            self._mark.clear()
            if not self.is_stopping:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def begin_stop(self, seconds: float) -> None:
        """Note that the process is ending. The kernel ends it if that takes longer.

        :param float seconds: the time until then
        """
        with self.alarm_lock:
            self.is_stopping = True
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def release_prefetched(self) -> None:
        """Put prefetched jobs back into the queue. Jobs that somebody has locked stay in the batch."""
        try:
            with self.lock:
                if self._prefetched:
                    released = release(self.session, [execution.job for execution in self._prefetched])
                    self._prefetched = deque(
                        execution for execution in self._prefetched if execution.job.id not in released
                    )
        except psycopg2.Error as exc:  # the end of the session frees them, see `WorkerAsync._run_batch`
            _logger.info(
                "Prefetched jobs of database %s could not be put back into the queue yet: %s", self.session.dbname, exc
            )

    def next_size(self) -> int:
        """Return how many jobs to claim next.

        The last job of a batch may wait for ``CLAIM_TIME``. The next batch has the jobs that this worker begins in half of
        that time, and at most twice as many as it ran now. With a short queue, a batch stays small and leaves jobs to idle
        workers. When the queue has grown, the batches grow step by step.

        :rtype: int
        """
        elapsed = time.monotonic() - self.begin
        return min(MAX_SIZE, 1 + int(self.count * CLAIM_TIME * 0.5 / elapsed), max(1, self.count * 2))

    def mark(self, execution: Execution, job: Job | None = None, cause: str | None = None) -> None:
        """Note the running job, to be reported if this process dies.

        :param Execution execution: the job
        :param Job job: the job with its new claim number, after it was fenced off
        :param str cause: ``cancel`` or ``timeout``, if the process is about to end for this reason
        """
        job = job or execution.job
        deadline = execution.deadline and execution.deadline + INTERRUPT_TIME
        self._mark.set(
            Obituary(
                self.session.dbname,
                job.id,
                job.worker_id,
                job.claim_number,
                deadline,
                execution.job.claim_number,
                cause,
            )
        )

    def unmark(self) -> None:
        """Note that no job would be to blame for the end of this process."""
        self._mark.clear()


class MarkedExecution(Execution):
    """An execution that notes in the mark when its method begins and ends."""

    def __init__(self, job: Job, batch: Batch) -> None:
        super().__init__(job)
        self._batch = batch

    def limit(self, limit: float | None = None) -> None:
        """Set the deadline of the method, or of the hooks after its commit.

        :param float limit: seconds; 0: no limit; by default the time limit of the job
        """
        limit = time_limit(self.job) if limit is None else limit
        self.deadline = limit and time.monotonic() + limit
        # The kernel's alarm ends the process when nothing else can, such as when C code keeps the GIL.
        signal.setitimer(signal.ITIMER_REAL, limit and limit + INTERRUPT_TIME)

    def on_begin(self) -> None:
        self._batch.mark(self)

    def on_failure(self) -> None:
        self._batch.unmark()

    def on_end(self) -> None:
        self._batch.unmark()
        with self._batch.alarm_lock:
            if not self._batch.is_stopping:
                self.limit(settings().limit_time_real)  # the job's own time-out only limits its method
