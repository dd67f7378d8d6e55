"""Where Odoo's servers get their job workers from."""
from __future__ import annotations

import functools
import logging
import os
import signal
import subprocess
import sys
import threading

import odoo.cli
from odoo import sql_db
from odoo.modules.registry import Registry
from odoo.service.server import (
    CommonServer,
    PreforkServer,
    ThreadedServer,
)
from odoo.tools import config
from odoo.tools.misc import stripped_sys_argv

from ..tools.config import settings
from .worker import WorkerAsync

_logger = logging.getLogger(__name__)


def post_load():
    """Have the server that is about to start spawn job workers, if this is its wish.

    Called when the module is loaded server-wide, but also, too late, when a registry is.
    """
    if config['test_enable']:
        return
    if 'ir_async' not in config['server_wide_modules']:
        if config['http_enable']:  # not the command, whose workers are its own
            _logger.info("ir_async is not in server_wide_modules: this server starts no job workers, jobs run on the cron workers")
        return
    try:
        settings()
    except ValueError as exc:
        sys.exit(f"ir_async: {exc}")
    _patch_prefork_server()
    _patch_threaded_server()


def spawn_workers(server, count):
    """Have a prefork server own that many job workers.

    :param odoo.service.server.PreforkServer server: the server
    :param int count: how many there should be
    """
    missing = count - sum(isinstance(worker, WorkerAsync) for worker in server.workers.values())
    if missing > 0:
        _refresh_registries()
    for _i in range(missing):
        server.worker_spawn(WorkerAsync, {})


def _refresh_registries():
    """Have the children share registries that are up to date, but no connections, as those for requests do."""
    for dbname, registry in Registry.registries.snapshot.items():
        try:
            with registry.cursor() as cr:
                registry.check_signaling(cr)
        except Exception as exc:  # noqa: BLE001 -- the database is gone, or broken: the server is not to end for it
            _logger.info("The registry of %s could not be refreshed: %s", dbname, exc)
    sql_db.close_all()


def _patch_prefork_server():
    # It has no extension point for other kinds of workers.
    process_spawn = PreforkServer.process_spawn
    if process_spawn.__module__ == __name__:
        return

    @functools.wraps(process_spawn, assigned=())
    def process_spawn_and_async(self):
        process_spawn(self)
        spawn_workers(self, settings().workers)

    PreforkServer.process_spawn = process_spawn_and_async


def _patch_threaded_server():
    # Called once the registries are loaded, and only by a server that stays.
    cron_spawn = ThreadedServer.cron_spawn
    if cron_spawn.__module__ == __name__:
        return

    @functools.wraps(cron_spawn, assigned=())
    def cron_spawn_and_async(self):
        cron_spawn(self)
        if settings().workers:
            ChildServer().start()

    ThreadedServer.cron_spawn = cron_spawn_and_async


class ChildServer:
    """The workers of a threaded server (``workers = 0``): a child process, as ``gevent`` is one of the prefork server.

    It ends when its standard input does, whatever happens to this process: ``--dev=reload`` goes on under the same
    process id, a crash asks for nothing.
    """

    def __init__(self):
        self._process = None
        self._stopping = threading.Event()

    def start(self):
        """Start the child, and start it again should it ever end."""
        CommonServer.on_stop(self.stop)
        threading.Thread(target=self._run, name="ir_async.child", daemon=True).start()

    def stop(self):
        """Let the running jobs end, for as long as they may take."""
        self._stopping.set()
        if self._process:
            self._process.stdin.close()
            self._process.wait()

    def _run(self):
        # The parent's arguments, but for its command, and with the addons path that finds ours.
        arguments = stripped_sys_argv()[1:]
        if arguments[:1] == [odoo.cli.COMMAND]:
            arguments = arguments[1:] if odoo.cli.COMMAND == 'server' else ['-d', ','.join(config['db_name'])]
        command = [
            sys.executable, sys.argv[0], f'--addons-path={",".join(config["addons_path"])}', 'ir_async', *arguments,
            f'--workers={settings().workers}', '--until-eof',
        ]
        delay = 1
        while not self._stopping.is_set():
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
            self._process.wait()
            if not self._stopping.wait(delay):
                _logger.warning("The job workers ended (%s), starting them again", self._process.returncode)
                delay = min(2 * delay, 60)


class AsyncServer(PreforkServer):
    """Job workers alone: no HTTP, no crons. What ``odoo-bin ir_async`` runs.

    :param int workers: how many
    :param bool until_eof: stop at the end of the standard input
    """

    def __init__(self, workers, until_eof=False):
        super().__init__(None)
        self.async_workers = workers
        self.until_eof = until_eof
        self.reload = False
        self.stopping = False

    def start(self):
        super().start()
        if self.until_eof:
            threading.Thread(target=self._wait_eof, name="ir_async.eof", daemon=True).start()

    def _wait_eof(self):
        while os.read(0, 1024):
            pass
        if not self.stopping:  # a second signal would have it leave its workers alone
            os.kill(self.pid, signal.SIGTERM)

    def process_spawn(self):
        spawn_workers(self, self.async_workers)

    def signal_handler(self, sig, frame):
        if sig == signal.SIGHUP:
            # `PreforkServer` hands its HTTP socket over to a new server. We have none: stop, then start again.
            self.reload = True
            sig = signal.SIGTERM
        if sig in (signal.SIGINT, signal.SIGTERM):
            self.stopping = True
        super().signal_handler(sig, frame)
