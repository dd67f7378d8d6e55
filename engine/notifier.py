"""NOTIFY after the commit: wake the workers of a database."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from .connection import connect

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

_logger = logging.getLogger(__name__)

# A custom function to call instead of PostgreSQL's `pg_notify`, as for Odoo's crons and bus.
NOTIFY_FUNCTION = os.getenv('ODOO_NOTIFY_FUNCTION', 'pg_notify')

CHANNEL = 'odoo_async'  # the payload is the name of a database

NOTIFY = sql.SQL("SELECT {}(%s, %s)").format(sql.Identifier(NOTIFY_FUNCTION))
_IDLE_TIME = "SET idle_session_timeout = '60s'"


class Notifier:
    """The connection on which this process sends its NOTIFYs.

    A NOTIFY is sent after the commit. Inside a transaction, it would make that commit wait for all other commits of the
    cluster that notify. It is sent on a connection of its own, since Odoo's pool would open a new connection to
    ``postgres`` each time. That takes thirty times as long as the NOTIFY.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self.failure_level = logging.WARNING  # lower in a worker, which also looks without a NOTIFY

    def notify(self, dbname: str) -> None:
        """Wake the workers of a database. A failure costs time, not jobs: workers also look without a NOTIFY.

        :param str dbname: the database
        """
        with self._lock:
            try:
                try:
                    self._send(dbname)
                except psycopg2.Error:
                    self._connection = None  # PostgreSQL restarted, or closed the idle connection
                    self._send(dbname)
            except (psycopg2.Error, ValueError) as exc:  # ValueError: a wrong setting that no server has checked
                self._connection = None
                _logger.log(
                    self.failure_level,
                    "Could not wake the workers. They look for the jobs of database %s later: %s",
                    dbname,
                    exc,
                )

    def _send(self, dbname: str) -> None:
        if self._connection is None:
            self._connection = connect('postgres')
            with self._connection.cursor() as cr:
                cr.execute("SELECT pg_backend_pid()")
                is_direct = cr.fetchall() == [(self._connection.get_backend_pid(),)]
                if is_direct and self._connection.server_version >= 140000:
                    # PostgreSQL closes the connection of a process that has stopped enqueuing. No timer is needed here.
                    cr.execute(_IDLE_TIME)
        with self._connection.cursor() as cr:
            cr.execute(NOTIFY, [CHANNEL, dbname])

    def forget(self) -> None:
        """Drop the parent's connection in a forked child. psycopg2 only closes a connection in the process that opened it."""
        self._lock = threading.Lock()
        self._connection = None


notifier = Notifier()
if hasattr(os, 'register_at_fork'):  # not on Windows
    os.register_at_fork(after_in_child=notifier.forget)
