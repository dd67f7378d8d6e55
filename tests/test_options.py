from datetime import datetime, timedelta, timezone
from unittest.mock import patch

from freezegun import freeze_time

from odoo.exceptions import UserError
from odoo.tests import mute_logger

from .method_case import RUNNER, MethodCase
from odoo.addons.ir_async.service import pg


class TestOptions(MethodCase):
    """``with_options``."""

    def setUp(self):
        super().setUp()
        self.calls = calls = []

        @self.add_method
        def async_foo(self, *args):
            calls.append((self.ids, *args))

        @self.add_method
        def async_fail(self):
            raise error

        error = ValueError("Bad luck")

    def call(self, *args, **options):
        return self.ir_async.with_options(**options).call(self.partner.async_foo, *args)

    def order(self):
        self.run_jobs()
        return ''.join(args[1] for args in self.calls)

    def test_defaults(self):
        self.assertRecordValues(self.call(), [{
            'priority': 10, 'date_scheduled': False, 'max_attempts': 1, 'retry_delay': False, 'timeout': 0,
            'channel': 'default', 'limited': False, 'key': False, 'after_ids': [],
        }])

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
            ('chunk_size', 0, -1, 1.5, "1", True),
        ):
            for value in values:
                with self.subTest(name=name, value=value), self.assertRaisesRegex(TypeError, f"option {name}"):
                    self.ir_async.with_options(**{name: value})
        for options in ({'at': now, 'delay': 1}, {'key': 'a', 'chunk_size': 1}):
            with self.subTest(options=options), self.assertRaisesRegex(TypeError, "exclude each other"):
                self.ir_async.with_options(**options)

    def test_combination(self):
        """Options add up, and go no further than the calls that are made with them."""
        model = self.ir_async.with_options(priority=3, channel='a').with_options(channel='b', max_attempts=2)
        for _again in range(2):
            job = model.call(self.partner.async_foo)
            self.assertRecordValues(job, [{'priority': 3, 'channel': 'b', 'max_attempts': 2}])
        for ir_async in (job, self.ir_async, self.env['ir.async'], model.current()):
            self.assertEqual(ir_async.call(self.partner.async_foo).priority, 10)
        self.assertEqual(model.with_options(priority=10).call(self.partner.async_foo).priority, 10)

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

    @freeze_time('2026-11-24 12:00:00')
    def test_dates(self):
        now = datetime(2026, 11, 24, 12)
        for option, value, expected in (
            ('at', now - timedelta(1), now - timedelta(1)), ('at', now + timedelta(1), now + timedelta(1)), ('at', None, False),
            ('delay', 60, now + timedelta(seconds=60)), ('delay', 1.5, now + timedelta(seconds=1)),
            ('delay', timedelta(hours=1), now + timedelta(hours=1)), ('delay', 0, now), ('delay', None, False),
        ):
            with self.subTest(option=option, value=value):
                job = self.call('', **{option: value})
                self.assertEqual(job.date_scheduled and job.date_scheduled.replace(microsecond=0), expected)
        model = self.ir_async.with_options(delay=60)
        with freeze_time('2026-11-24 13:00:00'):
            self.assertEqual(model.call(self.partner.async_foo).date_scheduled, now + timedelta(minutes=61), "from the call on")

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

    def test_key_of_failed_job(self):
        def call():
            return self.ir_async.with_options(key='sync', max_attempts=2).call(self.partner.async_fail)

        job = call()
        with mute_logger(RUNNER):
            self.run_jobs()
        self.assertEqual(job.state, 'failed')
        self.assertNotEqual(call(), job)

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

    def test_after(self):
        a = self.call('a', priority=20)
        b = self.call('b', priority=30)
        c = self.call('c', after=a + b, priority=1)
        d = self.call('d', after=c)
        e = self.call('e', after=a.browse())
        self.assertEqual([job.state for job in a + b + c + d + e], ['created', 'created', 'waiting', 'waiting', 'created'])
        self.assertEqual(c.after_ids, a + b)
        self.assertEqual(self.order(), 'eabcd')
        self.assertEqual((a + b + c + d + e).mapped('state'), ['done'] * 5)
        f = self.call('f', after=d)
        self.assertEqual(self.order(), 'eabcdf')
        self.assertEqual(f.state, 'done')

    def test_after_success(self):
        """A result that nobody used yet is good enough."""
        @self.add_method
        def async_bar(self):
            return 42

        @self.add_method
        def async_baz(self):
            return self.env['ir.async'].current().after_ids.payload['result']

        parent = self.ir_async.call(self.partner.async_bar)
        child = self.ir_async.with_options(after=parent).call(self.partner.async_baz)
        self.run_jobs()
        self.assertEqual(parent.state, 'succeeded')
        self.assertEqual(child.payload, {'result': 42})

    def test_after_failure(self):
        """The children wait until somebody has the parent tried again, well."""
        @self.add_method
        def async_bar(self):
            if not self.ref:
                raise error

        error = ValueError("Not yet")
        parent = self.ir_async.call(self.partner.async_bar)
        child = self.call('child', after=parent)
        with mute_logger(RUNNER):
            self.run_jobs()
        self.assertEqual((parent + child).mapped('state'), ['failed', 'waiting'])
        self.partner.ref = "Now"
        parent.retry()
        self.assertEqual(self.run_jobs(), parent + child)
        self.assertEqual((parent + child).mapped('state'), ['done', 'done'])

    def test_after_cancellation(self):
        parent = self.call('a')
        child = self.call('b', after=parent)
        grandchild = self.call('c', after=child + self.call('x'))
        parent.cancel()
        self.assertEqual(self.order(), 'x')
        self.assertEqual((parent + child + grandchild).mapped('state'), ['cancelled'] * 3)
        with self.assertRaisesRegex(UserError, str(parent.id)):
            child.retry()
        (grandchild + child + parent).retry()
        self.assertEqual((parent + child + grandchild).mapped('state'), ['created', 'waiting', 'waiting'])
        self.assertEqual(self.order(), 'xabc')

    def test_after_vacuumed(self):
        parent = self.call('a')
        self.run_jobs()
        parent._delete()
        child = self.call('b', after=parent)
        self.assertEqual(self.order(), 'ab')
        self.assertEqual(child.state, 'done')

    def test_chunks(self):
        partners = self.env['res.partner'].create([{'name': str(i)} for i in range(5)])
        for size, chunks in ((2, [2, 2, 1]), (5, [5]), (9, [5]), (1, [1] * 5)):
            with self.subTest(size=size):
                jobs = self.ir_async.with_options(chunk_size=size).call(partners.async_foo)
                self.assertEqual(len(jobs), len(chunks))
                self.run_jobs()
                self.assertEqual([len(args[0]) for args in self.calls], chunks)
                self.assertEqual([id_ for ids, in self.calls for id_ in ids], partners.ids)
                self.calls.clear()
        self.assertFalse(self.ir_async.with_options(chunk_size=2).call(partners.browse().async_foo))

    def test_chunks_and_child(self):
        partners = self.partner + self.user.partner_id
        jobs = self.ir_async.with_options(chunk_size=1).call_notify("Part", partners.async_foo, 'a')
        self.call('b', after=jobs)
        self.assertEqual(self.order(), 'aab')

    def test_channels(self):
        """A job notes whether its channel has limits now; those that are queued are left to the workers, who are woken."""
        def limited():
            return [self.call(channel=name).limited for name in ('sync', 'sync/1', 'syncs', 'default')]

        notify = self.startPatcher(patch.object(pg.notifier, 'notify'))
        self.env.cr.postcommit.clear()
        channel = self.env['ir.async.channel'].create({'name': 'sync', 'capacity': 2})
        self.env.cr.postcommit.run()
        notify.assert_called_once_with(self.env.cr.dbname)
        self.assertEqual(limited(), [True, True, False, False])
        channel.capacity = 0
        self.assertEqual(limited(), [False] * 4)
        channel.interval = 0.1
        self.assertEqual(limited(), [True, True, False, False])
        channel.interval = 0
        channel.action_pause()
        self.assertEqual(limited(), [True, True, False, False])
        channel.name = 'syncs'
        self.assertEqual(limited(), [False, False, True, False])
        channel.action_resume()
        self.assertEqual(limited(), [False] * 4)
        channel.action_pause()
        channel.unlink()
        self.assertEqual(limited(), [False] * 4)
        self.assertEqual({job.state for job in self.run_jobs()}, {'done'})

    def test_bad_channels(self):
        create = self.env['ir.async.channel'].create
        create([{'name': 'a', 'capacity': 1}, {'name': '*', 'paused': True}])
        for values in (
            {'name': 'a/b'}, {'name': ' b'}, {'name': '*x/'}, {'name': 'b', 'capacity': -1}, {'name': 'b', 'interval': -1},
            {'name': 'a'},
        ):
            with self.subTest(values=values), mute_logger('odoo.sql_db'), self.assertRaises(Exception):
                create(values)
                self.env.flush_all()
        with self.assertRaisesRegex(UserError, "only be paused"):
            self.env['ir.async.channel'].search([('name', '=', '*')]).capacity = 3

    def test_progress(self):
        @self.add_method
        def async_bar(self, fail):
            report = self.env['ir.async'].report_progress
            report(1)
            report(2, 4, "Half of it")
            if fail:
                raise error

        error = ValueError("Bad luck")
        self.ir_async.report_progress(1, 2, "outside of a job")
        for fail, state in ((False, 'done'), (True, 'failed')):
            job = self.ir_async.call(self.partner.async_bar, fail)
            self.assertFalse(job.progress)
            with mute_logger(RUNNER):
                self.run_jobs()
            self.assertEqual(job.state, state)
            self.assertEqual(job.progress, {'done': 2, 'total': 4, 'message': "Half of it"})
        job.retry()
        self.assertFalse(job.progress)

    def test_bad_progress(self):
        """It is the method that fails, with a traceback of where it reports; not the worker."""
        @self.add_method
        def async_bar(self):
            self.env['ir.async'].report_progress(*arguments)

        for arguments in (("a",), (1, "b"), (None,), (float('nan'),), (1, float('inf'))):
            with self.subTest(arguments=arguments):
                job = self.ir_async.call_notify("Job", self.partner.async_bar)
                with mute_logger(RUNNER):
                    self.run_jobs()
                self.assertEqual(job.state, 'failed')
                self.assertIn("report_progress", job.payload['error']['data']['debug'])

    def test_odd_progress(self):
        """Whatever the message is: it never makes the job's commit fail."""
        @self.add_method
        def async_bar(self):
            self.env['ir.async'].report_progress(1, 2, message)

        for message in ("a\0b", "\ud800", "x" * 10**6, 42, ["a"]):
            with self.subTest(message=str(message)[:10]):
                job = self.ir_async.call_notify("Job", self.partner.async_bar)
                self.run_jobs()
                self.assertEqual(job.state, 'done')
                self.assertEqual(job.progress['done'], 1)
