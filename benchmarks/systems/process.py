"""A process of the benchmark."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess

import pg
import psutil


def free_ports(count):
    """Return numbers of free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _i in range(count)]
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in sockets]


class Process:
    """A process of the benchmark, and its descendants."""

    def __init__(self, command, env, log=None, **kwargs):
        self.log = log
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open('ab')) if log else None
            self.popen = subprocess.Popen(
                command, env=os.environ | env, stderr=output, start_new_session=True, **kwargs
            )

    def cpu(self):
        return pg.process_cpu(self.popen.pid)

    def descendants(self):
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.popen.pid).children(recursive=True)
        return []

    def each(self, do):
        """Do something with the process and all its descendants: see psutil."""
        for process in [self.popen, *self.descendants()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                do(psutil.Process(process.pid))

    def stop(self, patience=15):
        """End the process and all its descendants, which are in its session."""
        if self.popen.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.popen.stdin.close()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
