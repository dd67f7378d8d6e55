"""The connection on which a worker listens for databases that have jobs."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

import psycopg2

from ..engine.connection import PROCESS_LOCK_CLASS, connect_worker
from ..exceptions import PoolerFound

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

_logger = logging.getLogger(__name__)

RECONNECT_DELAY = 1  # seconds
POOLER_DELAY = 60  # seconds until the next try when a pooler is in between


class _InRecovery(psycopg2.OperationalError):
    def __str__(self) -> str:
        return "PostgreSQL is in recovery"


class Listener:
    """A connection to the database ``postgres`` that is opened again whenever it is lost."""

    def __init__(self) -> None:
        self.process_number = random.getrandbits(31)  # the process has this number locked as long as it lives
        self.is_refused = False  # a pooler is in between, so this worker must not take jobs
        self._connection: Connection | None = None
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
        try:
            self._connection = connect_worker('postgres')
            self.is_refused = False
            with self._connection.cursor() as cr:
                cr.execute("SELECT pg_is_in_recovery()")
                if cr.fetchall() == [(True,)]:
                    # A standby can neither LISTEN nor run jobs. Connections made before its promotion still cannot afterwards.
                    raise _InRecovery
                cr.execute("SELECT pg_advisory_lock(%s, %s)", [PROCESS_LOCK_CLASS, self.process_number])
                cr.execute("LISTEN odoo_async")
        except psycopg2.Error as exc:
            self._lose(exc)
            return False
        except PoolerFound as exc:
            if not self.is_refused:
                _logger.error("%s", exc)
            self.is_refused = True
            self._next_try = time.monotonic() + POOLER_DELAY
            return False
        return True

    @property
    def is_connected(self) -> bool:
        """Whether other processes can see that this worker lives."""
        return bool(self._connection)

    def read(self) -> set[str]:
        """Return, without waiting, the databases that notifications named.

        :rtype: set[str]
        """
        if not self._connection:
            return set()
        try:
            self._connection.poll()
        except psycopg2.Error as exc:
            self._lose(exc)
            return set()
        names = {notification.payload for notification in self._connection.notifies}
        self._connection.notifies.clear()
        return names

    def _lose(self, exc: psycopg2.Error) -> None:
        _logger.info("Cannot listen for jobs, trying again: %s", exc)
        if self._connection:
            self._connection.close()
        self._connection = None
        self._next_try = time.monotonic() + RECONNECT_DELAY * random.uniform(0.3, 1)
