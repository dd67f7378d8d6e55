"""The threads that a job leaves in its process, and the cursors that it leaves open."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from . import pools

if TYPE_CHECKING:
    from ..engine.job import Job

_logger = logging.getLogger(f'{__package__}.runner')

THREAD_GRACE = 0.1  # seconds that the threads of a job have to end after it


class Leftovers:
    """Compares with the time before a job. For a process that runs one job at a time, and nothing else."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def begin(self) -> None:
        """Note what is there before a job."""
        self._threads = set(sys._current_frames())
        pools.begin()

    def end(self) -> None:
        """Called after a job."""
        pools.end()

    def has_threads(self) -> bool:
        """Return whether threads of the job are there.

        :rtype: bool
        """
        return bool(self._new_threads())

    def _new_threads(self) -> set[int]:
        return sys._current_frames().keys() - self._threads

    def wait_for_threads(self, job: Job) -> bool:
        """Wait a moment for the threads of the job to end.

        :param Job job: the job, for the log
        :return: whether all have ended
        :rtype: bool
        """
        deadline = time.monotonic() + THREAD_GRACE
        while (left := self._new_threads()) and time.monotonic() < deadline:
            time.sleep(0.005)
        if left:
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            _logger.warning(
                "Job %s left threads behind: %s", job, ', '.join(f'{names.get(ident, ident)}' for ident in left)
            )
        return not left

    def close_cursors(self, job: Job) -> None:
        """Close the connections of the job: their cursors and sessions may keep locks, and a pool has only so many of them.

        :param Job job: the job
        """
        # Closing would wait for a thread that executes a statement. Such threads end with the process.
        if not self.has_threads() and (count := pools.close()):
            _logger.warning("Job %s left %d cursors open, which are closed now", job, count)
