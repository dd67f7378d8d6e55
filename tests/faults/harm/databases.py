"""Databases that come and go."""

from __future__ import annotations

import contextlib
import itertools
import time

import psycopg2
from harness import LIVE, Cluster, Database

from ..audit import Audit
from ..copies import Copied
from ..drain import drained
from ..injector import LONG
from ..kinds import GUEST_WEIGHTS
from ..runs import read_events
from ..violations import Violation
from ..workload import Workload

BOUND = 1.5 * LONG  # seconds that nobody but a frozen process may be in the way
IDLE_TIME = 30  # seconds after which workers leave an idle database
DRAIN = 180  # seconds
RATE = 10  # jobs a second
DISCONNECT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"


class Databases:
    WEIGHTS = {'drop_database': 0.5, 'copy_database': 0.5, 'replace_database': 0.5}
    numbers = itertools.count()

    def drop_database(self):
        """a new database gets jobs and is dropped: with jobs in it, after their end, or once the workers have left it by themselves"""
        when = self.rng.choice(['at once', 'at once', 'done', 'left'])
        self._meanwhile_once('guests', self._visit, self._end, when)

    def copy_database(self):
        """a new database is duplicated with jobs in it: the copy runs its own jobs, and the others if they are adopted"""
        self._meanwhile_once('guests', self._visit, self._copy, self.rng.random() < 0.5)

    def replace_database(self):
        """a new database is dropped with jobs in it, and an earlier copy gets its name"""
        self._meanwhile_once('guests', self._visit, self._replace, self.rng.random() < 0.5)

    def _visit(self, function, choice):
        """Make a database with jobs, and call the function with it."""
        name = f'guest{next(self.numbers)}'
        with self._others_idle() if choice == 'left' else contextlib.nullcontext():
            database = self._repeat(self._make, name)
            try:
                function(database, self._load(database, name), choice)
            finally:
                self._drop(database)

    @contextlib.contextmanager
    def _others_idle(self):
        """Let no other database have a job. A worker that has jobs in two of them would leave each further one early."""
        with contextlib.ExitStack() as stack:
            for load in self.workloads:
                stack.enter_context(load.lock)
            drained(self.world, DRAIN)
            yield

    def _make(self, name):
        self.world.cluster.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        database = Database(self.world.cluster, name, Cluster.TEMPLATE)
        try:
            Workload(database, '', 1).prepare()
        finally:
            database.leave()
        return database

    def _load(self, database, prefix, copied=None):
        """Enqueue jobs for a while; return the load."""
        load = Workload(database, f'{self.seed} {prefix}', RATE, prefix, GUEST_WEIGHTS, copied)
        load.start()
        time.sleep(4)
        load.stop()
        database.leave()
        self.errors += load.errors
        return load

    def _end(self, database, load, when):
        if when != 'at once':
            self._check(load)
        if when == 'left':
            self._alone(database.name, f'DROP DATABASE "{database.name}"', BOUND + IDLE_TIME, is_forced=False)

    def _copy(self, database, load, is_adopted):
        copy, copied = self._duplicate(database, load)
        try:
            copy_load = self._load(copy, copy.name, copied)
            self._check(copy_load, is_adopted)
        finally:
            self._drop(copy)
        self._check(load)

    def _replace(self, database, load, is_adopted):
        copy, copied = self._duplicate(database, load)
        try:
            self._load(database, f'{database.name}.lost')
            self._drop(database)
            copied.time = time.monotonic()
            self._alone(copy.name, f'ALTER DATABASE "{copy.name}" RENAME TO "{database.name}"')
            self._check(self._load(database, f'{database.name}.new', copied), is_adopted)
        finally:
            self._drop(copy)

    def _duplicate(self, database, load):
        """Copy a database as Odoo does; return the copy, and what came with it."""
        copy = Database.__new__(Database)
        copy.cluster, copy.name = self.world.cluster, f'{database.name}_copy'
        strategy = 'STRATEGY file_copy' if self.world.cluster.version >= 15 else ''
        now = time.monotonic()
        self._alone(database.name, f'CREATE DATABASE "{copy.name}" OWNER odoo TEMPLATE "{database.name}" {strategy}')
        rows = self._repeat(copy.sql, "SELECT id, state, revision FROM ir_async WHERE state IN %s", [LIVE])
        return copy, Copied(load, {row.id: row for row in rows}, now)

    def _check(self, load, is_adopted=False):
        """Wait for the end of the jobs, and audit them."""
        databases = [load.database]
        drained(self.world, DRAIN, databases)
        if is_adopted:
            load.copied.is_adopted = True
            self._repeat(self._adopt, load.database)
            drained(self.world, DRAIN, databases)
        audit = self._repeat(self._audit, load)
        self.violations += audit.violations
        self.may_fail |= audit.may_fail
        self.guests.update(audit.states)

    def _adopt(self, database):
        try:
            with database.env() as env:
                env['ir.async'].search([('is_elsewhere', '=', True)]).adopt()
        finally:
            database.leave()

    def _audit(self, load):
        audit = Audit(self.world, [load], self)
        audit.run_databases(read_events(self.world))
        return audit

    def _drop(self, database):
        database.leave()
        self._alone(database.name, f'DROP DATABASE IF EXISTS "{database.name}"')

    def _alone(self, name, statement, bound=BOUND, is_forced=True):
        """Execute a statement that nobody may be connected for. End all connections before, as Odoo does, or wait."""
        refused = None
        while True:
            try:
                if is_forced:
                    self._cut([(row, pid) for row, pid in self._backends() if row.datname == name])
                    self.world.cluster.sql(DISCONNECT, [name])
                self.world.cluster.sql(statement)
            except psycopg2.errors.ObjectInUse:
                refused = refused or time.monotonic()
                if time.monotonic() > refused + bound:
                    self.violations.append(Violation('blocked', name, None, f"{statement}: for {bound:.0f} s"))
                    return
            except psycopg2.errors.DuplicateDatabase:  # its answer was lost
                return
            except psycopg2.errors.InvalidCatalogName:
                return
            except psycopg2.Error:  # another fault
                time.sleep(0.2)
            else:
                return
