"""The idle workers of a cluster, and which of them are on duty.

A NOTIFY wakes all idle workers. If all of them looked at the queue, a single job would cost hundreds of statements. So two of
them are on duty and look at once, and the others look if those two do not.

PostgreSQL delivers notifications to all sessions in one order. So workers agree without a lock and without a leader: a
worker sends ``on`` when it becomes idle and ``off`` when it is busy, and all idle workers hear both, beside the names of
databases that callers send. Each worker only counts those that came on after itself. With fewer than two, it is on duty. A worker
that joins or connects again needs no history. The worker that replaces a dead one sends ``gone`` for it. Where nobody does,
since a whole server died, the dead stay in the counts of older workers, until these look for want of an answer and come on
anew.

A worker that found nothing to claim sends ``looked``, with the position in that order up to which it had listened.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

CHANNEL = 'ir_async_workers'
ON_DUTY = 2  # idle workers that look at once: so one that is stopped or has just died holds nothing up
MAX_NEWER = 10_000  # a stranger's messages must not fill the memory
MAX_HISTORY = 500  # messages whose place in the order is known

_MESSAGE = re.compile(
    r'(?P<group>\w{1,64}) (?P<verb>on|off|gone|looked) (?P<worker>\d{1,10}) (?P<id>\d{1,10}\.\d{1,20})'
    r'(?: (?P<after>[\d.]{0,32})\+(?P<names>\d{1,20}) (?P<seconds>\d{1,10}(?:\.\d{1,6})?))?(?: in (?P<database>.+))?',
    re.ASCII | re.DOTALL,
)


class Position(NamedTuple):
    """A place in the order of notifications."""

    messages: int  # how many messages of workers come before it
    names: int  # how many names of databases are between the last of these and it


class Look(NamedTuple):
    """The look at a database that is due next, as a worker says. It is busy there, or has found nothing to claim."""

    database: str
    position: Position | None  # its place when it began to look; None if it is busy, or this worker cannot compare it
    seconds: float | None  # until its next look; None if it is busy, so that others have to look
    is_own: bool


class Roster:
    """The idle workers of a group, as one worker knows them.

    :param int number: the number of this worker's process
    :param str group: the name of the workers that serve the same channels of the same databases
    """

    def __init__(self, number: int, group: str) -> None:
        self._number = number
        self.group = group
        self._sent = 0
        self._is_on = False
        # Workers that came on after this one. None before it has heard that itself came on.
        self._newer: set[int] | None = None
        self._offs = 0  # workers that became busy since a database was named, or one of them found nothing
        self._history: OrderedDict[str, int] = OrderedDict()
        self._last = ''
        self._position = Position(0, 0)

    @property
    def is_on(self) -> bool:
        """Whether this worker is idle, as far as the others know."""
        return self._is_on

    @property
    def rank(self) -> int:
        """How many idle workers are before this one.

        :rtype: int
        """
        return len(self._newer) if self._is_on and self._newer is not None else 0

    @property
    def is_on_duty(self) -> bool:
        """Whether this worker looks at once. A busy one does, before it takes its next job: each database gets its turn.

        While workers become busy and none finds nothing, there are jobs for more of them.

        :rtype: bool
        """
        return self.rank < ON_DUTY + self._offs

    def connect(self) -> None:
        """Note that the connection is new. Names may have been missed, so what comes now is after all places known before."""
        self._position = Position(self._position.messages + 1, 0)

    # ------------------------------------------------------------
    # Messages to send
    # ------------------------------------------------------------

    def come_on(self) -> str:
        """Return the message that this worker is idle."""
        self._is_on, self._newer = True, None
        return self._message('on')

    def go_off(self, database: str) -> str:
        """Return the message that this worker is busy.

        :param str database: the database whose jobs it runs
        """
        self._is_on = False
        return f'{self._message("off")} in {database}'

    def gone(self, worker: int | None = None) -> str:
        """Return the message that a worker has ended.

        :param int worker: its number; by default that of this worker
        """
        return self._message('gone', worker)

    def change_to(self, group: str) -> str:
        """Leave the group for another one.

        :param str group: the name of the other group
        :return: the message to the group that is left
        :rtype: str
        """
        message = self.gone()
        self.group = group
        self._is_on, self._newer, self._offs = False, None, 0
        return message

    def mark(self) -> str:
        """Return the place up to which this worker has listened, as others understand it."""
        return f'{self._last}+{self._position.names}'

    def looked(self, database: str, mark: str, seconds: float) -> str:
        """Return the message that this worker found nothing to claim.

        :param str database: the database
        :param str mark: the :meth:`mark` of the time before it looked
        :param float seconds: until its next look
        """
        return f'{self._message("looked")} {mark} {max(0, seconds):.3f} in {database}'

    def _message(self, verb: str, worker: int | None = None) -> str:
        self._sent += 1
        return f'{self.group} {verb} {worker or self._number} {self._number}.{self._sent}'

    # ------------------------------------------------------------
    # Messages heard
    # ------------------------------------------------------------

    def hear_name(self) -> Position:
        """Note that a caller named a database.

        :return: the place of its notification
        :rtype: Position
        """
        self._offs = 0
        self._position = Position(self._position.messages, self._position.names + 1)
        return self._position

    def hear(self, text: str) -> Look | None:
        """Note a message of a worker, or a stranger's text.

        :param str text: the message
        :return: the next look at a database, if the message is about one
        :rtype: Look | None
        """
        match = _MESSAGE.fullmatch(text)
        if not match or match['group'] != self.group:
            return None
        verb, worker, database = match['verb'], int(match['worker']), match['database']
        if (verb == 'looked') != bool(match['seconds']) or (verb in ('looked', 'off')) != bool(database):
            return None
        look = None
        if verb == 'on':
            self._hear_on(worker)
        elif verb in ('off', 'gone'):
            if self._newer:
                self._newer.discard(worker)
            if verb == 'off':
                self._offs += 1
                look = Look(database, None, None, worker == self._number)
        else:
            self._offs = 0
            index = self._history.get(match['after'])
            position = None if index is None else Position(index, int(match['names']))
            look = Look(database, position, float(match['seconds']), worker == self._number)
        self._last = match['id']
        self._position = Position(self._position.messages + 1, 0)
        self._history[self._last] = self._position.messages
        if len(self._history) > MAX_HISTORY:
            self._history.popitem(last=False)
        return look

    def _hear_on(self, worker: int) -> None:
        if worker == self._number:
            self._newer = set()
        elif self._newer is not None and len(self._newer) < MAX_NEWER:
            self._newer.add(worker)
