"""Run one claimed job: its method, then its outcome, in one transaction."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import random
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import psycopg2

from odoo import api
from odoo.api import SUPERUSER_ID
from odoo.modules.registry import Registry
from odoo.service.model import retrying

from ..engine.errors import Kind, kind_of
from ..engine.job import StateChange
from ..engine.origin import INSTALLED, has_modules
from ..engine.rescue import MAX_DEATHS
from ..exceptions import ClaimLost, JobInterrupted, ModulesMissing, RetryJob, WorkerDied
from ..tools.error_text import first_line
from . import failure, pools
from .cursor import JobCursor, JobPool, has_lost_server
from .execution import Execution
from .leftovers import Leftovers
from .postcommit import run_others
from .progress import LOCK_WAIT, Progress
from .publisher import publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from odoo.sql_db import BaseCursor

    from ..engine.job import Job
    from ..engine.session import Session
    from .thread_state import ThreadState

    _Step = Callable[[api.Environment, Execution], None]

_logger = logging.getLogger(__name__)

TRIES = 4  # tries in place when a job loses races
FIRST_PAUSE = 0.05  # maximum seconds before the second try; it doubles before each further try


class Runner:
    """Runs the jobs that a session claimed, one after the other.

    :param Session session: the session
    :param ThreadState process_state: the state to set back after each job
    """

    def __init__(self, session: Session, process_state: ThreadState | None = None) -> None:
        self.session = session
        self.must_end = False  # a job changed the process for good
        self._process_state = process_state
        # No other code runs beside the jobs of such a process.
        self.owns_process = process_state is not None and process_state.owns_process
        self._leftovers = Leftovers() if self.owns_process else None
        self._signals: str | None = None
        self._checked: Registry | None = None  # the registry for which this server has all modules
        self._pool = JobPool(session.dbname, session.server_version, **session.client_check)
        self.progress = Progress(
            session.dbname,
            JobPool(session.dbname, session.server_version, lock_timeout=LOCK_WAIT, **session.client_check),
        )
        self._cr: JobCursor | None = None  # the cursor of the running job, for the thread that interrupts it

    def prepare(self, job: Job) -> None:
        """Bring the registry and its caches up to date, once per claim, as for a request.

        :param Job job: any of the claimed jobs
        :raises ModulesMissing: when a module was installed whose code this server does not have
        """
        # The claim has read the sequences, on a snapshot older than those of the jobs.
        if job.signals != self._signals:
            self._delete_foreign_registry()
            with contextlib.closing(self._cursor()) as cr:
                cr.begin()
                registry = Registry(self.session.dbname).check_signaling(cr)
                if registry is not self._checked:
                    self._check_modules(cr)
                self._checked = registry
            self._signals = job.signals

    def _check_modules(self, cr: JobCursor) -> None:
        # Another server may have installed a module since the session was opened.
        cr.execute(INSTALLED)
        [[names]] = cr.fetchall()
        if not has_modules(self.session.dbname, names):
            raise ModulesMissing(self.session.dbname)

    def _delete_foreign_registry(self) -> None:
        """Delete the registry of another database that had the same name before. Two copies may have equal signals."""
        registry = Registry.registries.get(self.session.dbname)
        if registry and getattr(registry, 'ir_async_origin', self.session.origin) != self.session.origin:
            _logger.info("Database %s was replaced by another one. Its registry is loaded again", self.session.dbname)
            Registry.delete(self.session.dbname)

    def forget(self) -> None:
        """Clear the connection. Called when no other job follows at once."""
        self._pool.forget()

    def close(self) -> None:
        self._pool.close()
        self.progress.close()

    def run(self, execution: Execution) -> None:
        """Run a job and write its outcome. No exception of its method leaves this function.

        :param Execution execution: the job
        :raises psycopg2.Error: when the session is gone, and the job with it
        """
        if self._leftovers:
            self._leftovers.begin()
        try:
            # In a context of its own, the job sees no context variables of others, such as the request.
            contextvars.Context().run(self._run, execution)
        finally:
            execution.end_forked_child()
            self._leave(execution)

    def _run(self, execution: Execution) -> None:
        thread = threading.current_thread()
        thread.dbname, thread.uid = self.session.dbname, execution.job.user_id  # type: ignore[attr-defined]  # for the log
        begin = time.monotonic()
        try:
            try:
                self.run_in_place(execution, self._perform)
            except BaseException as exc:  # noqa: BLE001 -- sys.exit() in a job ends the job, not the worker
                if type(exc) is failure.CannotBegin or failure.is_taken_away(self.session, execution.job, exc):
                    raise
                self._close_cursors(execution)  # they may keep locks for which the rest would wait
                failure.settle(self, execution, exc, begin)
            else:
                if not execution.job.stop:
                    _logger.info("Job %s done in %.3fs", execution.job, time.monotonic() - begin)
        except ClaimLost:
            _logger.warning("Job %s was taken away from this worker, which commits nothing more of it", execution.job)
        except failure.CannotBegin as exc:
            raise exc.__cause__ from None  # the next job would meet the same error: the worker backs off from this database
        except psycopg2.Error:
            _logger.warning(
                "Job %s was taken away from this worker: the connection to PostgreSQL was lost", execution.job
            )
            raise
        except JobInterrupted:
            _logger.info("Job %s was interrupted after %.3fs", execution.job, time.monotonic() - begin)

    def run_in_place(self, execution: Execution, function: _Step) -> None:
        """Call a function in a transaction of the job. Call it again, a few times, when it loses a race.

        :param Execution execution: the job
        :param function: a function of an environment of the superuser, and the execution
        """
        for tryno in range(1, TRIES + 1):
            try:
                self._transact(execution, function)
                return
            except _Raced as raced:
                exc = raced.__cause__
                if tryno == TRIES:
                    raise exc from None
                _logger.info(
                    "Job %s conflicted with another transaction and runs again: %s", execution.job, first_line(exc)
                )
                self._close_cursors(execution)  # the next try opens its own
                time.sleep(random.uniform(0, FIRST_PAUSE * 2 ** (tryno - 1)))

    def _transact(self, execution: Execution, function: _Step) -> None:
        """Call a function in a transaction of the job, and commit it. An error of a hook after the commit is only logged."""
        execution.was_lost = True  # before the method runs, it cannot be the cause of a lost connection
        with contextlib.closing(self._cursor()) as cr:
            connection = cr._cnx  # kept, since the method may close the cursor
            try:
                execution.job = cr.begin_job(execution)
            except psycopg2.Error as exc:
                if kind_of(exc) is Kind.METHOD:
                    raise failure.CannotBegin from exc
                raise
            execution.was_lost = False
            try:
                env = _root(cr)
                # `retrying` flushes, commits, resets the registry's caches and words the errors of constraints. It tries once,
                # since `_once` hides lost races from it.
                retrying(partial(_once, function, env, execution), env)
                _check_end(execution)
            except BaseException as exc:
                if execution.ended:
                    execution.end_forked_child()  # its parent runs the other hooks
                    run_others(env.cr.postcommit, execution, exc)
                    self._signal(execution, env.registry)
                    return
                self.end_if_descriptor_is_closed(execution)
                if issubclass(type(exc), Exception):
                    execution.was_lost = has_lost_server(connection)
                else:
                    execution.note_invalidated(env.registry)
                if type(exc) is not _Raced and kind_of(exc) is Kind.RACE:
                    raise _Raced from exc  # the race was lost at the commit
                raise

    def _perform(self, env: api.Environment, execution: Execution) -> None:
        job = execution.job
        if job.notify and not job.stop and not execution.starts:
            # This message has a transaction of its own, so the job does not depend on it.
            self.session.changes.append(StateChange(job.id, job.user_id, job.name, 'processing', job.revision))
            publish(self.session)
        if job.stop:
            outcome = failure.outcome_of_stop(env, execution)
        elif job.deaths >= MAX_DEATHS:
            execution.on_begin()  # the hook for failures may be what kills workers
            msg = f"{job.deaths} workers died while they ran this job, so it does not run again"
            raise WorkerDied(msg)
        else:
            execution.starts += 1
            execution.on_begin()
            try:
                outcome = env['ir.async']._perform(execution)
            finally:
                self.progress.save(execution)  # its last report
        env['ir.async']._finish(job, outcome, execution.starts)

    def _leave(self, execution: Execution) -> None:
        """Remove all that a job left behind, so that the next job does not meet it.

        :param Execution execution: the job
        """
        if self._leftovers:
            if self._leftovers.has_threads():
                self._pool.close()
                # They may use its connection, and change state that is set back.
                self.must_end = not self._leftovers.wait_for_threads(execution.job) or self.must_end
            self._leftovers.close_cursors(execution.job)
            self._leftovers.end()
        if self._process_state:
            try:
                self.must_end = bool(self._process_state.restore()) or self.must_end
            except Exception:
                _logger.exception("The changes of job %s to its process could not be undone", execution.job)
                self.must_end = True
        if execution.signaled and not execution.ended and (registry := Registry.registries.get(self.session.dbname)):
            execution.signal_again(registry)
            self._signal(execution, registry)
        execution.reset_registry(self.session.dbname)

    def _signal(self, execution: Execution, registry: Registry) -> None:
        try:
            with pools.own_work():
                registry.signal_changes()
        except psycopg2.Error as exc:  # those of the job are committed already
            _logger.info("Job %s could not signal its changes again: %s", execution.job, first_line(exc))

    def _close_cursors(self, execution: Execution) -> None:
        if self._leftovers:
            self._leftovers.close_cursors(execution.job)

    def _cursor(self) -> JobCursor:
        self._cr = JobCursor(self._pool)
        return self._cr

    def end_if_descriptor_is_closed(self, execution: Execution) -> None:
        """End the process if the job has closed the file descriptor of a connection, so that PostgreSQL is not blamed for it.

        The mark of the process stays, so that the job is charged with the death.

        :param Execution execution: the job
        """
        if self.owns_process and (self.session.has_closed_descriptor() or self._pool.has_closed_descriptor()):
            _logger.warning("Job %s closed file descriptors of its worker. The worker is replaced", execution.job)
            logging.shutdown()
            os._exit(1)

    def interrupt(self) -> None:
        """Cancel the statement that the job is executing. Another thread calls this."""
        with contextlib.suppress(psycopg2.Error):
            if self._cr:
                self._cr._cnx.cancel()


def finish_stopped(session: Session, job: Job, starts: int, claim_count: int, limit: float | None = None) -> None:
    """Write the outcome of a job that was stopped. Its method does not run.

    :param Session session: the session that took it over
    :param Job job: the job
    :param int starts: how often its method was begun since it was claimed
    :param int claim_count: how often it was claimed
    :param float limit: seconds that the job had; None: its own limit
    """
    execution = Execution(job)
    execution.starts = starts
    execution.claim_count = claim_count
    execution.given_time = limit
    runner = Runner(session)
    try:
        runner.run(execution)
    finally:
        runner.close()


class _Raced(Exception):  # noqa: N818 -- no error, but its cause
    """A race was lost. This is no error of psycopg2, since Odoo would then wait in the worker for up to half a minute."""

    __cause__: Exception


def _check_end(execution: Execution) -> None:
    if not execution.ended:
        msg = "The end of the job was not committed: its method or a hook has replaced the commit of the cursor"
        raise RuntimeError(msg)


def _once(function: _Step, env: api.Environment, execution: Execution) -> None:
    try:
        try:
            function(env, execution)
        finally:
            pools.spare()
        env.cr.flush()
        execution.note_invalidated(env.registry)
    except Exception as exc:
        if race := _race(env.cr, exc):
            raise _Raced from race
        raise


def _race(cr: BaseCursor, exc: Exception) -> Exception | None:
    """Return the lost race because of which a job has raised. It may have swallowed or wrapped the race, and gone on."""
    if kind_of(exc) is Kind.RACE:
        return exc
    return cr.lost_race() if isinstance(cr, JobCursor) and not issubclass(type(exc), RetryJob) else None


def _root(cr: JobCursor) -> api.Environment:
    """Return an environment of the superuser with no context."""
    env = api.Environment(cr, SUPERUSER_ID, {})
    # Without a default, recomputations would run as the user of the first environment. The job sets its own while it runs.
    env.transaction.default_env = env
    return env
