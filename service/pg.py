"""Connections to PostgreSQL of our own, beside Odoo's pool, and the NOTIFY that wakes the workers."""
from __future__ import annotations

import logging
import os
import threading
import time

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT

from odoo import sql_db

from .config import settings

_logger = logging.getLogger(__name__)

# custom function to call instead of PostgreSQL's `pg_notify`, as for crons and the bus
NOTIFY_FUNCTION = os.getenv('ODOO_NOTIFY_FUNCTION', 'pg_notify')

_NOTIFY = sql.SQL("SELECT {}('odoo_async', %s)").format(sql.Identifier(NOTIFY_FUNCTION))

LOCK_CLASS = int.from_bytes(b'iras', 'big')  # the first key of our advisory locks
ALIVE_TIME = 10  # seconds for which workers that were seen are taken to be alive
LISTENER_KEY = 0  # the second one, on the database `postgres`, of those that listen for jobs
PROCESS_LOCK_CLASS = int.from_bytes(b'irap', 'big')  # the first one, there as well, of each worker process

# Both ends must see within seconds that the other one's host vanished: the server, to release the advisory
# lock of a dead worker; the client, not to wait for ever for a NOTIFY on a connection that is half open.
LIMITS = {'connect_timeout': 5, 'keepalives_idle': 5, 'keepalives_interval': 2, 'keepalives_count': 3, 'tcp_user_timeout': 10_000}
SESSION = {
    'tcp_keepalives_idle': 5, 'tcp_keepalives_interval': 2, 'tcp_keepalives_count': 3, 'tcp_user_timeout': 10_000,
}


def connect(dbname, factory=None, **session):
    """Return a new connection in autocommit (so READ COMMITTED), that PgBouncer is not in between of.

    :param str dbname: the database
    :param factory: the class of the connection, psycopg2's own by default
    :param session: settings of the session, that it keeps when it is reset
    :rtype: psycopg2.extensions.connection
    """
    _db, info = sql_db.connection_info_for(dbname)
    direct = {'host': settings().db_host, 'port': settings().db_port}
    connection = psycopg2.connect(
        connection_factory=factory,
        **(info | {key: value for key, value in direct.items() if value} | LIMITS),
        options=' '.join(f'-c {name}={value}' for name, value in (SESSION | session).items()))
    connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
    return connection


def workers_alive(cr):
    """Return whether any worker listens, on whatever server.

    :param cr: a cursor on any database of the cluster
    :rtype: bool
    """
    cr.execute("""
        SELECT EXISTS (
            SELECT
              FROM pg_locks
             WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2
               AND database = (SELECT oid FROM pg_database WHERE datname = 'postgres'))
    """, [LOCK_CLASS, LISTENER_KEY])
    return cr.fetchone()[0]


def is_disconnection(exc):
    """Return whether an error of psycopg2 says that the connection is gone, or could not be made.

    :param psycopg2.Error exc: the error; a plain ``DatabaseError`` when the server vanished between two statements
    :rtype: bool
    """
    return isinstance(exc, (psycopg2.OperationalError, psycopg2.InterfaceError)) or not exc.pgcode


class Notifier:
    """The connection on which this process sends its NOTIFYs.

    They are sent after commit, on a connection of their own: inside the committing transaction, all commits of
    the cluster that notify wait for each other. Odoo's pool opens a new connection to ``postgres`` each time,
    which takes thirty times as long as the NOTIFY.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._connection = None
        self._alive_until = 0

    def notify(self, dbname):
        """Wake the workers up for a database. What fails here costs time, not jobs: they look by themselves.

        :param str dbname: the database
        :return: whether there are any, as far as is known
        :rtype: bool
        """
        with self._lock:
            try:
                try:
                    return self._send(dbname)
                except psycopg2.Error:
                    self._connection = None  # PostgreSQL closed it: it was idle, or restarted
                    return self._send(dbname)
            except (psycopg2.Error, ValueError) as exc:  # or a wrong setting, where no server has checked them
                self._connection = None
                _logger.warning("Could not wake the job workers: %s", exc)
                return True

    def _send(self, dbname):
        if self._connection is None:
            self._connection = connect('postgres')
            if self._connection.server_version >= 140000:
                # Whoever stops enqueuing does not keep a connection for ever, without a timer of ours.
                with self._connection.cursor() as cr:
                    cr.execute("SET idle_session_timeout = '60s'")
        with self._connection.cursor() as cr:
            cr.execute(_NOTIFY, [dbname])
            if time.monotonic() >= self._alive_until and workers_alive(cr):
                self._alive_until = time.monotonic() + ALIVE_TIME
        return time.monotonic() < self._alive_until

    def forget(self):
        """Drop the parent's connection in a forked child; psycopg2 closes it in the process that opened it alone."""
        self._lock = threading.Lock()
        self._connection = None


notifier = Notifier()
if hasattr(os, 'register_at_fork'):  # not on Windows
    os.register_at_fork(after_in_child=notifier.forget)
