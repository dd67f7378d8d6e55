"""Jobs that are enqueued all the time, and a journal of what must become of them."""

from __future__ import annotations

import contextlib
import random
import threading
import time

import psycopg2

from odoo import SUPERUSER_ID, Command, api
from odoo.exceptions import UserError
from odoo.modules.registry import Registry

from .harm import conflicts
from .kinds import ACCOUNT, ACCOUNTS, CHANNELS, LEAVER, TURNERS, Kinds


class Rollback(Exception):
    pass


class Workload(threading.Thread):
    """A thread that enqueues into one database, and cancels and retries some.

    :param Database database: the database
    :param str seed: repeats the choices
    :param float rate: jobs a second
    :param str prefix: of the tokens of its calls, by default the name of the database
    :param dict weights: of the kinds of jobs
    :param Copied copied: what the database has of another one
    """

    def __init__(self, database, seed, rate, prefix=None, weights=None, copied=None):
        super().__init__(name=f'workload {database.name}', daemon=True)
        self.database = database
        self.rng = random.Random(f'{seed} {database.name}')
        self.prefix = prefix or database.name
        self.kinds = Kinds(self.prefix, self.rng, weights)
        self.copied = copied
        self.rate = rate
        self.calls = []
        self.broken = 0  # transactions that a fault hit
        self.errors = []  # what no fault explains
        self.stopped = threading.Event()
        self.lock = threading.Lock()  # held while it works: who has it keeps new jobs from coming

    def prepare(self):
        """Make the records that jobs write, users, the channels with limits, and the triggers of faults."""
        conflicts.prepare(self.database)
        with self.database.env() as env:
            env['res.users'].create(
                [
                    {'name': login, 'login': login, 'group_ids': [Command.set(env.ref('base.group_user').ids)]}
                    for login in (LEAVER, *TURNERS)
                ]
            )
            env[ACCOUNT].create([{} for _ in range(ACCOUNTS)])
            env['ir.async.channel'].create([{'name': name, **limits} for name, limits in CHANNELS.items()])

    def stop(self):
        self.stopped.set()
        self.join()

    def run(self):
        pause = 0
        while not self.stopped.wait(pause):
            begin = time.monotonic()
            try:
                with self.lock:
                    count = self._enqueue()
                    self._act()
            except (psycopg2.Error, OSError):
                self.broken += 1
                count = 5
            except Exception as exc:  # noqa: BLE001 -- reported at the end
                if isinstance(exc, UserError) and isinstance(exc.__context__, psycopg2.Error):
                    self.broken += 1  # a fault has the job of a key locked
                else:
                    self.errors.append(f"{type(exc).__name__}: {exc}")
                count = 5
            pause = max(0, count / self.rate * self.rng.uniform(0.5, 1.5) - (time.monotonic() - begin))

    @contextlib.contextmanager
    def _transaction(self):
        registry = Registry(self.database.name)
        with registry.cursor() as cr:
            yield api.Environment(cr, SUPERUSER_ID, {})

    def _enqueue(self):
        """Enqueue a few jobs in one transaction, a third of which are rolled back; return how many they are."""
        kinds = [self.kinds.pick() for _ in range(self.rng.choice([1, 1, 1, 2, 4]))]
        is_kept = self.rng.random() > 1 / 3
        calls, gone, fate = [], [], 'rolled back'
        try:
            with self._transaction() as env:
                for kind in kinds:
                    if self.rng.random() < 0.1:
                        with contextlib.suppress(Rollback), env.cr.savepoint():
                            gone += getattr(self.kinds, kind)(env)
                            raise Rollback  # noqa: TRY301 -- it rolls the savepoint back
                    else:
                        calls += getattr(self.kinds, kind)(env)
                if not is_kept:
                    raise Rollback  # noqa: TRY301
                fate = 'unknown'
            fate = 'committed'
        except Rollback:
            pass
        finally:
            for call in calls:
                call.fate = fate
            for call in gone:
                call.fate = 'rolled back'
            self.calls += [*calls, *gone]
        return sum(max(1, len(call.job_ids)) for call in calls)

    def _act(self):
        """Cancel or retry jobs, sometimes."""
        recent = [call for call in self.calls[-60:] if call.fate == 'committed']
        for call in recent:
            age = time.monotonic() - call.time
            if not call.cancelled and (age > 1 if call.kind == 'cancel_me' else self.rng.random() < 0.0015):
                self._button(call, 'cancel')
        for call in self.calls[-600:]:
            is_over = call.cancelled or call.expected == ('failed',)
            if call.fate == 'committed' and is_over and not call.retried and self.rng.random() < 0.001:
                self._button(call, 'retry')

    def _button(self, call, name):
        # Before, not after: when the commit breaks, it may have come through.
        setattr(call, 'cancelled' if name == 'cancel' else 'retried', True)
        with contextlib.suppress(UserError), self._transaction() as env:
            getattr(env['ir.async'].browse(call.job_ids), name)()
