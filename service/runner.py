"""Run one claimed job: its method, then its outcome, in one transaction."""
from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import threading
import time
import traceback
from functools import partial

import psycopg2
from psycopg2.errors import DivisionByZero, SerializationFailure
from psycopg2.extensions import TRANSACTION_STATUS_INERROR

from odoo import SUPERUSER_ID, api, sql_db
from odoo.exceptions import UserError
from odoo.modules.registry import Registry
from odoo.service.model import retrying
from odoo.tools import SQL

from ..exceptions import ClaimLost, JobInterrupted, JobTimeout, RetryJob
from . import pg
from .config import settings
from .session import HELD

_logger = logging.getLogger(__name__)

RENEWAL_INTERVAL = 2  # seconds for which short jobs use the connection one after the other
# Statements that may do something to the connection which outlives the transaction: what they begin with, what they contain.
LASTING_COMMANDS = ('SET ', 'LISTEN', 'PREPARE', 'DO ', 'CALL ')
LASTING_WORDS = (';', 'TEMP ', 'TEMPORARY ', 'ADVISORY_LOCK', 'SET_CONFIG')


class JobConnection(sql_db.PsycoConnection):
    """A connection that can say how a job ended, commit, and begin the next transaction in one round trip."""
    _final_statements = None

    def commit_with(self, statements):
        """Have the next commit done by some statements, if nothing is rolled back before.

        :param bytes statements: the last one is ``COMMIT AND CHAIN``
        """
        self._final_statements = statements

    def commit(self):
        if not self._final_statements:
            return super().commit()
        try:
            with self.cursor() as cr:
                cr.execute(self._final_statements)
        except psycopg2.Error as exc:
            is_uncommitted = self.info.transaction_status == TRANSACTION_STATUS_INERROR
            # It may be over, but psycopg2 does not know: without this, what comes next would be in none.
            super().rollback()
            if is_uncommitted and isinstance(exc, (DivisionByZero, SerializationFailure)):
                raise ClaimLost from exc
            raise
        finally:
            self._final_statements = None

    def rollback(self):
        self._final_statements = None
        super().rollback()


class JobCursor(sql_db.Cursor):
    """A cursor that commits the work of a job only as long as the job is this worker's."""

    def __init__(self, pool):
        super().__init__(pool, pool.dbname, {})
        self.job = None
        self.is_lasting = False  # whether something may be left on the connection
        self._commit_count = None  # of statements, when it last committed
        self._finish_name = None
        self._finish_names = map('ir_async_finish_{}'.format, itertools.count())

    def execute(self, query, params=None, log_exceptions=True):
        if not self.is_lasting:
            statement = (query.code if isinstance(query, SQL) else str(query)).lstrip().upper()
            self.is_lasting = statement.startswith(LASTING_COMMANDS) or any(word in statement for word in LASTING_WORDS)
        super().execute(query, params, log_exceptions)

    def finish(self, query, values):
        """Have a job end with the next commit.

        :param str query: the statement by which jobs end, that returns a row if it does. Planning it takes longer than
            the rest: once is enough for a batch.
        :param dict values: of its placeholders, as in ``%(name)s``
        """
        name, prepare = self._finish_name, ""
        if not name:
            name = next(self._finish_names)
            query %= {key: f'${i}' for i, key in enumerate(values, 1)}
            # Without a row, the division fails: then nothing is committed.
            prepare = f"PREPARE {name} AS WITH ended AS ({query}) SELECT 1 / count(*) FROM ended;"
        self._cnx.commit_with(self.mogrify(
            f"{prepare} EXECUTE {name} ({', '.join(['%s'] * len(values))}); COMMIT AND CHAIN", [*values.values()]))
        self._finish_name = name

    def check(self, lock=SQL()):
        """See that the job is still ours, in its transaction.

        :raises ClaimLost: when it is not
        """
        try:
            self.execute(SQL("%s %s", SQL(HELD, **self.job._asdict()), lock), log_exceptions=False)
        except SerializationFailure as exc:
            raise ClaimLost from exc
        if not self.rowcount:
            raise ClaimLost

    def commit(self):
        if self.job:
            self.flush()
            # The lock holds off whoever would give the job to another worker, until the commit is through.
            self.check(SQL("FOR NO KEY UPDATE"))
        self._commit_count = self.sql_log_count
        super().commit()

    def rollback(self):
        super().rollback()
        self._finish_name = None  # nobody knows whether it was prepared

    def is_clean(self):
        """Return whether nothing was executed since the last commit, not even by one of its hooks.

        :rtype: bool
        """
        return self.sql_log_count == self._commit_count


class JobPool:
    """The connection of a worker's jobs. For Odoo's cursors a pool, but of one.

    In Odoo's own, a connection takes half a dozen statements each time to have the settings that this one starts with.
    """
    readonly = False

    def __init__(self, session):
        self.dbname = session.dbname
        # The backend of a killed worker would go on with its statement to the end.
        self._settings = {
            'client_connection_check_interval': '500ms', 'idle_session_timeout': 0,
        } if session.server_version >= 140000 else {}
        self._connection = None

    def borrow(self, _dsn):
        """Return the connection, with nothing left of what was done on it before."""
        if self._connection and not self._connection.closed:
            self._connection.reset()
        else:
            self._connection = pg.connect(self.dbname, JobConnection, **self._settings)
        return self._connection

    def give_back(self, connection, keep_in_pool=True):
        """Keep it."""

    def close(self):
        """Close it."""
        if self._connection:
            self._connection.close()


class Runner:
    """Runs the jobs that a session claimed, one after the other.

    :param session: the session, a :class:`~odoo.addons.ir_async.service.session.Session`
    """

    def __init__(self, session):
        self.session = session
        self._signals = None
        self._ended_well = False  # the job whose turn it is
        self._is_used = False
        self._next_renewal = 0
        self._pool = JobPool(session)
        self.cr = JobCursor(self._pool)

    def prepare(self, job):
        """Be up to date with the modules and the caches. Once per claim, as for a request.

        :param Job job: one of those that were claimed
        """
        # The claim has read the sequences. Its snapshot is older than those of the jobs, but by no more than a moment.
        if job.signals != self._signals:
            self.session.set_ready(False)
            Registry(self.session.dbname).check_signaling(self.cr)
            self.cr.rollback()  # loading takes long: the job is not to see the database as it was before
            self._signals = job.signals
        self.session.set_ready(True)

    def renew(self, at_once=True):
        """Leave nothing of what was done with the connection to other jobs. Done after a claim: before, somebody waits.

        :param bool at_once: otherwise only if the last time is long ago, as it takes as long as a job that is short
        """
        now = time.monotonic()
        if self._is_used and (at_once or now >= self._next_renewal):
            self._is_used = False
            self._next_renewal = now + RENEWAL_INTERVAL
            self.cr.close()
            self.cr = JobCursor(self._pool)

    def close(self):
        with contextlib.suppress(psycopg2.Error):
            self.cr.close()
        self._pool.close()

    def run(self, running):
        """Run a job, and say how it ended. Nothing that its method raises gets out of here.

        :param Execution running: the job
        """
        job = running.job
        self._is_used = True
        thread = threading.current_thread()
        thread.dbname, thread.uid = self.session.dbname, job.user_id  # for the log
        start = time.monotonic()
        try:
            self._run(running)
        except ClaimLost:
            _logger.warning("Job %s was taken away from this worker, nothing of it is committed", job)
        except JobInterrupted:
            _logger.info("Job %s was interrupted after %.3fs", job, time.monotonic() - start)
        except BaseException as exc:  # noqa: BLE001 -- sys.exit() in a job ends the job, not the worker
            self._fail(job, exc, time.monotonic() - start)
        else:
            _logger.info("Job %s done in %.3fs", job, time.monotonic() - start)
        finally:
            self._reset()

    def _run(self, running):
        job = running.job
        if job.stop:
            conclude(self.session, job, job.stop)
            return
        env = _root(self.cr)
        if job.notify:
            env['ir.async']._send(job.id, job.user_id, job.name, 'processing', job.revision)
            self.cr.commit()
        retrying(partial(self._attempt, running, env), env)
        self._ended_well = True

    def _attempt(self, running, env):
        self.cr.job = running.job
        try:
            # Each further try: when the one before failed because somebody else wrote the row, the job is theirs. And when
            # the claim is not new any more, since others were before it, or the process was suspended.
            if time.monotonic() > running.fresh_until:
                self.cr.check()
            running.fresh_until = 0
            state, payload = env['ir.async']._perform(running)
        finally:
            self.cr.job = None
            self.save_progress(running)
        env['ir.async']._finish(running.job, state, payload, at_commit=True)

    def _fail(self, job, exc, duration):
        try:
            if self.cr.closed:
                # Not the fault of the job, maybe: it is run again, but not for ever.
                _logger.warning("Job %s lost its connection to the database: %s", job, exc)
                if not self.session.give_back([job], deaths=1):
                    msg = f"the lost connection still has job {job} locked"  # it is found again without this session
                    raise psycopg2.OperationalError(msg)
                self.cr = JobCursor(self._pool)
                return
            self._reset()
            env = _root(self.cr)
            retrying(partial(self._attempt_failure, job, env, exc), env)
        except ClaimLost:
            _logger.warning("Job %s had ended, or was taken away from this worker, before it failed: %s", job, exc)
        else:
            if isinstance(exc, RetryJob):
                _logger.info("Job %s is to be tried again later: %s", job, exc)
            elif isinstance(exc, UserError):
                _logger.warning("Job %s failed after %.3fs: %s", job, duration, exc)
            else:
                _logger.error("Job %s failed after %.3fs", job, duration, exc_info=exc)

    def _attempt_failure(self, job, env, exc):
        # When PostgreSQL goes down, the method fails for it. But the claim is gone with the session, then.
        self.session.check(job)
        env['ir.async']._fail(job, exc)

    def _reset(self):
        """Leave nothing of a job to the next one."""
        self.cr.job = None
        if self._ended_well and self.cr.is_clean():
            self.cr.precommit.clear()
            self.cr.postcommit.clear()
        else:
            with contextlib.suppress(psycopg2.Error):  # the connection is gone: whoever uses it next notices
                self.cr.rollback()
        self._ended_well = False
        # `retrying` does it for an Exception alone, not when the job was lost, or exits.
        Registry(self.session.dbname).reset_changes()
        self.cr.transaction = None
        self.cr.cache.clear()
        if self.cr.is_lasting:
            self.renew()

    def interrupt(self):
        """Cancel the statement that the job is executing; called from another thread."""
        with contextlib.suppress(psycopg2.Error):
            self.cr._cnx.cancel()

    def save_progress(self, running):
        """Save what a job reported, and tell the user; called from both threads."""
        progress, running.progress = running.progress, None
        if progress:
            try:
                transact(self.session.dbname, lambda env: env['ir.async']._save_progress(running.job, progress))
            except Exception as exc:  # noqa: BLE001 -- whatever it is, the job goes on
                _logger.info("The progress of job %s could not be saved: %s", running.job, exc)


def time_limit(job):
    """Return how many seconds the method of a job may run; 0: no limit.

    :rtype: float
    """
    return min(filter(None, [job.timeout, settings().limit_time_real]), default=0)


def conclude(session, job, reason, thread=None):
    """End a job that is to be stopped: from then on, its method can commit nothing.

    :param session: the session that claimed it
    :param Job job: the job
    :param str reason: ``cancel`` or ``timeout``
    :param threading.Thread thread: the one that runs its method, if any does
    :raises ClaimLost: when it has ended by itself
    """
    def write(env):
        if reason == 'cancel':
            env['ir.async']._finish(job, 'cancelled', attempts=0)
        else:
            env['ir.async']._fail(job, exc, debug)

    job = job._replace(stop=reason)
    if reason == 'timeout':
        exc = JobTimeout(f"The job took longer than {time_limit(job):g} seconds")
        frame = thread and sys._current_frames().get(thread.ident)
        debug = "Where it was (most recent call last):\n%s\n%s: %s\n" % (
            ''.join(traceback.format_stack(frame)) if frame else "  in code that did not let anything else run\n",
            type(exc).__name__, exc)
        _logger.error("Job %s failed: %s", job, exc)
    else:
        _logger.info("Job %s is cancelled", job)
    transact(session.dbname, write)


def tell(session):
    """Tell the users about the changes that a session made besides running jobs."""
    changes, session.changes = session.changes, []
    if changes:
        transact(session.dbname, lambda env: [
            env['ir.async']._send(change.id, change.user_id, change.name, change.state, change.revision)
            for change in changes])


def transact(dbname, function):
    """Call a function with an environment, in a transaction of its own."""
    with Registry(dbname).cursor() as cr:
        env = _root(cr)
        retrying(partial(function, env), env)


def _root(cr):
    env = api.Environment(cr, SUPERUSER_ID, {})
    env.transaction.default_env = env
    return env
