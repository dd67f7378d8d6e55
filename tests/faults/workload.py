"""Jobs that are enqueued all the time, and a journal of what must become of them."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from dataclasses import dataclass, field

import psycopg2

from odoo import SUPERUSER_ID, api
from odoo.exceptions import UserError
from odoo.modules.registry import Registry

LEDGER, ACCOUNT = 'ir.async.ledger', 'ir.async.ledger.account'
CHANNELS = {'ledger': 2, 'ledger/one': 2, 'single': 1}
ACCOUNTS = 12
KEYS = 4


@dataclass
class Call:
    """A call of a job's method.

    ``expected`` are the states in which its jobs may end, ``fate`` what became of the transaction that made it:
    ``committed``, ``rolled back``, or ``unknown`` when the connection broke during the commit.
    """

    token: str
    kind: str
    expected: tuple
    channel: str | None = None
    key: str | None = None
    attempts: int = 1
    parents: list = field(default_factory=list)
    fate: str = 'unknown'
    job_ids: list = field(default_factory=list)
    time: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    retried: bool = False


class Kinds:
    """Each method enqueues jobs of one kind and returns their calls, as in a transaction of a user's."""

    WEIGHTS = {
        'noop': 3, 'write': 6, 'sleep': 4, 'sleep_in_sql': 2, 'commit': 2, 'rollback': 2, 'fail_then_end_well': 2,
        'fail': 1, 'odd': 1, 'overtime': 0.3, 'postpone': 1, 'chain': 2, 'keyed': 3, 'channel': 4, 'delay': 2, 'more': 2,
        'progress': 1, 'cancel_me': 0.5, 'chunks': 1, 'bulk': 1, 'count': 1,
    }  # fmt: skip

    def __init__(self, dbname, rng):
        self.dbname = dbname
        self.rng = rng
        self.number = 0

    def pick(self):
        return self.rng.choices(list(self.WEIGHTS), self.WEIGHTS.values())[0]

    def _call(self, env, kind, method, *args, expected=('done',), model=LEDGER, records=None, call=None, **options):
        self.number += 1
        entry = Call(
            f'{self.dbname}-{self.number}', kind, expected, options.get('channel'), options.get('key'), **call or {}
        )
        target = getattr(env[model] if records is None else records, method)
        jobs = env['ir.async'].with_options(**options)
        if self.rng.random() < 0.2:
            made = jobs.call_notify(f"Job {entry.token}", target, entry.token, *args)
        else:
            made = jobs.call(target, entry.token, *args)
        entry.job_ids = list(made.ids)
        return entry

    def noop(self, env):
        return [self._call(env, 'noop', 'noop')]

    def write(self, env):
        return [self._call(env, 'write', 'write_effect', priority=self.rng.choice([5, 10, 10, 20]))]

    def sleep(self, env):
        return [self._call(env, 'sleep', 'sleep', self.rng.uniform(0.05, 0.6), expected=('succeeded',))]

    def sleep_in_sql(self, env):
        return [self._call(env, 'sleep_in_sql', 'sleep_in_sql', self.rng.uniform(0.05, 0.4))]

    def commit(self, env):
        return [self._call(env, 'commit', 'commit_inside', self.rng.uniform(0, 0.2))]

    def rollback(self, env):
        return [self._call(env, 'rollback', 'rollback_inside')]

    def fail_then_end_well(self, env):
        times = self.rng.choice([1, 2])
        return [
            self._call(
                env,
                'fail_then_end_well',
                'fail_times',
                times,
                max_attempts=3,
                retry_delay=0.5,
                call={'attempts': times + 1},
            )
        ]

    def fail(self, env):
        times = self.rng.choice([1, 2])
        return [
            self._call(
                env,
                'fail',
                'fail_times',
                99,
                max_attempts=times,
                retry_delay=0.3,
                expected=('failed',),
                call={'attempts': times},
            )
        ]

    def odd(self, env):
        kind = self.rng.choice(
            [
                'no_text',
                'system_exit',
                'generator_exit',
                'keyboard_interrupt',
                'stop_iteration',
                'base_exception',
                'recursion',
                'unicode',
            ]
        )
        return [self._call(env, 'odd', 'raise_odd', kind, expected=('failed',))]

    def overtime(self, env):
        return [self._call(env, 'overtime', 'sleep', 30, timeout=1, expected=('failed',))]

    def postpone(self, env):
        return [self._call(env, 'postpone', 'postpone')]

    def chain(self, env):
        parents = [self._call(env, 'write', 'write_effect') for _ in range(self.rng.choice([1, 2, 3]))]
        jobs = env['ir.async'].browse([job_id for parent in parents for job_id in parent.job_ids])
        tokens = [parent.token for parent in parents]
        child = self._call(env, 'child', 'child', tokens, after=jobs, call={'parents': tokens})
        grandchild = self._call(
            env,
            'child',
            'child',
            [child.token],
            after=env['ir.async'].browse(child.job_ids),
            call={'parents': [child.token]},
        )
        return [*parents, child, grandchild]

    def keyed(self, env):
        return [
            self._call(
                env,
                'keyed',
                'sleep',
                self.rng.uniform(0, 0.3),
                expected=('succeeded',),
                key=f'key-{self.rng.randrange(KEYS)}',
            )
        ]

    def channel(self, env):
        channel = self.rng.choice(list(CHANNELS))
        return [
            self._call(env, 'channel', 'sleep', self.rng.uniform(0.02, 0.2), expected=('succeeded',), channel=channel)
        ]

    def delay(self, env):
        return [self._call(env, 'delay', 'write_effect', delay=self.rng.uniform(0.2, 4))]

    def more(self, env):
        return [self._call(env, 'more', 'enqueue_more')]

    def progress(self, env):
        return [self._call(env, 'progress', 'progress', self.rng.uniform(0.2, 1))]

    def cancel_me(self, env):
        return [self._call(env, 'cancel_me', 'sleep', 10, expected=('succeeded',))]

    def chunks(self, env):
        return [self._call(env, 'chunks', 'touch', records=env[ACCOUNT].search([], order='id'), chunk_size=5)]

    def bulk(self, env):
        return [self._call(env, 'write', 'write_effect') for _ in range(self.rng.randint(5, 30))]

    def count(self, env):
        return [self._call(env, 'count', 'add', records=env[ACCOUNT].search([], order='id', limit=1))]


class Rollback(Exception):
    pass


class Workload(threading.Thread):
    """A thread that enqueues into one database, and cancels and retries some.

    :param Database database: the database
    :param str seed: repeats the choices
    :param float rate: jobs a second
    """

    def __init__(self, database, seed, rate):
        super().__init__(name=f'workload {database.name}', daemon=True)
        self.database = database
        self.rng = random.Random(f'{seed} {database.name}')
        self.kinds = Kinds(database.name, self.rng)
        self.rate = rate
        self.calls = []
        self.broken = 0  # transactions that a fault hit
        self.errors = []  # what no fault explains
        self.stopped = threading.Event()

    def prepare(self):
        """Make the records that jobs write and the channels with limits."""
        with self.database.env() as env:
            env[ACCOUNT].create([{} for _ in range(ACCOUNTS)])
            env['ir.async.channel'].create(
                [{'name': name, 'capacity': capacity} for name, capacity in CHANNELS.items() if '/' not in name]
            )

    def stop(self):
        self.stopped.set()
        self.join()

    def run(self):
        pause = 0
        while not self.stopped.wait(pause):
            begin = time.monotonic()
            try:
                count = self._enqueue()
                self._act()
            except (psycopg2.Error, OSError):
                self.broken += 1
                count = 5
            except Exception as exc:  # noqa: BLE001 -- reported at the end
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
