"""The obituary of a worker process: the worker writes it, its parent reads it, the next worker reports it.

The mark is in memory that the worker and its parent share, so it survives any end of the worker. Without it, a death and its
cause would have to be guessed from a lost connection or a clock.
"""

from __future__ import annotations

import marshal
import mmap
import time
from typing import NamedTuple

SIZE = 4096  # bytes, enough for any name of a database


class Obituary(NamedTuple):
    """The job whose method a process was running when it ended."""

    dbname: str
    job_id: int
    worker_id: int
    claim_number: int
    deadline: float | None  # time.monotonic() of this machine
    claim_count: int  # how often it was claimed; `claim_number` may have been raised since
    cause: str | None = None  # `cancel` or `timeout` if the process ended itself for this reason; None: it was killed


class Mark:
    """The memory that a worker shares with its parent. The parent creates it before it forks."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SIZE)

    def set(self, obituary: Obituary) -> None:
        """Note that the method of a job begins, or the reason for which it is being stopped.

        :param Obituary obituary: the obituary if the process ends now
        """
        data = marshal.dumps(tuple(obituary))  # the reader is the same Python
        self._memory[0:2] = b'\0\0'  # no obituary if the process ends during the next statement
        self._memory[2 : 2 + len(data)] = data
        self._memory[0:2] = len(data).to_bytes(2, 'big')

    def clear(self) -> None:
        """Note that no method is running, or that no method would be to blame for the end of the process."""
        self._memory[0:2] = b'\0\0'

    def read(self) -> Obituary | None:
        """Return the job that the process was running when it ended. The parent calls this.

        :rtype: Obituary | None
        """
        size = int.from_bytes(self._memory[0:2], 'big')
        if not size:
            return None
        obituary = Obituary(*marshal.loads(self._memory[2 : 2 + size]))
        if not obituary.cause and obituary.deadline and time.monotonic() >= obituary.deadline:
            obituary = obituary._replace(cause='timeout')  # the kernel's alarm ended it
        return obituary

    def close(self) -> None:
        self._memory.close()
