"""Run one claimed job: its method, then its outcome, in one transaction."""
from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import os
import random
import sys
import threading
import time
import traceback
from functools import partial

import psycopg2

from odoo import SUPERUSER_ID, api, sql_db
from odoo.exceptions import UserError
from odoo.modules.registry import Registry
from odoo.service.model import retrying

from ..engine.errors import Kind, kind_of
from ..engine.fence import holds
from ..engine.job import Outcome, StateChange
from ..engine.release import fail, release
from ..exceptions import ClaimLost, JobInterrupted, JobTimeout, RetryJob
from ..tools.config import settings
from .cursor import JobCursor, JobPool, has_lost_server
from .execution import Execution
from .publisher import publish, transact

_logger = logging.getLogger(__name__)

TRIES = 4  # in place, when a race is lost
FIRST_PAUSE = 0.05  # seconds before the second try, at most; twice as long before each further one
MAX_SETBACKS = 50  # from which on, after more than half an hour, trouble of the server is taken for the method's
PROGRESS_WAIT = '1s'  # for a lock, until the next report
MAX_DELAY = 60  # seconds before a job is run again that lost races, or met trouble of the server
THREAD_GRACE = 0.1  # seconds for threads that are about to end when their job has


class Runner:
    """Runs the jobs that a session claimed, one after the other.

    :param Session session: the session
    :param ThreadState process_state: what to set back after each job
    :param float limit: seconds that a job had which is stopped; by default, its own limit
    """

    def __init__(self, session, process_state=None, limit=None):
        self.session = session
        self._limit = limit
        self.must_end = False  # a job changed the process for good
        self._process_state = process_state
        self._owns_process = bool(process_state) and process_state.owns_process
        self._signals = None
        self._pool = JobPool(session.dbname, session.server_version)
        # Odoo's pool would wait for a host that vanished, and so would the thread that has to stop the job.
        self._progress_pool = JobPool(session.dbname, session.server_version, lock_timeout=PROGRESS_WAIT)
        self._cr = None  # of the running job, for whoever interrupts it
        self._was_lost = False  # whether the server had ended its connection when it raised

    def prepare(self, job):
        """Be up to date with the modules and the caches. Once per claim, as for a request.

        :param Job job: one of those that were claimed
        """
        # The claim has read the sequences. Its snapshot is older than those of the jobs.
        if job.signals != self._signals:
            self._delete_foreign_registry()
            with contextlib.closing(self._cursor()) as cr:
                cr.begin()
                Registry(self.session.dbname).check_signaling(cr)
            self._signals = job.signals

    def _delete_foreign_registry(self):
        """Keep nothing of another database that had the same name before: the signals of two copies are alike."""
        registry = Registry.registries.get(self.session.dbname)
        if registry and getattr(registry, 'ir_async_origin', self.session.origin) != self.session.origin:
            _logger.info("Database %s was replaced, its registry is loaded again", self.session.dbname)
            Registry.delete(self.session.dbname)

    def forget(self):
        """Leave nothing on the connection; called when no other job follows at once."""
        self._pool.forget()

    def close(self):
        """Close the connections."""
        self._pool.close()
        self._progress_pool.close()

    def run(self, execution):
        """Run a job, and write how it ended. Nothing that its method raises gets out of here.

        :param Execution execution: the job
        :raises psycopg2.Error: when the session is gone, and the job with it
        """
        threads = set(sys._current_frames())
        try:
            # All that Python keeps for the current context, such as the request, is the job's own.
            contextvars.Context().run(self._run, execution)
        finally:
            self._leave(execution, threads)

    def _run(self, execution):
        thread = threading.current_thread()
        thread.dbname, thread.uid = self.session.dbname, execution.job.user_id  # for the log
        begin = time.monotonic()
        try:
            try:
                self._run_in_place(execution, self._perform)
            except BaseException as exc:  # noqa: BLE001 -- sys.exit() in a job ends the job, not the worker
                # A claim that seems lost is looked up: the method may raise anything.
                if type(exc) is _CannotBegin or (
                        type(exc) in (ClaimLost, JobInterrupted) and not holds(self.session, execution.job)):
                    raise
                self._settle(execution, exc, begin)
            else:
                if not execution.job.stop:
                    _logger.info("Job %s done in %.3fs", execution.job, time.monotonic() - begin)
        except ClaimLost:
            _logger.warning("Job %s was taken away from this worker, nothing of it is committed", execution.job)
        except _CannotBegin as exc:
            raise exc.__cause__ from None  # as it is with the next job, too: the worker keeps away from this database
        except psycopg2.Error:
            _logger.warning("Job %s was taken away from this worker with its connection", execution.job)
            raise
        except JobInterrupted:
            _logger.info("Job %s was interrupted after %.3fs", execution.job, time.monotonic() - begin)

    def _run_in_place(self, execution, function):
        """Call a function in a transaction, and again a few times when it loses a race."""
        for tryno in range(1, TRIES + 1):
            try:
                self._transact(execution, function)
                return
            except _Raced as raced:
                exc = raced.__cause__
                if tryno == TRIES:
                    raise exc from None
                _logger.info("Job %s lost a race, trying it again: %s", execution.job, first_line(exc))
                time.sleep(random.uniform(0, FIRST_PAUSE * 2 ** (tryno - 1)))

    def _transact(self, execution, function):
        """Call a function in a transaction of the job, and commit it. An error of a hook after the commit is logged only."""
        self._was_lost = True  # until it is there, the method has nothing to do with what fails
        with contextlib.closing(self._cursor()) as cr:
            connection = cr._cnx  # the method may close the cursor
            try:
                execution.job = cr.begin(execution)
            except psycopg2.Error as exc:
                if kind_of(exc) is Kind.METHOD:
                    raise _CannotBegin from exc
                raise
            self._was_lost = False
            try:
                env = root(cr)
                # It flushes, commits, resets the registry's caches, and words the errors of constraints; it tries once.
                retrying(partial(_once, function, env, execution), env)
                _check_end(execution)
            except Exception as exc:
                if execution.ended:
                    self._log_failed_hook(execution, exc)
                    return
                self.end_if_descriptor_is_closed(execution)
                self._was_lost = has_lost_server(connection)
                if type(exc) is not _Raced and kind_of(exc) is Kind.RACE:
                    raise _Raced from exc  # at the commit
                raise
            except BaseException as exc:
                if execution.ended and type(exc) is not JobInterrupted:
                    self._log_failed_hook(execution, exc)
                    return
                self.end_if_descriptor_is_closed(execution)
                execution.note_invalidated(env.registry)
                raise

    @staticmethod
    def _log_failed_hook(execution, exc):
        _logger.error("Job %s is done, but a hook after its commit failed\n%s", execution.job, safe_traceback(exc))

    def _perform(self, env, execution):
        job = execution.job
        if job.notify and not job.stop and not execution.starts:
            # For the user, in a transaction of its own; the job does not depend on it.
            self.session.changes.append(StateChange(job.id, job.user_id, job.name, 'processing', job.revision))
            publish(self.session)
        if job.stop:
            outcome = self._outcome_of_stop(env, job)
        else:
            execution.starts += 1
            execution.on_begin()
            try:
                outcome = env['ir.async']._perform(execution)
            finally:
                self.save_progress(execution)  # the last of what it reported
        env['ir.async']._finish(job, outcome, execution.starts)

    def _outcome_of_stop(self, env, job):
        if job.stop == 'cancel':
            _logger.info("Job %s is cancelled", job)
            return Outcome('cancelled', attempts=0)
        exc = JobTimeout(f"The job took longer than {self._limit or time_limit(job):g} seconds")
        _logger.error("Job %s failed: %s", job, exc)
        return env['ir.async']._outcome_of_error(
            job, exc, job.stop_debug or "Where it was: in code that did not let anything else run\n")

    def _settle(self, execution, exc, begin):
        """Have a job end in a state that says so, whatever its method, or its end, raised."""
        if execution.ended:  # a hook of the rollback, when the cursor was closed
            self._log_failed_hook(execution, exc)
            return
        exc = tame(exc)
        try:
            self._handle(execution, exc, begin)
        except (_CannotBegin, psycopg2.Error):
            raise
        except BaseException as second:  # noqa: BLE001 -- there must be an end
            if type(second) in (ClaimLost, JobInterrupted) and not holds(self.session, execution.job):
                raise
            # Nothing from here on looks at an exception, but where whatever that raises is caught.
            _logger.error("The failure of job %s could not be handled\n%s", execution.job, safe_traceback(second))
            fail(self.session, execution.job, minimal_payload(exc))

    def _handle(self, execution, exc, begin):
        """Decide what becomes of a job whose method, or whose end, raised."""
        job, kind = execution.job, kind_of(exc)
        if kind is Kind.LOST and not (exc.pgcode or '').startswith('57P') and not self._has_lost_connection():
            # Odoo's pool could not connect to our server; or the method has to do with another one.
            kind = Kind.SERVER if _comes_from_pool(exc) else Kind.METHOD
        elif kind is Kind.METHOD and self._was_lost and not isinstance(exc, RetryJob):
            kind = Kind.LOST  # it stumbled over a statement that could not be executed any more
        if kind is Kind.SERVER and setbacks(execution) >= MAX_SETBACKS:
            kind = Kind.METHOD  # it does not pass
        if kind is Kind.METHOD:
            try:
                self._reset_registry(execution)  # the hook for failures must not see what was rolled back
                self._run_in_place(execution, partial(self._fail, exc=exc))
            except (ClaimLost, JobInterrupted):
                raise
            except BaseException as second:  # noqa: BLE001 -- whatever it is, the job ends
                if kind_of(second) is Kind.METHOD:
                    _logger.error("The failure of job %s could not be recorded in full\n%s", job, safe_traceback(second))
                    fail(self.session, job, minimal_payload(exc))
                    return
                self._send_back(execution, second)
            else:
                self._log_failure(execution, exc, time.monotonic() - begin)
        else:
            self._send_back(execution, exc)

    def _fail(self, env, execution, exc):
        execution.on_failure()
        job = execution.job
        # A cancel that came while the method was raising: the job is not tried again.
        outcome = self._outcome_of_stop(env, job) if job.stop else env['ir.async']._outcome_of_error(job, exc)
        execution.outcome = outcome
        env['ir.async']._finish(job, outcome, execution.starts)

    def _send_back(self, execution, exc):
        """Put a job back into the queue. It is not its fault, so it costs no attempt; the delay grows."""
        job = execution.job
        delay = min(MAX_DELAY, 0.5 * 1.3 ** min(setbacks(execution), 40)) * random.uniform(0.2, 1)
        _logger.info("Job %s goes back into the queue for %.1fs: %s", job, delay, first_line(exc))
        # The claim is looked up, not concluded from an error.
        if not release(self.session, [job], starts=execution.starts, delay=delay, payload=minimal_payload(exc)):
            if not self.session.execute("SELECT FROM ir_async WHERE id = %s AND session = %s", [job.id, self.session.key]):
                raise ClaimLost from exc
            msg = f"somebody has job {job} locked"  # it is found again without this session
            raise psycopg2.OperationalError(msg) from exc

    def _log_failure(self, execution, exc, duration):
        job, outcome = execution.job, execution.outcome
        if job.stop:
            return  # said already
        again = ""
        if outcome.state == 'created':
            again = f", attempt {job.attempts + 1} of {job.max_attempts}, tried again in {outcome.delay:.0f}s"
        if isinstance(exc, RetryJob):
            _logger.info("Job %s is tried again in %.0fs: %s", job, outcome.delay, safe_text(exc))
        elif isinstance(exc, UserError):
            _logger.warning("Job %s failed after %.3fs%s: %s", job, duration, again, safe_text(exc))
        else:
            _logger.error("Job %s failed after %.3fs%s\n%s", job, duration, again, safe_traceback(exc))

    def _leave(self, execution, threads):
        """Leave nothing of a job to the next one.

        :param set[int] threads: those that were there before it
        """
        if self._owns_process:
            self._leave_threads(execution, threads)
        if self._process_state:
            try:
                self.must_end = bool(self._process_state.restore()) or self.must_end
            except Exception:
                _logger.exception("What job %s changed in its process could not be set back", execution.job)
                self.must_end = True
        self._reset_registry(execution)

    def _leave_threads(self, execution, threads):
        """Have the process end if a job left threads in it: they may have its connection, and change what it set back."""
        if sys._current_frames().keys() <= threads:
            return
        self._pool.close()
        deadline = time.monotonic() + THREAD_GRACE
        while (left := sys._current_frames().keys() - threads) and time.monotonic() < deadline:
            time.sleep(0.005)
        if left:
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            _logger.warning(
                "Job %s left threads behind: %s", execution.job, ', '.join(f'{names.get(ident, ident)}' for ident in left))
            self.must_end = True

    def _reset_registry(self, execution):
        registry = Registry.registries.get(self.session.dbname)
        if registry:
            # `retrying` does it for an Exception alone; nor does it know what was invalidated before a rollback.
            registry.cache_invalidated.update(execution.invalidated)
            registry.registry_invalidated |= execution.registry_invalidated
            registry.reset_changes()
            execution.invalidated.clear()
            execution.registry_invalidated = False

    def _cursor(self):
        self._cr = JobCursor(self._pool)
        return self._cr

    def _has_lost_connection(self):
        """Return whether the connection of the job or that of its claim has ended.

        :raises psycopg2.Error: when it is that of the claim
        """
        self.session.execute("SELECT")
        return self._was_lost

    def end_if_descriptor_is_closed(self, execution):
        """End the process if the job has closed the file descriptor of a connection in it: no fault of the server's.

        The mark of the process stays, so that the job is charged with its death.

        :param Execution execution: the job
        """
        if self._owns_process and (self.session.has_closed_descriptor() or self._pool.has_closed_descriptor()):
            _logger.warning("Job %s has closed file descriptors of its worker, which ends", execution.job)
            logging.shutdown()
            os._exit(1)

    def interrupt(self):
        """Cancel the statement that the job is executing; called from another thread."""
        with contextlib.suppress(psycopg2.Error):
            self._cr._cnx.cancel()

    def save_progress(self, execution):
        """Save what a job reported, and notify the user; called from both threads, one after the other."""
        if not execution.progress:
            return
        with execution.progress_lock:
            progress, execution.progress = execution.progress, None
            if progress:
                try:
                    transact(
                        self.session.dbname, lambda env: env['ir.async']._save_progress(execution.job, progress), self._progress_pool)
                except Exception as exc:  # noqa: BLE001 -- whatever it is, the job goes on
                    _logger.info("The progress of job %s could not be saved: %s", execution.job, exc)


def conclude(session, job, starts, shown_claims, limit=None):
    """Write the outcome of a job that was stopped: its method is not run.

    :param Session session: the session that took it over
    :param Job job: the job
    :param int starts: how often its method was begun since it was claimed
    :param int shown_claims: how often it was claimed
    :param float limit: seconds that it had, unless that is its own limit
    """
    execution = Execution(job)
    execution.starts = starts
    execution.shown_claims = shown_claims
    runner = Runner(session, limit=limit)
    try:
        runner.run(execution)
    finally:
        runner.close()


class _CannotBegin(Exception):  # noqa: N818 -- no error, but its cause
    """PostgreSQL refuses the statement by which jobs begin."""


class _Raced(Exception):  # noqa: N818 -- no error, but its cause
    """A race was lost. Not an error of psycopg2, for which Odoo would wait up to half a minute in the worker."""


def _check_end(execution):
    if not execution.ended:
        msg = "The end of the job was not committed: its method, or a hook, has replaced what commits"
        raise RuntimeError(msg)


def _once(function, env, execution):
    try:
        function(env, execution)
        env.cr.flush()
        execution.note_invalidated(env.registry)
    except Exception as exc:
        if kind_of(exc) is Kind.RACE:
            raise _Raced from exc
        raise


def tame(exc):
    """Return an exception, or another one in its place if it does not let itself be looked at.

    :param BaseException exc: what a method raised
    :rtype: BaseException
    """
    try:
        isinstance(exc, Exception)
        hash(exc)
        f"{type(exc).__module__}{type(exc).__qualname__}{type(exc).__name__}"
        for name in ('__class__', 'args', '__traceback__', '__cause__', '__context__', '__notes__', 'context', 'pgcode'):
            getattr(exc, name, None)
    except BaseException as error:  # noqa: BLE001 -- the code of a method
        return RuntimeError(f"{name_of(exc)}, whose attributes raised {name_of(error)}").with_traceback(traceback_of(exc))
    return exc


def _comes_from_pool(exc):
    """Return whether an error was raised when Odoo's pool opened a connection: psycopg2 gives it no code."""
    frames = list(traceback.walk_tb(exc.__traceback__))
    return any(
        frame.f_code.co_name == 'borrow' and frame.f_code.co_filename == sql_db.__file__ for frame, _line in frames[-4:])


def setbacks(execution):
    """Return how often a method was begun, and neither it nor its worker was to blame that it did not end.

    :rtype: int
    """
    job = execution.job
    return (job.starts or 0) + execution.starts - (job.attempts or 0) - (job.deaths or 0)


def root(cr):
    """Return an environment of the superuser with no context.

    :rtype: odoo.api.Environment
    """
    env = api.Environment(cr, SUPERUSER_ID, {})
    # Unset, recomputations would run as the user of the first environment; a job's own sets it while it runs.
    env.transaction.default_env = env
    return env


def time_limit(job):
    """Return how many seconds the method of a job may run; 0: no limit.

    :rtype: float
    """
    return min(filter(None, [job.timeout, settings().limit_time_real]), default=0)


def where_it_is(thread):
    """Return the text of the stack of a thread.

    :param threading.Thread thread: the thread
    :rtype: str
    """
    frame = sys._current_frames().get(thread.ident)
    return f"Where it was (most recent call last):\n{''.join(traceback.format_stack(frame))}" if frame else None


def name_of(exc):
    """Return the name of the class of an exception, whatever its metaclass does.

    :rtype: str
    """
    return type.__dict__['__name__'].__get__(type(exc))


def traceback_of(exc):
    """Return the traceback of an exception, whatever its class does.

    :rtype: types.TracebackType | None
    """
    return BaseException.__dict__['__traceback__'].__get__(exc)


def safe_text(exc):
    """Return the text of an exception, even if it has none.

    :param BaseException exc: the exception
    :rtype: str
    """
    try:
        return ''.join([str(exc), ''])  # the text itself, were it a subclass
    except BaseException as error:  # noqa: BLE001 -- the code of a method
        return f"{name_of(exc)}, whose text raised {name_of(error)}"


def first_line(exc):
    """Return the first line of the text of an exception.

    :rtype: str
    """
    return next(iter(safe_text(exc).splitlines()), name_of(exc))


def safe_traceback(exc):
    """Return the text of an exception with its traceback, even if the exception does not want to be shown.

    :param BaseException exc: the exception
    :rtype: str
    """
    try:
        return ''.join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    except BaseException:  # noqa: BLE001 -- the code of a method
        try:
            return f"{''.join(traceback.format_tb(traceback_of(exc)))}{safe_text(exc)}"
        except BaseException:  # noqa: BLE001 -- so is what finds its source
            return safe_text(exc)


def minimal_payload(exc):
    """Return the error of a job, as JSON, when nothing else can be said about it.

    :rtype: str
    """
    data = {'name': name_of(exc), 'message': safe_text(exc), 'arguments': [], 'context': {}, 'debug': safe_traceback(exc)}
    text = json.dumps({'error': {'code': 0, 'message': "Odoo Server Error", 'data': data}})
    return text.encode(errors='replace').decode().replace('\\u0000', '')
