"""The jobs of dead workers: put them back into the queue, and charge a job whose method killed its worker.

A job is an orphan when the lock of its session is gone. The process may still live: perhaps only its connection was cut.
Only the parent of a worker knows that the worker died. It hands the death to the next worker: see
:mod:`~odoo.addons.ir_async.service.obituary`. The parent of a cron worker reports nothing. So a cron worker notes its job, its
process and its server in its row. The job is charged when that process has ended but its server has not.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .claim import HERE
from .connection import LIVE_SESSIONS
from .job import PUBLISHED, Job, Swept
from .process import was_killed

if TYPE_CHECKING:
    from .session import Session

# Seconds that the parent of a dead worker has to report the death, before others put its job back without a charge.
GRACE = 0.7
MAX_DEATHS = 3  # of the workers that run a job, until it fails
FULL_INTERVAL = 60  # seconds between two full rescues, which look at all jobs that are processing

IS_ORPHAN = f"job.state = 'processing' AND job.worker_id NOT IN ({LIVE_SESSIONS})"
IS_BEGUN = "EXISTS (SELECT FROM ir_async_worker WHERE id = job.worker_id AND running_job_id = job.id)"
# The notes of cron workers whose sessions ended while a job was running.
NOTES = f"""
    SELECT id, host, pid, process_start, server_pid, server_start
      FROM ir_async_worker
     WHERE running_job_id IS NOT NULL AND id NOT IN ({LIVE_SESSIONS})
"""
RESCUE = f"""
    WITH orphan AS (
        SELECT id
          FROM ir_async job
         WHERE {IS_ORPHAN} AND {HERE} AND (%(dead)s::int[] IS NULL OR worker_id = ANY(%(dead)s))
    FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE ir_async job
       SET state = 'created',
           worker_id = NULL,
           revision = revision + 1,
           starts = starts + {IS_BEGUN}::int,
           deaths = deaths + ({IS_BEGUN} AND worker_id = ANY(%(killed)s::int[])
                              AND NOT EXISTS (SELECT FROM ir_async_stop WHERE job_id = job.id))::int
     WHERE id = ANY(ARRAY(SELECT id FROM orphan))
 RETURNING {PUBLISHED}
"""
# The job may already run again. Its end then meets a concurrent update and is tried again.
CHARGE = f"""
    UPDATE ir_async job
       SET deaths = deaths + (NOT EXISTS (SELECT FROM ir_async_stop WHERE job_id = job.id))::int,
           starts = starts + 1,
           state = CASE WHEN {{held}} THEN 'created' ELSE state END,
           worker_id = CASE WHEN {{held}} THEN NULL ELSE worker_id END,
           revision = revision + 1
     WHERE id = %(id)s AND state IN ('created', 'processing')
 RETURNING {PUBLISHED}
""".format(held="worker_id = %(worker_id)s AND claim_number = %(claim_number)s")
TAKE_OVER = """
    WITH stop AS (
        INSERT INTO ir_async_stop (job_id, reason)
             SELECT id, %(reason)s FROM ir_async
              WHERE id = %(id)s AND state = 'processing' AND worker_id = %(from_worker_id)s AND claim_number = %(claim_number)s
        ON CONFLICT (job_id) DO NOTHING
    )
    UPDATE ir_async job
       SET worker_id = %(worker_id)s
     WHERE id = %(id)s AND state = 'processing' AND worker_id = %(from_worker_id)s AND claim_number = %(claim_number)s
 RETURNING """


# When each dead session was first seen dead, by database and worker id. A worker with many databases keeps no session between
# two visits, but a grace must come to its end.
_seen: dict[str, dict[int, float]] = {}


class Rescue:
    """Jobs of sessions that ended.

    :param Session session: the session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._next_full = 0.0

    def rescue(self, dead: list[int]) -> Swept:
        """Put the jobs of dead sessions back into the queue, a grace period after the sessions were seen dead.

        :param list[int] dead: the worker ids of sessions whose lock is gone
        :rtype: Swept
        """
        now = time.monotonic()
        before = _seen.get(self._session.dbname, {})
        _seen[self._session.dbname] = times = {worker_id: before.get(worker_id, now) for worker_id in dead}
        due = [worker_id for worker_id, seen in times.items() if seen + GRACE <= now]
        changed: set[int] = set()
        # A crash of PostgreSQL empties the UNLOGGED table of workers. So a full rescue also finds jobs of sessions without a row.
        is_full = now >= self._next_full and not (dead and not due)
        if due or is_full:
            changed = self._session.change(
                RESCUE,
                self._session.params(
                    dead=None if is_full else due,
                    killed=[worker_id for worker_id, *process in self._session.execute(NOTES) if was_killed(*process)],
                ),
            )
            if is_full:
                self._next_full = now + FULL_INTERVAL
        young = [seen + GRACE - now for worker_id, seen in times.items() if worker_id not in due]
        return Swept(changed, min(young, default=None))


def charge(session: Session, job_id: int, worker_id: int, claim_number: int) -> set[int]:
    """Charge a job with the death of the worker that ran its method, and put it back into the queue.

    :param Session session: the session that writes the charge
    :param int job_id: the job
    :param int worker_id: the dead worker's session
    :param int claim_number: the claim number of the job
    :return: the ids of the jobs that changed
    :rtype: set[int]
    """
    return session.change(CHARGE, {'id': job_id, 'worker_id': worker_id, 'claim_number': claim_number})


def take_over(session: Session, job_id: int, worker_id: int, claim_number: int, reason: str) -> list[Job]:
    """Take a job over from a worker that is stopping or dead, to write its outcome.

    :param Session session: the session that takes it over
    :param int job_id: the job
    :param int worker_id: the other session, or this one
    :param int claim_number: the claim number of the job
    :param str reason: ``cancel`` or ``timeout``; used if no reason is noted yet
    :return: the job; empty when its claim has changed
    :rtype: list[Job]
    """
    params = session.params(id=job_id, from_worker_id=worker_id, claim_number=claim_number, reason=reason)
    return [Job(*row) for row in session.execute(TAKE_OVER + session.all_columns, params)]
