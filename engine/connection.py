"""The addon's own connections to PostgreSQL, beside Odoo's pool."""

from __future__ import annotations

import contextlib
import os
import select
import time
import weakref
from typing import TYPE_CHECKING

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, POLL_OK, POLL_READ, POLL_WRITE, parse_dsn

from odoo import sql_db

from ..exceptions import PoolerFound
from ..tools.config import settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg2.extensions import connection as Connection

LOCK_CLASS = int.from_bytes(b'iras', 'big')  # class of the advisory lock of a session, in the database of its jobs
PROCESS_LOCK_CLASS = int.from_bytes(b'irap', 'big')  # class of the advisory lock of a worker process, on `postgres`

# The ids of the live sessions of this database, and the numbers of the live worker processes of the cluster.
LIVE_SESSIONS = f"""
    SELECT objid::int8
      FROM pg_locks
     WHERE locktype = 'advisory' AND classid = {LOCK_CLASS} AND objsubid = 2 AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
LIVE_PROCESSES = f"""
    SELECT objid::int8
      FROM pg_locks
     WHERE locktype = 'advisory' AND classid = {PROCESS_LOCK_CLASS} AND objsubid = 2 AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = 'postgres')
"""

DURABLE = "SET LOCAL synchronous_commit = on;"  # prefix of statements that must survive a crash of the server

# Both ends must notice within seconds that the other host has vanished. The server can then release the locks of a dead
# worker, and the client does not wait for ever on a half-open connection.
CLIENT_LIMITS = {
    'connect_timeout': 5,
    'keepalives_idle': 5,
    'keepalives_interval': 2,
    'keepalives_count': 3,
    'tcp_user_timeout': 10_000,
}
SERVER_LIMITS = {
    'tcp_keepalives_idle': '5',
    'tcp_keepalives_interval': '2',
    'tcp_keepalives_count': '3',
    'tcp_user_timeout': '10000',
}
# A role or a database may have limits that suit web requests. A healthy job may run for hours, or wait for a web service
# inside its transaction. Its only limit is its own time-out.
NO_TIMEOUTS = {'statement_timeout': '0', 'lock_timeout': '0', 'idle_in_transaction_session_timeout': '0'}
# psycopg2 sets these only when it connects. RESET would go back to the values of the role or database.
CLIENT_FORMATS = {'client_encoding': 'UTF8', 'datestyle': 'ISO'}
# Without this, the backend of a killed worker would execute its statement to the end.
CLIENT_CHECK = {'client_connection_check_interval': '500ms'}
NO_TIMEOUTS_SINCE = {'idle_session_timeout': 140000, 'transaction_timeout': 170000}

# The device and inode of each connection's descriptor when it was opened.
_files: weakref.WeakKeyDictionary[Connection, tuple[int, int]] = weakref.WeakKeyDictionary()


def connect(
    dbname: str,
    factory: type[Connection] | None = None,
    parameters: Mapping[str, str] | None = None,
    is_async: bool = False,
) -> Connection:
    """Return a new connection in autocommit.

    :param str dbname: the database
    :param type factory: the class of the connection, psycopg2's own by default
    :param dict[str, str] parameters: the parameters that the session starts with; a pooler would refuse them
    :param bool is_async: whether statements do not wait for their answers: see :func:`wait`
    :rtype: psycopg2.extensions.connection
    :raises psycopg2.OperationalError: when the server cannot be reached
    """
    _db, info = sql_db.connection_info_for(dbname)
    direct = {'host': settings().db_host, 'port': settings().db_port}
    arguments = info | {key: value for key, value in direct.items() if value} | CLIENT_LIMITS
    if parameters:
        given = parse_dsn(info['dsn']).get('options') if 'dsn' in info else os.environ.get('PGOPTIONS')
        arguments['options'] = ' '.join([given or '', *(f'-c {name}={value}' for name, value in parameters.items())])
    if is_async and ',' in (arguments.get('host') or parse_dsn(arguments.get('dsn', '')).get('host') or ''):
        # libpq leaves a host that does not answer for the next one only in a connection that waits.
        with contextlib.closing(psycopg2.connect(**arguments)) as first:
            arguments |= {'host': first.info.host, 'port': first.info.port}
    connection = psycopg2.connect(connection_factory=factory, async_=is_async, **arguments)
    if is_async:
        wait(connection)
    else:
        connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
    _files[connection] = _file_of(connection)
    return connection


def wait(connection: Connection) -> None:
    """Wait for an answer on an asynchronous connection.

    :param psycopg2.extensions.connection connection: the connection
    :raises psycopg2.OperationalError: when it is lost, or no answer comes
    """
    deadline = time.monotonic() + CLIENT_LIMITS['connect_timeout']
    while (state := connection.poll()) != POLL_OK:
        fds = [connection]
        select.select(
            fds if state == POLL_READ else [],
            fds if state == POLL_WRITE else [],
            [],
            max(0, deadline - time.monotonic()),
        )
        if time.monotonic() >= deadline:
            msg = "no answer from PostgreSQL"
            raise psycopg2.OperationalError(msg)


def connect_worker(dbname: str, **parameters: str) -> Connection:
    """Return a new connection in autocommit that keeps one session of PostgreSQL for its whole life.

    :param str dbname: the database
    :param str parameters: parameters of the session
    :rtype: psycopg2.extensions.connection
    :raises PoolerFound: when a connection pooler is in between, since locks and LISTEN prove nothing there
    :raises psycopg2.OperationalError: when the server cannot be reached
    """
    connection = connect(dbname)
    try:
        with connection.cursor() as cr:
            cr.execute(set_config(session_parameters(connection.server_version) | parameters) + ", pg_backend_pid()")  # pylint: disable=sql-injection
            [[*_settings, backend_pid]] = cr.fetchall()
        if backend_pid != connection.get_backend_pid():
            raise PoolerFound(dbname)  # noqa: TRY301
    except BaseException:
        connection.close()
        raise
    return connection


def is_descriptor_closed(connection: Connection) -> bool:
    """Return whether code of this process has closed the file descriptor of a connection.

    libpq does not notice that. When the server has ended the session, libpq closes the descriptor itself and has none afterwards.

    :param psycopg2.extensions.connection connection: one that :func:`connect` returned
    :rtype: bool
    """
    if connection.closed or connection.fileno() < 0:
        return False
    try:
        return _file_of(connection) != _files[connection]
    except OSError:
        return True


def _file_of(connection: Connection) -> tuple[int, int]:
    status = os.fstat(connection.fileno())
    return status.st_dev, status.st_ino


def cut_off(connections: Iterable[Connection]) -> None:
    """Cut a forked child off from the sessions of its parent.

    The server would execute what the child sends as a part of the parent's transaction. If the child outlived the parent, it
    would also keep the session and its lock, and the jobs of the dead parent would never be rescued.

    :param connections: connections of the parent
    """
    null = os.open(os.devnull, os.O_RDWR)
    for connection in connections:
        if not connection.closed and connection.fileno() >= 0:
            os.dup2(null, connection.fileno(), inheritable=False)
    os.close(null)


def _cut_off() -> None:
    cut_off([connection for connection in _files if not is_descriptor_closed(connection)])


if hasattr(os, 'register_at_fork'):  # not on Windows
    os.register_at_fork(after_in_child=_cut_off)


def session_parameters(server_version: int) -> dict[str, str]:
    """Return the parameters that each session of a worker needs and that the server knows.

    :param int server_version: the version of the server
    :rtype: dict[str, str]
    """
    known = {name: '0' for name, version in NO_TIMEOUTS_SINCE.items() if server_version >= version}
    return CLIENT_FORMATS | SERVER_LIMITS | NO_TIMEOUTS | known


def set_config(values: Mapping[str, str]) -> str:
    """Return a statement that changes parameters of the session.

    :param dict[str, str] values: the parameters; their text is not escaped
    :rtype: str
    """
    return 'SELECT ' + ', '.join(f"set_config('{name}', '{value}', false)" for name, value in values.items())


def array(ids: Iterable[int]) -> str:
    """Return ids as the text of one array, so that pg_stat_statements sees one statement for any number of them.

    :rtype: str
    """
    return '{%s}' % ','.join(map(str, ids))
