"""Odoo's connection pools while a job runs: a limit for the job, room for the worker's own work, and no cursor left open.

A job may open cursors of its own. They take their connections from the pools that the worker also uses, from each of its two
threads, for progress and messages to users. So each connection knows whether the running job has borrowed it.
"""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from odoo import sql_db
from odoo.sql_db import ConnectionPool, PoolError, PsycoConnection
from odoo.tools import config

from ..tools.config import settings

if TYPE_CHECKING:
    from collections.abc import Generator

SPARE = 2  # connections of a pool that are kept for the worker's own work, and for the hooks after a job

_borrow = ConnectionPool.borrow
_lock = threading.Lock()  # from the look for room until it is taken
_is_own_work: ContextVar[bool] = ContextVar('ir_async.is_own_work', default=False)
# Whether the current thread may use the spare connections: a method that filled the pools must not silence its end.
has_spare: ContextVar[bool] = ContextVar('ir_async.has_spare', default=False)


def limit() -> None:
    """Limit the connections that the jobs of a job worker open, since Odoo's limit suits the threads of a web server."""
    if maximum := settings().db_maxconn:
        config['db_maxconn'] = maximum
        for pool in _pools():  # those that the server has made before the fork
            pool._maxconn = maximum


def begin() -> None:
    """Note from now on which connections the job borrows, and limit these. For a process that runs one job at a time."""
    for pool in _pools():
        for connection in list(pool._connections):
            vars(connection).pop('is_of_job', None)
    ConnectionPool.borrow = _borrow_for_job  # type: ignore[assignment, method-assign]


def end() -> None:
    """Have the pools work as usual again."""
    ConnectionPool.borrow = _borrow  # type: ignore[method-assign]
    for pool in _pools():
        pool._maxconn = vars(pool).pop('limit', pool._maxconn)


def _borrow_for_job(pool: ConnectionPool, connection_info: dict[str, Any]) -> PsycoConnection:
    maximum = vars(pool).setdefault('limit', pool._maxconn)
    is_of_job = not _is_own_work.get()
    with _lock:
        used = [connection for connection in pool._connections if _is_in_use(connection)]
        others = [connection for connection in used if not _is_of_job(connection)]
        pool._maxconn = maximum + len(others) + SPARE
        if is_of_job and not has_spare.get() and len(used) - len(others) >= maximum:
            msg = f"The Connection Pool Is Full: the job has {maximum} cursors open, as many as the setting db_maxconn allows"
            raise PoolError(msg)
        connection = _borrow(pool, connection_info)
        vars(connection)['is_of_job'] = is_of_job
        return connection


def _is_in_use(connection: PsycoConnection) -> bool:
    # A cursor that was collected as garbage has ended its transaction, and the pool frees its connection.
    return connection._pool_in_use and not connection.closed and not getattr(connection, 'leaked', False)


def _is_of_job(connection: PsycoConnection) -> bool:
    return getattr(connection, 'is_of_job', False)


@contextlib.contextmanager
def own_work() -> Generator[None]:
    """Borrow connections for the worker itself in this context: they do not count for a job, and need no room that it left."""
    token = _is_own_work.set(True)
    try:
        yield
    finally:
        _is_own_work.reset(token)


def left_open() -> list[PsycoConnection]:
    """Return the connections on which the job has cursors open.

    :rtype: list[odoo.sql_db.PsycoConnection]
    """
    return [
        connection
        for pool in _pools()
        for connection in list(pool._connections)
        if _is_in_use(connection) and _is_of_job(connection)
    ]


def given_back() -> list[int]:
    """Return the processes of PostgreSQL whose connections the job has given back.

    :rtype: list[int]
    """
    return [
        connection.get_backend_pid()
        for pool in _pools()
        for connection in list(pool._connections)
        if not connection.closed and not connection._pool_in_use and _is_of_job(connection)
    ]


def close(backend_pids: list[int]) -> None:
    """Close connections that the job has given back.

    :param list[int] backend_pids: their processes of PostgreSQL
    """
    for pool in _pools():
        with pool._lock:  # the worker's other thread may borrow one meanwhile
            for connection in pool._connections:
                if (
                    not connection.closed
                    and not connection._pool_in_use
                    and connection.get_backend_pid() in backend_pids
                ):
                    connection.close()


def _pools() -> list[ConnectionPool]:
    return [pool for pool in (sql_db._Pool, sql_db._Pool_readonly) if pool]
