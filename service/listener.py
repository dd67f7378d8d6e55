"""The connection on which a worker is notified that a database has jobs."""
from __future__ import annotations

import logging
import random
import time

import psycopg2

from ..engine.connection import PROCESS_LOCK_CLASS, connect_worker
from ..exceptions import PoolerFound

_logger = logging.getLogger(__name__)

RECONNECT_DELAY = 1  # seconds
POOLER_DELAY = 60  # seconds until a setting may have been changed


class _InRecovery(psycopg2.OperationalError):
    def __str__(self):
        return "PostgreSQL is in recovery"


class Listener:
    """Connected to the database ``postgres``, whatever it takes."""

    def __init__(self):
        self.process_key = random.getrandbits(31)  # its lock is held as long as the process lives
        self.is_refused = False  # a pooler is in between: this worker must not take jobs
        self._connection = None
        self._next_try = 0

    def fds(self):
        """Return what to ``select()`` on."""
        return [self._connection] if self._connection else []

    def connect(self):
        """Connect, when that is necessary and it is time to.

        :return: whether it was: then notifications may have been missed, all databases must be looked at
        :rtype: bool
        """
        if self._connection or time.monotonic() < self._next_try:
            return False
        try:
            self._connection = connect_worker('postgres')
            self.is_refused = False
            with self._connection.cursor() as cr:
                cr.execute("SELECT pg_is_in_recovery()")
                if cr.fetchone()[0]:
                    # It cannot listen, nor run jobs. After a promotion, connections that were made before still could not.
                    raise _InRecovery
                cr.execute("SELECT pg_advisory_lock(%s, %s)", [PROCESS_LOCK_CLASS, self.process_key])
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
    def is_connected(self):
        """Whether other processes can see that this worker lives."""
        return bool(self._connection)

    def read(self):
        """Return the databases that were notified, without waiting.

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

    def _lose(self, exc):
        _logger.info("Cannot listen for jobs, trying again: %s", exc)
        if self._connection:
            self._connection.close()
        self._connection = None
        self._next_try = time.monotonic() + RECONNECT_DELAY * random.uniform(0.3, 1)
