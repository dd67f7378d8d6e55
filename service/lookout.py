"""The wait of an idle worker: for names of databases, the messages of other workers, and the next due time."""

from __future__ import annotations

import hashlib
import logging
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg2

from odoo.service.server import empty_pipe
from odoo.tools import config

from ..engine.maintenance import LOOK_INTERVAL
from ..engine.notifier import CHANNEL as NAMES
from ..engine.origin import VERSIONS, incomplete
from ..tools.config import settings
from .listener import RECONNECT_DELAY
from .roster import CHANNEL as WORKERS
from .roster import Roster

if TYPE_CHECKING:
    from .databases import Database, Databases
    from .listener import Listener

_logger = logging.getLogger(__name__)

OWED_TIME = 1  # seconds that those on duty have to look at a named database
# Seconds by which the next look of a worker may be late before others do it. They come one by one, but the last ones must not
# be late for the jobs of a server that is lost with all its workers.
LATE_TIME, LATE_STEP, MAX_STEPS = 0.1, 0.01, 10
READ_INTERVAL = 1  # seconds between two readings during a job
# Idle workers with at least so many others before them let these go first, and read the messages of so many seconds at once.
FAR, FAR_TIME = 4, 0.02


def group() -> str:
    """Return the name of the workers that can stand in for each other: same databases, channels, versions, and missing modules."""
    what = (
        config['db_name'],
        config['db_user'],
        sorted(settings().channels),
        sorted(VERSIONS.items()),
        sorted(incomplete.items()),
    )
    return hashlib.sha256(repr(what).encode()).hexdigest()[:12]


class Lookout:
    """The wait of a worker, and the notifications that it hears meanwhile.

    :param Listener listener: the connection on which it listens
    :param Databases databases: its databases
    :param list[int] ended: the process numbers of workers that have ended
    """

    def __init__(self, listener: Listener, databases: Databases, ended: list[int]) -> None:
        self._listener = listener
        self._databases = databases
        self._ended = ended
        self._roster = Roster(listener.process_number, group())
        self._lock = threading.RLock()  # the main thread reads, too, while a job is running
        self._next_reading = 0.0
        self._has_job = False
        self._found = 0  # visits in a row that found jobs

    def wait(self, pipe: int, beat: float) -> None:
        """Sleep until a database is due.

        :param int pipe: the descriptor of a pipe whose data ends the wait
        :param float beat: maximum seconds
        """
        if self._listener.connect():
            self._databases.wake_all()
            self._roster.connect()
            self._say(self._roster.come_on())
            while self._ended:
                self._say(self._roster.gone(self._ended.pop()))
        try:
            self._databases.refresh()
        except psycopg2.Error as exc:
            _logger.info("Worker (%s) cannot list the databases: %s", os.getpid(), exc)
        for database in self._databases:
            database.leave_if_idle()
        first = self._databases.next()
        # At most `beat`, to notice that the parent is gone. Shorter without a listener, to connect again in time.
        timeout = max(0, min(first.due - time.monotonic(), beat)) if first else beat
        if not self._listener.is_connected:
            timeout = RECONNECT_DELAY / 4
        elif timeout and not self._roster.is_on:
            self._say(self._roster.come_on())
        self._listen(pipe, time.monotonic() + timeout)
        empty_pipe(pipe)

    def _listen(self, pipe: int, end: float) -> None:
        """Hear notifications until there is something to do. Most of them are for other workers, so this loop is short."""
        awaited: list[Any] = [pipe, *self._listener.fds()]
        ready: list[Any] = []
        while pipe not in ready:
            # First, since the connection may already have read some while it sent. Nothing would wake this thread up for these.
            self._read()
            first = self._databases.next()
            end = min(end, self._databases.next_listing, first.due if first else end)
            if time.monotonic() >= end or not self._listener.is_connected:
                return
            ready, _, _ = select.select(awaited, [], [], max(0, end - time.monotonic()))
            if ready and pipe not in ready and self._roster.rank >= FAR:
                ready, _, _ = select.select([pipe], [], [], FAR_TIME)

    def note_job(self, is_running: bool) -> None:
        """Note that a job begins or has ended.

        :param bool is_running: whether it begins
        """
        with self._lock:
            self._has_job = is_running

    def stand_in(self, database: str) -> None:
        """Stand in for the work thread while it runs a job. The main thread calls this.

        It reads the notifications that come meanwhile: their meaning depends on the time, and PostgreSQL must not keep them.

        :param str database: the database of the job
        """
        with self._lock:
            # If the job has ended, the work thread may sleep, and would not wake up for what this thread has read.
            if self._has_job:
                self.go_off(database)
                if self._next_reading <= time.monotonic():
                    self._read()

    def go_off(self, database: str) -> None:
        """Have another worker come on duty, since this one is busy.

        :param str database: the database whose jobs it runs
        """
        with self._lock:
            if self._roster.is_on:
                self._say(self._roster.go_off(database))

    def end(self) -> None:
        """Have another worker come on duty, since this one ends."""
        self._say(self._roster.gone())
        self._listener.flush()

    def begin_look(self, database: Database) -> str:
        """Note that a look begins.

        :param Database database: the database
        :return: the mark for :meth:`end_look`
        :rtype: str
        """
        with self._lock:
            if database.owed and not self._roster.is_on_duty:
                self._say(self._roster.come_on())  # those on duty are dead or stopped
            database.owed = False
            return self._roster.mark()

    def end_look(self, database: Database, mark: str, has_jobs: bool) -> None:
        """Notify the other workers of a look.

        :param Database database: the database
        :param str mark: the answer of :meth:`begin_look`
        :param bool has_jobs: whether there were jobs to claim. After the second time, there may be more for others
        """
        with self._lock:
            if (name := group()) != self._roster.group:
                self._say(self._roster.change_to(name))
                return  # this worker does not know whether there are jobs for the others
            self._found = self._found + 1 if has_jobs else 0
            if self._found > 1:
                self.go_off(database.name)
            elif not has_jobs and database.due > time.monotonic():
                self._say(self._roster.looked(database.name, mark, database.due - time.monotonic()))

    def _say(self, message: str) -> None:
        self._listener.send(WORKERS, message)

    def _turn(self) -> float:
        return LATE_STEP * min(self._roster.rank, MAX_STEPS)

    def _read(self) -> None:
        with self._lock:
            self._next_reading = time.monotonic() + READ_INTERVAL
            for notification in self._listener.read():
                if notification.channel == NAMES:
                    position = self._roster.hear_name()
                    name = notification.payload
                    if not config['db_name'] or name in config['db_name']:
                        self._databases.hear(name, position, OWED_TIME + self._turn())
                elif (look := self._roster.hear(notification.payload)) and (
                    database := self._databases.get(look.database)
                ):
                    seconds = LOOK_INTERVAL if look.seconds is None else min(look.seconds, settings().poll_interval)
                    database.hear_looked(look.position, seconds + (0 if look.is_own else LATE_TIME + self._turn()))
            if self._roster.is_on_duty:
                for database in self._databases:
                    if database.owed:
                        database.hurry()
