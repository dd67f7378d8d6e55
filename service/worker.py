"""The worker: a process that runs jobs, as one more kind of worker of Odoo's prefork server."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING

import psutil
import psycopg2

from odoo.service.server import (
    Worker,
    cron_database_list,
    memory_info,
    set_limit_memory_hard,
)
from odoo.tools import config

from ..engine.errors import UNINSTALLED, Kind, kind_of
from ..engine.notifier import notifier
from ..exceptions import JobInterrupted, ModulesMissing
from ..tools.config import settings
from . import pools
from .batch import Batch
from .databases import Databases
from .deaths import note_death, note_end, report_deaths, take_ended, take_obituaries
from .listener import Listener
from .lookout import Lookout
from .obituary import Mark
from .process_state import ProcessState, job_folder, remove_folder
from .publisher import publish
from .watchdog import Watchdog

if TYPE_CHECKING:
    from types import FrameType

    from odoo.service.server import PreforkServer

    from ..engine.job import Job
    from .databases import Database

_logger = logging.getLogger(__name__)

STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def _reset_signals() -> None:
    """Have a process that a job forks end at the signals which stop processes, as the children of other workers do."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


class WorkerAsync(Worker):
    """A process with two threads, one of which runs jobs.

    The work thread visits the database that is due, claims jobs, runs them, and goes on to the next database.
    The main thread stands by. It handles signals and releases prefetched jobs that wait too long. It saves the progress
    of the running job, and stops that job when it is cancelled, takes too long, or the server stops.
    """

    pid: int  # set by the server when it forks

    def __init__(self, multi: PreforkServer) -> None:
        super().__init__(multi)
        self.watchdog_timeout = None  # each job has its own time limit, see `Batch.next`
        self.idle_pipe = multi.pipe_new()  # wakes the work thread up
        self.mark = Mark()
        self.folder = job_folder()
        self.number = random.getrandbits(31)
        self.obituaries, self.ended = take_obituaries(), take_ended()
        self.alive_time = time.monotonic()
        self.stop_deadline: float | None = None
        self.finished = False
        self.batch_size = 1
        self.used: Database | None = None  # the database whose jobs ran last
        self.warned_memory = False

    def close(self) -> None:
        """Clean up after the process. The parent calls this when the process has ended."""
        super().close()
        os.close(self.idle_pipe[0])
        os.close(self.idle_pipe[1])
        note_end(self.number)
        note_death(self.mark)
        self.mark.close()
        # This kills the processes that the job of a killed worker has left behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        remove_folder(self.folder)

    # ------------------------------------------------------------
    # Main thread
    # ------------------------------------------------------------

    def start(self) -> None:
        os.nice(10)  # as for cron workers: web requests come first
        os.setpgid(0, 0)  # so that the parent finds the processes of jobs, even after this process was killed
        super().start()
        if self.multi.socket:
            self.multi.socket.close()
        # A service manager sends SIGTERM to all processes of the server. The running job must survive that.
        signal.signal(signal.SIGTERM, self.signal_handler)
        signal.signal(signal.SIGHUP, self.signal_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # see `spawn_workers`
        os.register_at_fork(after_in_child=_reset_signals)
        # The worker shares the memory of all that the server has loaded. The garbage collector would go through all of it, and
        # so copy it.
        gc.freeze()
        pools.limit()
        # The following must not be created before the fork.
        self.process = psutil.Process()
        notifier.failure_level = logging.INFO
        self.listener = Listener(self.number)
        self.process_state = ProcessState(self.folder)
        self.databases = Databases(cron_database_list, self.listener.process_number, self.process_state)
        self.lookout = Lookout(self.listener, self.databases, self.ended)

    def signal_handler(self, sig: int, frame: FrameType | None) -> None:
        self.alive = False
        if self.stop_deadline is None:
            self.stop_deadline = time.monotonic() + settings().stop_timeout

    def run(self) -> None:
        try:
            self.start()
            thread = threading.Thread(name=f"{type(self).__name__} ({self.pid})", target=self._runloop, daemon=True)
            self.watchdog = Watchdog(self.wakeup_fd_r, thread)
            thread.start()
            while not self.finished:
                self._stand_by()
            thread.join()
            _logger.info("Worker (%s) exiting. jobs: %s", self.pid, self.request_count)
        except Exception as exc:  # noqa: BLE001 -- the forked copy of the server's loop must not catch it
            self._log_end(exc)
            logging.shutdown()
            os._exit(1)
        if threading.active_count() > 1:
            # At exit, Python would wait for threads that a job has left behind.
            logging.shutdown()
            os._exit(0)

    def _log_end(self, exc: Exception) -> None:
        if isinstance(exc, OSError) and exc.errno == errno.EBADF:
            _logger.warning("Worker (%s) is replaced: a job closed its file descriptors", self.pid)
        else:
            _logger.error("Worker (%s) Exception occurred, exiting...", self.pid, exc_info=exc)

    def _stand_by(self) -> None:
        """Sleep until a signal or a batch comes or work is due, then do that work."""
        if self.stop_deadline is None and self.ppid != os.getppid():
            _logger.info("Worker (%s) Parent changed", self.pid)
            self.signal_handler(signal.SIGTERM, None)  # the parent is gone and cannot stop this process
        self.watchdog.stand_by(self.stop_deadline)
        if not self.alive:
            self.multi.pipe_ping(self.idle_pipe)
        self.watchdog.look_after(self.stop_deadline)
        if (batch := self.watchdog.batch) and batch.busy_time <= time.monotonic():
            self.lookout.stand_in(batch.session.dbname)

    # ------------------------------------------------------------
    # Work thread
    # ------------------------------------------------------------

    def _runloop(self) -> None:
        try:
            while self.alive:
                self.check_limits()
                if self.alive:
                    self.sleep()
                if self.alive:
                    self.process_work()
            self.lookout.end()
            for database in self.databases:
                owes_look = database.session and database.must_look
                database.leave()
                if owes_look:
                    notifier.notify(database.name)  # a child may be in the queue, or a slot free
        except JobInterrupted:
            pass  # the exception arrived after the job had ended
        except Exception as exc:  # noqa: BLE001 -- the process is replaced
            self._log_end(exc)
        finally:
            self.finished = True
            with contextlib.suppress(OSError):  # the main thread also notices without it
                self.multi.pipe_ping(self.eintr_pipe)

    def check_limits(self) -> None:
        # `Worker.check_limits` is not called: its limit on CPU time is for requests, and would end a long job.
        if self.ppid != os.getppid():
            _logger.info("Worker (%s) Parent changed", self.pid)
            self.alive = False
        if self.request_count >= self.request_max:
            _logger.info("Worker (%d) max request (%s) reached.", self.pid, self.request_count)
            self.alive = False
        if 0 < config['limit_time_worker_cron'] < time.monotonic() - self.alive_time:
            _logger.info("Worker (%d) max age (%ss) reached.", self.pid, config['limit_time_worker_cron'])
            self.alive = False
        if 0 < config['limit_memory_soft'] < (memory := memory_info(self.process)):
            if self.request_count:
                _logger.info("Worker (%d) virtual memory limit (%s) reached.", self.pid, memory)
                self.alive = False
            elif not self.warned_memory:
                # A worker that is recycled before its first job would never run any.
                self.warned_memory = True
                _logger.warning(
                    "Worker (%d) used %d MB before its first job: raise limit_memory_soft (%d MB). Until then, each worker ends"
                    " after one batch of jobs",
                    self.pid,
                    memory >> 20,
                    config['limit_memory_soft'] >> 20,
                )
        set_limit_memory_hard()

    def sleep(self) -> None:
        """Wait until a database is due."""
        self.lookout.wait(self.idle_pipe[0], self.multi.beat)

    def process_work(self) -> None:
        """Visit the database that is due, and run the batch of one claim."""
        if not self.listener.is_connected:
            return  # without it, other processes cannot see that this one lives
        report_deaths(self.obituaries, self.databases)
        database = self.databases.next()
        if not database or database.due > time.monotonic():
            return
        if self.used and self.used is not database:
            self._leave_clean(self.used)
        self.used = database
        try:
            self.databases.make_room(database)
            mark = self.lookout.begin_look(database)
            jobs = database.claim(self.batch_size)
            self.lookout.end_look(database, mark, bool(jobs))
            if jobs:
                self.setproctitle(database.name)
                self._run_batch(database, jobs)
                if self.alive:
                    database.maintain_if_due()
            else:
                self.batch_size = 1
                database.forget()
            if database.session:
                publish(database.session)
        except Exception as exc:
            # Expected: the database was dropped or is being copied, PostgreSQL restarts, or the module was uninstalled.
            is_expected = kind_of(exc) is not Kind.METHOD or isinstance(exc, (*UNINSTALLED, ModulesMissing))
            _logger.log(
                logging.INFO if is_expected else logging.WARNING,
                "Worker (%s) backs off from database %s: %s",
                self.pid,
                database.name,
                exc,
                exc_info=not is_expected,
            )
            database.back_off()

    def _leave_clean(self, database: Database) -> None:
        try:
            database.forget()
        except psycopg2.Error as exc:
            _logger.info("Worker (%s) backs off from database %s: %s", self.pid, database.name, exc)
            database.back_off()

    def _run_batch(self, database: Database, jobs: list[Job]) -> None:
        session, runner = database.session, database.runner
        assert session and runner, "the claim has opened both"
        batch = Batch(session, runner, self.mark, jobs)
        self.lookout.note_job(True)
        self.watchdog.watch(batch)
        try:
            runner.prepare(jobs[0])
            if not self.watchdog.stands_by:
                self.multi.pipe_ping(self.eintr_pipe)
            while execution := batch.next(self.alive and not runner.must_end):
                runner.run(execution)
                batch.end()
                if batch.is_stopping:
                    break
                batch.count += 1
        finally:
            batch.end()
            if batch.is_stopping:
                raise JobInterrupted  # the main thread uses the session now, and ends the process
            self.watchdog.batch = None
            self.lookout.note_job(False)
            batch.release_prefetched()
            if runner.must_end:
                _logger.warning(
                    "Worker (%s) is replaced: a job changed its process in a way that cannot be undone", self.pid
                )
                self.alive = False
        self.request_count += batch.count
        self.batch_size = batch.next_size()
        if session.has_waiting or any(job.has_children for job in jobs):
            children = session.unblock([job.id for job in jobs])
            if len(children) > 1:  # one is for this worker
                notifier.notify(session.dbname)
        if batch.release_time:  # somebody has prefetched jobs locked; when this session ends, rescue finds them
            database.leave()
