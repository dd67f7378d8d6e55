"""The presence of a worker in one database: register, execute, close.

All statements run on one connection of its own. READ COMMITTED: at Odoo's REPEATABLE READ a quarter of the claims would
fail, since SKIP LOCKED passes over rows that are locked, but not over rows that were claimed and committed since the
snapshot. Autocommit: a transaction that stays open while a job runs would keep the whole cluster from vacuuming.

The connection is also the proof that the worker is alive. It holds an advisory lock on the session's key. When the
worker dies, whatever the reason, PostgreSQL ends the session and the lock is gone. There is no heartbeat and no
clock. This is how Que and GoodJob do it, but for the key: process ids are used again, numbers of a sequence are not.
"""
from __future__ import annotations

import functools
import logging
import os
import socket
import threading

import psycopg2
from psycopg2.extensions import AsIs

from ..exceptions import PoolerFound
from ..tools.config import settings
from .channels import Channels
from .claim import HERE, NOW, READY, Claim
from .connection import (
    LIVE_SESSIONS,
    LOCK_CLASS,
    array,
    connect_worker,
    is_descriptor_closed,
)
from .dependencies import Dependencies
from .fence import ARE_THERE, LOOK_UP, RAISE, token
from .job import BEGUN, CLAIMED, PUBLISHED, StateChange
from .maintenance import Maintenance
from .notifier import notifier
from .origin import (
    EXPRESSIONS,
    IS_PERMITTED,
    is_same_version,
    warn_of_copies,
)
from .process import server_pid, start_of
from .rescue import Rescue
from .serving import database, served_database, serving

_logger = logging.getLogger(__name__)

STOP_CHANNEL = 'ir_async_stop'  # NOTIFYed in the database of the job, with its id: a hint, the row decides

# A claim may be lost in a crash: its session is gone then, too. So it need not wait for the disk. An outcome must.
# All statements are look-ups in indexes, in their order. The planner must not be misled by statistics from when the queue
# was empty, nor plan prepared statements again and again; JIT must not compile what these settings make look costly.
PLANNER = {
    'synchronous_commit': 'off', 'lock_timeout': '5s', 'enable_seqscan': 'off', 'enable_bitmapscan': 'off',
    'enable_sort': 'off', 'plan_cache_mode': 'force_generic_plan', 'jit': 'off',
    'default_transaction_isolation': 'read committed', 'default_transaction_read_only': 'off',
}
DURABLE = "SET LOCAL synchronous_commit = on;"

VERSIONS = f"""
    SELECT (SELECT json_object_agg(name, latest_version) FROM ir_module_module WHERE name IN ('base', 'ir_async')),
           ({IS_PERMITTED}), {ARE_THERE}
"""
LOOK = f"""
    SELECT EXISTS (SELECT FROM ir_async WHERE {READY} AND NOT limited AND {HERE})
           OR EXISTS (SELECT FROM ir_async WHERE {READY} AND limited AND {HERE}),
           EXISTS (SELECT FROM ir_async WHERE state = 'waiting' AND {HERE}),
           EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND {HERE}),
           (SELECT EXTRACT(EPOCH FROM date_scheduled - {NOW}) FROM ir_async
             WHERE state = 'created' AND date_scheduled IS NOT NULL AND {HERE} ORDER BY date_scheduled LIMIT 1),
           EXISTS (SELECT FROM ir_async_worker WHERE process_key = %(process_key)s AND database = {database('%(origin)s')})
"""

# A row whose lock is gone is that of a session that ended: the lock is taken first. Rows that say who serves this database
# stay; rows that jobs still refer to stay until these are rescued.
FORGET = f"""
    DELETE FROM ir_async_worker
     WHERE (process_key = %(process_key)s OR id NOT IN (SELECT id FROM ({serving('%(origin)s')}) AS worker))
       AND id NOT IN ({LIVE_SESSIONS})
       AND id NOT IN (SELECT session FROM ir_async WHERE state = 'processing')
"""
REGISTER = f"""
    INSERT INTO ir_async_worker (id, host, pid, process_key, channels, database)
         SELECT key, %(host)s, %(pid)s, %(process_key)s, %(channels)s, {served_database('%(origin)s')}
           FROM nextval('ir_async_worker_id_seq') AS key
          WHERE pg_try_advisory_lock({LOCK_CLASS}, key::int)
      RETURNING id
"""
CLOSE = """
    UPDATE ir_async_worker SET closed = true
     WHERE id = %(key)s AND NOT EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND session = %(key)s)
"""
RUNNING = """
    UPDATE ir_async_worker
       SET running_job_id = %s, process_start = %s, server_pid = %s, server_start = %s
     WHERE id = %s
"""
RELEASE = f"""
    WITH mine AS (
        SELECT id
          FROM ir_async
         WHERE id = ANY(%(ids)s::int[]) AND session = %(session)s
    FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE ir_async job
       SET state = 'created',
           session = NULL,
           revision = revision + 1,
           starts = starts + %(starts)s,
           payload = coalesce(%(payload)s, payload),
           claims = coalesce(%(shown_claims)s, claims),
           date_start = CASE WHEN %(starts)s > 0 THEN date_start END,
           date_scheduled = clock_timestamp() AT TIME ZONE 'UTC' + %(delay)s * interval '1 second'
     WHERE job.id = ANY(ARRAY(SELECT id FROM mine))
 RETURNING {PUBLISHED}
"""
FAIL = f"""
    UPDATE ir_async job
       SET state = 'failed', session = NULL, revision = revision + 1, attempts = attempts + 1, starts = starts + 1,
           payload = %(payload)s, date_done = clock_timestamp() AT TIME ZONE 'UTC'
     WHERE id = %(id)s AND session = %(session)s
 RETURNING {PUBLISHED}
"""
SIGNALS = """
    SELECT quote_ident(relname) FROM pg_class
     WHERE relname ~ '^orm_signaling_' AND relkind = 'r' AND relnamespace = current_schema()::regnamespace
  ORDER BY relname
"""


@functools.cache
def _report_missing_functions(dbname):
    _logger.error("Jobs of %s do not run: functions of this module are missing. Upgrade it: -u ir_async", dbname)


class Session:
    """The presence of a worker in a database, from :meth:`open` to :meth:`close`."""

    def __init__(self, dbname, connection, key):
        self.dbname = dbname
        self.key = key
        self.changes = []  # to be published to the users
        self.channels = settings().channels
        self._connection = connection
        self._lock = threading.Lock()  # the worker's two threads share the connection
        self._prepared = set()
        self._claim = Claim(self)
        self._channels = Channels(self)
        self._dependencies = Dependencies(self)
        self._rescue = Rescue(self)
        self._maintenance = Maintenance(self, self._claim, self._channels, self._dependencies, self._rescue)

    @classmethod
    def open(cls, dbname, process_key=None, always=False):
        """Connect to a database and register there.

        :param str dbname: the database
        :param int process_key: the key of the lock that this process holds on ``postgres`` as long as it lives
        :param bool always: also when no job is due
        :return: a session, and when to look again, in seconds; no session when there is nothing to do there: no job,
            no such module, another version of Odoo or of this module
        :rtype: tuple
        :raises psycopg2.OperationalError: when the database cannot be reached
        """
        try:
            connection = connect_worker(dbname, **PLANNER)
        except PoolerFound as exc:
            _logger.error("%s", exc)
            return None, None
        session = None
        try:
            with connection.cursor() as cr:
                cr.execute(VERSIONS)
                versions, is_permitted, has_functions = cr.fetchone()
                if not is_same_version(dbname, versions or {}):
                    return None, None
                if not has_functions:
                    _report_missing_functions(dbname)
                    return None, None
                origin = AsIs(EXPRESSIONS[is_permitted])
                cr.execute(LOOK, {'process_key': process_key, 'origin': origin})
                is_ready, is_waiting, is_processing, delay, is_known = cr.fetchone()
                delay = None if delay is None else float(delay)
                is_due = always or is_ready or is_waiting or is_processing or (delay is not None and delay <= 0)
                if is_due or (process_key and not is_known):  # also without jobs: others ask whether anybody serves this database
                    session = cls(dbname, connection, cls._register(cr, origin, process_key))
                    warn_of_copies(cr, dbname, session.origin)
                if not is_due and session:
                    session.close()
                    return None, delay
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn):
            return None, None  # not, or not yet, a database with this module
        finally:
            if not session:
                connection.close()
        return session, delay

    @functools.cached_property
    def origin(self):
        """The identity of the database, as in the rows of its jobs."""
        [[is_permitted]] = self.execute(IS_PERMITTED)
        [[origin]] = self.execute(f"SELECT {EXPRESSIONS[is_permitted]}")
        return origin

    @staticmethod
    def _register(cr, origin, process_key=None):
        cr.execute(f"LISTEN {STOP_CHANNEL}")
        params = {
            'origin': origin, 'process_key': process_key, 'host': socket.gethostname(), 'pid': os.getpid(),
            'channels': ','.join(settings().channels) or None,
        }
        cr.execute(FORGET, params)
        # A key is taken where the module was installed anew, and sessions of before live.
        row = None
        while not row:
            cr.execute(REGISTER, params)
            row = cr.fetchone()
        return row[0]

    @property
    def server_version(self):
        return self._connection.server_version

    def has_closed_descriptor(self):
        """Return whether this process has closed the file descriptor of the connection.

        :rtype: bool
        """
        return is_descriptor_closed(self._connection)

    def close(self):
        """Leave the database. The row stays, since it says that this process serves the database."""
        try:
            self.execute(CLOSE, {'key': self.key})
        except psycopg2.Error:
            pass  # the connection is gone, so is the lock
        finally:
            self._connection.close()

    # ------------------------------------------------------------
    # Execute
    # ------------------------------------------------------------

    def execute(self, query, params=()):
        """Execute a statement; return its rows, or how many rows it changed.

        :rtype: list | int
        """
        with self._lock, self._connection.cursor() as cr:
            cr.execute(query, params)  # pylint: disable=sql-injection
            return cr.fetchall() if cr.description else cr.rowcount

    def execute_prepared(self, name, query, params, *args):
        """Execute a statement that is planned only once: planning takes longer than executing.

        :param str name: of the prepared statement
        :param str query: the statement, with ``$1`` for the first of ``args``
        :param dict params: what is the same for the whole session
        """
        if name not in self._prepared:
            self.execute(f'PREPARE {name} AS {query}', params)
            self._prepared.add(name)
        return self.execute(f'EXECUTE {name} ({", ".join(["%s"] * len(args))})', args)  # pylint: disable=sql-injection

    def change(self, query, params=()):
        """Execute a statement that returns ``PUBLISHED``, durably; return the ids of the jobs.

        :rtype: set[int]
        """
        rows = self.execute(DURABLE + query, params)
        self.changes += [StateChange(*change) for *change, notify in rows if notify]
        ids = {row[0] for row in rows}
        self._claim.note_changed(ids)
        return ids

    def params(self, **params):
        """Return the parameters that claims have in common, with some more."""
        return {'key': self.key, 'channels': self.channels, 'origin': self.origin, **params}

    @functools.cached_property
    def columns(self):
        """The columns that a claim returns."""
        signals = ', '.join(f'(SELECT max(id) FROM {table})' for table, in self.execute(SIGNALS))
        return ', '.join((CLAIMED | {'signals': f"(SELECT concat_ws(' ', {signals}))"}).values())

    @functools.cached_property
    def all_columns(self):
        """The columns that a claim of one certain job returns: also what is read when it begins."""
        return f"{self.columns}, {', '.join(BEGUN.values())}"

    # ------------------------------------------------------------
    # Jobs
    # ------------------------------------------------------------

    def claim(self, limit):
        """Claim the next jobs for this worker, in the order in which to run them.

        :param int limit: how many at most
        :rtype: list[Job]
        """
        return self._channels.claim(limit) or self._claim.claim(limit) or self._channels.claim(limit, even_after_plain=True)

    def claim_one(self, job_id):
        """Claim one certain job that waits for nothing but a worker; all that running it takes is read.

        :rtype: list[Job]
        """
        return self._claim.claim_one(job_id)

    def wake(self):
        """Note that something may have changed: it is owed a look."""
        self._claim.wake()
        self._maintenance.wake()

    def maintain(self, is_busy=False):
        """Do what nobody else does: see :mod:`~odoo.addons.ir_async.engine.maintenance`."""
        return self._maintenance.maintain(is_busy)

    def unblock(self, parents=None):
        """Put the children of jobs that ended well into the queue."""
        changed = self._dependencies.unblock(parents)
        self._maintenance.wake()  # some may have been locked
        return changed

    def release(self, jobs, starts=0, delay=None, payload=None, shown_claims=None):
        """Put jobs back into the queue; but for those that somebody has locked.

        :param list[Job] jobs: the jobs
        :param int starts: how often their method was begun since they were claimed
        :param float delay: seconds until they are tried again; at once by default
        :param str payload: why, as the error of an RPC; JSON
        :param int shown_claims: how often the job was claimed, if it was taken from its method since
        :return: the ids of those that were
        :rtype: set[int]
        """
        released = self.change(RELEASE, {
            'ids': array(job.id for job in jobs), 'session': self.key, 'starts': starts, 'delay': delay, 'payload': payload,
            'shown_claims': shown_claims})
        if released and not delay:
            notifier.notify(self.dbname)
        return released

    def holds(self, job):
        """Return whether the claim of a job still holds.

        :param Job job: the job
        :rtype: bool
        """
        return bool(self.execute(LOOK_UP, token(job)))

    def fence_off(self, job, reason=None, debug=None):
        """Take a job from its own method: from then on the method can commit nothing.

        :param Job job: the running job
        :param str reason: ``cancel`` or ``timeout``, for whoever ends it
        :param str debug: where its method stood
        :return: the job with its new claim; None when it has ended by itself
        :rtype: Job | None
        """
        rows = self.execute(DURABLE + RAISE, {**token(job), 'reason': reason, 'debug': debug})
        return job._replace(claims=rows[0][0]) if rows else None

    def note_running(self, job, key=None):
        """Note which job runs where no parent would report a death: in a cron worker.

        :param Job job: the job; None when it has ended
        :param int key: of the session, by default this one
        """
        self.execute(RUNNING, [job and job.id, *self._process, key or self.key])

    @functools.cached_property
    def _process(self):
        """Which process this is, and which its server."""
        server = server_pid()
        return start_of(os.getpid()), server, start_of(server)

    def fail(self, job, payload):
        """End a job as failed when nothing else worked.

        :param Job job: the job
        :param str payload: the error, JSON
        """
        self.change(FAIL, {'id': job.id, 'session': self.key, 'payload': payload})

    def take_over(self, job_id, session, claims, reason):
        """Claim a job from a worker that is stopped, to end it: see :class:`~odoo.addons.ir_async.engine.rescue.Rescue`."""
        return self._rescue.take_over(job_id, session, claims, reason)

    def charge(self, job_id, session, claims):
        """Charge a job with the death of the worker that ran its method."""
        return self._rescue.charge(job_id, session, claims)

    def stop_reason(self, job):
        """Return why a running job of this session is to be stopped, if it is: the row decides.

        :rtype: str | None
        """
        rows = self.execute("SELECT reason FROM ir_async_stop WHERE job_id = %s", [job.id])
        return rows[0][0] if rows else None

    def has_stop_hint(self):
        """Return whether somebody asked for a running job of this database to be stopped, without waiting.

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

    @property
    def has_waiting(self):
        """Whether any job waits for others, lately."""
        return self._maintenance.has_waiting
