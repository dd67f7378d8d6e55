"""The kinds of jobs: how they are enqueued, and how they must end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

LEDGER, ACCOUNT = 'ir.async.ledger', 'ir.async.ledger.account'
CHANNELS = {
    'ledger': {'capacity': 2},
    'single': {'capacity': 1},
    'crowd': {'capacity': 1},  # always has many short jobs
    'fair': {'capacity': 3, 'fair': True},
    'rate': {'interval': 1, 'starts_per_interval': 2},
    'polite': {'capacity': 4},  # its jobs ask for pauses
}
ACCOUNTS = 12
KEYS = 4
ISOLATIONS = ['READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE']
LEAVER = 'leaver'  # the login of a user who is archived and restored
TURNERS = ('turner-1', 'turner-2', 'turner-3')  # the logins of users who take turns

# Of databases that may be gone before their jobs end: none of these fails, so that any error in the log is a surprise.
GUEST_WEIGHTS = {
    'write': 6, 'sleep': 4, 'commit': 2, 'rollback': 2, 'chain': 3, 'keyed': 3, 'channel': 4, 'delay': 5, 'more': 2,
    'progress': 1, 'chunks': 1, 'bulk': 1, 'count': 1, 'of_user': 1,
}  # fmt: skip


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
    delay: float = 0  # seconds from its time on before which its method may not begin
    cancelled: bool = False
    retried: bool = False


class Kinds:
    """Each method enqueues jobs of one kind and returns their calls, as in a transaction of a user's."""

    WEIGHTS = {
        'noop': 3, 'write': 6, 'sleep': 4, 'sleep_in_sql': 2, 'commit': 2, 'rollback': 2, 'fail_then_end_well': 2,
        'fail': 1, 'odd': 1, 'overtime': 0.3, 'postpone': 1, 'chain': 2, 'keyed': 3, 'channel': 4, 'rate': 1, 'turns': 1, 'polite': 1, 'crowd': 0.2, 'delay': 2,
        'more': 2, 'date': 1, 'restart': 1, 'debounce': 2, 'progress': 1, 'cancel_me': 0.5, 'chunks': 1, 'bulk': 1, 'count': 1,
        'blob': 0.4, 'setting': 2, 'process': 1, 'leave_cursor': 0.5, 'close_cursor': 0.5, 'fork': 0.5, 'thread': 0.5, 'hook': 1,
        'of_user': 3, 'isolation': 1, 'pool': 4, 'hang': 0.5, 'huge': 0.02,
    }  # fmt: skip

    def __init__(self, prefix, rng, weights=None):
        self.prefix = prefix
        self.weights = weights or self.WEIGHTS
        self.rng = rng
        self.number = 0

    def pick(self):
        return self.rng.choices(list(self.weights), self.weights.values())[0]

    def _call(self, env, kind, method, *args, expected=('done',), model=LEDGER, records=None, call=None, **options):
        self.number += 1
        entry = Call(
            f'{self.prefix}-{self.number}', kind, expected, options.get('channel'), options.get('key'), **call or {}
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

    def of_user(self, env):
        user = env['res.users'].with_context(active_test=False).search([('login', '=', LEAVER)])
        return [self._call(env, 'of_user', 'write_as_user', records=env[LEDGER].with_user(user))]

    def sleep(self, env):
        return [self._call(env, 'sleep', 'sleep', self.rng.uniform(0.05, 0.6), expected=('succeeded',))]

    def sleep_in_sql(self, env):
        return [self._call(env, 'sleep_in_sql', 'sleep_in_sql', self.rng.uniform(0.05, 0.4))]

    def pool(self, env):
        return [self._call(env, 'pool', 'use_pool', self.rng.uniform(0, 1))]

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
                'operational',
                'interface',
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

    def restart(self, env):
        """The key is free again when the job begins, so the next one may run beside it."""
        key = f'restart-{self.rng.randrange(KEYS)}'
        return [
            self._call(
                env, 'restart', 'sleep', self.rng.uniform(0, 0.3), expected=('succeeded',), key=key, key_until='start'
            )
        ]

    def debounce(self, env):
        """The job that is queued has the arguments and the date of the last call."""
        options = {
            'key': f'debounce-{self.rng.randrange(KEYS)}',
            'on_duplicate': 'replace',
            'delay': self.rng.uniform(0, 2),
        }
        return [self._call(env, 'debounce', 'write_effect', call={'delay': options['delay']}, **options)]

    def channel(self, env):
        channel = self.rng.choice(['ledger', 'ledger/one', 'single'])
        return [
            self._call(env, 'channel', 'sleep', self.rng.uniform(0.02, 0.2), expected=('succeeded',), channel=channel)
        ]

    def rate(self, env):
        return [
            self._call(env, 'rate', 'write_with_start', channel='rate') for _ in range(self.rng.choice([1, 1, 2, 4]))
        ]

    def turns(self, env):
        calls = []
        for _ in range(self.rng.randint(1, 4)):
            user = env['res.users'].search([('login', '=', self.rng.choice(TURNERS))])
            ledger, seconds = env[LEDGER].with_user(user), self.rng.uniform(0, 0.2)
            calls.append(
                self._call(env, 'turns', 'sleep', seconds, records=ledger, channel='fair', expected=('succeeded',))
            )
        return calls

    def polite(self, env):
        """A pause keeps the other jobs of the channel waiting, and none for good."""
        method = self.rng.choice(['postpone', 'write_effect'])
        pause = [True] if method == 'postpone' else []
        return [self._call(env, 'polite', method, *pause, channel='polite')]

    def crowd(self, env):
        """Many claims at once in one channel."""
        return [
            self._call(env, 'crowd', 'sleep', self.rng.uniform(0, 0.01), expected=('succeeded',), channel='crowd')
            for _ in range(40)
        ]

    def delay(self, env):
        delay = self.rng.uniform(0.2, 4)
        return [self._call(env, 'delay', 'write_effect', delay=delay, call={'delay': delay})]

    def date(self, env):
        at = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(seconds=self.rng.uniform(-1, 4))
        return [self._call(env, 'date', 'write_effect', at=at)]

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

    def blob(self, env):
        argument, result = self.rng.choice([(1, 10), (10, 1), (1, 1)])
        return [self._call(env, 'blob', 'blob', 'x' * (argument << 20), result << 20, expected=('succeeded',))]

    def huge(self, env):
        argument, result = self.rng.choice([(50, 1), (1, 50)])
        return [self._call(env, 'huge', 'blob', 'x' * (argument << 20), result << 20, expected=('succeeded',))]

    def isolation(self, env):
        return [self._call(env, 'isolation', 'change_isolation', self.rng.choice(ISOLATIONS))]

    def setting(self, env):
        name = self.rng.choice(
            [
                'search_path',
                'work_mem',
                'isolation',
                'read_only',
                'custom',
                'table',
                'prepared',
                'cursor',
                'lock',
                'listen',
            ]
        )
        return [self._call(env, 'setting', 'leave_setting', name)]

    def process(self, env):
        return [self._call(env, 'process', 'leave_process')]

    def leave_cursor(self, env):
        return [self._call(env, 'leave_cursor', 'leave_cursor')]

    def close_cursor(self, env):
        return [self._call(env, 'close_cursor', 'close_cursor', expected=('failed',))]

    def fork(self, env):
        return [self._call(env, 'fork', 'fork')]

    def thread(self, env):
        return [self._call(env, 'thread', 'thread', self.rng.choice([0, 0.05, 5]))]

    def hook(self, env):
        """A hook that fails before the commit fails the job; after it, the job has ended well."""
        when = self.rng.choice(['precommit', 'postcommit'])
        expected = 'failed' if when == 'precommit' else 'done'
        return [self._call(env, 'hook', 'failing_hook', when, expected=(expected,))]

    def hang(self, env):
        """A hook that hangs before the commit is stopped by the time-out of its job; after it, the job has ended well.

        A fault may delay the commit until the time-out.
        """
        when = self.rng.choice(['precommit', 'postcommit'])
        seconds, expected = (30, ('failed',)) if when == 'precommit' else (3, ('done', 'failed'))
        return [self._call(env, 'hang', 'hanging_hook', when, seconds, timeout=1, expected=expected)]
