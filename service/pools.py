"""Odoo's connection pools while a job runs: a limit for the job, room for the worker's own work, and no cursor left open.

A job may open cursors of its own. They take their connections from the pools that the worker also uses, from each of its two
threads, for progress and messages to users. So each connection knows whether the running job has borrowed it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from odoo import sql_db
from odoo.sql_db import ConnectionPool, PoolError, PsycoConnection
from odoo.tools import config

from ..tools.config import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

SPARE = 2  # connections of a pool that are kept for the worker's own work, and for the hooks after a job


class _Watched(NamedTuple):
    """A pool while a job runs."""

    limit: int  # connections that the job may have
    lock: threading.Lock  # from the look for room until it is taken


_watched: dict[ConnectionPool, _Watched] = {}


class _State:
    """The state of this process."""

    borrow: Callable[[ConnectionPool, dict[Any, Any]], PsycoConnection] | None = None  # the function that was replaced
    has_job = False


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
    _State.has_job = True
    for pool in _pools():
        for connection in list(pool._connections):
            vars(connection).pop('is_of_job', None)
        _watch(pool)
    if not _State.borrow:
        # It stays, since another addon may wrap it.
        _State.borrow = ConnectionPool.borrow
        ConnectionPool.borrow = _borrow_for_job  # type: ignore[assignment, method-assign]


def _watch(pool: ConnectionPool) -> _Watched:
    new = _Watched(pool._maxconn, threading.Lock())
    watched = _watched.setdefault(pool, new)
    if watched is new:
        pool._maxconn += sum(_is_in_use(connection) for connection in list(pool._connections)) + SPARE
    return watched


def end() -> None:
    """Have the pools work as usual again."""
    _State.has_job = False
    for pool, watched in _watched.items():
        pool._maxconn = watched.limit
    _watched.clear()


# Another thread may have had a lock when a job forked the process.
os.register_at_fork(after_in_child=end)


def _borrow_for_job(pool: ConnectionPool, connection_info: dict[str, Any]) -> PsycoConnection:
    assert _State.borrow, "`begin` comes first"
    if not _State.has_job:
        return _State.borrow(pool, connection_info)
    is_of_job = not _is_own_work.get()
    watched = _watch(pool) if is_of_job else _watched.get(pool)  # a job may be the first to use the pool of the replica
    with watched.lock if watched else contextlib.nullcontext():
        if watched and is_of_job and not has_spare.get():
            count = sum(_is_in_use(connection) and _is_of_job(connection) for connection in pool._connections)
            if count >= watched.limit:
                msg = f"The Connection Pool Is Full: the job has {count} cursors open, as many as the setting db_maxconn allows"
                raise PoolError(msg)
        connection = _State.borrow(pool, connection_info)
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


def left_open() -> set[PsycoConnection]:
    """Return the connections on which the job has cursors open.

    :rtype: set[odoo.sql_db.PsycoConnection]
    """
    return {connection for _backend_pid, connection in _of_job(is_in_use=True)}


def given_back() -> dict[int, PsycoConnection]:
    """Return the connections that the job has given back, by their processes of PostgreSQL.

    :rtype: dict[int, odoo.sql_db.PsycoConnection]
    """
    return dict(_of_job(is_in_use=False))


def close(connection: PsycoConnection) -> None:
    """Close a connection that the job has given back, unless somebody has borrowed it meanwhile."""
    for pool, watched in _watched.items():
        with watched.lock:
            if connection in pool._connections and _is_of_job(connection) and not _is_in_use(connection):
                connection.close()


def _of_job(is_in_use: bool) -> list[tuple[int, PsycoConnection]]:
    result = []
    for pool, watched in list(_watched.items()):
        with watched.lock:  # the worker's other thread may borrow one, or close one that is idle
            for connection in pool._connections:
                if _is_of_job(connection) and not connection.closed and _is_in_use(connection) == is_in_use:
                    result.append((connection.get_backend_pid(), connection))
    return result


def _pools() -> list[ConnectionPool]:
    return [pool for pool in (sql_db._Pool, sql_db._Pool_readonly) if pool]
