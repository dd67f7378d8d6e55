"""Choose faults by chance, and give them what they need."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections import Counter
from typing import NamedTuple

import psutil
import psycopg2
from harness import wait_until

from .violations import Violation

LONGEST = 6  # seconds that a lock or a stop lasts
LONG = 30  # seconds that longer trouble lasts


class Turn(NamedTuple):
    """The time of some kinds of faults, by the monotonic clock, until nothing of them went on."""

    names: list
    begin: float
    end: float


class Injector:
    """Do harm, by chance, alone and mixed.

    :param World world: to what
    :param str seed: repeats the choices
    :param list only: names of the faults to choose from, all by default
    :param list workloads: of all databases
    """

    WEIGHTS = {}

    def __init__(self, world, seed, only=(), workloads=()):
        self.world = world
        self.workloads = workloads
        self.seed = seed
        self.rng = random.Random(f'{seed} faults')
        self.weights = {
            name: weight
            for name, weight in self.WEIGHTS.items()
            if (not only or name in only) and name not in world.skipped
        }
        self.counts = Counter()
        self.errors = []
        self.turns = []  # of each kind alone
        self.violations = []  # what a fault found itself
        self.cleaned = set()  # (database, job) that the clean-up may have deleted
        self.archived = []  # intervals in which a user was
        self.settled = []  # intervals in which a module was installed, or was not
        self.guests = Counter()  # states of jobs of databases that came and went
        self.may_fail = set()  # jobs there whose errors are no surprise
        self._busy = set()  # what `_meanwhile_once` does
        self._threads = []

    def run(self, seconds, in_turn=False):
        """Do harm for so long; return when nothing of it goes on.

        :param float seconds: for how long new harm begins
        :param bool in_turn: one kind after the other, each with its share of the time, so that never two kinds meet
        """
        for names in [[name] for name in self.weights] if in_turn else [list(self.weights)]:
            begin = time.monotonic()
            self._harm(names, seconds * len(names) / len(self.weights))
            self._come_to_rest()
            self.turns.append(Turn(names, begin, time.monotonic()))

    def _harm(self, names, seconds):
        begin = time.monotonic()
        end = begin + seconds
        while time.monotonic() < end:
            time.sleep(min(max(0, end - time.monotonic()), self.rng.uniform(0.3, 2.5)))
            count = self.rng.choice([1, 1, 1, 2, 3])
            for name in self.rng.choices(names, [self.weights[name] for name in names], k=count):
                self.counts[name] += 1
                sys.stderr.write(f'{time.monotonic() - begin:.1f} s: {name}\n')
                with self._expected_trouble(name):
                    getattr(self, name)()
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self.world.supervise()

    def _come_to_rest(self):
        for thread in self._threads:
            thread.join()
        for name in dir(self):
            if name.startswith('_reset'):
                with self._expected_trouble(name):
                    self._repeat(getattr(self, name))
        try:
            self.world.wait_until_ready()
        except AssertionError as exc:
            self.violations.append(Violation('stuck', '', None, str(exc)))

    @contextlib.contextmanager
    def _expected_trouble(self, name):
        try:
            yield
        except (psycopg2.Error, psutil.Error, ProcessLookupError):
            pass  # another fault was faster
        except Exception as exc:  # noqa: BLE001 -- reported at the end
            self.errors.append(f"{name}: {type(exc).__name__}: {exc}")

    def _meanwhile(self, function, *args):
        def run():
            with self._expected_trouble(function.__name__):
                function(*args)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _meanwhile_once(self, where, function, *args):
        """Do the same, unless it goes on there."""
        key = function.__name__, where

        def run():
            try:
                function(*args)
            finally:
                self._busy.discard(key)

        if key not in self._busy:
            self._busy.add(key)
            run.__name__ = function.__name__
            self._meanwhile(run)

    def _freeze(self, process, seconds):
        process.suspend()
        time.sleep(seconds)
        process.resume()

    def _repeat(self, function, *args):
        """Call a function until no other fault breaks it; return its value."""

        def succeeds():
            with contextlib.suppress(psycopg2.Error):
                return (function(*args),)
            return None

        [value] = wait_until(succeeds, function.__name__)
        return value

    def _database(self):
        return self.rng.choice(self.world.databases)

    def _worker(self):
        workers = self.world.workers()
        return self.rng.choice(workers) if workers else None

    def _backends(self):
        ours = {f'odoo-{process.pid}': process.pid for server in self.world.servers for process in server.processes()}
        rows = self.world.cluster.sql("""
            SELECT pid, application_name, datname,
                   EXISTS (SELECT FROM pg_locks WHERE pid = activity.pid AND locktype = 'advisory') AS has_lock
              FROM pg_stat_activity activity
             WHERE usename = 'odoo' ORDER BY pid
        """)
        return [(row, ours[row.application_name]) for row in rows if row.application_name in ours]

    def _cut(self, backends):
        for row, pid in backends:
            self.world.note('cut', pid)
            self.world.cluster.sql("SELECT pg_terminate_backend(%s)", [row.pid])
