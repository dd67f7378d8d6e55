"""The queue of one database, as a worker sees it: claim, start, give back, look after what is stuck.

All of it is SQL on one connection of its own. READ COMMITTED, since at Odoo's REPEATABLE READ a quarter of the
claims would fail: SKIP LOCKED passes over rows that are locked, but not over rows that were claimed and committed
since the snapshot. Autocommit, since a transaction that stays open while a job runs would keep the whole cluster
from vacuuming.

The connection is also the proof that the worker is alive. It holds an advisory lock on the session's key; when the
worker dies, whatever the reason, PostgreSQL ends the session and the lock is gone. There is no heartbeat and no
clock. This is how Que and GoodJob do it, but for the key, that is not a process id: those are used again.
"""
from __future__ import annotations

import functools
import os
import socket
import threading
import time
from typing import NamedTuple

import psycopg2
import psycopg2.errors

from ..exceptions import ClaimLost
from ..tools.options import MAX_INT
from . import pg
from .config import settings
from .origin import (
    EXPRESSIONS,
    IS_PERMITTED,
    is_same_version,
    read_origin,
    warn_of_copies,
)

CHANNEL_LOCK_CLASS = int.from_bytes(b'irac', 'big')  # of advisory locks, while a job of a limited channel is claimed
STOP_CHANNEL = 'ir_async_stop'  # NOTIFYed in the database of the job, with its id

# A claim may be lost in a crash, its session is gone then, too: no need to wait for the disk. An outcome may not.
# All of it are look-ups in indexes, in their order: the planner is not to be misled by statistics from when the queue was empty, nor to plan
# prepared statements again and again; and JIT not to compile what these settings make look costly.
OPTIONS = {
    'synchronous_commit': 'off', 'lock_timeout': '5s', 'enable_seqscan': 'off', 'enable_bitmapscan': 'off',
    'enable_sort': 'off', 'plan_cache_mode': 'force_generic_plan', 'jit': 'off',
}
CLAIM_TIME = 0.05  # seconds that a claimed job may wait for those claimed with it, and for which its claim is as good as new
SWEEP_SHARE = 50  # times as long as a sweep took, there is no other one
BUSY_SWEEP_INTERVAL = 10  # seconds, at least, between those of a worker that has something better to do
SLOW_LOOK = 0.003  # seconds from which on a look for jobs, from the beginning of the index on, takes long
# times as long as it took, there is no other one, but for so many seconds at most: for each worker while it is busy; while it is idle
LOOK_SHARE, LOOK_INTERVAL = 400, 3
IDLE_LOOK_SHARE, IDLE_LOOK_INTERVAL = 20, 1
MAX_FLOORS = 16  # priorities in use at a time
RESCUE_INTERVAL = 60  # seconds between two looks for jobs whose worker left no trace
DURABLE = "SET LOCAL synchronous_commit = on;"


class Job(NamedTuple):
    """A claimed job: what running it takes of its row."""

    id: int
    priority: int
    name: str
    notify: bool
    res_model: str
    res_ids: str
    method: str
    args: str
    kwargs: str
    user_id: int
    su: bool
    context: str
    max_attempts: int
    retry_delay: str
    timeout: float
    attempts: int
    deaths: int
    revision: int
    session: int
    claims: int
    user_active: bool
    stop: str  # why it is not to be run any more
    has_children: bool
    signals: str  # Odoo's signaling sequences, that say whether modules and caches are up to date

    def __str__(self):
        return f"{self.id} ({self.res_model}.{self.method})"


class Change(NamedTuple):
    """A change of state that the user is to be told."""

    id: int
    user_id: int
    name: str
    state: str
    revision: int


COMPUTED = {
    'user_active': "(SELECT active FROM res_users WHERE id = job.user_id)",
    'stop': "(SELECT reason FROM ir_async_stop WHERE job_id = job.id)",
    'has_children': "EXISTS (SELECT FROM ir_async_after_rel WHERE after_id = job.id AND unmet)",
}
CHANGE = ', '.join(f'job.{field}' for field in Change._fields) + ', job.notify'

ALIVE = f"""
    SELECT objid::int8
      FROM pg_locks
     WHERE locktype = 'advisory' AND classid = {pg.LOCK_CLASS} AND objsubid = 2 AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
NOW = "(clock_timestamp() AT TIME ZONE 'UTC')"
LIMITED = "SELECT name FROM ir_async_channel WHERE name != '*' AND (capacity > 0 OR interval > 0 OR paused)"
IS_LIMITED = f"split_part(channel, '/', 1) IN ({LIMITED})"
IS_PAUSED = "EXISTS (SELECT FROM ir_async_channel WHERE name = '*' AND paused)"
IS_UPGRADING = "EXISTS (SELECT FROM ir_module_module WHERE state IN ('to install', 'to upgrade', 'to remove'))"
IS_READY = f"state = 'created' AND date_scheduled IS NULL AND NOT {IS_PAUSED}"
IS_HERE = "origin = %(origin)s"  # not what came with a copy of another database
IS_OURS = f"""{IS_HERE} AND (%(channels)s = '{{}}' OR split_part(channel, '/', 1) = ANY(%(channels)s))"""
# Whether a claim still holds. Not that the job is `processing`, which goes without saying: it would be looked for among all that
# are being processed, and all that were as long as an old snapshot is open, rather than by its id.
IS_HELD = "session = %(session)s AND claims = %(claims)s"
HELD = f"SELECT id FROM ir_async WHERE id = %(id)s AND {IS_HELD}"
TAKE = """
    state = 'processing',
    session = %(key)s,
    claims = job.claims + 1,
    revision = job.revision + 1,
    date_start = clock_timestamp() AT TIME ZONE 'UTC'
"""


class Session:
    """The presence of a worker in a database, from :meth:`open` to :meth:`close`."""

    def __init__(self, dbname, connection, key):
        self.dbname = dbname
        self.key = key
        self.changes = []  # what users are to be told
        self.has_waiting = True  # whether any job waits for others, lately
        self._connection = connection
        self._lock = threading.Lock()  # the worker's two threads share the connection
        self._is_ready = False
        self._floors = {}  # the ids from which on to look for jobs, by priority, see `_stretches`
        self._full_look = 0, 0  # when it was, and how long it took
        self._is_short = False
        self._workers = 1
        self._has_limited = True
        self._slot_delay = None
        self._next_sweep = 0
        self._next_filing = 0
        self._next_rescue = 0
        self._prepared = set()

    @classmethod
    def open(cls, dbname, process_key=None):
        """Connect to a database and register there.

        :param str dbname: the database
        :param int process_key: the key of the lock that says whether this process is alive
        :return: a session, and when to look again, in seconds; no session when there is nothing to do there: no job,
            no such module, another version of Odoo
        :rtype: tuple
        :raises psycopg2.OperationalError: when the database cannot be reached
        """
        connection = pg.connect(dbname, **OPTIONS)
        opened = delay = None
        try:
            with connection.cursor() as cr:
                cr.execute("SELECT name, latest_version FROM ir_module_module WHERE name IN ('base', 'ir_async')")
                if not is_same_version(dbname, dict(cr.fetchall())):
                    return None, None
                origin = read_origin(cr)
                warn_of_copies(cr, dbname, origin)
                cr.execute(f"""
                    SELECT EXISTS (SELECT FROM ir_async WHERE {IS_READY} AND {IS_HERE})
                           OR EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND {IS_HERE})
                           OR EXISTS (SELECT FROM ir_async WHERE state = 'waiting' AND {IS_HERE}),
                           (SELECT EXTRACT(EPOCH FROM min(date_scheduled) - {NOW}) FROM ir_async
                             WHERE state = 'created' AND date_scheduled IS NOT NULL AND {IS_HERE})
                """, {'origin': origin})
                has_jobs, delay = cr.fetchone()
                if has_jobs or (delay is not None and delay <= 0):
                    opened = cls(dbname, connection, cls._register(cr, process_key))
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn):
            pass  # not, or not yet, a database with this module
        finally:
            if not opened:
                connection.close()
        return opened, None if delay is None else float(delay)

    @functools.cached_property
    def origin(self):
        """The identity of the database, as in the rows of its jobs.

        :rtype: str
        """
        [[is_permitted]] = self._execute(IS_PERMITTED)
        [[origin]] = self._execute(f"SELECT {EXPRESSIONS[is_permitted]}")
        return origin

    @property
    def server_version(self):
        """The version of PostgreSQL, as psycopg2 counts them.

        :rtype: int
        """
        return self._connection.server_version

    @staticmethod
    def _register(cr, process_key=None):
        if cr.connection.server_version >= 140000:
            cr.execute("SET idle_session_timeout = 0")
        cr.execute(f"LISTEN {STOP_CHANNEL}")
        # A row without a lock is that of a dead worker: the lock is taken first. As long as one of its jobs is not
        # rescued, the row tells which one is to blame.
        cr.execute(f"DELETE FROM ir_async_worker WHERE id NOT IN ({ALIVE})"
                   f" AND id NOT IN (SELECT session FROM ir_async WHERE state = 'processing' AND {IS_HERE})", {'origin': read_origin(cr)})
        cr.execute("""
            INSERT INTO ir_async_worker (id, host, pid, process_key, server_start, limit_time_real)
                 SELECT key, %s, %s, %s, pg_postmaster_start_time() AT TIME ZONE 'UTC', %s
                   FROM nextval('ir_async_worker_id_seq') AS key
                  WHERE pg_try_advisory_lock(%s, key::int)
              RETURNING id
        """, [socket.gethostname(), os.getpid(), process_key, settings().limit_time_real, pg.LOCK_CLASS])
        return cr.fetchone()[0]

    def close(self):
        """Leave the database. Should there be jobs in hand, the worker's row stays, for whoever rescues them."""
        try:
            self._execute("""
                DELETE FROM ir_async_worker
                 WHERE id = %(key)s AND NOT EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND session = %(key)s)
            """, {'key': self.key})
        except psycopg2.Error:
            pass  # it is gone, so is the lock
        finally:
            self._connection.close()

    def _execute(self, query, params=()):
        with self._lock, self._connection.cursor() as cr:
            cr.execute(query, params)
            return cr.fetchall() if cr.description else cr.rowcount

    def _execute_prepared(self, name, query, params, *args):
        # Planning takes longer than executing: it is worth it for what every job takes.
        if name not in self._prepared:
            self._execute(f'PREPARE {name} AS {query}', params)
            self._prepared.add(name)
        return self._execute(f'EXECUTE {name} ({", ".join(["%s"] * len(args))})', args)

    def _change(self, query, params=()):
        """Execute a statement that returns CHANGE; return the ids of the jobs."""
        rows = self._execute(DURABLE + query, params)
        self.changes += [Change(*change) for *change, notify in rows if notify]
        ids = {row[0] for row in rows}
        if ids:  # they may be in the queue now
            self._floors = {priority: min(floor, *ids) for priority, floor in self._floors.items()}
        return ids

    # ------------------------------------------------------------
    # Claim
    # ------------------------------------------------------------

    def claim(self, limit):
        """Take the next jobs, that nobody else will have now.

        :param int limit: how many at most
        :return: the jobs in the order in which to run them
        :rtype: list[Job]
        """
        self._slot_delay = None
        if self._has_limited and (jobs := self._claim_limited(limit)):
            return jobs
        # The CTE is a fence: as a subquery, LIMIT could be evaluated more than once. The rows are found by an array of ids:
        # for a join, the planner, which does not know the limit, would read the whole table.
        is_first = 'claim' not in self._prepared  # which takes longer
        begin = time.monotonic()
        is_full = begin >= self._next_full_look()
        rows = self._execute_prepared('claim', f"""
            WITH next AS (
                SELECT job.id
                  FROM unnest($2::int[], $3::int[], $4::int8[]) AS stretch (from_priority, from_id, to_priority)
            CROSS JOIN LATERAL (
                    SELECT id
                      FROM ir_async
                     WHERE {IS_READY} AND NOT limited AND NOT {IS_LIMITED} AND NOT {IS_UPGRADING} AND {IS_OURS}
                       AND (priority, id) >= (from_priority, from_id) AND priority < to_priority
                  ORDER BY priority, id
                     LIMIT $1
                FOR NO KEY UPDATE SKIP LOCKED
                ) job
                 LIMIT $1
            )
            UPDATE ir_async job
               SET {TAKE}
             WHERE id = ANY(ARRAY(SELECT id FROM next))
         RETURNING {self._columns}
        """, self._params(), limit, *self._stretches({} if is_full else self._floors))
        jobs = _in_order(Job(*row) for row in rows)
        if is_full:
            self._full_look = begin, 0 if is_first else time.monotonic() - begin
        self._floors.update((job.priority, job.id + 1) for job in jobs)
        if len(self._floors) > MAX_FLOORS:
            self._floors.clear()
        self._is_short = len(jobs) < limit
        return jobs

    def _next_full_look(self):
        begin, duration = self._full_look
        if duration < SLOW_LOOK:
            return 0
        # Who has nothing better to do may spend more of its time on it. Where there are many workers, the others look, too.
        share, interval = (
            (IDLE_LOOK_SHARE, IDLE_LOOK_INTERVAL) if self._is_short else (LOOK_SHARE, LOOK_INTERVAL * self._workers))
        return begin + min(share * duration, interval)

    @staticmethod
    def _stretches(floors):
        """Return where to look for jobs: from each known priority's floor to the next known priority.

        As long as an old snapshot is open somewhere, as that of a report that takes minutes, the index keeps an entry for
        each job that was ever claimed, and who looks for the next one goes through all of them, from the beginning.
        So when that becomes slow, claims begin where the last ones ended. What is missed below, as it was committed
        late or given back, is found by a full look once in a while.

        :param dict floors: the ids from which on to look, by priority; if empty, everywhere
        :rtype: tuple
        """
        known = sorted(floors.items())
        starts = [(-MAX_INT, 0), *known]
        ends = [*(priority for priority, _id in known), MAX_INT + 1]
        return [priority for priority, _id in starts], [id_ for _priority, id_ in starts], ends

    def claim_one(self, job_id):
        """Take one certain job, if it waits for nothing but a worker.

        :rtype: list[Job]
        """
        return [Job(*row) for row in self._execute(f"""
            UPDATE ir_async job
               SET {TAKE}
             WHERE job.id = %(job_id)s AND job.state = 'created' AND {IS_HERE}
         RETURNING {self._columns}
        """, self._params(job_id=job_id))]

    @functools.cached_property
    def _columns(self):
        tables = self._execute("""
            SELECT quote_ident(relname) FROM pg_class
             WHERE relname ~ '^orm_signaling_' AND relkind = 'r' AND relnamespace = current_schema()::regnamespace
          ORDER BY relname
        """)
        signals = ', '.join(f'(SELECT max(id) FROM {table})' for table, in tables)
        computed = {**COMPUTED, 'signals': f"(SELECT concat_ws(' ', {signals}))"}
        return ', '.join(computed.get(field, f'job.{field}') for field in Job._fields)

    def _params(self, **params):
        return {'key': self.key, 'channels': settings().channels, 'origin': self.origin, **params}

    _RUNNING = f"""
        running AS MATERIALIZED (
            SELECT channel, count(*) AS jobs FROM ir_async WHERE state = 'processing' AND {IS_HERE} GROUP BY channel)
    """
    # How long the channel has to wait for a slot: 0 for not at all, NULL for until something changes.
    _SLOT_DELAY = f"""
        CASE WHEN limits.paused THEN NULL
             WHEN limits.capacity > 0 AND limits.capacity <= coalesce((
                  SELECT jobs FROM running WHERE channel = candidate.channel), 0) THEN NULL
             WHEN limits.interval > 0 THEN greatest(0, coalesce(limits.interval - EXTRACT(EPOCH FROM {NOW} - (
                  SELECT max(date_start) FROM ir_async WHERE channel = candidate.channel AND limited)), 0))
             ELSE 0
        END
    """

    # The first job of each channel, among the jobs that come first: where there are thousands of channels, some of
    # these are free.
    _FIRST_HEADS = f"""
        head AS (
            SELECT DISTINCT ON (channel) channel, priority, id
              FROM (SELECT channel, priority, id FROM ir_async WHERE {IS_READY} AND limited AND {IS_OURS}
                  ORDER BY priority, id LIMIT 200) first
          ORDER BY channel, priority, id
        )
    """
    # The first job of each channel, jumping from one to the next in the index: where a full one has thousands of jobs.
    # https://wiki.postgresql.org/wiki/Loose_indexscan
    _ALL_HEADS = f"""
        RECURSIVE head AS (
            (SELECT channel, priority, id FROM ir_async WHERE {IS_READY} AND limited AND {IS_OURS}
           ORDER BY channel, priority, id LIMIT 1)
             UNION ALL
            SELECT next.*
              FROM head
        CROSS JOIN LATERAL (
                SELECT channel, priority, id FROM ir_async WHERE {IS_READY} AND limited AND {IS_OURS} AND channel > head.channel
              ORDER BY channel, priority, id LIMIT 1
            ) next
        )
    """

    def _free_channels(self, heads):
        """Return the channels whose first job could run now and comes before the plain ones, in that order.

        :return: them, and whether there are any at all that are free
        :rtype: tuple
        """
        rows = self._execute(f"""
              WITH {heads},
              {self._RUNNING},
              slot AS (
                SELECT candidate.*, {self._SLOT_DELAY} AS delay
                  FROM head candidate
             LEFT JOIN ir_async_channel limits ON limits.name = split_part(candidate.channel, '/', 1)
            ),
            plain AS (
                SELECT priority, id
                  FROM ir_async
                 WHERE {IS_READY} AND NOT limited AND {IS_OURS}
              ORDER BY priority, id
                 LIMIT 1
            )
            SELECT channel, delay, (priority, id) < ALL (SELECT priority, id FROM plain)
              FROM slot
             WHERE delay IS NOT NULL
          ORDER BY delay, priority, id
        """, self._params())
        self._slot_delay = next((float(delay) for _channel, delay, _first in rows if delay), None)
        free = [(channel, is_first) for channel, delay, is_first in rows if not delay]
        return [channel for channel, is_first in free if is_first], bool(free)

    def _claim_limited(self, limit):
        """Take the next job of each channel with limits, unless a plain one comes first."""
        channels, any_free = self._free_channels(self._FIRST_HEADS)
        if not any_free:
            channels, _any_free = self._free_channels(self._ALL_HEADS)
        jobs = []
        for channel in channels:
            if len(jobs) == limit:
                break
            # The lock in one statement, the count in the next, whose snapshot has what the lock waited for.
            jobs += [Job(*row) for row in self._execute(f"""
                SELECT pg_advisory_xact_lock({CHANNEL_LOCK_CLASS}, hashtext(%(channel)s));
                WITH candidate AS (
                    SELECT %(channel)s::varchar AS channel
                ),
                {self._RUNNING},
                slot AS MATERIALIZED (
                    SELECT {self._SLOT_DELAY} AS delay
                      FROM candidate
                 LEFT JOIN ir_async_channel limits ON limits.name = split_part(candidate.channel, '/', 1)
                ),
                next AS (
                    SELECT id
                      FROM ir_async
                     WHERE {IS_READY} AND limited AND {IS_OURS} AND channel BETWEEN %(channel)s AND %(channel)s
                       AND (SELECT delay FROM slot) = 0 AND NOT {IS_UPGRADING}
                  ORDER BY channel, priority, id  -- this, and BETWEEN, leave the planner one index to use
                     LIMIT 1
                FOR NO KEY UPDATE SKIP LOCKED
                )
                UPDATE ir_async job
                   SET {TAKE}
                 WHERE id = ANY(ARRAY(SELECT id FROM next))
             RETURNING {self._columns}
            """, self._params(channel=channel))]
        return _in_order(jobs)

    # ------------------------------------------------------------
    # Run
    # ------------------------------------------------------------

    def set_ready(self, is_ready):
        """Note whether this process has loaded all it needs: then, the job that it runs is to blame if it dies.

        :param bool is_ready: whether it has
        """
        if is_ready != self._is_ready:
            self._execute(f"UPDATE ir_async_worker SET date_ready = {NOW if is_ready else 'NULL'} WHERE id = %s", [self.key])
            self._is_ready = is_ready

    def check(self, job):
        """See that a job is still ours.

        :param Job job: the job
        :raises ClaimLost: when it is not, or when that cannot be known
        """
        try:
            held = self._execute(HELD, job._asdict())
        except psycopg2.Error as exc:
            if not pg.is_disconnection(exc):
                raise
            raise ClaimLost from exc
        if not held:
            raise ClaimLost

    def stop_requests(self):
        """Return the ids of the jobs of this database that somebody wants to be stopped, without waiting.

        :rtype: set[int]
        :raises psycopg2.Error: when the connection is lost, and with it the claims
        """
        if not self._lock.acquire(blocking=False):
            return set()
        try:
            self._connection.poll()
            ids = {int(notification.payload) for notification in self._connection.notifies}
            self._connection.notifies.clear()
            return ids
        finally:
            self._lock.release()

    def give_back(self, jobs, deaths=0):
        """Put jobs back into the queue, as if they had never been claimed; but for those that somebody has locked.

        :param list[Job] jobs: the jobs
        :param int deaths: how many deaths they are charged with
        :return: the ids of those that were
        :rtype: set[int]
        """
        given_back = self._change(f"""
            WITH mine AS (
                SELECT id
                  FROM ir_async
                 WHERE id = ANY(%s::int[]) AND session = %s
            FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE ir_async job
               SET state = 'created', session = NULL, revision = revision + 1, deaths = deaths + %s
              FROM mine
             WHERE job.id = mine.id
         RETURNING {CHANGE}
        """, [_array(job.id for job in jobs), self.key, deaths])
        if given_back:
            pg.notifier.notify(self.dbname)
        return given_back

    # ------------------------------------------------------------
    # Look after the queue
    # ------------------------------------------------------------

    def watch(self, is_busy=False):
        """Do what nobody else does: rescue the jobs of dead workers, call up those that are due, or waited for others.

        :param bool is_busy: whether there are jobs to run besides
        :return: when to call again, in seconds; None: when there is a NOTIFY
        :rtype: float | None
        """
        now = time.monotonic()
        [[self._workers, dead, processing, waiting, limited, has_limits, ready, due]] = self._execute_prepared('watch', f"""
            SELECT (SELECT count(*) FROM ir_async_worker),
                   ARRAY(SELECT id FROM ir_async_worker WHERE id NOT IN ({ALIVE})),
                   $1 OR EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND {IS_HERE}),
                   EXISTS (SELECT FROM ir_async WHERE state = 'waiting' AND {IS_HERE}),
                   EXISTS (SELECT FROM ir_async WHERE {IS_READY} AND limited AND {IS_OURS}),
                   EXISTS ({LIMITED}),
                   $1 OR EXISTS (SELECT FROM ir_async WHERE {IS_READY} AND NOT limited AND {IS_OURS}),
                   (SELECT EXTRACT(EPOCH FROM min(date_scheduled) - {NOW}) FROM ir_async
                     WHERE state = 'created' AND date_scheduled IS NOT NULL AND {IS_HERE})
        """, self._params(), is_busy)
        found_limited = limited and not self._has_limited
        self._has_limited = limited
        changed = set()
        # PostgreSQL forgets the rows of workers when it crashes: also look for jobs of sessions that have none, at first.
        looks_at_all = now >= self._next_rescue
        if processing and (dead or looks_at_all):
            changed |= self._rescue(None if looks_at_all else dead)
            if looks_at_all:
                self._next_rescue = now + RESCUE_INTERVAL
        if waiting and now >= self._next_sweep:
            begin = time.monotonic()
            changed |= self.release() | self._cancel_children()
            # It looks at all that wait. Most are released by the worker of their parent: this is for what was missed.
            duration = time.monotonic() - begin
            self._next_sweep = begin + max(SWEEP_SHARE * duration, BUSY_SWEEP_INTERVAL if is_busy else 0)
        self.has_waiting = waiting
        if due is not None and due <= 0:
            changed |= self._call_up()
        if ready and has_limits and now >= self._next_filing:
            begin = time.monotonic()
            changed |= (filed := self._file())
            self._next_filing = 0 if filed else begin + SWEEP_SHARE * (time.monotonic() - begin)
        if changed:
            pg.notifier.notify(self.dbname)
        if changed or found_limited:
            return 0
        delays = [
            *(float(delay) for delay in (due, self._slot_delay) if delay is not None),
            # While anything is being processed, whoever is idle looks every second. And while a job could be claimed,
            # but was not: it was locked, or modules are being upgraded.
            *([1] if processing or ready else []),
            *(max(date - now, 0.01) for date in (self._next_full_look(), waiting and processing and self._next_sweep) if date > now),
        ]
        return min(delays, default=None)

    def _rescue(self, sessions=None):
        # A worker runs its jobs in their order, and what has ended is not `processing` any more: the first of them is
        # the one that it was running. That one is charged with the death, if the process is gone, not just its
        # connection, and not since PostgreSQL was restarted, or crashed itself, when it forgets the worker's row.
        # The charge is noted, so that it does not fall on another one, that was locked and is rescued later.
        # The job took too long if its time was over just now. Later on, nobody can tell what its worker died of.
        return self._change(f"""
            WITH orphan AS (
                SELECT job.id, worker.id AS charged_worker,
                       worker.id IS NOT NULL AND greatest(job.date_start, worker.date_ready)
                       + least(nullif(job.timeout, 0), nullif(worker.limit_time_real, 0)) * interval '1 second'
                       BETWEEN {NOW} - interval '10 seconds' AND {NOW} AS is_late
                  FROM ir_async job
             LEFT JOIN ir_async_worker worker
                    ON worker.id = job.session AND worker.date_ready IS NOT NULL
                   AND worker.server_start = pg_postmaster_start_time() AT TIME ZONE 'UTC'
                   AND job.id = (
                       SELECT id
                         FROM ir_async
                        WHERE state = 'processing' AND session = worker.id
                     ORDER BY priority, id
                        LIMIT 1)
                   AND NOT EXISTS (
                       SELECT
                         FROM pg_locks
                        WHERE locktype = 'advisory' AND classid = {pg.PROCESS_LOCK_CLASS}
                          AND objid::int8 = worker.process_key AND objsubid = 2
                          AND database = (SELECT oid FROM pg_database WHERE datname = 'postgres'))
                 WHERE job.state = 'processing' AND job.{IS_HERE}
                   AND {"job.session = ANY(%(sessions)s)" if sessions else f"job.session NOT IN ({ALIVE})"}
            FOR NO KEY UPDATE OF job SKIP LOCKED
            ),
            charged AS (
                UPDATE ir_async_worker SET date_ready = NULL WHERE id IN (SELECT charged_worker FROM orphan)
            ),
            late AS (
                INSERT INTO ir_async_stop (job_id, reason)
                     SELECT id, 'timeout' FROM orphan WHERE is_late
                ON CONFLICT (job_id) DO NOTHING
            )
            UPDATE ir_async job
               SET state = 'created',
                   session = NULL,
                   revision = revision + 1,
                   deaths = deaths + (charged_worker IS NOT NULL AND is_late IS NOT TRUE
                                      AND NOT EXISTS (SELECT FROM ir_async_stop WHERE job_id = job.id))::int
              FROM orphan
             WHERE job.id = orphan.id
         RETURNING {CHANGE}
        """, self._params(sessions=sessions))

    def _call_up(self):
        return self._change(f"""
            WITH due AS (
                SELECT id
                  FROM ir_async
                 WHERE state = 'created' AND date_scheduled <= {NOW} AND {IS_HERE}
              ORDER BY date_scheduled
                 LIMIT 1000
            FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE ir_async job SET date_scheduled = NULL FROM due WHERE job.id = due.id
         RETURNING {CHANGE.replace('job.notify', 'false')}
        """, self._params())

    def release(self, parents=None):
        """Put the jobs into the queue that waited for others, which all ended well.

        Not in the transaction of a parent: two parents that end at once would each wait for the other one's row,
        and one of them would have to run again. Whatever is missed here, because of a crash in between or since
        the child was enqueued just then, :meth:`watch` finds.

        :param list[int] parents: only what waits for these jobs, that ended
        :return: the ids of the jobs that changed
        :rtype: set[int]
        """
        # Rows are locked in no certain order by several workers, or by somebody who cancels them: whatever is locked
        # is left to the next look.
        return self._change(f"""
            WITH met AS (
                SELECT rel.job_id, rel.after_id
                  FROM ir_async_after_rel rel
                  JOIN ir_async parent ON parent.id = rel.after_id
                 WHERE rel.unmet AND parent.state IN ('succeeded', 'done')
                   {"AND rel.after_id = ANY(%(parents)s::int[])" if parents else ""}
            FOR NO KEY UPDATE OF rel SKIP LOCKED
            )
            UPDATE ir_async_after_rel rel
               SET unmet = false
              FROM met
             WHERE rel.job_id = met.job_id AND rel.after_id = met.after_id;
            WITH ready AS (
                SELECT id
                  FROM ir_async child
                 WHERE state = 'waiting' AND {IS_HERE}
                   -- not NOT EXISTS: an anti join may read all that is unmet
                   AND (SELECT true FROM ir_async_after_rel WHERE job_id = child.id AND unmet LIMIT 1) IS NULL
                   {"AND id IN (SELECT job_id FROM ir_async_after_rel WHERE after_id = ANY(%(parents)s::int[]))" if parents else ""}
            FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE ir_async job
               SET state = 'created', revision = revision + 1
              FROM ready
             WHERE job.id = ready.id
         RETURNING {CHANGE}
        """, self._params(parents=parents and _array(parents)))

    def _cancel_children(self):
        changed = set()
        while cancelled := self._change(f"""
            WITH orphan AS (
                SELECT id
                  FROM ir_async child
                 WHERE state = 'waiting' AND EXISTS (
                       SELECT
                         FROM ir_async_after_rel rel
                         JOIN ir_async parent ON parent.id = rel.after_id
                        WHERE rel.job_id = child.id AND rel.unmet AND parent.state = 'cancelled')
            FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE ir_async job
               SET state = 'cancelled', revision = revision + 1, date_done = {NOW}
              FROM orphan
             WHERE job.id = orphan.id
         RETURNING {CHANGE}
        """):
            changed |= cancelled
        return changed

    def _file(self):
        # Their channel got its limits since they were enqueued. Only those that come first, that claims stumble over:
        # there may be millions.
        return self._change(f"""
            WITH misfiled AS (
                SELECT id
                  FROM ir_async
                 WHERE id IN (
                       SELECT id
                         FROM (SELECT id, channel FROM ir_async WHERE {IS_READY} AND NOT limited AND {IS_HERE} ORDER BY priority, id LIMIT 1000) first
                        WHERE {IS_LIMITED})
            FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE ir_async job SET limited = true FROM misfiled WHERE job.id = misfiled.id AND job.state = 'created'
         RETURNING {CHANGE.replace('job.notify', 'false')}
        """, self._params())


def _array(ids):
    # One text, not so many numbers: a statement like any other for pg_stat_statements, however many there are.
    return '{%s}' % ','.join(map(str, ids))


def _in_order(jobs):
    return sorted(jobs, key=lambda job: (job.priority, job.id))
