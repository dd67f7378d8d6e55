"""Children: put them into the queue once their parents ended well, or cancel them with a parent."""
from __future__ import annotations

import time

from .claim import HERE
from .connection import array
from .job import PUBLISHED, UNMET_OF_CHILD, UNMET_OF_PARENT

# The plans must not depend on statistics: those of a moment ago may say that nothing waits. So the jobs at the other ends of
# dependencies are looked up by subqueries that PostgreSQL cannot turn into joins, whose order it would choose.
STATE_OF_PARENT = "(SELECT state FROM ir_async WHERE id = rel.after_id)"
# Not `=`: then PostgreSQL might look for the ids among all that waits.
WAITS = "state LIKE 'waiting'"
# Rows are locked in no certain order by several workers, or by somebody who cancels them: whatever is locked is left to the
# next look.
MET = """
    WITH met AS (
        {met}
    )
    UPDATE ir_async_after_rel
       SET unmet = false
     WHERE ctid = ANY(ARRAY(SELECT ctid FROM met));
"""
# A child that was cancelled keeps what is unmet, should it be tried again: a sweep begins with what waits.
MET_OF_WAITING = f"""
        SELECT met.ctid
          FROM ir_async child
    CROSS JOIN LATERAL (
               SELECT ctid
                 FROM ir_async_after_rel rel
                WHERE job_id = child.id AND {UNMET_OF_CHILD} AND {STATE_OF_PARENT} IN ('succeeded', 'done')
                  FOR NO KEY UPDATE SKIP LOCKED
               ) met
         WHERE child.state = 'waiting' AND child.{HERE}
"""
MET_OF_PARENTS = f"""
        SELECT ctid
          FROM ir_async_after_rel rel
         WHERE {UNMET_OF_PARENT} AND after_id = ANY(%(parents)s::int[]) AND {STATE_OF_PARENT} IN ('succeeded', 'done')
    FOR NO KEY UPDATE SKIP LOCKED
"""
# The transaction that enqueued a child cannot refer to a parent that was committed after it began.
# It waits until nobody has any of them locked.
RELATE = f"""
    WITH late AS (
        SELECT id, late_parent_ids
          FROM ir_async
         WHERE state = 'waiting' AND {HERE} AND late_parent_ids IS NOT NULL
    FOR NO KEY UPDATE SKIP LOCKED
    ), parent AS MATERIALIZED (
        SELECT late.id AS child_id, parent.id
          FROM late
    CROSS JOIN LATERAL (SELECT id FROM ir_async WHERE id = ANY(late.late_parent_ids) FOR KEY SHARE SKIP LOCKED) parent
    ), complete AS MATERIALIZED (
        SELECT id
          FROM late
         WHERE (SELECT count(*) FROM ir_async WHERE id = ANY(late.late_parent_ids))
             = (SELECT count(*) FROM parent WHERE child_id = late.id)
    ), related AS (
        INSERT INTO ir_async_after_rel (job_id, after_id)
        SELECT child_id, id FROM parent WHERE child_id = ANY(ARRAY(SELECT id FROM complete))
    )
    UPDATE ir_async job
       SET late_parent_ids = NULL
     WHERE job.id = ANY(ARRAY(SELECT id FROM complete));
"""
# not NOT EXISTS: an anti join may read all that is unmet
HAS_NO_UNMET = f"(SELECT true FROM ir_async_after_rel WHERE job_id = child.id AND {UNMET_OF_CHILD} LIMIT 1) IS NULL"
UNBLOCK = f"""
    WITH ready AS (
        SELECT id
          FROM ir_async child
         WHERE {{children}} AND {HERE} AND late_parent_ids IS NULL AND {HAS_NO_UNMET}
    FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE ir_async job
       SET state = 'created', revision = revision + 1
     WHERE job.id = ANY(ARRAY(SELECT id FROM ready))
 RETURNING {PUBLISHED}
"""
CHILDREN = "id = ANY(ARRAY(SELECT job_id FROM ir_async_after_rel WHERE after_id = ANY(%(parents)s::int[])))"
UNBLOCK_ALL = RELATE + MET.format(met=MET_OF_WAITING) + UNBLOCK.format(children="state = 'waiting'")
UNBLOCK_OF = MET.format(met=MET_OF_PARENTS) + UNBLOCK.format(children=f"{CHILDREN} AND {WAITS}")
HAS_PARENT_IN = f"""
    (SELECT true
       FROM ir_async_after_rel rel
      WHERE job_id = child.id AND {UNMET_OF_CHILD} AND {STATE_OF_PARENT} IN %s
      LIMIT 1)
"""
HAS_CANCELLED = HAS_PARENT_IN % "('cancelled')"
CANCEL = f"""
    WITH orphan AS (
        SELECT id
          FROM ir_async child
         WHERE {{children}} AND {HERE} AND {HAS_CANCELLED}
    FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE ir_async job
       SET state = 'cancelled', revision = revision + 1, date_done = clock_timestamp() AT TIME ZONE 'UTC'
     WHERE job.id = ANY(ARRAY(SELECT id FROM orphan))
 RETURNING {PUBLISHED}
"""
CANCEL_ALL = CANCEL.format(children="state = 'waiting'")
CANCEL_OF = CANCEL.format(children=f"{CHILDREN} AND {WAITS}")
CANCEL_TIME = 0.5  # seconds, then the jobs that are ready have their turn
HAS_BLOCKED = f"""
    SELECT EXISTS (
               SELECT
                 FROM ir_async child
                WHERE state = 'waiting' AND {HERE}
                  AND (late_parent_ids IS NOT NULL OR {HAS_NO_UNMET} OR {HAS_PARENT_IN % "('succeeded', 'done', 'cancelled')"}))
"""


class Dependencies:
    """The children of jobs that ended.

    :param Session session: the session
    """

    def __init__(self, session):
        self._session = session

    def unblock(self, parents=None):
        """Put the jobs into the queue that waited for others, which all ended well.

        Not in the transaction of a parent: two parents that end at once would each wait for the other one's row,
        and one of them would have to run again. A crash in between, or a child that was enqueued just then, is
        found by the next sweep of the maintenance.

        :param list[int] parents: only the children of these jobs; all by default
        :return: the ids of the jobs that changed
        :rtype: set[int]
        """
        if parents is None:
            return self._session.change(UNBLOCK_ALL, self._session.params())
        return self._session.change(UNBLOCK_OF, self._session.params(parents=array(parents)))

    def has_blocked(self):
        """Return whether any job still waits whose turn has come: a sweep passed over it, since it was locked.

        :rtype: bool
        """
        [[has_blocked]] = self._session.execute(HAS_BLOCKED, self._session.params())
        return has_blocked

    def cancel(self):
        """Cancel the children of cancelled jobs, and theirs; what takes too long is left to the next sweep.

        :return: the ids of the jobs that changed
        :rtype: set[int]
        """
        end = time.monotonic() + CANCEL_TIME
        changed = cancelled = self._session.change(CANCEL_ALL, self._session.params())
        while cancelled and time.monotonic() < end:
            cancelled = self._session.change(CANCEL_OF, self._session.params(parents=array(cancelled)))
            changed |= cancelled
        return changed
