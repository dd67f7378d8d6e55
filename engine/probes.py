"""Find the first job of a channel that nobody has locked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from odoo.tools import split_every

from .claim import END, LONGEST_SCAN_INTERVAL, PATIENCE, READY, SCAN_INTERVAL, SERVED, Place

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .session import Session
    from .slots import Head

PROBES = 200  # channels that one statement probes at most, as it locks each
MANY = 1000  # jobs to step over, from which on a probe leaves a mark
# The class of the advisory lock held during a claim in a limited channel.
CHANNEL_LOCK_CLASS = int.from_bytes(b'irac', 'big')

PROBED = f"{READY} AND limited AND {SERVED} AND channel BETWEEN probed.channel AND probed.channel"
# For each of these channels, the first job from a place on, unless somebody has it locked; and where the next probe may begin, if
# this one had to step over many jobs. Under the channels' locks, so that no claim takes a probed job for locked. They are taken in
# one order, so that no two workers wait for each other.
PROBE = f"""
    SELECT pg_advisory_xact_lock({CHANNEL_LOCK_CLASS}, key)
      FROM (SELECT DISTINCT hashtext(channel) AS key FROM unnest(%(names)s) AS channel ORDER BY key) AS keys;
    SELECT free.priority, free.id, CASE
               WHEN stepped.jobs < %(many)s THEN NULL
               WHEN free.id IS NOT NULL THEN ARRAY[free.priority, free.id]
               ELSE (SELECT ARRAY[priority, id + 1] FROM ir_async WHERE {PROBED} ORDER BY channel DESC, priority DESC, id DESC LIMIT 1) END
      FROM unnest(%(names)s, %(priorities)s, %(ids)s) WITH ORDINALITY AS probed (channel, from_priority, from_id, number)
 LEFT JOIN LATERAL (
           SELECT priority, id
             FROM ir_async
            WHERE {PROBED} AND (channel, priority, id) >= (probed.channel, from_priority, from_id)
         ORDER BY channel, priority, id
            LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED
           ) free ON true
CROSS JOIN LATERAL (
           SELECT count(*) AS jobs
             FROM (
                   SELECT
                     FROM ir_async
                    WHERE {PROBED} AND (channel, priority, id) >= (probed.channel, from_priority, from_id)
                      AND (channel, priority, id) < (probed.channel, coalesce(free.priority, {END.priority}), coalesce(free.id, 0))
                    LIMIT %(many)s
                  ) job
           ) stepped
  ORDER BY number
"""


class _Mark(NamedTuple):
    """Where the probe of a channel may begin, as others have many of its first jobs locked."""

    head: Place  # the first one
    place: Place
    until: float


class Probes:
    """Probes of channels with locked jobs.

    A worker remembers which channels to probe, but asks again at each look: no notification says when a lock goes. Only where
    others have many jobs of a channel locked, the next probes begin behind these for a while.

    :param Session session: the session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.locked: set[str] = set()  # channels whose first jobs others had locked
        self._marks: dict[str, _Mark] = {}  # by channel

    def forget_others(self, heads: Iterable[Head]) -> None:
        """Forget other channels than these.

        :param heads: the first jobs of the channels to remember
        """
        self.locked.intersection_update(head.channel for head in heads)
        self._marks = {channel: mark for channel, mark in self._marks.items() if channel in self.locked}

    def probe(self, heads: Iterable[Head]) -> list[tuple[Place, Head]]:
        """Return the place of the first job of each channel that nobody has locked.

        :param heads: the first jobs of the channels
        :return: the places, each with the first job of its channel; the end of the queue where all jobs are locked
        :rtype: list[tuple[Place, Head]]
        """
        turns = []
        for portion in split_every(PROBES, heads):
            begin = time.monotonic()
            marks = [self._mark(head, begin) for head in portion]
            params = self._session.params(
                names=[head.channel for head in portion],
                priorities=[mark.place.priority for mark in marks],
                ids=[mark.place.id for mark in marks],
                many=MANY,
            )
            rows = self._session.execute(PROBE, params)
            end = time.monotonic()
            until = end + min(max(SCAN_INTERVAL, PATIENCE * (end - begin)), LONGEST_SCAN_INTERVAL)
            for head, mark, (priority, id_, next_start) in zip(portion, marks, rows, strict=True):
                place = END if id_ is None else Place(priority, id_)
                turns.append((place, head))
                if next_start:
                    self._marks[head.channel] = _Mark(head.place, Place(*next_start), mark.until or until)
                if place > head.place or head.channel in self._marks:
                    self.locked.add(head.channel)
                else:
                    self.locked.discard(head.channel)
        return turns

    def _mark(self, head: Head, now: float) -> _Mark:
        """Return where the probe of a channel begins."""
        mark = self._marks.get(head.channel)
        if mark and now >= mark.until:
            del self._marks[head.channel]
            mark = None
        return mark if mark and mark.head == head.place else _Mark(head.place, head.place, 0.0)
