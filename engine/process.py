"""Processes of this host, identified by id and start time, since process ids are used again."""

from __future__ import annotations

import contextlib
import os
import socket

import psutil

import odoo.service.server

TOLERANCE = 2  # seconds by which two processes may disagree about the start of a third one after the clock was set


def start_of(pid: int) -> float | None:
    """Return when a process of this host was started.

    :param int pid: the process
    :return: seconds since the epoch; None when there is no such process
    :rtype: float | None
    """
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).create_time()
    return None


def is_alive(pid: int, start: float) -> bool:
    """Return whether a process of this host is still there.

    :param int pid: the process
    :param float start: when it was started
    :rtype: bool
    """
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - start) < TOLERANCE
    return False


def server_pid() -> int:
    """Return the process id of the Odoo server of this process: its own id, except in a child of a prefork server.

    :rtype: int
    """
    server = odoo.service.server.server
    return server.pid if server else os.getpid()


def was_killed(host: str, pid: int, start: float | None, server: int, server_start: float | None) -> bool:
    """Return whether a process has ended while its server goes on, so that nobody stopped it.

    :param str host: the host of both
    :param int pid: the process
    :param float start: when it was started
    :param int server: the process of its server
    :param float server_start: when that process was started
    :return: False also when it cannot be known, such as on another host
    :rtype: bool
    """
    if host != socket.gethostname() or start is None or server_start is None:
        return False
    return not is_alive(pid, start) and is_alive(server, server_start)
