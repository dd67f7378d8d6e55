"""The queue of one database, as a worker sees it: claim, start, give back, rescue.

All of it is SQL on one connection of its own. READ COMMITTED, since at Odoo's REPEATABLE READ a quarter of the
claims would fail: SKIP LOCKED passes over rows that are locked, but not over rows that were claimed and committed
since the snapshot. Autocommit, since a transaction that stays open while a job runs would keep the whole cluster
from vacuuming.

The connection is also the proof that the worker is alive. It holds an advisory lock on the session's key; when the
worker dies, whatever the reason, PostgreSQL ends the session and the lock is gone. There is no heartbeat and no
clock. This is how Que and GoodJob do it, but for the key, that is not a process id: those are used again.
"""
from __future__ import annotations

import os
import socket
from typing import NamedTuple

import psycopg2
import psycopg2.errors

from odoo.modules import Manifest

from ..exceptions import ClaimLost
from . import pg

BASE_VERSION = Manifest.for_addon('base')['version']
LOCK_CLASS = int.from_bytes(b'iras', 'big')  # the first of the two keys of our advisory locks
WATCH_KEY = 0  # the second one, of whoever looks for the dead

# A claim may be lost in a crash, its session is gone then, too: no need to wait for the disk. An outcome may not.
OPTIONS = ' -c synchronous_commit=off -c lock_timeout=5s'
DURABLE = "SET LOCAL synchronous_commit = on;"

ALIVE = f"""
    SELECT objid::int8
      FROM pg_locks
     WHERE locktype = 'advisory' AND classid = {LOCK_CLASS} AND objsubid = 2 AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Job(NamedTuple):
    """A claimed job: the columns of ``ir_async`` that running it takes."""

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
    deaths: int
    revision: int
    session: int
    claims: int
    user_active: bool

    def __str__(self):
        return f"{self.id} ({self.res_model}.{self.method})"


COLUMNS = ', '.join('u.active' if field == 'user_active' else f'job.{field}' for field in Job._fields)


class Session:
    """The presence of a worker in a database, from :meth:`open` to :meth:`close`."""

    def __init__(self, dbname, connection, key):
        self.dbname = dbname
        self.key = key
        self._connection = connection
        self._watches = False

    @classmethod
    def open(cls, dbname):
        """Connect to a database and register there.

        :param str dbname: the database
        :return: a session; None when there is nothing to do there: no job, no such module, another version of Odoo
        :rtype: Session | None
        :raises psycopg2.OperationalError: when the database cannot be reached
        """
        connection = pg.connect(dbname, OPTIONS)
        opened = None
        try:
            with connection.cursor() as cr:
                cr.execute("""
                    SELECT (SELECT latest_version FROM ir_module_module WHERE name = 'base'),
                           EXISTS (SELECT FROM ir_async WHERE state IN ('created', 'processing'))
                """)
                version, has_jobs = cr.fetchone()
                if has_jobs and version == BASE_VERSION:
                    if connection.server_version >= 140000:
                        cr.execute("SET idle_session_timeout = 0")
                    # The lock comes before anything else that bears the key, and what bears a key without a lock
                    # is that of a dead worker.
                    cr.execute(f"DELETE FROM ir_async_worker WHERE id NOT IN ({ALIVE})"
                               " AND id NOT IN (SELECT session FROM ir_async WHERE state = 'processing')")
                    cr.execute("""
                        INSERT INTO ir_async_worker (id, host, pid, server_start)
                             SELECT key, %s, %s, pg_postmaster_start_time() AT TIME ZONE 'UTC'
                               FROM nextval('ir_async_worker_id_seq') AS key
                              WHERE pg_try_advisory_lock(%s, key::int)
                          RETURNING id
                    """, [socket.gethostname(), os.getpid(), LOCK_CLASS])
                    opened = cls(dbname, connection, cr.fetchone()[0])
        except psycopg2.errors.UndefinedTable:
            pass
        finally:
            if not opened:
                connection.close()
        return opened

    def close(self):
        """Leave the database, with no job in hand."""
        try:
            self._execute("DELETE FROM ir_async_worker WHERE id = %s", [self.key])
        except psycopg2.Error:
            pass  # it is gone, so is the lock
        finally:
            self._connection.close()

    def _execute(self, query, params):
        # The worker's two threads share the connection: psycopg2 has one statement wait for the other.
        with self._connection.cursor() as cr:
            cr.execute(query, params)
            return cr.fetchall() if cr.description else cr.rowcount

    def claim(self, limit, job_id=None):
        """Take the next jobs, that nobody else will have now.

        :param int limit: how many at most
        :param int job_id: take that one only
        :return: the jobs in the order in which to run them
        :rtype: list[Job]
        """
        # The CTE is a fence: as a subquery, LIMIT could be evaluated more than once.
        rows = self._execute(f"""
            WITH next AS (
                SELECT id
                  FROM ir_async
                 WHERE state = 'created' {"AND id = %(job_id)s" if job_id else ""}
                   AND NOT EXISTS (
                       SELECT FROM ir_module_module WHERE state IN ('to install', 'to upgrade', 'to remove'))
              ORDER BY priority, id
                 LIMIT %(limit)s
            FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE ir_async job
               SET state = 'processing',
                   session = %(key)s,
                   claims = job.claims + 1,
                   revision = job.revision + 1,
                   date_start = now() AT TIME ZONE 'UTC'
              FROM next, res_users u
             WHERE job.id = next.id AND u.id = job.user_id
         RETURNING {COLUMNS}
        """, {'limit': limit, 'job_id': job_id, 'key': self.key})
        return sorted((Job(*row) for row in rows), key=lambda job: (job.priority, job.id))

    def start(self, job):
        """Note that the method of a claimed job begins: from now on, it is to blame if this worker dies.

        :raises ClaimLost: when the job is not ours any more, or when that cannot be known
        """
        try:
            started = self._execute("""
                UPDATE ir_async_worker worker
                   SET job_id = job.id
                  FROM ir_async job
                 WHERE worker.id = %(session)s
                   AND job.id = %(id)s AND job.session = %(session)s AND job.claims = %(claims)s
                   AND job.state = 'processing'
            """, job._asdict())
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as exc:
            raise ClaimLost(job.id) from exc
        if not started:
            raise ClaimLost(job.id)

    def give_back(self, jobs):
        """Put jobs back into the queue, as if they had never been claimed."""
        self._execute(f"""{DURABLE}
            UPDATE ir_async
               SET state = 'created', session = NULL, revision = revision + 1
             WHERE id = ANY(%s) AND session = %s AND state = 'processing'
        """, [[job.id for job in jobs], self.key])
        pg.notifier.notify(self.dbname)

    def watch(self):
        """Put the jobs of dead workers back into the queue. One worker a database does, the others stand by.

        :return: how soon to call again, in seconds; None when nobody works, so that nobody can die
        :rtype: int | None
        """
        if not self._watches:
            [[self._watches]] = self._execute("SELECT pg_try_advisory_lock(%s, %s)", [LOCK_CLASS, WATCH_KEY])
            if not self._watches:
                return 5
        # The job is charged with the death if the worker's row, which PostgreSQL forgets when it crashes itself,
        # names it, and PostgreSQL was not restarted either.
        [[rescued, pending]] = self._execute(f"""{DURABLE}
            WITH alive AS MATERIALIZED ({ALIVE}),
            orphan AS (
                SELECT id, session
                  FROM ir_async
                 WHERE state = 'processing' AND session NOT IN (SELECT objid FROM alive)
            FOR NO KEY UPDATE SKIP LOCKED
            ),
            rescued AS (
                UPDATE ir_async job
                   SET state = 'created',
                       session = NULL,
                       revision = revision + 1,
                       deaths = deaths + EXISTS (
                           SELECT
                             FROM ir_async_worker worker
                            WHERE worker.id = orphan.session AND worker.job_id = orphan.id
                              AND worker.server_start = pg_postmaster_start_time() AT TIME ZONE 'UTC'
                       )::int
                  FROM orphan
                 WHERE job.id = orphan.id
             RETURNING 1
            )
            SELECT (SELECT count(*) FROM rescued),
                   EXISTS (SELECT FROM ir_async WHERE state IN ('created', 'processing'))
        """, [])
        if rescued:
            pg.notifier.notify(self.dbname)
        return 1 if pending else None
