"""The databases of a worker, and the choice of the next one to visit."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from odoo import sql_db

from ..engine.maintenance import LOOK_INTERVAL
from ..engine.origin import incomplete
from ..engine.session import Session
from ..tools.config import settings
from .runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ..engine.job import Job
    from .roster import Position
    from .thread_state import ThreadState

IDLE_TIME = 30  # seconds without a job after which a worker closes its connections to a database
FIRST_BACK_OFF, LAST_BACK_OFF = 0.2, 5  # seconds to keep away from a database that cannot be reached; doubled each time
OWN_LOOK = 60  # poll intervals between two looks of a worker that trusts the others
SHORTEST_LOOK = LOOK_INTERVAL / 4  # minimum seconds between two looks of a busy worker, unless the first has left work
LIST_INTERVAL = 1  # minimum seconds between two listings of the databases
MAX_FOREIGN = 1000  # names of foreign databases to remember
MAX_OPEN = 2  # databases to which one worker keeps connections
# Seconds that a worker stays in a database, if it has jobs and the worker has to leave one for the next. To open one takes about
# a third of that. While the worker is there, the jobs of the others wait.
TURN = 0.2


class Database:
    """A database, the time of its next visit, and the worker's session and runner while they are open."""

    def __init__(self, name: str, process_number: int | None, process_state: ThreadState | None = None) -> None:
        self.name = name
        self._process_number = process_number
        self._process_state = process_state
        self.due = 0.0
        self._named: Position | None = None  # where a caller last named it
        self.owed = False  # nobody has looked since
        self.must_look = True  # whatever others find
        self._latest = float('inf')  # time of the next look if all that is heard is false
        self.last_job = 0.0
        self.session: Session | None = None
        self.runner: Runner | None = None
        self._back_off: float = FIRST_BACK_OFF
        self._backs_off_until = 0.0
        self._next_look = 0.0
        self.turn_end = 0.0  # until when the worker stays, if it would have to leave a database for the next

    def wake(self) -> None:
        """Visit the database as soon as possible, whatever others find."""
        self.must_look = True
        self.hurry()

    def hurry(self, patience: float = 0) -> None:
        """Visit the database soon.

        :param float patience: seconds until then
        """
        self.due = min(self.due, max(time.monotonic() + patience, self._backs_off_until))
        if self.session:
            self.session.wake()

    def hear(self, position: Position, patience: float) -> None:
        """Owe a visit, since a caller named the database.

        :param Position position: the place of the notification
        :param float patience: seconds that others have to look
        """
        self._named, self.owed = position, True
        self.hurry(patience)

    def hear_looked(self, position: Position | None, seconds: float) -> None:
        """Put the next visit off, since a worker has looked and found nothing to claim.

        :param Position position: where that worker had listened before; None if unknown
        :param float seconds: the time in which that worker looks again
        """
        knows_all = position is not None and (self._named is None or self._named <= position)
        if knows_all:
            self.owed = False
        if not self.owed and not self.must_look:
            due = max(min(time.monotonic() + seconds, self._latest), self._backs_off_until)
            # A look that began before the database was named may come late, after one that found a dated job.
            self.due = due if knows_all else min(self.due, due)

    def back_off(self) -> None:
        """Keep away from the database for a while."""
        self.leave()
        self.must_look = True
        self.due = self._backs_off_until = time.monotonic() + self._back_off * random.uniform(1, 1.5)
        self._back_off = min(2 * self._back_off, LAST_BACK_OFF)

    def forget(self) -> None:
        """Clear the connection of jobs, since no other job follows at once."""
        if self.runner:
            self.runner.forget()

    def leave(self) -> None:
        """Close all connections to the database."""
        if self.runner:
            self.runner.close()
        if self.session:
            self.session.close()
            sql_db.close_db(self.name)
        self.session = self.runner = None

    def leave_if_idle(self) -> None:
        """Leave the database if it is idle, so that it can be dropped or copied."""
        now = time.monotonic()
        if self.session and self.due > now and self.last_job + IDLE_TIME < now:
            self.leave()

    def open(self) -> float | None:
        """Open a session if there is anything to do in the database.

        :return: seconds until the next look, if known
        :rtype: float | None
        """
        self.session, delay = Session.open(self.name, self._process_number)
        self.last_job = time.monotonic()
        self.turn_end = self.last_job + TURN
        self._next_look = 0
        return delay

    def claim(self, limit: int) -> list[Job]:
        """Visit the database: claim the next jobs. When there are none, do the due maintenance.

        :param int limit: how many jobs at most
        :rtype: list[Job]
        """
        delay = None
        if not self.session:
            delay = self.open()
        jobs = self.session.claim(limit) if self.session else []
        if self.session and jobs:
            self.runner = self.runner or Runner(self.session, self._process_state)
            self.last_job = time.monotonic()
            delay = 0
        elif self.session:
            delay = self._maintain(self.session)
        self.must_look = bool(jobs or (self.session and self.session.is_rescuing))
        self._back_off = FIRST_BACK_OFF
        now, poll_interval = time.monotonic(), settings().poll_interval
        self._latest = now + OWN_LOOK * poll_interval
        self.due = now + (poll_interval if delay is None else min(poll_interval, delay))
        return jobs

    def maintain_if_due(self) -> None:
        """Do the maintenance of a worker that has jobs, once in a while. It comes after the jobs, so that these begin at once."""
        if self.session and self._next_look <= time.monotonic():
            self._maintain(self.session, is_busy=True)

    def _maintain(self, session: Session, is_busy: bool = False) -> float | None:
        delay = session.maintain(is_busy=is_busy)
        # A worker with a backlog has owed scans all the time. Its looks must not take more time than its jobs.
        patience = min(max(delay or LOOK_INTERVAL, SHORTEST_LOOK), LOOK_INTERVAL)
        self._next_look = time.monotonic() + (0 if session.has_more else patience)
        return delay


class Databases:
    """The databases of this server. The database that was due first comes first, so each gets its turn: see ``TURN``."""

    def __init__(
        self,
        list_databases: Callable[[], Collection[str]],
        process_number: int | None,
        process_state: ThreadState | None = None,
    ) -> None:
        self._list_databases = list_databases
        self._process_number = process_number
        self._process_state = process_state
        self._databases: dict[str, Database] = {}
        self._foreign: set[str] = set()  # notified names of databases that this server does not list
        self._last_listing = float('-inf')
        # The time of the next listing. It is earlier than the regular one after an unknown name.
        self.next_listing = self._regular_listing = 0.0

    def __iter__(self) -> Iterator[Database]:
        return iter(list(self._databases.values()))

    def refresh(self) -> None:
        """List the databases when it is time to. Add new ones, and leave those that are gone."""
        now = time.monotonic()
        if now < self.next_listing:
            return
        if now >= self._regular_listing:
            self._foreign.clear()
        self._last_listing = now
        self.next_listing = now + LAST_BACK_OFF  # for the case that the listing fails
        names = self._list_databases()
        for name in self._databases.keys() - set(names):
            self._databases.pop(name).leave()
            incomplete.pop(name, None)
        for name in names:
            if name not in self._databases:
                self._databases[name] = Database(name, self._process_number, self._process_state)
        self._foreign.difference_update(names)
        # The jitter keeps the workers from all listing at the same time.
        self.next_listing = self._regular_listing = now + settings().poll_interval * random.uniform(0.8, 1)

    def wake_all(self) -> None:
        """Schedule a visit to all databases, since notifications may have been missed."""
        self.next_listing = 0
        self._foreign.clear()
        for database in self:
            database.wake()

    def hear(self, name: str, position: Position, patience: float) -> None:
        """Owe a visit to a database. An unknown name costs one listing, and nothing more until the next regular one.

        :param str name: the database that a caller named
        :param Position position: the place of the notification
        :param float patience: seconds that others have to look
        """
        if name in self._databases:
            self._databases[name].hear(position, patience)
        elif name not in self._foreign and len(self._foreign) < MAX_FOREIGN:
            self._foreign.add(name)
            self.next_listing = min(self.next_listing, self._last_listing + LIST_INTERVAL)

    def make_room(self, database: Database) -> None:
        """Leave the least recently used databases, to keep few connections."""
        others = sorted(
            (other for other in self if other.session and other is not database), key=lambda other: other.last_job
        )
        for other in others[: max(0, len(others) + 1 - MAX_OPEN)]:
            other.leave()

    def next(self) -> Database | None:
        """Return the database to visit next: the one that is due first, or one that has its turn.

        :rtype: Database | None
        """
        first = min(self._databases.values(), key=lambda database: database.due, default=None)
        if first and not first.session:
            now = time.monotonic()
            connected = [database for database in self if database.session]
            staying = [database for database in connected if database.due <= now < database.turn_end]
            if staying and len(connected) >= MAX_OPEN:
                return min(staying, key=lambda database: database.due)
        return first

    def get(self, name: str) -> Database | None:
        """Return a database.

        :rtype: Database | None
        """
        return self._databases.get(name)
