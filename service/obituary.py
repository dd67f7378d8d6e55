"""What a worker process was doing when it ended: written by the worker, read by its parent, reported by the next worker.

The mark is in memory that both processes share, so it survives whatever ends the worker. Nobody has to conclude from a lost
connection or a clock that a process died, nor of what.
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
    session: int
    claims: int
    deadline: float | None  # time.monotonic() of this machine
    shown_claims: int  # how often it was claimed; `claims` is part of its token
    cause: str | None = None  # `cancel` or `timeout` when the process ended itself for that; None: it was killed


class Mark:
    """The memory that a worker shares with its parent. Made by the parent, before it forks."""

    def __init__(self):
        self._memory = mmap.mmap(-1, SIZE)

    def set(self, obituary):
        """Note that the method of a job begins, or why it is being ended.

        :param Obituary obituary: what to report should the process end now
        """
        data = marshal.dumps(tuple(obituary))  # its reader is the same Python
        self._memory[0:2] = b'\0\0'  # nothing, should the process end within the next statement
        self._memory[2:2 + len(data)] = data
        self._memory[0:2] = len(data).to_bytes(2, 'big')

    def clear(self):
        """Note that no method is running, or that its end is nobody's fault."""
        self._memory[0:2] = b'\0\0'

    def read(self):
        """Return what the process was doing when it ended; called by the parent.

        :rtype: Obituary | None
        """
        size = int.from_bytes(self._memory[0:2], 'big')
        if not size:
            return None
        obituary = Obituary(*marshal.loads(self._memory[2:2 + size]))
        if not obituary.cause and obituary.deadline and time.monotonic() >= obituary.deadline:
            obituary = obituary._replace(cause='timeout')  # the kernel's alarm ended it
        return obituary

    def close(self):
        """Give the memory back."""
        self._memory.close()
