"""The children of jobs: unblock them when all parents have ended well, or cancel them with a parent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .claim import HERE
from .connection import array
from .job import PUBLISHED, UNMET_OF_CHILD, UNMET_OF_PARENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .session import Session

# The plans must not depend on statistics, which may still say that nothing waits. So subqueries look up the jobs at the
# other end of a dependency. PostgreSQL cannot turn these into joins, and so cannot choose an order of joins.
STATE_OF_PARENT = "(SELECT state FROM ir_async WHERE id = rel.after_id)"
# Not `=`: PostgreSQL might then look for the ids in the index of all waiting jobs.
WAITS = "state LIKE 'waiting'"
# Several workers, and users who cancel jobs, lock these rows in no fixed order. SKIP LOCKED avoids deadlocks: a locked row
# is left to the next look.
MET = """
    WITH met AS (
        {met}
    )
    UPDATE ir_async_after_rel
       SET unmet = false
     WHERE ctid = ANY(ARRAY(SELECT ctid FROM met));
"""
# A sweep begins with waiting children. A cancelled child keeps its unmet dependencies, since a user may retry it.
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
# The transaction that enqueued a child cannot refer to a parent that was committed after that transaction began. So the
# dependencies of a child on such late parents are created here, as soon as nobody has one of the parents locked.
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
# Not `NOT EXISTS`: an anti join may read all unmet dependencies.
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
# The order leaves the planner one index to use. By the statistics of an empty table, it might read another one in full.
CHILDREN = (
    "id = ANY(ARRAY(SELECT job_id FROM ir_async_after_rel WHERE after_id = ANY(%(parents)s::int[]) ORDER BY after_id))"
)
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
    WITH affected AS (
        SELECT id
          FROM ir_async child
         WHERE {{children}} AND {HERE} AND {HAS_CANCELLED}
    FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE ir_async job
       SET state = 'cancelled', revision = revision + 1, date_done = clock_timestamp() AT TIME ZONE 'UTC'
     WHERE job.id = ANY(ARRAY(SELECT id FROM affected))
 RETURNING {PUBLISHED}
"""
CANCEL_ALL = CANCEL.format(children="state = 'waiting'")
CANCEL_OF = CANCEL.format(children=f"{CHILDREN} AND {WAITS}")
CANCEL_TIME = 0.5  # seconds that cancelling may take before ready jobs have their turn
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

    def __init__(self, session: Session) -> None:
        self._session = session

    def unblock(self, parents: Iterable[int] | None = None) -> set[int]:
        """Put waiting jobs into the queue if all of their parents have ended well.

        This is not part of the transaction of a parent. Two parents that end at once would each wait for the other's row,
        and one of them would have to run again. The next sweep finds children that this misses: because of a crash in
        between, or because they were enqueued at that moment.

        :param list[int] parents: only unblock children of these jobs; all children by default
        :return: the ids of the jobs that changed
        :rtype: set[int]
        """
        if parents is None:
            return self._session.change(UNBLOCK_ALL, self._session.params())
        return self._session.change(UNBLOCK_OF, self._session.params(parents=array(parents)))

    def has_blocked(self) -> bool:
        """Return whether a sweep passed over a job because it was locked: its turn has come, but it still waits.

        :rtype: bool
        """
        [[has_blocked]] = self._session.execute(HAS_BLOCKED, self._session.params())
        return has_blocked

    def cancel(self) -> set[int]:
        """Cancel the children of cancelled jobs, and their children. After half a second the rest is left to the next sweep.

        :return: the ids of the jobs that changed
        :rtype: set[int]
        """
        end = time.monotonic() + CANCEL_TIME
        changed = cancelled = self._session.change(CANCEL_ALL, self._session.params())
        while cancelled and time.monotonic() < end:
            cancelled = self._session.change(CANCEL_OF, self._session.params(parents=array(cancelled)))
            changed |= cancelled
        return changed
