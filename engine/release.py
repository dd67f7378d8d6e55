"""Release of claimed jobs into the queue, and the last resort: end a job as failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .connection import array
from .fence import HELD, token
from .job import PUBLISHED
from .notifier import notifier

if TYPE_CHECKING:
    from collections.abc import Collection

    from .job import Job
    from .session import Session

# A job that was fenced off has another claim number: whoever stops it writes its outcome.
RELEASE = f"""
    WITH mine AS (
        SELECT id, channel, limited, date_start
          FROM ir_async job
         WHERE id = ANY(%(ids)s::int[]) AND worker_id = %(worker_id)s
           AND claim_number = (
               SELECT claim_number FROM unnest(%(ids)s::int[], %(claim_numbers)s::int[]) AS held (id, claim_number) WHERE held.id = job.id)
    FOR NO KEY UPDATE SKIP LOCKED
    ),
    undone AS (
        DELETE FROM ir_async_start
         WHERE NOT %(is_begun)s
           AND channel = ANY(ARRAY(SELECT channel FROM mine WHERE limited))
           AND date = ANY(ARRAY(SELECT date_start FROM mine WHERE limited))
           AND job_id = ANY(ARRAY(SELECT id FROM mine))
    )
    UPDATE ir_async job
       SET state = 'created',
           worker_id = NULL,
           revision = revision + 1,
           starts = starts + %(starts)s,
           payload = coalesce(%(payload)s, payload),
           claim_number = coalesce(%(claim_count)s, claim_number),
           date_start = CASE WHEN %(is_begun)s THEN date_start END,
           date_scheduled = clock_timestamp() AT TIME ZONE 'UTC' + %(delay)s * interval '1 second'
     WHERE job.id = ANY(ARRAY(SELECT id FROM mine))
 RETURNING {PUBLISHED}
"""
FAIL = f"""
    UPDATE ir_async job
       SET state = 'failed', worker_id = NULL, revision = revision + 1, attempts = attempts + %(starts)s, starts = starts + %(starts)s,
           payload = %(payload)s, date_done = clock_timestamp() AT TIME ZONE 'UTC'
     WHERE {HELD}
 RETURNING {PUBLISHED}
"""


def release(
    session: Session,
    jobs: Collection[Job],
    starts: int = 0,
    delay: float | None = None,
    payload: str | None = None,
    claim_count: int | None = None,
    is_begun: bool = False,
) -> set[int]:
    """Put jobs back into the queue, except for locked ones and those whose claim does not hold any more.

    :param Session session: the session that claimed them
    :param list[Job] jobs: the jobs
    :param int starts: how often their method was begun since they were claimed
    :param float delay: seconds until they are tried again; by default they are tried at once
    :param str payload: the reason as the error of an RPC, in JSON
    :param int claim_count: how often the job was claimed, if it was fenced off since
    :param bool is_begun: whether their method was begun, although ``starts`` are counted already
    :return: the ids of the jobs that were put back
    :rtype: set[int]
    """
    released = session.change(
        RELEASE,
        {
            'ids': array(job.id for job in jobs),
            'claim_numbers': array(job.claim_number for job in jobs),
            'worker_id': session.worker_id,
            'starts': starts,
            'delay': delay,
            'payload': payload,
            'claim_count': claim_count,
            'is_begun': is_begun or starts > 0,
        },
    )
    if released and not delay:
        notifier.notify(session.dbname)
    return released


def fail(session: Session, job: Job, payload: str, starts: int = 1) -> None:
    """End a job as failed when nothing else worked.

    :param Session session: the session that claimed it
    :param Job job: the job
    :param str payload: the error, JSON
    :param int starts: 1: its method was begun; 0: it was not
    """
    session.change(FAIL, {**token(job), 'payload': payload, 'starts': starts})
