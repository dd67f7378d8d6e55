"""Claim jobs in channels with limits: capacity, interval and pause.

Jobs of limited channels are marked ``limited`` and have indexes of their own, so the other jobs pay nothing for limits.
A channel may get its limits after its jobs were enqueued. :meth:`Channels.reclassify` marks those jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from odoo.tools import split_every

from .claim import (
    END,
    IN_PART,
    IS_LIMITED,
    IS_UPGRADING,
    NAMED_PARTS,
    NOW,
    OF_TAKEN,
    READY,
    RECORD_START,
    SERVED,
    TAKE,
    Place,
    in_order,
)
from .job import PORTION, PUBLISHED, Job
from .slots import NTH_START, RUNNING, SLOT_DELAY, Head, free_heads

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .claim import Parts
    from .session import Session

MAX_TRIES = 200  # failed ones of a claim
PROBES = 200  # channels that one statement probes at most, as it locks each
# The class of the advisory lock held during a claim in a limited channel.
CHANNEL_LOCK_CLASS = int.from_bytes(b'irac', 'big')

IN_CHANNEL = f"{READY} AND limited AND {SERVED} AND channel BETWEEN %(channel)s AND %(channel)s"
OF_CHANNEL = f"""{IN_CHANNEL}
           AND (SELECT delay FROM slot) = 0 AND NOT {IS_UPGRADING}"""
IS_BEFORE = "(priority, id) < (%(before_priority)s, %(before_id)s)"
NO_TURN = "turn AS (SELECT NULL::int4 AS id WHERE false)"
# In a fair channel, the users whose jobs have the first priority take turns, in the order of their ids: after the user of the last
# start comes the next one. This is one step in an index, however many jobs and users there are. Starts of other priorities, and
# of a clock that was fast, would give the user after them all turns.
TURN = f"""
    first AS (
        SELECT priority FROM ir_async WHERE {OF_CHANNEL} AND {IS_BEFORE} ORDER BY channel, priority, id
         LIMIT 1  -- others may have all jobs of a priority locked
    FOR NO KEY UPDATE SKIP LOCKED
    ),
    turn AS (
        SELECT job.id
          FROM unnest(ARRAY[1 + (
                   SELECT user_id
                     FROM ir_async
                    WHERE channel = %(channel)s AND limited AND date_start <= (SELECT {NOW})
                      AND priority BETWEEN (SELECT priority FROM first) AND (SELECT priority FROM first)
                 ORDER BY priority DESC, date_start DESC  -- this, and BETWEEN, leave the planner one index to use
                    LIMIT 1), 0]) AS round (from_user)
    CROSS JOIN LATERAL (
            SELECT id
              FROM ir_async
             WHERE {OF_CHANNEL} AND channel = %(channel)s  -- equal, so that the scan ends with the priority
               AND priority = (SELECT priority FROM first) AND user_id >= from_user
          ORDER BY channel, priority, user_id, id
             LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
        ) job
         LIMIT 1
    )
"""

# The first statement takes the lock, the second one counts. The snapshot of the second one includes the claims that the lock
# waited for.
CLAIM_LIMITED = f"""
    SELECT pg_advisory_xact_lock({CHANNEL_LOCK_CLASS}, hashtext(%(channel)s));
    WITH candidate AS (
        SELECT %(channel)s::varchar AS channel
    ),
    {RUNNING},
    slot AS MATERIALIZED (
        SELECT {SLOT_DELAY} AS delay
          FROM candidate
     LEFT JOIN ir_async_channel limits ON limits.name = split_part(candidate.channel, '/', 1)
    ),
    {NO_TURN},
    other AS (
        SELECT id
          FROM ir_async
         WHERE {OF_CHANNEL} AND {IS_BEFORE} AND NOT EXISTS (SELECT FROM turn)
      ORDER BY channel, priority, id  -- this, and BETWEEN, leave the planner one index to use
         LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED
    ),
    next AS (SELECT id FROM turn UNION ALL SELECT id FROM other),
    taken AS (UPDATE ir_async job SET {TAKE} WHERE id = ANY(ARRAY(SELECT id FROM next)) RETURNING job.*),
    {RECORD_START},
    forgotten AS (
        DELETE FROM ir_async_start
         WHERE channel = %(channel)s AND EXISTS (SELECT FROM next) AND date <= (
               SELECT {NTH_START}
                 FROM candidate
                 JOIN ir_async_channel limits ON limits.name = split_part(candidate.channel, '/', 1) AND limits.interval > 0)
    )
    SELECT """
CLAIM_FAIR = CLAIM_LIMITED.replace(NO_TURN, TURN)

# A row of its own, as several jobs may ask at once. It does not change: the greatest date counts. A resumed channel has none.
PAUSE = f"""
    INSERT INTO ir_async_pause (channel, until)
         SELECT channel, date_scheduled
           FROM ir_async
          WHERE id = %(id)s AND date_scheduled IS NOT NULL AND {IS_LIMITED}
"""

# Only the jobs that come first, since claims have to step over these. There may be millions behind them.
RECLASSIFY = f"""
    WITH first AS MATERIALIZED (
        SELECT job.id, channel
          FROM {NAMED_PARTS}
    CROSS JOIN LATERAL (
            SELECT id, channel
              FROM ir_async
             WHERE {READY} AND NOT limited AND {SERVED} AND {IN_PART}
          ORDER BY priority, id
             LIMIT {PORTION}
        ) job
         LIMIT {PORTION}
    ),
    misplaced AS (
        SELECT id
          FROM ir_async
         WHERE id = ANY(ARRAY(SELECT id FROM first WHERE {IS_LIMITED})) AND state = 'created'
    FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE ir_async job SET limited = true WHERE job.id = ANY(ARRAY(SELECT id FROM misplaced))
 RETURNING {PUBLISHED.replace('job.notify', 'false')}
"""


# The first job of each of these channels that nobody has locked. Under the locks, so that no claim in a channel takes its job for
# locked. They are taken in one order, so that no two workers wait for each other.
PROBE = f"""
    SELECT pg_advisory_xact_lock({CHANNEL_LOCK_CLASS}, key)
      FROM (SELECT DISTINCT hashtext(channel) AS key FROM unnest(%(names)s) AS channel ORDER BY key) AS keys;
    SELECT (
           SELECT ARRAY[priority, id]
             FROM ir_async
            WHERE {IN_CHANNEL.replace('%(channel)s', 'head.channel')}
         ORDER BY channel, priority, id
            LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED)
      FROM unnest(%(names)s) WITH ORDINALITY AS head (channel, number)
  ORDER BY number
"""


class Channels:
    """Claims of jobs in channels with limits.

    :param Session session: the session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._heads: list[Head] = []  # of the last look
        self._known = END  # the end of the part of the queue in which no other channel has a free slot
        self._locked: set[str] = set()  # channels whose first job others had locked at the last probe
        self._tries = 0  # failed ones of the current claim
        self.has_jobs = True  # whether any job of a limited channel was ready when the worker last maintained the queue
        self.is_unsure = True  # whether that may have changed
        self.slot_delay: float | None = None  # seconds until a channel with an interval has its next slot
        self.is_held_up = False  # a channel had a free slot at the last look, but no job was claimed in it

    def look(self) -> Place:
        """Look for channels with a free slot.

        :return: the place of the first job that could run in one; the end of the queue when there is none
        :rtype: Place
        """
        self.slot_delay = None
        self._heads = (self._free('first_heads') or self._free('all_heads')) if self.has_jobs else []
        self.is_held_up = bool(self._heads)
        return self._heads[0].place if self._heads else END

    def claim(self, limit: int, before: Place) -> list[Job]:
        """Claim the first jobs of the channels that had a free slot at the last look.

        :param int limit: how many at most
        :param Place before: where to stop
        :return: the jobs in the order in which to run them
        :rtype: list[Job]
        """
        self._tries = 0
        if not (jobs := self._claim(limit, before)):
            # Others were quicker: look when the next slot comes. Or they have these jobs locked: look at more channels.
            self._heads = self._free('all_heads')
            self._locked.intersection_update(head.channel for head in self._heads)
            jobs = self._claim(limit, before)
        self.is_held_up = not jobs
        return jobs

    def _claim(self, limit: int, before: Place) -> list[Job]:
        jobs: list[Job] = []
        before = min(before, self._known)
        turns = [(head.place, head) for head in self._heads if head.channel not in self._locked]
        turns = sorted(turns + self._probe(head for head in self._heads if head.channel in self._locked))
        count = 1
        while turns and len(jobs) < limit and self._tries < MAX_TRIES:
            place, head = turns[0]
            if place >= before or (head.has_interval and jobs):
                break
            # Others may have the first job: then the next one comes, but not before that of another channel.
            end = min(before, turns[1][0]) if len(turns) > 1 else before
            if taken := self._claim_in(head, end):
                jobs += taken
                del turns[0]
                # In another job's place, the first one is still there.
                before = min(before, head.following if taken[0].id == head.place.id else head.place)
                if head.has_interval:
                    break  # a job that waits for others of its batch would use up the interval of its channel
            else:
                # Others have this job, and maybe those of many channels behind: probe ever more of them at a time.
                probed = self._probe(head for _place, head in turns[:count])
                if probed[0][0] < end:
                    del probed[0]  # its job is free: others have taken the slot
                turns, count = sorted(probed + turns[count:]), 2 * count
        return in_order(jobs)

    def _claim_in(self, head: Head, before: Place) -> list[Job]:
        """Claim the first job of a channel that nobody has locked."""
        params = self._session.params(channel=head.channel, before_priority=before.priority, before_id=before.id)
        query = f"{CLAIM_FAIR if head.is_fair else CLAIM_LIMITED} {self._session.columns} {OF_TAKEN}"
        if rows := self._session.execute(query, params):
            return [Job(*row) for row in rows]
        self._tries += 1
        return []

    def _probe(self, heads: Iterable[Head]) -> list[tuple[Place, Head]]:
        """Return the place of the first job of each channel that nobody has locked."""
        turns = []
        for portion in split_every(PROBES, heads):
            params = self._session.params(names=[head.channel for head in portion])
            for head, [numbers] in zip(portion, self._session.execute(PROBE, params), strict=True):
                place = Place(*numbers) if numbers else END
                turns.append((place, head))
                self._locked.discard(head.channel)
                if place > head.place:
                    self._locked.add(head.channel)
        return turns

    def wake(self) -> None:
        """Note that something may have changed."""
        self.is_unsure = True

    def _free(self, name: str) -> list[Head]:
        heads, self._known, self.slot_delay = free_heads(self._session, name)
        return heads

    def reclassify(self, parts: Parts) -> set[int]:
        """Mark ready jobs as limited if their channel got its limits after they were enqueued.

        :param Parts parts: where to look
        :return: the ids of the jobs that changed
        :rtype: set[int]
        """
        return self._session.change(RECLASSIFY, self._session.params(**parts._asdict()), are_plain=False)
