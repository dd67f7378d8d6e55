"""Claim the next jobs, in the order of the queue."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from ..tools.options import MAX_INT
from .job import Job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .session import Session

CLAIM_TIME = 0.05  # seconds that a claimed job may wait for the other jobs of its batch
MAX_MARKS = 16  # priorities in use at a time
QUICK_SCAN = 0.02  # maximum seconds of a full scan that needs no low-water marks
# Seconds between two full scans of a worker that finds jobs above its low-water marks. The shortest interval applies when it owes
# a scan, the longest one when it only may have missed a job that somebody had locked.
SCAN_INTERVAL, LONGEST_SCAN_INTERVAL = 1, 10
PATIENCE = 50  # times as long as a full scan takes, none follows that is owed: workers that only scan run no jobs

NOW = "(clock_timestamp() AT TIME ZONE 'UTC')"
LIMITED = "SELECT name FROM ir_async_channel WHERE name != '*' AND (capacity > 0 OR interval > 0 OR paused OR fair)"
IS_LIMITED = f"split_part(channel, '/', 1) IN ({LIMITED})"
IS_PAUSED = "EXISTS (SELECT FROM ir_async_channel WHERE name = '*' AND paused)"
UPGRADING = "ir_module_module WHERE state IN ('to install', 'to upgrade', 'to remove')"
IS_UPGRADING = f"EXISTS (SELECT FROM {UPGRADING})"
READY = f"state = 'created' AND date_scheduled IS NULL AND NOT {IS_PAUSED}"
HERE = "origin = %(origin)s"  # leaves out jobs that came with a copy of another database
SERVED = f"{HERE} AND (%(channels)s = '{{}}' OR split_part(channel, '/', 1) = ANY(%(channels)s))"
TAKE = """
    state = 'processing',
    worker_id = %(worker_id)s,
    claim_number = job.claim_number + 1,
    revision = job.revision + 1,
    date_start = clock_timestamp() AT TIME ZONE 'UTC'
"""

# The parts of the queue in which to look for jobs, in their order: from a job on, up to a priority.
PARTS = "unnest({}::int[], {}::int[], {}::int8[]) AS part (from_priority, from_id, to_priority)"
NAMED_PARTS = PARTS.format('%(from_priorities)s', '%(from_ids)s', '%(to_priorities)s')
IN_PART = "(priority, id) >= (from_priority, from_id) AND priority < to_priority"

FROM_PARTS = f"""
          FROM {PARTS.format('$1', '$2', '$3')}
    CROSS JOIN LATERAL (
            SELECT priority, id
              FROM ir_async
             WHERE {READY} AND NOT limited AND NOT {IS_LIMITED} AND NOT {IS_UPGRADING} AND {SERVED} AND {IN_PART}
"""
# The CTE keeps LIMIT from being evaluated more than once, as it could be in a subquery. An array of ids finds the rows to
# update. With a join, the planner would read the whole table, since it does not know the limit.
CLAIM = f"""
    WITH next AS (
        SELECT job.id
        {FROM_PARTS}
               AND (priority, id) < ($5::int8, $6::int8)
          ORDER BY priority, id
             LIMIT $4
        FOR NO KEY UPDATE SKIP LOCKED
        ) job
         LIMIT $4
    )
    UPDATE ir_async job
       SET {TAKE}
     WHERE id = ANY(ARRAY(SELECT id FROM next))
       AND ($7 OR (SELECT id FROM ir_async WHERE {READY} AND limited AND {SERVED} ORDER BY priority, id LIMIT 1) IS NULL)
 RETURNING """
FIRST = f"""
    SELECT job.*
    {FROM_PARTS}
           AND (priority, id) >= ($4::int8, $5::int8)
      ORDER BY priority, id
         LIMIT 1
    ) job
     LIMIT 1
"""
# A start in a channel with an interval has a row of its own, since the row of the job only has the last start. A crash of the
# server must not forget the start, since it does not undo the calls that the job made.
RECORD_START = """
    start AS (
        INSERT INTO ir_async_start (channel, date, job_id)
             SELECT channel, date_start, id
               FROM taken
              WHERE split_part(channel, '/', 1) IN (SELECT name FROM ir_async_channel WHERE interval > 0)
          RETURNING set_config('synchronous_commit', 'on', true)
    )
"""
OF_TAKEN = "FROM taken job"
CLAIM_ONE = f"""
    WITH taken AS (
        UPDATE ir_async job
           SET {TAKE}
         WHERE job.id = %(job_id)s AND job.state = 'created' AND {HERE}
     RETURNING job.*
    ),
    {RECORD_START}
    SELECT """


class Place(NamedTuple):
    """The place of a job in the queue."""

    priority: int
    id: int

    @property
    def behind(self) -> Place:
        """The place right behind this one."""
        return Place(self.priority, self.id + 1)


END = Place(MAX_INT + 1, 0)


class Parts(NamedTuple):
    """Parts of the queue in their order: see ``PARTS``."""

    from_priorities: list[int]
    from_ids: list[int]
    to_priorities: list[int]


class Claim:
    """Claims of plain jobs: those in channels without limits.

    Claims begin at a low-water mark for each priority, above the jobs that this worker claimed last. Otherwise an old
    snapshot, such as that of a report that takes minutes, would slow all claims down: as long as it is open, the index
    keeps an entry for each job that was claimed, and a scan from the beginning reads all of them.

    A job can appear below the mark: its transaction committed late, or another worker released it. Each of these
    wakes the workers. The worker then owes a full scan, and makes one per interval at most. A job that a scan passed over,
    since somebody had it locked, wakes nobody: a busy worker scans fully once in a while even if it owes nothing. While full
    scans are quick, the marks are dropped when nothing is left: the next look then needs one scan, not two.

    :param Session session: the session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._marks: dict[int, int] = {}  # the id at which a scan begins, by priority
        self._last_scan = 0.0  # the end of the last full scan
        self._is_owed = True
        self._unsorted: dict[int, int] = {}  # the marks behind which claims may have stepped over misplaced jobs
        self._scan_time = 0.0  # seconds that the last full scan took
        self._scanned: dict[int, int] = {}  # the marks at which the last scan began
        self.next_scan: float | None = None  # when the owed full scan is due; None when none is owed

    def wake(self) -> None:
        """Owe a full scan."""
        self._is_owed = True

    def note_changed(self, ids: set[int]) -> None:
        """Lower the marks to these jobs, which may be in the queue now."""
        if ids:
            self._marks, self._unsorted = (
                {priority: min(mark, *ids) for priority, mark in marks.items()}
                for marks in (self._marks, self._unsorted)
            )

    def claim(self, limit: int, before: Place = END, even_if_limited: bool = True) -> list[Job]:
        """Claim the next jobs for this worker.

        :param int limit: how many at most
        :param Place before: where to stop
        :param bool even_if_limited: claim jobs even if any job of a limited channel is ready
        :return: the jobs in the order in which to run them
        :rtype: list[Job]
        """
        begin = time.monotonic()
        is_full = self._is_due(begin) or not self._marks
        jobs = self._scan({} if is_full else self._marks, limit, before, even_if_limited)
        if not (is_full or jobs) and self._is_owed and before == END:
            is_full = True
            jobs = self._scan({}, limit, before, even_if_limited)
        self._scanned = {} if is_full else dict(self._marks)
        if is_full:
            self._is_owed = self._is_owed and before != END  # jobs behind were not seen
            self._last_scan = time.monotonic()
            self._scan_time = 0.0
            self._unsorted = {}
            if len(jobs) == limit:
                # The scan has ended before the priorities behind the last job. The next one begins there without marks.
                self._marks = {
                    priority: mark for priority, mark in self._marks.items() if priority <= jobs[-1].priority
                }
        self._scan_time = max(self._scan_time, time.monotonic() - begin)
        self.next_scan = self._last_scan + self._interval() if self._is_owed else None
        self._marks.update((job.priority, job.id + 1) for job in jobs)
        is_empty = not jobs and before == END
        if len(self._marks) > MAX_MARKS or (is_empty and self._scan_time < QUICK_SCAN):
            self._marks.clear()
        return jobs

    def first(self, start: Place) -> Place:
        """Return the place of the first plain job from a place on, locked or not, after a claim that has found none before.

        :param Place start: where to begin
        :return: the place; the end of the queue when there is none
        :rtype: Place
        """
        rows = self._session.execute_prepared('first', FIRST, self._session.params(), *_parts(self._scanned), *start)
        place = Place(*rows[0]) if rows else END
        if place.priority in self._marks:
            self._marks[place.priority] = min(self._marks[place.priority], place.id)
        return place

    def _interval(self) -> float:
        return min(max(SCAN_INTERVAL, PATIENCE * self._scan_time), LONGEST_SCAN_INTERVAL)

    def _is_due(self, now: float) -> bool:
        return now >= self._last_scan + (self._interval() if self._is_owed else LONGEST_SCAN_INTERVAL)

    def parts_to_sort(self) -> Parts:
        """Return where the claims since the last call may have stepped over misplaced jobs.

        :rtype: tuple
        """
        parts, self._unsorted = _parts(self._unsorted), dict(self._marks)
        return parts

    def _scan(self, marks: dict[int, int], limit: int, before: Place, even_if_limited: bool) -> list[Job]:
        return in_order(
            Job(*row)
            for row in self._session.execute_prepared(
                'claim',
                CLAIM + self._session.columns,
                self._session.params(),
                *_parts(marks),
                limit,
                *before,
                even_if_limited,
            )
        )


def _parts(marks: dict[int, int]) -> Parts:
    """Return the parts of the queue that begin at low-water marks, and all other priorities."""
    known = sorted(marks.items())
    starts = [(-MAX_INT, 0), *known]
    ends = [*(priority for priority, _id in known), MAX_INT + 1]
    return Parts([priority for priority, _id in starts], [id_ for _priority, id_ in starts], ends)


def claim_one(session: Session, job_id: int) -> list[Job]:
    """Claim one given job, if it is ready to run. The claim also reads the columns that are otherwise read at its begin.

    :param Session session: the session
    :param int job_id: the job
    :return: the job; empty when it could not be claimed
    :rtype: list[Job]
    """
    return [
        Job(*row)
        for row in session.execute(f"{CLAIM_ONE} {session.all_columns} {OF_TAKEN}", session.params(job_id=job_id))
    ]


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """Return jobs in the order of the queue.

    :rtype: list[Job]
    """
    return sorted(jobs, key=lambda job: (job.priority, job.id))
