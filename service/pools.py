"""Odoo's connection pools in a process that runs one job at a time: a job has pools of its own, which are closed with it.

A job may open cursors of its own, and leave anything on their connections: locks, open transactions, settings of psycopg2. No later
job meets these connections. The worker itself uses Odoo's pools meanwhile, from each of its two threads, for messages to users. It
neither waits for the job's pools nor finds them full.
"""

from __future__ import annotations

import contextlib
import os
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from odoo import sql_db
from odoo.sql_db import ConnectionPool, PoolError
from odoo.tools import config

from ..engine.connection import cut_off
from ..tools.config import settings

if TYPE_CHECKING:
    from collections.abc import Generator

    from odoo.sql_db import PsycoConnection

SPARE = 2  # connections of a pool for what comes after the method: one that filled the pools must not silence its end

_is_own_work: ContextVar[bool] = ContextVar('ir_async.is_own_work', default=False)


class _Pool(ConnectionPool):
    """One of Odoo's pools. While a job runs, it leads to the pool of the job."""

    has_job = False
    of_job: ConnectionPool
    limit: int  # connections of the job, until its method is over

    def borrow(self, connection_info: dict[Any, Any]) -> PsycoConnection:
        if not self.has_job or _is_own_work.get():
            return super().borrow(connection_info)
        try:
            return self.of_job.borrow(connection_info)
        except PoolError as exc:
            msg = f"{exc}: the job has {self.of_job._maxconn} cursors open, and the setting db_maxconn allows {self.limit}"
            raise PoolError(msg) from None

    def give_back(self, connection: PsycoConnection, keep_in_pool: bool = True) -> None:
        if connection in self.of_job._connections:
            self.of_job.give_back(connection, keep_in_pool)
        elif connection in self._connections or not connection.closed:  # otherwise a cursor of an earlier job
            super().give_back(connection, keep_in_pool)

    def close_all(self, dsn: dict[Any, Any] | str | None = None) -> None:
        super().close_all(dsn)
        if self.has_job:  # after the job, closing would wait for a thread that it has left
            self.of_job.close_all(dsn)


def limit() -> None:
    """Limit the connections that the jobs of a job worker open, since Odoo's limit suits the threads of a web server."""
    config['db_maxconn'] = settings().db_maxconn or config['db_maxconn']


def begin() -> None:
    """Have the job that begins use pools of its own."""
    if not (sql_db._Pool and sql_db._Pool_readonly):
        for readonly in (False, True):
            sql_db.db_connect('postgres', readonly=readonly)  # this makes Odoo's pools, not a connection
    for pool in cast('tuple[_Pool, _Pool]', (sql_db._Pool, sql_db._Pool_readonly)):
        if type(pool) is not _Pool:
            # Registries refer to this object, so it cannot be replaced by another one.
            pool.__class__ = _Pool
            pool.limit = config['db_maxconn']
            pool.of_job = ConnectionPool(pool.limit, pool.readonly)
        elif pool.of_job._connections:  # not closed, since a thread may use them
            pool.of_job = ConnectionPool(pool.limit, pool.readonly)
        pool.has_job = True


def spare() -> None:
    """Let the job have some connections more. Called when its method is over."""
    for pool in _pools():
        pool.of_job._maxconn = pool.limit + SPARE


def close() -> int:
    """Close the connections of the job, which may open new ones.

    :return: how many cursors were open
    :rtype: int
    """
    count = 0
    for pool in _pools():
        for connection in pool.of_job._connections:
            # A cursor that was collected as garbage has ended its transaction. The pool would free its connection.
            count += connection._pool_in_use and not connection.closed and not getattr(connection, 'leaked', False)
            connection.close()
        pool.of_job._connections.clear()
        pool.of_job._maxconn = pool.limit
    return count


def end() -> None:
    """Have Odoo's pools work as usual again."""
    for pool in _pools():
        pool.has_job = False


@contextlib.contextmanager
def own_work() -> Generator[None]:
    """Borrow connections for the worker itself in this context."""
    token = _is_own_work.set(True)
    try:
        yield
    finally:
        _is_own_work.reset(token)


def _pools() -> list[_Pool]:
    return [pool for pool in (sql_db._Pool, sql_db._Pool_readonly) if type(pool) is _Pool]


def _forget() -> None:
    """Have a forked child open connections of its own. Those of its parent are in the middle of something."""
    for pool in _pools():
        for part in (pool, pool.of_job):
            cut_off(part._connections)
            part._connections = []
            part._lock = threading.Lock()  # another thread of the parent may have it


if hasattr(os, 'register_at_fork'):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
