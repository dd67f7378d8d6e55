"""The Odoo server on whose cron workers jobs run: whether it stops, and how it is made to wait until a job has ended."""
from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time

import odoo
from odoo.service.server import CommonServer, PreforkServer, ThreadedServer

from ..tools.config import settings

MARGIN = 3  # seconds that a stopped job gets to be left and put back, besides `stop_timeout`

CRON_TIME = 1  # seconds that the scheduled action gets to end when its jobs have, at most

_runs = {}  # for each thread that runs jobs, an event that is set when it has ended


def is_prefork():
    """Return whether this process runs nothing but one job at a time, and can be replaced."""
    return isinstance(odoo.service.server.server, PreforkServer)


def is_stopping():
    """Return whether this process is to take no new job: its server stops, or replaces this process.

    :rtype: bool
    """
    server = odoo.service.server.server
    if is_prefork():
        worker = _worker()
        return bool(worker) and (not worker.alive or worker.ppid != os.getppid())
    return bool(getattr(server, 'quit_signals_received', 0))


def replace():
    """Have a prefork server replace this process as soon as the current run of the cron has ended."""
    if worker := _worker():
        worker.alive = False


def _worker():
    # Nothing else refers to the worker whose process this is.
    worker = getattr(signal.getsignal(signal.SIGINT), '__self__', None)
    return worker if hasattr(worker, 'alive') else None


@contextlib.contextmanager
def awaited():
    """Have a threaded server wait for this thread when it stops: it would just end its process, as cron threads are daemons."""
    if isinstance(odoo.service.server.server, ThreadedServer):
        _register()
    thread, ended = threading.current_thread(), threading.Event()
    _runs[thread] = ended
    try:
        yield
    finally:
        del _runs[thread]
        ended.set()


@functools.cache
def _register():
    CommonServer.on_stop(_wait_for_runs)


def _wait_for_runs():
    deadline = time.monotonic() + settings().stop_timeout + MARGIN
    runs = dict(_runs)
    for ended in runs.values():
        ended.wait(max(0, deadline - time.monotonic()))
    deadline = time.monotonic() + CRON_TIME
    while any(_is_in_cron(thread) for thread in runs) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_in_cron(thread):
    """Return whether a cron thread of a threaded server processes a database: Odoo notes it for its time limit."""
    return getattr(thread, 'type', None) == 'cron' and bool(getattr(thread, 'start_time', None))
