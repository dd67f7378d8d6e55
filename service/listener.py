"""The connection on which a worker listens: for databases that have jobs, and for other workers."""

from __future__ import annotations

import errno
import logging
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import POLL_OK

from ..engine.connection import PROCESS_LOCK_CLASS, connect, is_descriptor_closed, session_parameters, set_config, wait
from ..engine.errors import Kind, kind_of
from ..engine.notifier import CHANNEL as NAMES
from ..engine.notifier import NOTIFY
from ..exceptions import PoolerFound
from .roster import CHANNEL as WORKERS

if TYPE_CHECKING:
    from psycopg2.extensions import Notify
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

_logger = logging.getLogger(__name__)

DATABASE = 'postgres'
RECONNECT_DELAY = 1  # seconds
POOLER_DELAY = 60  # seconds until the next try when a pooler is in between


class _InRecovery(psycopg2.OperationalError):
    def __str__(self) -> str:
        return "PostgreSQL is in recovery"


class Listener:
    """A connection to the database ``postgres`` that is opened again whenever it is lost.

    It is asynchronous. Both threads of a worker send on it, and neither may wait for a server that does not answer.

    :param int process_number: the number that the process has locked on it as long as it lives
    """

    def __init__(self, process_number: int) -> None:
        self.process_number = process_number
        self.is_refused = False  # a pooler is in between, so this worker must not take jobs
        self._connection: Connection | None = None
        self._cursor: Cursor | None = (
            None  # psycopg2 keeps only a weak reference to the cursor that waits for an answer
        )
        self._unsent: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._next_try = 0.0

    def fds(self) -> list[Connection]:
        """Return the objects on which to ``select()``."""
        return [self._connection] if self._connection else []

    def connect(self) -> bool:
        """Connect if the connection is lost and it is time for the next try.

        :return: whether it connected. Notifications may then have been missed, so all databases must be visited
        :rtype: bool
        """
        if self._connection or time.monotonic() < self._next_try:
            return False
        with self._lock:
            try:
                self._unsent.clear()
                self._connection = connect(DATABASE, is_async=True)
                self._begin(self._connection)
            except psycopg2.Error as exc:
                self._lose(exc)
                return False
            except PoolerFound as exc:
                self._close()
                if not self.is_refused:
                    _logger.error("%s", exc)
                self.is_refused = True
                self._next_try = time.monotonic() + POOLER_DELAY
                return False
        self.is_refused = False
        return True

    def _begin(self, connection: Connection) -> None:
        parameters = set_config(session_parameters(connection.server_version))
        self._execute(f"{parameters}, pg_backend_pid(), pg_is_in_recovery()")
        [[*_parameters, backend_pid, is_in_recovery]] = self._answer()
        if backend_pid != connection.get_backend_pid():
            raise PoolerFound(DATABASE)
        if is_in_recovery:
            # A standby runs no jobs, and refuses LISTEN. Each refusal would be an ERROR in its log.
            raise _InRecovery
        self._execute("SELECT pg_advisory_lock(%s, %s)", [PROCESS_LOCK_CLASS, self.process_number])
        self._answer()
        self._execute(f"LISTEN {NAMES}; LISTEN {WORKERS}")
        wait(connection)

    @property
    def is_connected(self) -> bool:
        """Whether other processes can see that this worker lives."""
        return bool(self._connection)

    def send(self, channel: str, payload: str) -> None:
        """Send a notification, without waiting. Without a connection, it is dropped.

        :param str channel: the channel
        :param str payload: the text
        """
        with self._lock:
            if self._connection:
                self._unsent.append((channel, payload))
                self._exchange(self._connection)

    def flush(self) -> None:
        """Wait until PostgreSQL has taken all notifications."""
        with self._lock:
            try:
                while self._connection and (self._unsent or self._connection.isexecuting()):
                    wait(self._connection)
                    self._exchange(self._connection)
            except psycopg2.Error as exc:
                self._lose(exc)

    def read(self) -> list[Notify]:
        """Return, without waiting, the notifications that came, in PostgreSQL's order.

        :rtype: list[psycopg2.extensions.Notify]
        """
        with self._lock:
            if not self._connection:
                return []
            self._exchange(self._connection)
            if not self._connection:
                return []
            notifications = list(self._connection.notifies)
            self._connection.notifies.clear()
            return notifications

    def _exchange(self, connection: Connection) -> None:
        """Take what has come, and send what the connection is ready to send.

        :raises OSError: when a job has closed the descriptor. Another file of the job may have its number
        """
        if is_descriptor_closed(connection):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        for _turn in range(len(self._unsent) + 1):
            try:
                while connection.poll() == POLL_OK and self._unsent:
                    self._execute(NOTIFY, self._unsent.pop(0))
                return
            except psycopg2.Error as exc:
                if connection.closed or kind_of(exc) is Kind.LOST:
                    self._lose(exc)
                    return
                _logger.info("PostgreSQL did not take a message to other workers: %s", exc)

    def _execute(self, query: str | sql.Composable, params: Any = None) -> None:
        assert self._connection
        self._cursor = self._connection.cursor()
        self._cursor.execute(query, params)  # pylint: disable=sql-injection

    def _answer(self) -> list[tuple[Any, ...]]:
        assert self._connection and self._cursor
        wait(self._connection)
        return self._cursor.fetchall()

    def _lose(self, exc: psycopg2.Error) -> None:
        _logger.info("Cannot listen for jobs, trying again: %s", exc)
        self._close()
        self._next_try = time.monotonic() + RECONNECT_DELAY * random.uniform(0.3, 1)

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = self._cursor = None
