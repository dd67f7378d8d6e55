"""The connection on which jobs run, and their cursors. Each job begins as on a new connection, and commits behind its fence."""

from __future__ import annotations

import contextlib
import logging
import random
import weakref
from typing import TYPE_CHECKING, Any, NoReturn, cast

import psycopg2
import psycopg2.errors
from psycopg2.extensions import (
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
)

from odoo import sql_db

from ..engine import fence
from ..engine.connection import connect, is_descriptor_closed, session_parameters
from ..engine.errors import Kind, kind_of
from ..engine.job import Job
from ..exceptions import ClaimLost, JobInterrupted
from ..tools import signals
from . import pools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2.extensions import connection as Connection

    from ..engine.job import Outcome
    from .execution import Execution

_logger = logging.getLogger(__name__)

# These statements remove everything that a job can leave on its session. DISCARD ALL is this list plus DISCARD PLANS, but it
# cannot share a round trip with other statements. Plans that stay do no harm, and making them again costs time.
FORGET = "RESET ALL; SET SESSION AUTHORIZATION DEFAULT; CLOSE ALL; DEALLOCATE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES;"
UNENDED = (TRANSACTION_STATUS_INTRANS, TRANSACTION_STATUS_INERROR)
BROKEN = 2  # psycopg2's `closed` when the server has ended the connection
BEGIN = "; COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE; "


class JobConnection(sql_db.PsycoConnection):
    """A connection whose commits are fenced."""

    guard: JobCursor | None = None  # the cursor of the running job

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        cursor = super().cursor(*args, **kwargs)
        vars(self).setdefault('given', weakref.WeakSet()).add(cursor)
        return cursor

    def close_cursors(self) -> None:
        """Close all cursors of this connection, so that code which kept one cannot use it."""
        for cursor in list(vars(self).get('given', ())):
            with contextlib.suppress(psycopg2.Error):
                psycopg2.extensions.cursor.close(cursor)

    def commit(self) -> None:
        if self.get_transaction_status() == TRANSACTION_STATUS_INERROR:
            # PostgreSQL would roll back without an error.
            msg = "The method swallowed an SQL error, so its transaction cannot be committed. Execute such statements in a savepoint"
            raise psycopg2.errors.InFailedSqlTransaction(msg)
        if self.guard:
            self.guard.check_claim()
            self.guard.signal()
        super().commit()
        self._end("COMMIT")
        if self.guard:
            self.guard.note_commit()

    def rollback(self) -> None:
        if self.guard:
            self.guard.note_rollback()
        super().rollback()
        self._end("ROLLBACK")

    def _end(self, command: str) -> None:
        """End a transaction that psycopg2 does not know: the method has turned autocommit on, and executed BEGIN itself."""
        if self.get_transaction_status() in UNENDED:
            with super().cursor() as cr:
                cr.execute(command)
            super().rollback()  # for psycopg2, which may have begun a transaction for this statement


class _NoConnection:
    """The connection of a closed cursor. The real one belongs to the next job."""

    closed = 1

    def __getattr__(self, name: str) -> NoReturn:
        msg = "Cursor already closed"
        raise psycopg2.InterfaceError(msg)


class JobPool:
    """The one connection on which a worker's jobs run, in the shape of a pool for Odoo's cursors.

    A connection of Odoo's pool would need half a dozen statements for each job. This one starts with its parameters.

    :param str dbname: the database
    :param int server_version: the version of its server
    :param str parameters: more parameters of the session
    """

    readonly = False

    def __init__(self, dbname: str, server_version: int, **parameters: str) -> None:
        self.dbname = dbname
        self._connection: JobConnection | None = None
        self._is_clean = True
        self._parameters = session_parameters(server_version) | parameters

    def borrow(self, _dsn: Mapping[str, Any] | None) -> JobConnection:
        """Return the connection. It may still have to forget the last job: see :meth:`forget`."""
        connection = self._connection
        if not connection or connection.closed:
            # These survive RESET, since the session starts with them.
            connection = self._connection = cast('JobConnection', connect(self.dbname, JobConnection, self._parameters))
        connection.guard = None
        self._is_clean = False
        self._restore_client(connection)
        return connection

    def _restore_client(self, connection: JobConnection) -> None:
        # This resets the state that psycopg2 keeps itself. Odoo's cursor then sets its isolation level and the like.
        connection.rollback()  # a no-op when no transaction was left open
        connection.set_session(isolation_level='default', readonly='default', deferrable='default', autocommit=False)
        if connection.encoding not in ('UTF8', 'UNICODE'):
            connection.set_client_encoding('UTF8')
        connection.cursor_factory = None  # type: ignore[assignment]  # its value at first
        connection.string_types.clear()
        connection.binary_types.clear()
        connection.notifies.clear()
        connection.notices.clear()
        vars(connection).clear()

    def give_back(self, connection: JobConnection, keep_in_pool: bool = True) -> None:
        """Keep the connection for the next job."""
        connection.guard = None

    def forget_statement(self) -> str:
        """Return the statement that makes the session forget everything done on it.

        :rtype: str
        """
        return f"{FORGET} SELECT pg_advisory_unlock_all(), setseed({random.random()})"

    def forget(self) -> None:
        """Have the session forget everything done on it now. Needed when no job follows, whose begin would do it."""
        if self._is_clean:
            return
        connection = self.borrow(None)
        connection.autocommit = True  # one round trip; `borrow` turns it off again
        try:
            with connection.cursor() as cr:
                cr.execute(self.forget_statement())
        except BaseException:
            connection.close()
            raise
        self._is_clean = True

    def has_closed_descriptor(self) -> bool:
        """Return whether code of this process has closed the file descriptor of the connection.

        :rtype: bool
        """
        return self._connection is not None and is_descriptor_closed(self._connection)

    def close(self) -> None:
        if self._connection:
            self._connection.close()


class JobCursor(sql_db.Cursor):
    """A cursor that commits the work of a job only while the worker's claim on the job holds.

    :param JobPool pool: the connection
    """

    _cnx: JobConnection

    def __init__(self, pool: JobPool) -> None:
        super().__init__(pool, pool.dbname, {})  # type: ignore[arg-type]  # a cursor only needs `borrow` and `give_back`
        self._pool = pool
        self._execution: Execution | None = None
        self._is_finishing = False
        self._last_error: psycopg2.Error | None = None  # of a statement
        self._signals: list[str] = []  # of the current commit

    def begin(self, query: str = "SELECT 1") -> None:
        """Forget everything done on the connection, begin a transaction, and execute a query in it.

        :param str query: the query, with its parameters
        """
        try:
            self._obj.execute(f"{self._pool.forget_statement()} {BEGIN} {query}")  # pylint: disable=sql-injection
        except BaseException:
            if not self._cnx.closed:
                self._cnx.close()  # a connection that cannot forget must not be used again
            raise
        self._cnx.guard = self

    def begin_job(self, execution: Execution) -> Job:
        """Begin a transaction as :meth:`begin` does, and read the claimed job in it.

        :param Execution execution: the job
        :return: the job with the columns that running it needs
        :rtype: Job
        :raises ClaimLost: when the claim does not hold any more
        """
        job = execution.job
        self.begin(self._obj.mogrify(fence.BEGIN, fence.token(job)).decode())
        self._execution = execution
        row = self._obj.fetchone()
        if not row:
            raise ClaimLost
        return Job._make([*job[: -len(row)], *row])

    def commit(self) -> None:
        try:
            super().commit()
        finally:
            self.note_invalidated()

    def note_invalidated(self) -> None:
        """Remember which caches of the registry the job invalidated."""
        if self._execution and self.transaction:
            self._execution.note_invalidated(self.transaction.registry)

    def execute(self, query: Any, params: Any = None, log_exceptions: bool = True) -> None:
        if self._execution and self._execution.interrupted:
            raise JobInterrupted
        try:
            super().execute(query, params, log_exceptions)  # pylint: disable=sql-injection
        except psycopg2.Error as exc:
            if not issubclass(type(exc), psycopg2.errors.InFailedSqlTransaction):
                self._last_error = exc
            raise

    def lost_race(self) -> psycopg2.Error | None:
        """Return the lost race by which the transaction has failed, whatever the method has made of it.

        :rtype: psycopg2.Error | None
        """
        if self._closed or self._cnx.closed or self._cnx.get_transaction_status() != TRANSACTION_STATUS_INERROR:
            return None
        return self._last_error if self._last_error and kind_of(self._last_error) is Kind.RACE else None

    def close(self) -> None:
        if self._closed:
            return
        connection = self._cnx
        try:
            super().close()
        except BaseException as exc:  # a hook of the job failed, or the connection is gone
            if not connection.closed:
                connection.close()
            if not isinstance(exc, Exception):
                raise
            _logger.info("The cursor of a job could not be closed: %s", exc)
        finally:
            # Code that still has this cursor, such as a finalizer or a thread, must not reach the next job through it.
            self._closed = True
            self._cnx = _NoConnection()  # type: ignore[assignment]  # any use of it is an error
            connection.close_cursors()

    def finish(self, job: Job, outcome: Outcome, starts: int) -> int:
        """Write the outcome of the job in the current transaction. The next commit ends the job.

        :param Job job: the job
        :param Outcome outcome: its outcome
        :param int starts: how often its method was begun since it was claimed
        :return: the new revision of its row
        :rtype: int
        :raises ClaimLost: when the claim does not hold any more
        """
        assert self._execution, "`begin_job` comes first"
        self.execute(
            fence.FINISH,
            {**fence.token(job), **outcome._asdict(), 'starts': starts, 'claim_count': self._execution.claim_count},
            log_exceptions=False,
        )
        [[revision]] = self.fetchall()
        if revision is None:
            raise ClaimLost
        self._is_finishing = True
        return revision

    def check_claim(self) -> None:
        """Check before a commit that the claim holds. :meth:`finish` compares the claim itself, so no check is needed after it.

        :raises ClaimLost: when the claim does not hold any more
        """
        if self._execution and not self._is_finishing and not self._execution.ended:
            with self._cnx.cursor() as cr:
                cr.execute(fence.CHECK, fence.token(self._execution.job))  # pylint: disable=sql-injection
                if not cr.rowcount:
                    raise ClaimLost

    def signal(self) -> None:
        """Signal to other processes which caches the job invalidated, with the commit of its changes."""
        self._signals = []
        if self._execution and self.transaction and self.transaction.registry.ready:
            self._execution.note_invalidated(self.transaction.registry)
            self._signals = signals.changes(self.transaction.registry)
        if self._signals:
            with self._cnx.cursor() as cr:
                cr.execute(signals.send(self._signals).code)  # pylint: disable=sql-injection

    def note_commit(self) -> None:
        """Note what is committed: signals, and the end of the job if the transaction had its outcome."""
        if self._signals and self._execution and self.transaction:
            registry = self.transaction.registry
            signals.count(registry, self._signals)
            registry.registry_invalidated = False
            registry.cache_invalidated.clear()
            self._execution.signaled.update(self._signals)
        if self._is_finishing and self._execution:
            self._is_finishing = False
            self._execution.ended = True
            self._execution.on_end()
            pools.spare()  # for the hooks
            if self.transaction:
                self._execution.signal_again(self.transaction.registry)

    def note_rollback(self) -> None:
        """Note that the outcome of the job was rolled back, if the transaction had it."""
        self._is_finishing = False


def has_lost_server(connection: Connection) -> bool:
    """Return whether the server has ended a connection. False if the job itself has closed it.

    :param psycopg2.extensions.connection connection: the connection
    :rtype: bool
    """
    if connection.closed:
        return connection.closed == BROKEN
    try:
        with connection.cursor() as cr:
            cr.execute("SELECT")
    except (psycopg2.OperationalError, psycopg2.InterfaceError):
        return bool(connection.closed)
    except psycopg2.Error:
        pass  # the transaction has failed, but the connection works
    return False
