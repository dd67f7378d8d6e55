"""The state of a thread that jobs can change. Only this is set back when a job shares its process with others."""

from __future__ import annotations

import logging
import threading


class ThreadState:
    """The attributes of the current thread, and the locks of the log that it holds."""

    owns_process = False  # whether jobs run in a process of their own

    def __init__(self) -> None:
        self._attributes = dict(vars(threading.current_thread()))

    def restore(self) -> list[str]:
        """Undo the changes of a job. The thread that ran the job calls this.

        :return: the names of the parts that could not be restored; if there are any, the process must end
        :rtype: list[str]
        """
        unlock_log()
        attributes = vars(threading.current_thread())
        for name in attributes.keys() - self._attributes.keys():
            del attributes[name]
        # Attributes with an underscore are Python's own and change by themselves.
        attributes.update(
            {name: value for name, value in self._attributes.items() if name == '_name' or not name.startswith('_')}
        )
        return []


def unlock_log() -> None:
    """Release the locks of the log that the current thread holds.

    Up to Python 3.12, an exception from another thread can arrive just after logging has taken a lock. It stays taken then, and every
    other thread waits for it as soon as it logs.
    """
    handlers = [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]
    for lock in (logging._lock, *(getattr(handler, 'lock', None) for handler in handlers)):  # type: ignore[attr-defined]
        # A handler may have no lock, or one of another kind, such as one between processes.
        is_owned = getattr(lock, '_is_owned', bool)
        while is_owned():
            lock.release()
