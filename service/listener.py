"""The connection on which a worker is told that a database has jobs."""
from __future__ import annotations

import logging
import random
import time

import psycopg2

from . import pg

_logger = logging.getLogger(__name__)

RECONNECT_DELAY = 1  # seconds


class Listener:
    """Connected to the database ``postgres``, whatever it takes."""

    def __init__(self):
        self.process_key = random.getrandbits(31)  # its lock is held as long as the process lives
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
            self._connection = pg.connect('postgres')
            with self._connection.cursor() as cr:
                if self._connection.server_version >= 140000:
                    cr.execute("SET idle_session_timeout = 0")
                # for whoever asks pg.workers_alive()
                cr.execute(
                    "SELECT pg_advisory_lock_shared(%s, %s), pg_advisory_lock(%s, %s)",
                    [pg.LOCK_CLASS, pg.LISTENER_KEY, pg.PROCESS_LOCK_CLASS, self.process_key])
                cr.execute("SELECT pg_is_in_recovery()")
                if cr.fetchone()[0]:
                    _logger.warning("PostgreSQL is in recovery mode: jobs wait for the next poll")
                else:
                    cr.execute("LISTEN odoo_async")
        except psycopg2.Error as exc:
            self._lose(exc)
            return False
        return True

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
        self._next_try = time.monotonic() + RECONNECT_DELAY
