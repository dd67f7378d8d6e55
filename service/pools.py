"""Odoo's connection pools in a process of jobs: a limit for a job, room for the worker's own work, and no cursor left open.

A job may open cursors of its own. They take their connections from the pools that the worker also uses, from each of its two
threads, for progress and messages to users. So each connection knows whether a job has borrowed it.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import psycopg2

from odoo import sql_db
from odoo.sql_db import ConnectionPool, PoolError, PsycoConnection
from odoo.tools import config

from ..tools.config import settings

if TYPE_CHECKING:
    from collections.abc import Generator

SPARE = 2  # connections of a pool that are kept for the worker's own work, and for the hooks after a job

_borrow = ConnectionPool.borrow
_is_own_work: ContextVar[bool] = ContextVar('ir_async.is_own_work', default=False)
# Whether the current thread may use the spare connections: a method that filled the pools must not silence what comes after it.
has_spare: ContextVar[bool] = ContextVar('ir_async.has_spare', default=False)


def limit() -> None:
    """Limit the connections that the jobs of a job worker open, since Odoo's limit suits the threads of a web server."""
    if maximum := settings().db_maxconn:
        config['db_maxconn'] = maximum
        for pool in _pools():  # those that the server has made before the fork
            pool._maxconn = maximum


def watch() -> None:
    """Note from now on which connections jobs borrow, and limit these. For a process that runs one job at a time."""
    ConnectionPool.borrow = _borrow_watched  # type: ignore[method-assign]


def _borrow_watched(pool: ConnectionPool, connection_info: dict[str, Any]) -> PsycoConnection:
    vars(pool).setdefault('limit', pool._maxconn)
    pool._maxconn = pool.limit + SPARE  # type: ignore[attr-defined]
    if not (_is_own_work.get() or has_spare.get()):
        used = sum(_is_of_job(connection) for connection in list(pool._connections))
        if used >= pool.limit:  # type: ignore[attr-defined]
            msg = f"The Connection Pool Is Full: the job has {used} cursors open, as many as the setting db_maxconn allows"
            raise PoolError(msg)
    connection = _borrow(pool, connection_info)
    vars(connection).update(is_own=_is_own_work.get(), is_of_method=not _is_own_work.get() and not has_spare.get())
    return connection


def _is_of_job(connection: PsycoConnection) -> bool:
    # A cursor that was collected as garbage has ended its transaction, and the pool frees its connection.
    return not (
        connection.closed
        or not connection._pool_in_use
        or getattr(connection, 'leaked', False)
        or getattr(connection, 'is_own', False)
    )


@contextlib.contextmanager
def own_work() -> Generator[None]:
    """Borrow connections for the worker itself in this context: they do not count for a job, and need no room that it left."""
    token = _is_own_work.set(True)
    try:
        yield
    finally:
        _is_own_work.reset(token)


def forget() -> None:
    """Have the connections that a method has given back forget its session: others may wait for an advisory lock."""
    for pool in _pools():
        with pool._lock:  # the worker's other thread may borrow one
            for connection in pool._connections:
                if (
                    not connection._pool_in_use
                    and not connection.closed
                    and vars(connection).pop('is_of_method', False)
                ):
                    try:
                        connection.reset()
                    except psycopg2.Error:
                        connection.close()


def _pools() -> list[ConnectionPool]:
    return [pool for pool in (sql_db._Pool, sql_db._Pool_readonly) if pool]


def of_jobs() -> set[PsycoConnection]:
    """Return the connections on which cursors are open that do not belong to the worker.

    :rtype: set[odoo.sql_db.PsycoConnection]
    """
    return {connection for pool in _pools() for connection in list(pool._connections) if _is_of_job(connection)}
