"""The job workers of Odoo's servers: two patched methods, a child of the threaded server, and a server of workers alone."""

from __future__ import annotations

import functools
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import odoo.cli
from odoo import sql_db
from odoo.modules import loading
from odoo.modules.registry import Registry
from odoo.service.server import (
    CommonServer,
    PreforkServer,
    ThreadedServer,
)
from odoo.tools import config
from odoo.tools.misc import stripped_sys_argv
from odoo.tools.sql import table_exists

from ..tools.config import settings
from .worker import STOP_SIGNALS, WorkerAsync

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_logger = logging.getLogger(__name__)


def post_load() -> None:
    """Have the server that is about to start spawn job workers, if it is configured to.

    Odoo calls this when it loads the module server-wide. It also calls it when a registry is loaded, but then it is too late.
    """
    if config['test_enable']:
        return
    if 'ir_async' not in config['server_wide_modules']:
        if config['http_enable']:  # not for `odoo-bin ir_async`, which has workers of its own
            _logger.info(
                "This server starts no job workers, since ir_async is not in server_wide_modules. Jobs run on the cron workers"
            )
        return
    try:
        settings()
    except ValueError as exc:
        sys.exit(f"ir_async: {exc}")
    _patch(PreforkServer, 'process_spawn', _with_workers)
    _patch(PreforkServer, 'process_zombie', _with_any_status)
    _patch(ThreadedServer, 'cron_spawn', _with_child)
    _patch(loading, 'reset_modules_state', _with_signal)


def spawn_workers(server: PreforkServer, count: int) -> None:
    """Spawn job workers until a prefork server has a number of them.

    :param odoo.service.server.PreforkServer server: the server
    :param int count: the number of workers
    """
    missing = count - sum(isinstance(worker, WorkerAsync) for worker in server.workers.values())
    if missing > 0:
        _refresh_registries()
    for _i in range(missing):
        # In a child, Python drops signals that come before it has noticed the fork, and the server's handlers take those that
        # come before the worker has its own. Blocked signals wait until then.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            server.worker_spawn(WorkerAsync, {})  # in the child, it does not return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _refresh_registries() -> None:
    """Bring the registries up to date that the children will share, and close all connections, as Odoo does for HTTP workers."""
    for dbname, registry in Registry.registries.snapshot.items():
        try:
            with registry.cursor() as cr:
                registry.check_signaling(cr)
        except Exception as exc:  # noqa: BLE001 -- the server must not end because a database is gone or broken
            _logger.info("The registry of database %s could not be refreshed: %s", dbname, exc)
    sql_db.close_all()


def _patch(owner: Any, name: str, make: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Replace a function of Odoo's by one that calls it, unless an earlier call of :func:`post_load` has done so."""
    original = getattr(owner, name)
    if original.__module__ != __name__:
        setattr(owner, name, functools.wraps(original, assigned=())(make(original)))


def _with_workers(process_spawn: Callable[[PreforkServer], None]) -> Callable[[PreforkServer], None]:
    # The prefork server has no extension point for other kinds of workers.
    def process_spawn_and_async(self: PreforkServer) -> None:
        process_spawn(self)
        spawn_workers(self, settings().workers)

    return process_spawn_and_async


def _reap(server: PreforkServer) -> bool:
    """Reap the job workers that have ended. Return whether there were any."""
    ended = []
    for pid, worker in server.workers.items():
        if isinstance(worker, WorkerAsync):
            try:
                has_ended = os.waitpid(pid, os.WNOHANG)[0] == pid
            except ChildProcessError:
                has_ended = True  # Odoo has reaped it
            if has_ended:
                ended.append(pid)
    for pid in ended:
        server.worker_pop(pid)
    return bool(ended)


def _with_any_status(process_zombie: Callable[[PreforkServer], None]) -> Callable[[PreforkServer], None]:
    # Odoo takes the exit status 3 of a worker for a broken server, and ends this. But a job may end its process in any way.
    def process_zombie_and_async(self: PreforkServer) -> None:
        _reap(self)
        try:
            process_zombie(self)
        except Exception:
            if not _reap(self):  # a job worker that has ended since
                raise

    return process_zombie_and_async


def _with_child(cron_spawn: Callable[[ThreadedServer], None]) -> Callable[[ThreadedServer], None]:
    # A threaded server calls `cron_spawn` after it has loaded the registries, and only if it keeps running.
    def cron_spawn_and_async(self: ThreadedServer) -> None:
        cron_spawn(self)
        if settings().workers:
            ChildServer().start()

    return cron_spawn_and_async


def _with_signal(reset: Callable[[str], None]) -> Callable[[str], None]:
    # After an installation that fails halfway, Odoo resets the states of the other modules by plain SQL and signals nothing. Workers
    # would run jobs without the modules that were installed.
    def reset_and_signal(db_name: str) -> None:
        _signal_registry(db_name)  # for a worker that begins a job between the reset and the next signal
        reset(db_name)
        _signal_registry(db_name)

    return reset_and_signal


def _signal_registry(dbname: str) -> None:
    with sql_db.db_connect(dbname).cursor() as cr:
        if table_exists(cr, 'orm_signaling_registry'):
            cr.execute("INSERT INTO orm_signaling_registry DEFAULT VALUES")


class ChildServer:
    """The workers of a threaded server (``workers = 0``): a child process, like the ``gevent`` process of a prefork server.

    The child ends when its standard input ends. This works whatever happens to the parent. ``--dev=reload`` keeps the
    parent's process id, and a crashed parent cannot stop its child.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start the child, and start it again whenever it ends."""
        CommonServer.on_stop(self.stop)
        threading.Thread(target=self._run, name="ir_async.child", daemon=True).start()

    def stop(self) -> None:
        """Stop the child, and wait until it has ended its running jobs."""
        self._stopping.set()
        if self._process:
            if self._process.stdin:
                self._process.stdin.close()
            self._process.wait()

    def _run(self) -> None:
        # The child gets the arguments of the parent without its command, and an addons path that has this addon.
        arguments = stripped_sys_argv()[1:]
        if arguments[:1] == [odoo.cli.COMMAND]:
            arguments = arguments[1:] if odoo.cli.COMMAND == 'server' else ['-d', ','.join(config['db_name'])]
        command = [
            sys.executable,
            sys.argv[0],
            f'--addons-path={",".join(config["addons_path"])}',
            'ir_async',
            *arguments,
            f'--workers={settings().workers}',
            '--until-eof',
        ]
        delay = 1
        while not self._stopping.is_set():
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
            self._process.wait()
            if not self._stopping.wait(delay):
                _logger.warning(
                    "The job workers ended with exit code %s. Starting them again", self._process.returncode
                )
                delay = min(2 * delay, 60)


class AsyncServer(PreforkServer):
    """The server of ``odoo-bin ir_async``: job workers alone, without HTTP or crons.

    :param int workers: the number of workers
    :param bool until_eof: whether to stop at the end of the standard input
    """

    def __init__(self, workers: int, until_eof: bool = False) -> None:
        super().__init__(None)
        self.async_workers = workers
        self.until_eof = until_eof
        self.reload = False
        self.stopping = False

    def sleep(self) -> None:
        if self.until_eof:
            # No thread waits for the end of the input, since a process with threads must not fork.
            pipes = [self.pipe[0], *(worker.watchdog_pipe[0] for worker in self.workers.values())]
            ready, _, _ = select.select([0, *pipes], [], [], self.beat)
            if 0 in ready and not os.read(0, 1024):
                self.until_eof = False
                if not self.stopping:  # after a second signal, the server would not wait for its workers
                    os.kill(self.pid, signal.SIGTERM)
            beat, self.beat = self.beat, 0
            super().sleep()
            self.beat = beat
        else:
            super().sleep()

    def process_spawn(self) -> None:
        spawn_workers(self, self.async_workers)

    def signal_handler(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGHUP:
            # `PreforkServer` hands its HTTP socket over to a new server. This server has no socket, so it stops and starts again.
            self.reload = True
            sig = signal.SIGTERM
        if sig in (signal.SIGINT, signal.SIGTERM):
            self.stopping = True
        super().signal_handler(sig, frame)
