"""The threads that a job leaves in its process, and the cursors that it leaves open on connections of Odoo's pools."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from . import pools

if TYPE_CHECKING:
    from ..engine.job import Job
    from ..engine.session import Session

_logger = logging.getLogger(f'{__package__}.runner')

THREAD_GRACE = 0.1  # seconds that the threads of a job have to end after it
LOCKING = "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND pid = ANY(%s)"


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

    def close_cursors(self, session: Session, job: Job) -> None:
        """Close the cursors that the job left open: they keep locks, and a pool has only so many connections.

        Also close connections that the job gave back with an advisory lock of the session.

        :param Session session: the session that claimed the job
        :param Job job: the job
        :raises psycopg2.Error: when the session is gone, and the job with it
        """
        # Closing would wait for a thread that executes a statement. Such threads end with the process.
        if self.has_threads():
            return
        if left := pools.left_open():
            _logger.warning("Job %s left %d cursors open, which are closed now", job, len(left))
            for connection in left:
                connection.close()
        if idle := pools.given_back():
            for (backend_pid,) in session.execute(LOCKING, [list(idle)]):
                pools.close(idle[backend_pid])
