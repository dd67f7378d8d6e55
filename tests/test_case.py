from unittest.mock import ANY

from odoo.exceptions import UserError
from odoo.tests import mute_logger

from .method_case import RUNNER, MethodCase
from odoo.addons.ir_async.exceptions import RetryJob


class TestAsyncCase(MethodCase):
    """What ``AsyncCase`` promises the tests of other addons."""

    def setUp(self):
        super().setUp()
        self.calls = calls = []

        @self.add_method
        def async_foo(self, a=1, *args, b=2, **kwargs):
            calls.append(a)

    def call(self, *args, **options):
        return self.ir_async.with_options(**options).call(self.partner.async_foo, *args)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.early = cls.env['ir.async'].call(cls.partner.exists)

    def test_class_wide_jobs(self):
        """What ``setUpClass`` enqueued is there for each test."""
        self.assertEqual(self.run_jobs(), self.early)

    test_class_wide_jobs_again = test_class_wide_jobs

    def test_foreign_jobs(self):
        """What was in the database before is left alone."""
        self.env.cr.flush()
        type(self)._last_foreign_job_id, before = self.early.id, self._last_foreign_job_id
        self.addCleanup(setattr, type(self), '_last_foreign_job_id', before)
        self.assertFalse(self.queued_jobs())
        self.assertFalse(self.run_jobs())
        self.assertEqual(self.early.state, 'created')

    def test_order(self):
        self.call('f', delay=60)
        self.call('c')
        self.call('b', priority=9)
        self.call('d')
        self.call('g', delay=120, priority=1)
        self.call('e', priority=11)
        jobs = self.run_jobs()
        self.assertEqual(jobs[0].priority, 9)
        self.assertEqual(self.calls, list('bcdefg'))

    def test_jobs_that_commit(self):
        """They may, and the test is rolled back all the same."""

        @self.add_method
        def async_bar(self):
            self.name = "Committed"
            self.env.cr.commit()
            self.name = "Rolled back"
            if kind == 'rollback':
                self.env.cr.rollback()
            else:
                raise error

        error = UserError("Bad luck")
        for kind, state in (('rollback', 'done'), ('error', 'failed')):
            self.partner.name = "Azure Interior"
            job = self.ir_async.call(self.partner.async_bar)
            with mute_logger(RUNNER):
                self.run_jobs()
            self.assertEqual(job.state, state)
            self.assertEqual(self.partner.name, "Committed")

    def test_jobs_that_retry(self):
        @self.add_method
        def async_bar(self):
            raise error

        error = RetryJob("Later")
        job = self.ir_async.call(self.partner.async_bar)
        other = self.call('a')
        self.assertEqual(self.run_jobs(), self.early + job + other)
        self.assertEqual(self.run_jobs(), job)
        job.cancel()

    def test_jobs_that_are_tried_again(self):
        """To the end; those that wait for them do not."""

        @self.add_method
        def async_bar(self, failures):
            calls.append(self.env['ir.async'].current().attempts)
            if len(calls) <= failures:
                raise error

        error = UserError("Not yet")
        for failures, states in ((2, ['done', 'done']), (3, ['failed', 'waiting'])):
            calls = []
            job = self.ir_async.with_options(max_attempts=3).call(self.partner.async_bar, failures)
            child = self.call('a', after=job)
            with mute_logger(RUNNER):
                self.run_jobs()
            self.assertEqual(calls, [0, 1, 2])
            self.assertEqual((job + child).mapped('state'), states)

    def test_cache(self):
        """Neither the test nor the job sees what was cached before."""

        @self.add_method
        def async_bar(self):
            names.append(self.name)
            self.name = "After"

        names = []
        self.partner.name = "Before"
        self.ir_async.call(self.partner.async_bar)
        self.run_jobs()
        self.assertEqual(names, ["Before"])
        self.assertEqual(self.partner.name, "After")

    def test_channels_without_capacity(self):
        self.env['ir.async.channel'].create([{'name': 'a', 'paused': True}, {'name': '*', 'paused': True}])
        job = self.call('a', channel='a')
        self.assertIn(job, self.run_jobs())
        self.assertEqual(job.state, 'done')

    def test_assert_enqueued(self):
        with self.assertRaisesRegex(self.failureException, "not enqueued: res.partner.*async_foo"):
            self.assertEnqueued(self.partner.async_foo)
        job = self.call(1, priority=3)
        for args, kwargs in (((1,), {}), ((), {}), ((), {'a': 1}), ((1,), {'b': 2}), ((ANY,), {}), ((), {'args': [1]})):
            if args or kwargs:
                with self.subTest(args=args, kwargs=kwargs):
                    self.assertEqual(self.assertEnqueued(self.partner.async_foo, *args, **kwargs), job)
        other_partner = self.user.partner_id
        for target, args, kwargs in (
            (self.partner.async_foo, (2,), {}),
            (self.partner.async_foo, (1,), {'b': 3}),
            (self.partner.async_foo, (1,), {'c': 2}),
            (other_partner.async_foo, (1,), {}),
            ((self.partner + other_partner).async_foo, (1,), {}),
            (self.partner.unlink, (), {}),
        ):
            with (
                self.subTest(target=target, args=args, kwargs=kwargs),
                self.assertRaisesRegex(self.failureException, r"async_foo\(1\)"),
            ):
                self.assertEnqueued(target, *args, **kwargs)
        with self.assertRaises(TypeError):
            self.assertEnqueued(self.partner.unlink, 1)
        self.run_jobs()
        with self.assertRaisesRegex(self.failureException, "nothing"):
            self.assertEnqueued(self.partner.async_foo, 1)

    def test_assert_enqueues(self):
        self.call(1)
        with self.assertEnqueues(self.partner.async_foo, 2):
            self.call(2)
            self.call(3)
        with self.assertRaisesRegex(self.failureException, "not enqueued"):
            with self.assertEnqueues(self.partner.async_foo, 1):
                self.call(2)
        with self.assertRaisesRegex(self.failureException, "more than once"):
            with self.assertEnqueues(self.partner.async_foo, 1):
                self.call(1)
                self.call(1)
        with self.assertRaises(ZeroDivisionError):
            with self.assertEnqueues(self.partner.async_foo, 1):
                raise ZeroDivisionError

    def test_assert_enqueues_nothing(self):
        self.call(1)
        with self.assertEnqueuesNothing():
            self.partner.name = "Other"
        with self.assertRaisesRegex(self.failureException, r"enqueued: res.partner\(\d+,\).async_foo\('x'\)"):
            with self.assertEnqueuesNothing():
                self.call('x')
