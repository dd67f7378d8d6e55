"""Claim jobs in channels with limits: capacity, interval and pause.

Jobs of limited channels are marked ``limited`` and have indexes of their own, so the other jobs pay nothing for limits.
A channel may get its limits after its jobs were enqueued. :meth:`Channels.reclassify` marks those jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from .probes import CHANNEL_LOCK_CLASS, Probes
from .slots import NTH_START, RUNNING, SLOT_DELAY, Head, free_heads

if TYPE_CHECKING:
    from .claim import Parts
    from .session import Session


MAX_LOCKED = 10_000  # channels to remember
OF_CHANNEL = f"""{READY} AND limited AND {SERVED} AND channel BETWEEN %(channel)s AND %(channel)s
           AND (SELECT delay FROM slot) = 0 AND NOT {IS_UPGRADING}"""
# Such a comparison is one step in the index, however many jobs the channel has before.
IS_BETWEEN = """(channel, priority, id) >= (%(channel)s, %(from_priority)s, %(from_id)s)
           AND (channel, priority, id) < (%(channel)s, %(to_priority)s, %(to_id)s)"""
NO_TURN = "turn AS (SELECT NULL::int4 AS id WHERE false)"
# In a fair channel, the users whose jobs have the first priority take turns, in the order of their ids: after the user of the last
# start comes the next one. This is one step in an index, however many jobs and users there are. Starts of other priorities, and
# of a clock that was fast, would give the user after them all turns.
TURN = f"""
    first AS (
        SELECT priority FROM ir_async WHERE {OF_CHANNEL} AND {IS_BETWEEN} ORDER BY channel, priority, id
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
         WHERE {OF_CHANNEL} AND {IS_BETWEEN} AND NOT EXISTS (SELECT FROM turn)
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


class Channels:
    """Claims of jobs in channels with limits.

    A worker looks for the channels with a free slot, and goes from one of their first jobs to the next, in the order of the queue.
    Where others have such a job locked, it probes the channel for its next one.

    :param Session session: the session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turns: list[tuple[Place, Head]] = []  # the places to look at, in order, in channels with free slots
        self._known = END  # the end of the part of the queue in which no other channel has a free slot
        self._count = 1  # the number of channels that the next probe is for
        self._probes = Probes(session)
        self.has_jobs = True  # whether any job of a limited channel was ready when the worker last maintained the queue
        self.is_unsure = True  # whether that may have changed
        self.slot_delay: float | None = None  # seconds until a channel with an interval has its next slot
        self.is_held_up = False  # a channel had a free slot at the last look, but no job was claimed in it

    def look(self) -> None:
        """Look for channels with a free slot."""
        self.slot_delay, self._turns, self._count = None, [], 1
        if self.has_jobs:
            self._look('first_heads')
        self.is_held_up = bool(self._turns)

    @property
    def place(self) -> Place:
        """The place of the first job that may be claimed next; the end of the queue when there is none."""
        return self._turns[0][0] if self._turns else END

    def claim(self, limit: int, before: Place) -> list[Job]:
        """Claim the job at the current place, and some that follow. If others have it, move on to the next place.

        :param int limit: how many at most
        :param Place before: where to stop
        :return: the jobs in the order in which to run them
        :rtype: list[Job]
        """
        jobs: list[Job] = []
        before = min(before, self._known)
        while self._turns and len(jobs) < limit:
            place, head = self._turns[0]
            if jobs and (place >= before or head.has_interval):
                break
            # Others may have this job: then the next one comes, but not before that of another channel.
            end = max(place.behind, min([before, *(turn for turn, _head in self._turns[1:2])]))
            if not (taken := self._claim_in(head, place, end)):
                if not jobs:
                    self._move_on(end)
                break
            jobs += taken
            del self._turns[0]
            # In another job's place, the first one is still there.
            before = min(before, head.following if taken[0].id == head.place.id else head.place)
            if head.has_interval:
                break  # a job that waits for others of its batch would use up the interval of its channel
        self.is_held_up = not jobs
        return in_order(jobs)

    def _look(self, name: str) -> None:
        heads, self._known, self.slot_delay = free_heads(self._session, name)
        is_complete = name == 'all_heads'
        if is_complete or len(self._probes.locked) > MAX_LOCKED:
            self._probes.forget_others(heads)
        locked = self._probes.locked
        self._turns = [(head.place, head) for head in heads if head.channel not in locked]
        self._take_turns(self._probes.probe([head for head in heads if head.channel in locked]), is_complete)

    def _take_turns(self, turns: list[tuple[Place, Head]], is_complete: bool = False) -> None:
        """Add turns. When all turns that are known come to nothing, look at all channels."""
        self._turns = sorted(self._turns + turns)
        if self.place >= self._known and not is_complete:
            self._look('all_heads')

    def _claim_in(self, head: Head, place: Place, end: Place) -> list[Job]:
        """Claim the first job of a channel that nobody has locked."""
        params = self._session.params(
            channel=head.channel,
            from_priority=place.priority,
            from_id=place.id,
            to_priority=end.priority,
            to_id=end.id,
        )
        query = f"{CLAIM_FAIR if head.is_fair else CLAIM_LIMITED} {self._session.columns} {OF_TAKEN}"
        taken = [Job(*row) for row in self._session.execute(query, params)]
        if taken and taken[0].id != head.place.id:
            self._probes.locked.add(head.channel)
        return taken

    def _move_on(self, end: Place) -> None:
        """Leave a place at which there is no job to claim."""
        # If others have one job locked, they may have those of many channels: probe ever more of them at a time.
        heads = [head for _place, head in self._turns[: self._count]]
        del self._turns[: self._count]
        self._count *= 2
        turns = self._probes.probe(heads)
        if turns[0][0] < end:
            del turns[0]  # its job is free: others have taken the slot
        self._take_turns(turns)

    def wake(self) -> None:
        """Note that something may have changed."""
        self.is_unsure = True

    def reclassify(self, parts: Parts) -> set[int]:
        """Mark ready jobs as limited if their channel got its limits after they were enqueued.

        :param Parts parts: where to look
        :return: the ids of the jobs that changed
        :rtype: set[int]
        """
        return self._session.change(RECLASSIFY, self._session.params(**parts._asdict()), are_plain=False)
