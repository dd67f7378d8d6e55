import time
from datetime import datetime, timedelta, timezone
from enum import Enum

from .method_case import MethodCase


class TestOptions(MethodCase):
    """``with_options``; where options go and where not, is in test_with_options.py, what some do, in files of their own."""

    def setUp(self):
        super().setUp()
        self.calls = calls = []

        @self.add_method
        def async_foo(self, *args):
            calls.append((self.ids, *args))

    def call(self, *args, **options):
        return self.ir_async.with_options(**options).call(self.partner.async_foo, *args)

    def order(self):
        self.run_jobs()
        return ''.join(args[1] for args in self.calls)

    def test_defaults(self):
        self.assertRecordValues(
            self.call(),
            [
                {
                    'priority': 10,
                    'date_scheduled': False,
                    'max_attempts': 1,
                    'retry_delay': False,
                    'timeout': 0,
                    'channel': 'default',
                    'limited': False,
                    'key': False,
                    'key_until': False,
                    'after_ids': [],
                }
            ],
        )

    def test_bad_options(self):
        now = datetime(2026, 11, 24)
        job = self.call()
        for name, *values in (
            ('no_such_option', 1, None),
            ('priority', None, '1', 1.0, True, 2**31),
            ('at', "2026-11-24", now.date(), now.replace(tzinfo=timezone.utc), 0),
            ('delay', "1", -1, float('nan'), float('inf'), now, True, 2**40),
            ('max_attempts', 0, -1, None, 1.5, "2", True),
            ('retry_delay', -1, "1", [], [1, None], [float('inf')], {}),
            ('timeout', 0, -1, "1", float('nan'), True),
            ('channel', None, '', 1, b'default', 'a\0', '\ud800'),
            ('key', '', 1, b'key', 'a\0', '\ud800'),
            ('after', 1, [job.id], [job], self.partner, self.ir_async.new()),
            ('key_until', None, '', 'START', 1, True, b'end', ['end']),
            ('on_duplicate', None, '', 'ignore', 1, True, b'keep', ['keep']),
            ('chunk_size', 0, -1, 1.5, "1", True),
        ):
            for value in values:
                with self.subTest(name=name, value=value), self.assertRaisesRegex(TypeError, f"option {name}"):
                    self.ir_async.with_options(**{name: value})
        for options in ({'at': now, 'delay': 1}, {'key': 'a', 'chunk_size': 1}):
            with self.subTest(options=options), self.assertRaisesRegex(TypeError, "exclude each other"):
                self.ir_async.with_options(**options)

    def test_texts_of_an_enumeration(self):
        """What counts is the text itself, not how its class shows it."""

        class Text(str, Enum):
            KEY = 'sync'
            START = 'start'
            REPLACE = 'replace'

        job = self.call(1, key=Text.KEY, key_until=Text.START, channel=Text.KEY)
        self.assertEqual(self.call(2, key='sync', key_until='start', on_duplicate=Text.REPLACE), job)
        self.assertRecordValues(job.sudo(), [{'key': 'sync', 'key_until': 'start', 'channel': 'sync', 'args': '[2]'}])

    def test_combination(self):
        """Options add up, and go no further than the calls that are made with them."""
        model = self.ir_async.with_options(priority=3, channel='a').with_options(channel='b', max_attempts=2)
        for _again in range(2):
            job = model.call(self.partner.async_foo)
            self.assertRecordValues(job, [{'priority': 3, 'channel': 'b', 'max_attempts': 2}])
        for ir_async in (job, self.ir_async, self.env['ir.async'], model.current()):
            self.assertEqual(ir_async.call(self.partner.async_foo).priority, 10)
        self.assertEqual(model.with_options(priority=10).call(self.partner.async_foo).priority, 10)

    def test_options_of_a_key(self):
        """What says something about the key takes one, whichever is given first."""
        for name, value in (('key_until', 'start'), ('on_duplicate', 'replace')):
            with self.subTest(name=name):
                with self.assertRaisesRegex(TypeError, name):
                    self.call('', **{name: value})
                self.assertTrue(
                    self.ir_async.with_options(**{name: value}).with_options(key=name).call(self.partner.async_foo).key
                )
        self.assertFalse(self.call('', key_until='end', on_duplicate='keep').key)

    def test_not_inherited(self):
        """A job's own calls have the defaults."""

        @self.add_method
        def async_bar(self):
            self.env['ir.async'].call(self.async_foo, 'x')

        self.ir_async.with_options(priority=3, channel='a').call(self.partner.async_bar)
        jobs = self.run_jobs()
        self.assertRecordValues(jobs, [{'priority': 3, 'channel': 'a'}, {'priority': 10, 'channel': 'default'}])

    def test_priority(self):
        for name, priority in (('c', 10), ('e', 11), ('d', 10), ('a', -5), ('b', 0)):
            self.call(name, priority=priority)
        self.assertEqual(self.order(), 'abcde')

    def now(self):
        """The clock of the database, by which jobs are dated."""
        self.env.cr.execute("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
        return self.env.cr.fetchone()[0]

    def test_dates(self):
        now = datetime(2126, 11, 24, 12)
        for value, expected in ((now, now), (datetime(2026, 1, 1), datetime(2026, 1, 1)), (None, False)):
            self.assertEqual(self.call('', at=value).date_scheduled, expected)
        self.assertIs(self.call('', delay=None).date_scheduled, False)
        for value, seconds in ((60, 60), (1.5, 1.5), (timedelta(hours=1), 3600), (0, 0)):
            with self.subTest(delay=value):
                before, begin = self.now(), time.monotonic()
                date = self.row(self.call('', delay=value), 'date_scheduled') - timedelta(seconds=seconds)
                self.assertLessEqual(before, date, "never too early")
                # The clock that PostgreSQL answers with counts from the question, so the date is late by that time at most.
                self.assertLessEqual(date, self.now() + timedelta(seconds=time.monotonic() - begin))

    def test_key(self):
        job = self.call('1', key='sync')
        self.assertEqual(self.call('2', key='sync'), job, "queued")
        self.assertNotEqual(self.call('3', key='other'), job)
        self.assertNotEqual(self.call('4'), job)
        self.env.cr.flush()
        self.assertEqual(self.call('5', key='sync'), job, "queued and in the database")

        @self.add_method
        def async_bar(self):
            again = self.env['ir.async'].with_options(key='bar').call(self.async_bar)
            return again == self.env['ir.async'].current()

        bar = self.ir_async.with_options(key='bar').call(self.partner.async_bar)
        self.assertEqual(self.order(), '134')
        self.assertEqual(bar.payload, {'result': True}, "running")
        self.assertEqual(bar.state, 'succeeded')
        self.assertNotEqual(self.call('6', key='sync'), job, "ended")

    def test_key_per_user(self):
        """The key of a job that somebody is told about is that user's; else it is everybody's."""

        def call(user, notify):
            model, target = self.ir_async.with_options(key='sync'), self.partner_of(user).async_foo
            return model.call_notify("Sync", target) if notify else model.call(target)

        jobs = {}
        for user in (self.user, self.other_user, self.user, self.other_user):
            for notify in (True, False):
                job = call(user, notify)
                self.assertEqual(jobs.setdefault(notify and user, job), job)
        self.assertEqual(len(jobs), 3)

    def test_chunks(self):
        partners = self.env['res.partner'].create([{'name': str(i)} for i in range(5)])
        for size, chunks in ((2, [2, 2, 1]), (5, [5]), (9, [5]), (1, [1] * 5)):
            with self.subTest(size=size):
                jobs = self.ir_async.with_options(chunk_size=size).call(partners.async_foo)
                self.assertEqual(len(jobs), len(chunks))
                self.run_jobs()
                self.assertEqual([len(args[0]) for args in self.calls], chunks)
                self.assertEqual([id_ for (ids,) in self.calls for id_ in ids], partners.ids)
                self.calls.clear()
        self.assertFalse(self.ir_async.with_options(chunk_size=2).call(partners.browse().async_foo))
