"""The presence of a worker in one database: open, execute, schedule, close.

A session owns the parts of the engine that keep state between two claims: claims, channels, children, orphans, maintenance.
Other changes of a job's state are functions that take the session: see :mod:`.fence`, :mod:`.release` and :mod:`.rescue`.

All statements run on one connection, the control connection. It is READ COMMITTED. At Odoo's REPEATABLE READ, a quarter of
the claims would fail: SKIP LOCKED passes over locked rows, but not over rows that were claimed and committed since the
snapshot. It is in autocommit. A transaction that stays open while a job runs would keep the whole cluster from vacuuming.

The connection is also the proof that the worker is alive. It holds an advisory lock on the worker id. When the worker
dies for whatever reason, PostgreSQL ends the session and releases the lock. There is no heartbeat and no clock. Que and
GoodJob do the same with process ids. A worker id is a number of a sequence instead, since process ids are used again.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg2
from psycopg2.extensions import AsIs

from ..exceptions import PoolerFound
from ..tools.config import settings
from .channels import Channels
from .claim import END, HERE, NOW, READY, Claim
from .connection import (
    CLIENT_CHECK,
    DURABLE,
    connect_worker,
    is_descriptor_closed,
    set_config,
)
from .dependencies import Dependencies
from .fence import ARE_THERE
from .job import BEGUN, CLAIMED, StateChange
from .maintenance import Maintenance
from .origin import EXPRESSIONS, INSTALLED, IS_PERMITTED, has_modules, is_same_version, warn_of_copies
from .process import server_pid, start_of
from .registration import CLOSE, register
from .rescue import Rescue
from .serving import database

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg2.extensions import connection as Connection

    from .job import Job

    _Params = Sequence[Any] | Mapping[str, Any]

_logger = logging.getLogger(__name__)

# A NOTIFY here, in the database of a job, is a hint to stop it. The row in ir_async_stop decides.
STOP_CHANNEL = 'ir_async_stop'
MAX_TRIES = 100  # of a claim, after each of which others had the jobs

# A crash may lose a claim, since the session of the claim is gone then, too. So a commit need not wait for the disk. Statements
# that must survive a crash begin with `DURABLE`. All statements look rows up in indexes, in the order of the index. The planner
# must not be misled by statistics of an empty queue, and must not plan prepared statements again. These make plans look
# costly, so JIT would compile them without need.
PLANNER = {
    'synchronous_commit': 'off',
    'lock_timeout': '5s',
    'enable_seqscan': 'off',
    'enable_bitmapscan': 'off',
    'enable_sort': 'off',
    'plan_cache_mode': 'force_generic_plan',
    'jit': 'off',
    'default_transaction_isolation': 'read committed',
    'default_transaction_read_only': 'off',
}

VERSIONS = f"""
    SELECT (SELECT json_object_agg(name, latest_version) FROM ir_module_module WHERE name IN ('base', 'ir_async')),
           ({INSTALLED}), ({IS_PERMITTED}), {ARE_THERE}
"""
LOOK = f"""
    SELECT EXISTS (SELECT FROM ir_async WHERE {READY} AND NOT limited AND {HERE})
           OR EXISTS (SELECT FROM ir_async WHERE {READY} AND limited AND {HERE}),
           EXISTS (SELECT FROM ir_async WHERE state = 'waiting' AND {HERE}),
           EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND {HERE}),
           (SELECT EXTRACT(EPOCH FROM date_scheduled - {NOW}) FROM ir_async
             WHERE state = 'created' AND date_scheduled IS NOT NULL AND {HERE} ORDER BY date_scheduled LIMIT 1),
           EXISTS (SELECT FROM ir_async_worker WHERE process_number = %(process_number)s AND database = {database('%(origin)s')})
"""

SIGNALS = """
    SELECT quote_ident(relname) FROM pg_class
     WHERE relname ~ '^orm_signaling_' AND relkind = 'r' AND relnamespace = current_schema()::regnamespace
  ORDER BY relname
"""


@functools.cache
def _report_missing_functions(dbname: str) -> None:
    _logger.error(
        "Jobs of database %s do not run: functions of this module are missing. Upgrade it: odoo-bin -d %s -u ir_async",
        dbname,
        dbname,
    )


class Opened(NamedTuple):
    """The answer of :meth:`Session.open`."""

    session: Session | None = None  # None: no job, no such module, or another version of it or of Odoo
    delay: float | None = None  # seconds until the next look, if known


class Session:
    """The presence of a worker in a database, from :meth:`open` to :meth:`close`."""

    def __init__(self, dbname: str, connection: Connection, worker_id: int) -> None:
        self.dbname = dbname
        self.worker_id = worker_id  # the id of its row, on which the connection holds the lock
        self.changes: list[StateChange] = []  # not yet published to the users
        self.channels = settings().channels
        self._connection = connection
        self._lock = threading.Lock()  # the worker's two threads share the connection
        self._prepared: set[str] = set()
        self._claim = Claim(self)
        self._channels = Channels(self)
        self._dependencies = Dependencies(self)
        self._rescue = Rescue(self)
        self._maintenance = Maintenance(self, self._claim, self._channels, self._dependencies, self._rescue)

    @classmethod
    def open(cls, dbname: str, process_number: int | None = None, always: bool = False) -> Opened:
        """Connect to a database and register there.

        :param str dbname: the database
        :param int process_number: the number that this process has locked on ``postgres`` as long as it lives
        :param bool always: whether to open a session even if no job is due
        :rtype: Opened
        :raises psycopg2.OperationalError: when the database cannot be reached
        """
        try:
            connection = connect_worker(dbname, **PLANNER)
        except PoolerFound as exc:
            _logger.error("%s", exc)
            return Opened()
        session = None
        try:
            with connection.cursor() as cr:
                cr.execute(VERSIONS)
                [[versions, modules, is_permitted, has_functions]] = cr.fetchall()
                if not is_same_version(dbname, versions or {}) or not has_modules(dbname, modules or ()):
                    return Opened()
                if not has_functions:
                    _report_missing_functions(dbname)
                    return Opened()
                origin = AsIs(EXPRESSIONS[is_permitted])
                cr.execute(LOOK, {'process_number': process_number, 'origin': origin})
                [[is_ready, is_waiting, is_processing, delay, is_known]] = cr.fetchall()
                delay = None if delay is None else float(delay)
                is_due = always or is_ready or is_waiting or is_processing or (delay is not None and delay <= 0)
                # Register even without jobs: others look for serving workers.
                if is_due or (process_number and not is_known):
                    cr.execute(f"LISTEN {STOP_CHANNEL}")
                    session = cls(dbname, connection, register(cr, origin, process_number))
                    warn_of_copies(cr, dbname, session.origin)
                if not is_due and session:
                    session.close()
                    return Opened(delay=delay)
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn):
            return Opened()  # the module is not installed there, or not yet
        finally:
            if not session:
                connection.close()
        return Opened(session, delay)

    @functools.cached_property
    def origin(self) -> str:
        """The identity of the database, equal to the ``origin`` of its own jobs."""
        [[is_permitted]] = self.execute(IS_PERMITTED)
        [[origin]] = self.execute(f"SELECT {EXPRESSIONS[is_permitted]}")
        return origin

    @functools.cached_property
    def process(self) -> tuple[float | None, int, float | None]:
        """The start time of this process, the process id of its server, and the server's start time."""
        server = server_pid()
        return start_of(os.getpid()), server, start_of(server)

    @property
    def server_version(self) -> int:
        return self._connection.server_version

    @functools.cached_property
    def client_check(self) -> dict[str, str]:
        """The parameter by which a backend notices that its client is gone; empty where the server has no such check."""
        try:
            self.execute(set_config(CLIENT_CHECK))
        except (psycopg2.errors.UndefinedObject, psycopg2.errors.InvalidParameterValue):
            return {}  # PostgreSQL 13, or a platform that cannot do it, such as Windows: it would refuse the connections of jobs
        return CLIENT_CHECK

    def has_closed_descriptor(self) -> bool:
        """Return whether code of this process has closed the file descriptor of the connection.

        :rtype: bool
        """
        return is_descriptor_closed(self._connection)

    def close(self) -> None:
        """Leave the database. The row stays, to show that this process serves the database."""
        try:
            self.execute(CLOSE, {'worker_id': self.worker_id})
        except psycopg2.Error:
            pass  # the connection is gone, and the lock with it
        finally:
            self._connection.close()

    # ------------------------------------------------------------
    # Execute
    # ------------------------------------------------------------

    def execute(self, query: str, params: _Params = ()) -> Any:
        """Execute a statement. Return its rows, or the number of rows that it changed.

        :rtype: list | int
        """
        with self._lock, self._connection.cursor() as cr:
            cr.execute(query, params)  # pylint: disable=sql-injection
            return cr.fetchall() if cr.description else cr.rowcount

    def execute_prepared(self, name: str, query: str, params: Mapping[str, Any], *args: Any) -> Any:
        """Execute a statement that is planned once per session, since planning takes longer than executing.

        :param str name: the name of the prepared statement
        :param str query: the statement, with ``$1`` for the first of ``args``
        :param dict params: the parameters that stay the same for the whole session
        """
        if name not in self._prepared:
            self.execute(f'PREPARE {name} AS {query}', params)
            self._prepared.add(name)
        values = f'({", ".join(["%s"] * len(args))})' if args else ''
        return self.execute(f'EXECUTE {name} {values}', args)  # pylint: disable=sql-injection

    def change(self, query: str, params: _Params = (), are_plain: bool = True) -> set[int]:
        """Execute durably a statement that changes jobs and returns ``PUBLISHED``.

        :param str query: the statement
        :param params: its parameters
        :param bool are_plain: whether plain claims may find the jobs now
        :return: the ids of the jobs
        :rtype: set[int]
        """
        rows = self.execute(DURABLE + query, params)
        self.changes += [StateChange(*change) for *change, notify in rows if notify]
        ids = {row[0] for row in rows}
        if ids:
            self._channels.is_unsure = True
        if are_plain:
            self._claim.note_changed(ids)
        return ids

    def params(self, **params: Any) -> dict[str, Any]:
        """Return the parameters that all claims need, and the given ones."""
        return {'worker_id': self.worker_id, 'channels': self.channels, 'origin': self.origin, **params}

    @functools.cached_property
    def columns(self) -> str:
        """The columns that a claim returns."""
        signals = ', '.join(f'(SELECT max(id) FROM {table})' for (table,) in self.execute(SIGNALS))
        return ', '.join((CLAIMED | {'signals': f"(SELECT concat_ws(' ', {signals}))"}).values())

    @functools.cached_property
    def all_columns(self) -> str:
        """The columns that a claim of one given job returns: these include the ones otherwise read at its begin."""
        return f"{self.columns}, {', '.join(BEGUN.values())}"

    def stop_reason(self, job: Job) -> str | None:
        """Return why a running job of this session must be stopped. The row decides, not the hint.

        :return: the reason; None when the job may go on
        :rtype: str | None
        """
        rows = self.execute("SELECT reason FROM ir_async_stop WHERE job_id = %s", [job.id])
        return rows[0][0] if rows else None

    def has_stop_hint(self) -> bool:
        """Return, without waiting, whether a NOTIFY asked for a running job of this database to be stopped.

        :rtype: bool
        :raises psycopg2.Error: when the connection is lost, and with it the claims
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._connection.poll()
            hinted = bool(self._connection.notifies)
            self._connection.notifies.clear()
            return hinted
        finally:
            self._lock.release()

    # ------------------------------------------------------------
    # Schedule
    # ------------------------------------------------------------

    def claim(self, limit: int) -> list[Job]:
        """Claim the next jobs for this worker, in the order in which to run them.

        :param int limit: how many at most
        :rtype: list[Job]
        """
        self._channels.look()
        for _i in range(MAX_TRIES):
            place = self._channels.place
            # A claim may see a transaction before the worker hears of it. Then limited jobs may be ready that it does not know.
            jobs = self._claim.claim(limit, before=place, even_if_limited=self._channels.has_jobs)
            if place == END:
                self._channels.is_unsure = self._channels.is_unsure and not jobs
            if jobs or place == END:
                return jobs
            if jobs := self._channels.claim(limit, before=self._claim.first(place)):
                return jobs
        self._channels.is_unsure = True  # others were quicker each time
        return []

    def wake(self) -> None:
        """Note that something may have changed, so that the next look is complete."""
        self._claim.wake()
        self._channels.wake()
        self._maintenance.wake()

    def maintain(self, is_busy: bool = False) -> float | None:
        """Do the due maintenance: see :mod:`~odoo.addons.ir_async.engine.maintenance`."""
        return self._maintenance.maintain(is_busy)

    def unblock(self, parents: Iterable[int] | None = None) -> set[int]:
        """Put the children of jobs that ended well into the queue."""
        changed = self._dependencies.unblock(parents)
        self._maintenance.wake()  # some children may have been locked
        return changed

    @property
    def has_waiting(self) -> bool:
        """Whether any job waited for others at the last look."""
        return self._maintenance.has_waiting

    @property
    def has_more(self) -> bool:
        """Whether the last maintenance has left work for the next one."""
        return self._maintenance.has_more

    @property
    def is_rescuing(self) -> bool:
        """Whether this worker has seen dead sessions whose jobs it will put back into the queue. Others may have seen them later."""
        return self._maintenance.is_rescuing
