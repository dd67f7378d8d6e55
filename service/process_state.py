"""The state of a process that jobs can change besides the database. It is set back after each job."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import locale
import logging
import os
import secrets
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg2.extensions import get_wait_callback, set_wait_callback

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]  # `LIMITS` is empty then, so nothing else uses it

from ..tools.sessions import delete_noted
from .thread_state import ThreadState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_logger = logging.getLogger(__name__)

FOLDER_PREFIX = 'ir_async.'
ENVIRON = os.environ
# Some limits are left out, since reading each one takes time after each job: the limit on memory, which the worker sets before
# each batch, and limits on resources that jobs do not use.
LIMITS = (
    [
        getattr(resource, f'RLIMIT_{name}')
        for name in ('CORE', 'CPU', 'DATA', 'FSIZE', 'MEMLOCK', 'NOFILE', 'NPROC', 'STACK')
    ]
    if resource
    else []
)
_touched: set[str | bytes] = set()  # the environment variables that any code has set or removed


def _on_event(event: str, args: tuple[Any, ...]) -> None:
    if event in ('os.putenv', 'os.unsetenv'):
        _touched.add(args[0])


@functools.cache
def _watch_environ() -> None:
    # Comparing the environment would take longer than all other checks. It would also miss variables set by `os.putenv`,
    # since they are in no mapping.
    sys.addaudithook(_on_event)


class ProcessState(ThreadState):
    """The state of the process, and the temporary folder of its jobs.

    :param Path folder: the folder for temporary files of jobs; None: the system's folder
    """

    owns_process = True

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self._folder = folder
        if folder:
            folder.mkdir(mode=0o700)
            os.environ['TMPDIR'] = tempfile.tempdir = str(folder)
        _watch_environ()
        self._values = _read_parts()
        self._environ = dict(os.environ)
        _touched.clear()

    def restore(self) -> list[str]:
        failed = super().restore()
        faulthandler.cancel_dump_traceback_later()  # it may end the process
        if _touched or os.environ is not ENVIRON:
            self._restore_environ()
        values = _read_parts()
        if values != self._values:
            for (name, (_read, write)), before, value in zip(PARTS.items(), self._values, values):
                if value == before:
                    continue
                _logger.info("Undoing what a job changed in its process: %s", name)
                try:
                    write(before)
                except (OSError, ValueError, locale.Error):
                    failed.append(name)
        if self._folder:
            try:
                self._clear_folder(self._folder)
            except OSError:
                failed.append('temporary folder')
        return failed

    def _clear_folder(self, folder: Path) -> None:
        try:
            status = os.lstat(folder)
        except FileNotFoundError:
            folder.mkdir(mode=0o700)
            return
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            msg = f"{folder} was replaced and belongs to another user now"
            raise PermissionError(msg)
        clear_folder(folder)

    def _restore_environ(self) -> None:
        _logger.info("Undoing what a job changed in its process: environment")
        os.environ = ENVIRON  # noqa: B003 -- a job may have put another mapping in its place
        for name in {*map(os.fsdecode, _touched), *ENVIRON, *self._environ}:
            if name in self._environ:
                ENVIRON[name] = self._environ[name]
            else:
                ENVIRON.pop(name, None)
                os.unsetenv(name)  # only the C library may know it
        _touched.clear()


def _read_parts() -> list[Any]:
    return [read() for read, _write in PARTS.values()]


def _get_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None  # the folder was removed


def _get_timers() -> list[tuple[float, float]]:
    # ITIMER_REAL is missing: it is the time limit of the job, and each job sets it anew.
    return [signal.getitimer(timer) for timer in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)]


def _set_timers(values: list[tuple[float, float]]) -> None:
    for timer, value in zip((signal.ITIMER_VIRTUAL, signal.ITIMER_PROF), values):
        signal.setitimer(timer, *value)


def _get_umask() -> int:
    # The umask cannot be read without being set. No other thread of a worker creates files in between.
    os.umask(mask := os.umask(0o077))
    return mask


def _get_limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(limit) for limit in LIMITS]


def _set_limits(values: list[tuple[int, int]]) -> None:
    for limit, value in zip(LIMITS, values):
        resource.setrlimit(limit, value)


def _get_owner() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    return os.getresuid(), os.getresgid()


def _set_owner(value: tuple[tuple[int, int, int], tuple[int, int, int]]) -> None:
    user, group = value
    os.setresuid(*user)  # first: the user may be needed to set the group
    os.setresgid(*group)


def _set_signal_mask(mask: Iterable[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _get_signal_mask() -> set[int | signal.Signals] | None:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ()) if hasattr(signal, 'pthread_sigmask') else None


PARTS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    'working directory': (_get_folder, os.chdir),
    'time zone': (lambda: (time.tzname, time.timezone, time.altzone), lambda _value: time.tzset()),
    'timers': (_get_timers, _set_timers),
    'umask': (_get_umask, os.umask),
    'locale': (lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value)),
    'signal mask': (_get_signal_mask, _set_signal_mask),
    'recursion limit': (sys.getrecursionlimit, sys.setrecursionlimit),
    'time-out of sockets': (socket.getdefaulttimeout, socket.setdefaulttimeout),
    'garbage collection': (gc.isenabled, lambda value: gc.enable() if value else gc.disable()),
    'temporary folder': (lambda: tempfile.tempdir, lambda value: setattr(tempfile, 'tempdir', value)),
    'wait callback of psycopg2': (get_wait_callback, set_wait_callback),
    'trace function': (sys.gettrace, sys.settrace),
    'profile function': (sys.getprofile, sys.setprofile),
    'priority': (lambda: os.getpriority(os.PRIO_PROCESS, 0), lambda value: os.setpriority(os.PRIO_PROCESS, 0, value)),
    'resource limits': (_get_limits, _set_limits),
}
if hasattr(os, 'sched_setaffinity'):  # Linux
    PARTS['processors'] = (lambda: os.sched_getaffinity(0), lambda value: os.sched_setaffinity(0, value))
if hasattr(os, 'setresuid'):
    PARTS = {'user and group': (_get_owner, _set_owner)} | PARTS  # first: the user may be needed to set the other parts


def job_folder(base: str | None = None) -> Path:
    """Return a new name for the temporary folder of a worker's jobs. Nobody can guess it and create that folder first.

    :param str base: the parent folder
    :rtype: Path
    """
    return Path(base or tempfile.gettempdir()) / f'{FOLDER_PREFIX}{secrets.token_hex(8)}'


def clear_folder(folder: Path) -> None:
    """Remove all entries of a worker's temporary folder, and the web sessions that are noted there.

    :param Path folder: the folder
    :raises OSError: when it is gone
    """
    entries = list(os.scandir(folder))
    if entries:
        delete_noted(folder)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(entry)


def remove_folder(folder: Path) -> None:
    """Remove the temporary folder of a worker that has ended.

    :param Path folder: the folder
    """
    with contextlib.suppress(OSError):
        clear_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)
