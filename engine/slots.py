"""Look for channels with limits which have a free slot, and for their first jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .claim import END, HERE, IS_UPGRADING, NOW, READY, SERVED, Place

if TYPE_CHECKING:
    from .session import Session

RUNNING = f"""
    running AS MATERIALIZED (
        SELECT channel, count(*) AS jobs FROM ir_async WHERE state = 'processing' AND {HERE} GROUP BY channel)
"""
# A channel starts N jobs in an interval at most, whichever interval one looks at. So the next job may start when the interval
# has passed since the start that is the Nth one back. Such a sliding log is exact. A token bucket would need one date only,
# but a full bucket and the tokens that come meanwhile make up to 2N - 1 starts.
# https://en.wikipedia.org/wiki/Rate_limiting, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
NTH_START = """
    (SELECT date FROM ir_async_start WHERE channel = candidate.channel
   ORDER BY date DESC OFFSET coalesce(limits.starts_per_interval, 1) - 1 LIMIT 1)
"""
NEXT_OF_INTERVAL = f"CASE WHEN limits.interval > 0 THEN {NTH_START} + limits.interval * interval '1 second' END"
# The end of the pause that jobs of the channel asked for. Only a channel with limits has one: see `PAUSE`.
PAUSE_END = """
    CASE WHEN limits.capacity > 0 OR limits.interval > 0 OR limits.fair
         THEN (SELECT max(until) FROM ir_async_pause WHERE channel = candidate.channel) END
"""
# The date from which the next job may start, if anything but a free slot decides that.
NEXT_START = f"greatest({NEXT_OF_INTERVAL}, {PAUSE_END})"
# Seconds until the channel has a free slot. 0: it has one now. NULL: it has none until something changes.
SLOT_DELAY = f"""
    CASE WHEN limits.paused THEN NULL
         WHEN limits.capacity > 0 AND limits.capacity <= coalesce((
              SELECT jobs FROM running WHERE channel = candidate.channel), 0) THEN NULL
         ELSE greatest(0, coalesce(EXTRACT(EPOCH FROM {NEXT_START} - {NOW}), 0))
    END
"""

# The first job of each channel, among the 200 jobs that come first. This query is for thousands of channels: some of
# the first jobs are then in a channel with a free slot.
FIRST_HEADS = f"""
    first AS MATERIALIZED (
        SELECT channel, priority, id FROM ir_async WHERE {READY} AND limited AND {SERVED} ORDER BY priority, id LIMIT 200
    ),
    head AS (
        SELECT DISTINCT ON (channel) channel, priority, id FROM first ORDER BY channel, priority, id
    ),
    last AS (
        SELECT ARRAY[priority, id] AS place FROM first WHERE (SELECT count(*) FROM first) = 200
      ORDER BY priority DESC, id DESC LIMIT 1
    )
"""
# The first job of each channel. The query jumps in the index from one channel to the next. It is for full channels: thousands
# of jobs in one of them cost a single step.
# https://wiki.postgresql.org/wiki/Loose_indexscan
ALL_HEADS = f"""
    RECURSIVE head AS (
        (SELECT channel, priority, id FROM ir_async WHERE {READY} AND limited AND {SERVED}
       ORDER BY channel, priority, id LIMIT 1)
         UNION ALL
        SELECT next.*
          FROM head
    CROSS JOIN LATERAL (
            SELECT channel, priority, id FROM ir_async WHERE {READY} AND limited AND {SERVED} AND channel > head.channel
          ORDER BY channel, priority, id LIMIT 1
        ) next
    ),
    last AS (SELECT NULL::int4[] AS place)
"""
HEADS = {'first_heads': FIRST_HEADS, 'all_heads': ALL_HEADS}
FREE = f"""
    ,
    {RUNNING},
    slot AS (
        SELECT candidate.*, {SLOT_DELAY} AS delay, coalesce(limits.interval, 0) > 0 AS has_interval,
               coalesce(limits.fair, false) AS is_fair
          FROM head candidate
     LEFT JOIN ir_async_channel limits ON limits.name = split_part(candidate.channel, '/', 1)
    )
    SELECT slot.channel, delay, ARRAY[slot.priority, slot.id], has_interval, is_fair,
           CASE WHEN following.id IS NOT NULL THEN ARRAY[following.priority, following.id] END,
           (SELECT place FROM last)
      FROM slot
 LEFT JOIN LATERAL (
           SELECT priority, id
             FROM ir_async
            WHERE {READY} AND limited AND {SERVED} AND channel = slot.channel AND (priority, id) > (slot.priority, slot.id)
         ORDER BY channel, priority, id
            LIMIT 1
           ) following ON delay = 0
     WHERE delay IS NOT NULL AND NOT {IS_UPGRADING}
  ORDER BY delay, slot.priority, slot.id
"""


class Head(NamedTuple):
    """The first job of a channel that has a free slot."""

    channel: str
    place: Place
    has_interval: bool
    is_fair: bool
    following: Place  # the place of the next job of the channel


class Look(NamedTuple):
    """The answer of :func:`free_heads`."""

    heads: list[Head]  # in the order of the first jobs
    end: Place  # of the part of the queue in which no other channel has a free slot
    slot_delay: float | None  # seconds until the first slot of the other channels, if it is known


def free_heads(session: Session, name: str) -> Look:
    """Return the channels whose first job could run now, in the order of these jobs.

    :param Session session: the session
    :param str name: a key of ``HEADS``
    :rtype: Look
    """
    rows = session.execute_prepared(name, f"WITH {HEADS[name]} {FREE}", session.params())
    slot_delay = next((float(delay) for _channel, delay, *_others in rows if delay), None)
    heads = [
        Head(channel, Place(*place), has_interval, is_fair, Place(*following) if following else END)
        for channel, delay, place, has_interval, is_fair, following, _last in rows
        if not delay
    ]
    last = rows[0][-1] if rows else None
    return Look(heads, Place(last[0], last[1] + 1) if last else END, slot_delay)
