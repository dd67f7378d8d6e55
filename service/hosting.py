"""The Odoo server whose cron workers run jobs: whether it is stopping, and how it waits for the end of a job."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import odoo.service.server
from odoo.service.server import CommonServer, PreforkServer, ThreadedServer

from ..tools.config import settings

if TYPE_CHECKING:
    from collections.abc import Generator

    from odoo.service.server import Worker

MARGIN = 3  # seconds after `stop_timeout` in which a stopped job is left and put back

CRON_TIME = 1  # maximum seconds that the scheduled action has to end after its jobs

# For each thread that runs jobs, an event that is set when it has ended.
_runs: dict[threading.Thread, threading.Event] = {}


def _server() -> CommonServer | None:
    return odoo.service.server.server


def is_prefork() -> bool:
    """Return whether the server is a prefork one: then this process runs one job at a time, and can be replaced."""
    return isinstance(_server(), PreforkServer)


def is_stopping() -> bool:
    """Return whether this process must take no new job, since its server is stopping or replaces the process.

    :rtype: bool
    """
    if is_prefork():
        worker = _worker()
        return worker is not None and (not worker.alive or worker.ppid != os.getppid())
    return bool(getattr(_server(), 'quit_signals_received', 0))


def replace() -> None:
    """Have a prefork server replace this process when the current run of the cron has ended."""
    if worker := _worker():
        worker.alive = False


def _worker() -> Worker | None:
    # The handler of a signal is the only reference to the worker object of this process.
    worker = getattr(signal.getsignal(signal.SIGINT), '__self__', None)
    return worker if hasattr(worker, 'alive') else None


@contextlib.contextmanager
def awaited() -> Generator[None]:
    """Have a stopping threaded server wait for this thread. Cron threads are daemons, so it would end without waiting."""
    if isinstance(_server(), ThreadedServer):
        _register()
    thread, ended = threading.current_thread(), threading.Event()
    _runs[thread] = ended
    try:
        yield
    finally:
        del _runs[thread]
        ended.set()


@functools.cache
def _register() -> None:
    CommonServer.on_stop(_wait_for_runs)


def _wait_for_runs() -> None:
    deadline = time.monotonic() + settings().stop_timeout + MARGIN
    runs = dict(_runs)
    for ended in runs.values():
        ended.wait(max(0, deadline - time.monotonic()))
    deadline = time.monotonic() + CRON_TIME
    while any(_is_in_cron(thread) for thread in runs) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_in_cron(thread: threading.Thread) -> bool:
    """Return whether a cron thread of a threaded server is processing a database. Odoo notes that for its time limit."""
    return getattr(thread, 'type', None) == 'cron' and bool(getattr(thread, 'start_time', None))
