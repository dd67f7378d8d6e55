"""The process that runs jobs: one more kind of worker of Odoo's prefork server."""
from __future__ import annotations

import ctypes
import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from collections import deque

import psutil
import psycopg2

from odoo.service.server import (
    Worker,
    cron_database_list,
    empty_pipe,
    memory_info,
    set_limit_memory_hard,
)
from odoo.tools import config

from ..exceptions import ClaimLost, JobInterrupted
from .agenda import Agenda
from .config import settings
from .execution import Execution
from .listener import Listener
from .pg import is_disconnection
from .runner import conclude, tell, time_limit
from .session import CLAIM_TIME

_logger = logging.getLogger(__name__)

BATCH_SIZE = 50  # jobs in one claim, at most
INTERRUPT_TIME = 1  # seconds that an interrupted job gets, its `finally` blocks included
STAND_BY_TIME = CLAIM_TIME  # seconds between two looks at the running job; not longer, so that no claim has to wake up who looks
PROGRESS_INTERVAL = 0.2  # seconds between two messages about it


class WorkerAsync(Worker):
    """Runs jobs in its work thread: visit the database that is due, claim, run, visit the next one.

    The main thread stands by: it handles the signals, gives back claimed jobs that wait for too long, shows the
    progress of the running one, and stops it when it is cancelled, takes too long, or the server stops.
    """

    def __init__(self, multi):
        super().__init__(multi)
        self.watchdog_timeout = None  # how long a job may take is its own matter, see `_next_job`
        self.idle_pipe = multi.pipe_new()  # wakes the work thread up
        self.alive_time = time.monotonic()
        self.stop_deadline = None
        self.stands_by = False
        self.finished = False
        self.next_progress = 0
        self.batch_size = 1
        # What the work thread has in hand. The lock is for who takes a job out of it.
        self.lock = threading.Lock()
        self.batch_start = None
        self.session = None
        self.runner = None
        self.running = None
        self.unstarted = deque()
        self.stop_requests = set()

    def close(self):
        super().close()
        os.close(self.idle_pipe[0])
        os.close(self.idle_pipe[1])

    # ------------------------------------------------------------
    # Main thread
    # ------------------------------------------------------------

    def start(self):
        os.nice(10)  # as cron workers are: the user in front of the screen comes first
        super().start()
        if self.multi.socket:
            self.multi.socket.close()
        # A service manager sends SIGTERM to all processes of the server: the running job must not die of it.
        signal.signal(signal.SIGTERM, self.signal_handler)
        signal.signal(signal.SIGHUP, self.signal_handler)
        # What the server has loaded is to stay, and to stay shared: the garbage collector would copy, and go through, all of it.
        gc.freeze()
        # These must not be created before the fork.
        self.process = psutil.Process()
        self.listener = Listener()
        self.agenda = Agenda(cron_database_list, self.listener.process_key)
        if {signal.SIGINT, signal.SIGTERM} & set(self.multi.queue):
            self.alive = False  # it came after the fork, but was still for the server

    def signal_handler(self, sig, frame):
        self.alive = False
        if self.stop_deadline is None:
            self.stop_deadline = time.monotonic() + settings().stop_timeout

    def run(self):
        try:
            self.start()
            self.thread = threading.Thread(
                name=f"{type(self).__name__} ({self.pid})", target=self._runloop, daemon=True)
            self.thread.start()
            while not self.finished:
                self._stand_by()
            self.thread.join()
            _logger.info("Worker (%s) exiting. jobs: %s", self.pid, self.request_count)
        except Exception:
            # It must not get into the server's loop, of which this process has a copy.
            _logger.exception("Worker (%s) Exception occurred, exiting...", self.pid)
            sys.exit(1)

    def _stand_by(self):
        """Sleep until a signal or a job comes, then look after the job once in a while."""
        # In this order: the work thread, which has a runner first, wakes this one up if it might sleep.
        self.stands_by = False
        timeout = STAND_BY_TIME if self.runner else None
        if self.unstarted and (wait := self.batch_start + CLAIM_TIME - time.monotonic()) > 0:
            timeout = wait
        self.stands_by = timeout is not None
        if self.stop_deadline is not None:
            timeout = max(0, min(self.stop_deadline - time.monotonic(), timeout or settings().stop_timeout))
        select.select([self.wakeup_fd_r], [], [], timeout)
        empty_pipe(self.wakeup_fd_r)
        now = time.monotonic()
        if not self.alive:
            self.multi.pipe_ping(self.idle_pipe)
        if self.unstarted and now >= self.batch_start + CLAIM_TIME:
            self._give_back()
        if (running := self.running) and not running.job.stop:
            self._look_after(running, now)
        if self.stop_deadline is not None and now >= self.stop_deadline:
            self._stop('interrupt')

    def _look_after(self, running, now):
        if running.progress and now >= self.next_progress:
            self.next_progress = now + PROGRESS_INTERVAL
            self.runner.save_progress(running)
        try:
            self.stop_requests |= self.session.stop_requests()
        except psycopg2.Error:
            self._stop('lost', running)
        if running.job.id in self.stop_requests:
            self._stop('cancel', running)
        elif running.deadline and now >= running.deadline:
            self._stop('timeout', running)

    def _stop(self, reason, running=None):
        """Stop the running job: say what becomes of it, from where on it can commit nothing, then end the process."""
        self._give_back()
        with self.lock:  # no other job can begin
            if running and self.running is not running:
                return
            # Should this very code hang, say for a lock that the job holds: the kernel ends the process,
            # and whoever finds the job learns from `ir.async.stop`, or from the deadline, what was to be done.
            signal.setitimer(signal.ITIMER_REAL, INTERRUPT_TIME)
            try:
                if reason == 'lost':
                    _logger.warning("Worker (%s) lost the claim of job %s with its connection", self.pid, running.job)
                elif running:
                    conclude(self.session, running.job, reason, self.thread)
                elif self.running:
                    _logger.warning("Worker (%s) has to stop: job %s will be run again", self.pid, self.running.job)
                    self.session.give_back([self.running.job])
            except ClaimLost:
                signal.setitimer(signal.ITIMER_REAL, 0)
                return  # it has ended by itself
            except psycopg2.Error as exc:  # it is free as soon as the session is over
                _logger.info("Worker (%s) could not tell what becomes of its job: %s", self.pid, exc)
        self.alive = False
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident), ctypes.py_object(JobInterrupted))
        if self.runner:
            self.runner.interrupt()
        self.thread.join(INTERRUPT_TIME)
        # An exception out of nowhere may have left locks held: this process does nothing more.
        logging.shutdown()
        os._exit(0)

    def _give_back(self):
        """Put the jobs that were claimed but not started back into the queue."""
        with self.lock:
            if self.unstarted:
                try:
                    given_back = self.session.give_back([running.job for running in self.unstarted])
                except psycopg2.Error as exc:  # they are free once the session is over, see `_run_batch`
                    _logger.info("Worker (%s) could not give back %d jobs: %s", self.pid, len(self.unstarted), exc)
                else:  # but for those that somebody has locked
                    self.unstarted = deque(running for running in self.unstarted if running.job.id not in given_back)

    # ------------------------------------------------------------
    # Work thread
    # ------------------------------------------------------------

    def _runloop(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, {
            signal.SIGXCPU, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
        })
        try:
            while self.alive:
                self.check_limits()
                self.sleep()
                if self.alive:
                    self.process_work()
            for database in self.agenda:
                database.leave()
        except JobInterrupted:
            pass  # it came when the job had just ended
        except Exception:
            _logger.exception("Worker %s (%s) Exception occurred, exiting...", type(self).__name__, self.pid)
        finally:
            self.finished = True
            self.multi.pipe_ping(self.eintr_pipe)

    def check_limits(self):
        # Not those of `Worker`: its limit on CPU time is one for requests, and would end a long job.
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
            _logger.info("Worker (%d) virtual memory limit (%s) reached.", self.pid, memory)
            self.alive = False
        set_limit_memory_hard()

    def sleep(self):
        """Wait until a database is due."""
        if self.listener.connect():
            self.agenda.wake_all()
        try:
            self.agenda.refresh()
        except psycopg2.Error as exc:
            _logger.info("Worker (%s) cannot list the databases: %s", self.pid, exc)
        for database in self.agenda:
            database.leave_if_idle()
        due = (database := self.agenda.next()) and database.due - time.monotonic()
        # Not for longer than `beat`, to notice that the parent is gone.
        timeout = self.multi.beat if due is None else max(0, min(due, self.multi.beat))
        select.select([self.idle_pipe[0], *self.listener.fds()], [], [], timeout)
        empty_pipe(self.idle_pipe[0])
        for name in self.listener.read():
            if not config['db_name'] or name in config['db_name']:
                self.agenda.wake(name)

    def process_work(self):
        """Visit the database that is due, and run what one claim gives."""
        database = self.agenda.next()
        if not database or database.due > time.monotonic():
            return
        self.stop_requests = set()  # before the claim: a request may follow it at once
        try:
            if jobs := database.claim(self.batch_size):
                self.setproctitle(database.name)
                self._run_batch(database, jobs)
            else:
                self.batch_size = 1
                if database.runner:
                    database.runner.renew()
            if database.session:
                tell(database.session)
        except Exception as exc:
            # It was dropped, is being copied, or PostgreSQL restarts: nothing to worry about.
            is_gone = isinstance(exc, psycopg2.Error) and is_disconnection(exc)
            _logger.log(
                logging.INFO if is_gone else logging.WARNING, "Worker (%s) keeps away from %s for a while: %s",
                self.pid, database.name, exc, exc_info=not is_gone)
            database.shun()

    def _run_batch(self, database, jobs):
        self.batch_start = time.monotonic()
        with self.lock:
            self.session = database.session
            self.unstarted.extend(map(Execution, jobs))
        try:
            self.runner = database.runner
            self.runner.prepare(jobs[0])
            if not self.stands_by:
                self.multi.pipe_ping(self.eintr_pipe)
            count = 0
            while running := self._next_job():
                self.runner.run(running)
                count += 1
            self.request_count += count
        finally:
            with self.lock:
                self.running = self.runner = None
                signal.setitimer(signal.ITIMER_REAL, 0)
            self._give_back()
        # As many as are begun in most of the time that the last one of them may wait, if there are as many: where the
        # queue is short, the others are for those workers that are idle. It may be longer now: step by step.
        elapsed = time.monotonic() - self.batch_start
        self.batch_size = min(BATCH_SIZE, 1 + int(count * CLAIM_TIME * 0.9 / elapsed), max(1, count * 2))
        if database.session.has_waiting or any(job.has_children for job in jobs):
            database.session.release([job.id for job in jobs])
        if self.unstarted:  # somebody has them locked: without this session, they are found again
            self.unstarted.clear()
            database.leave()
        else:
            database.runner.renew(at_once=len(jobs) == 1 or self.agenda.next() is not database)

    def _next_job(self):
        with self.lock:
            self.running = self.unstarted.popleft() if self.alive and self.unstarted else None
            if self.running:
                limit = time_limit(self.running.job)
                self.running.deadline = limit and time.monotonic() + limit
                # The kernel's alarm ends the process when nothing else can, as when C code keeps the GIL.
                signal.setitimer(signal.ITIMER_REAL, limit and limit + INTERRUPT_TIME)
            return self.running
