"""Which database a worker looks at next."""
from __future__ import annotations

import random
import time

from odoo import sql_db

from .config import settings
from .runner import Runner
from .session import Session

IDLE_TIME = 30  # seconds without a job after which a database is left alone
SHUN_TIME = 5  # seconds to keep away from a database that went away


class Database:
    """A database on the agenda: when it is due; and the worker's session and runner, while it has business there."""

    def __init__(self, name, process_key):
        self.name = name
        self._process_key = process_key
        self.due = 0
        self.session = None
        self.runner = None
        self._shunned_until = 0
        self._last_job = 0
        self._next_watch = 0

    def wake(self):
        """Have it visited as soon as possible."""
        self.due = min(self.due, max(time.monotonic(), self._shunned_until))

    def shun(self):
        """Keep away from it for a while."""
        self.leave()
        self.due = self._shunned_until = time.monotonic() + SHUN_TIME * random.uniform(1, 1.5)

    def leave(self):
        """Keep no connection to it."""
        if self.runner:
            self.runner.close()
        if self.session:
            self.session.close()
            sql_db.close_db(self.name)
        self.session = self.runner = None

    def leave_if_idle(self):
        """Be out of the way of whoever wants to drop or copy it."""
        now = time.monotonic()
        if self.session and self.due > now and self._last_job + IDLE_TIME < now:
            self.leave()

    def claim(self, limit):
        """Visit it: claim the next jobs, and see to what is stuck.

        :param int limit: how many jobs at most
        :rtype: list[Job]
        """
        now = time.monotonic()
        delay = None
        if not self.session:
            self.session, delay = Session.open(self.name, self._process_key)
            self._last_job = now
            self._next_watch = 0
        jobs = self.session.claim(limit) if self.session else []
        if self.session and (not jobs or self._next_watch <= now):
            delay = self.session.watch(is_busy=bool(jobs))
            self._next_watch = now + 1
        if jobs:
            self.runner = self.runner or Runner(self.session)
            self._last_job = now
            delay = 0
        self.due = now + min(settings().poll_interval, settings().poll_interval if delay is None else delay)
        return jobs


class Agenda:
    """The databases of this server. The one that was due first comes first: each gets its turn."""

    def __init__(self, list_databases, process_key):
        self._list_databases = list_databases
        self._process_key = process_key
        self._databases = {}
        self._next_listing = 0

    def __iter__(self):
        return iter(list(self._databases.values()))

    def refresh(self):
        """Look for databases that appeared and disappeared, and have all of them visited, when it is time to."""
        now = time.monotonic()
        if now < self._next_listing:
            return
        self._next_listing = now + SHUN_TIME  # should the listing fail
        names = self._list_databases()
        for name in self._databases.keys() - set(names):
            self._databases.pop(name).leave()
        for name in names:
            if name not in self._databases:
                self._databases[name] = Database(name, self._process_key)
            self._databases[name].wake()
        # The jitter keeps the workers from all coming at once.
        self._next_listing = now + settings().poll_interval * random.uniform(0.8, 1)

    def wake_all(self):
        """Have all databases visited: something may have been missed."""
        self._next_listing = 0

    def wake(self, name):
        """Have a database visited."""
        if name in self._databases:
            self._databases[name].wake()
        else:
            self.wake_all()  # it is new; or somebody else's, but anybody may NOTIFY

    def next(self):
        """Return the database that is due first.

        :rtype: Database | None
        """
        return min(self._databases.values(), key=lambda database: database.due, default=None)
