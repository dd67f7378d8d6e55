import json
from datetime import date, datetime
from unittest.mock import ANY

from odoo import api
from odoo.exceptions import UserError, ValidationError
from odoo.tests import Like, mute_logger
from odoo.tools import lazy

from .method_case import RUNNER, MethodCase
from odoo.addons.ir_async.exceptions import RetryJob
from odoo.addons.ir_async.tools.encoding import encode_result
from odoo.addons.ir_async.tools.error_text import minimal_payload


class TestResult(MethodCase):
    """What a method returns."""

    def test_none(self):
        @self.add_method
        def async_foo(self):
            self.name = "Deco Addict"
            calls.append(self)

        calls = []
        job = self.ir_async.call(self.partner.async_foo)
        self.assertEqual(self.run_jobs(), job)
        self.assertRecordValues(job, [{'state': 'done', 'payload': False, 'attempts': 1, 'worker_id': False}])
        self.assertIsNone(self.row(job, 'payload'))
        self.assertTrue(job.create_date <= job.date_start <= job.date_done)
        self.assertEqual(self.partner.name, "Deco Addict")
        self.assertEqual(calls, [self.partner])
        self.assertFalse(self.run_jobs())

    def test_signature(self):
        @self.add_method
        @api.model
        def async_foo(self, a, b, /, c, *args, d, e=5, **kwargs):
            return [a, b, c, args, d, e, kwargs]

        job = self.ir_async.call(self.env['res.partner'].async_foo, 1, 2, 3, 4, d=5, f=6)
        self.run_jobs()
        self.assertRecordValues(job, [{'state': 'succeeded', 'payload': {'result': [1, 2, 3, [4], 5, 5, {'f': 6}]}}])

    def test_recursion(self):
        @self.add_method
        def async_foo(self, depth):
            calls.append(depth)
            return self.env['ir.async'].call(self.async_foo, depth - 1).id if depth else "bottom"

        calls = []
        first = self.ir_async.call(self.partner.async_foo, 4)
        jobs = self.run_jobs()
        self.assertEqual(jobs[0], first)
        self.assertEqual(
            [job.payload for job in jobs], [*({'result': job.id} for job in jobs[1:]), {'result': "bottom"}]
        )
        self.assertEqual([job.parent_id for job in jobs], [first.browse(), *jobs[:-1]])
        self.assertEqual(calls, [4, 3, 2, 1, 0])

    def test_conversions(self):
        """Results are converted as the answers to RPCs are."""

        @self.add_method
        def async_foo(self):
            return value

        for value, expected in (
            (False, 'false'),
            (0, '0'),
            ('', '""'),
            ([], '[]'),
            ({}, '{}'),
            ((1, (2,)), '[1, [2]]'),
            ({'a': None}, '{"a": null}'),
            ({1: 2}, '{"1": 2}'),
            (date(2026, 11, 24), '"2026-11-24"'),
            (datetime(2026, 11, 24, 1, 2, 3), '"2026-11-24 01:02:03"'),
            (self.partner, f'[{self.partner.id}]'),
            (self.partner.browse(), '[]'),
            ({'users': self.user}, '{"users": [%d]}' % self.user.id),
            (lazy(lambda: 42), '42'),
            (b'abc', '"abc"'),
            (self.env._("Hello"), '"Hello"'),
            # as it is: jsonb would refuse, or rewrite, these
            ("a\0b", r'"a\u0000b"'),
            (10**30, f'1{"0" * 30}'),
            (1e5, '100000.0'),
            (-0.0, '-0.0'),
            ({'b': 1, 'a': 2}, '{"b": 1, "a": 2}'),
        ):
            with self.subTest(value=value):
                job = self.ir_async.call(self.partner.async_foo)
                self.run_jobs()
                self.assertEqual(self.row(job, 'state', 'payload::text'), ('succeeded', '{"result": %s}' % expected))


class TestError(MethodCase):
    """What a method raises."""

    def test_exception(self):
        @self.add_method
        def async_foo(self):
            self.name = "Rolled back"
            self.env.cr.execute("UPDATE res_partner SET ref = 'x' WHERE id = %s", self.ids)
            self.env['ir.async'].call(self.async_foo)
            raise ValueError(*arguments)

        arguments = ["No such thing", 42]
        job = self.ir_async.call(self.partner_of(self.user).sudo().with_context(key=1).async_foo)
        with self.assertLogs(RUNNER) as log:
            self.assertEqual(self.run_jobs(), job)
        self.assertEqual([record.levelname for record in log.records], ['ERROR'])
        self.assertIn(f"Job {job.id} (res.partner.async_foo) failed", log.output[0])
        self.assertIn("Traceback (most recent call last)", log.output[0])
        self.assertRecordValues(self.partner, [{'name': "Azure Interior", 'ref': False}])
        self.assertRecordValues(job, [{'state': 'failed', 'attempts': 1, 'date_scheduled': False, 'worker_id': False}])
        self.assertTrue(job.date_done)
        self.assertEqual(
            job.payload,
            {
                'error': {
                    'code': 0,
                    'message': "Odoo Server Error",
                    'data': {
                        'name': 'builtins.ValueError',
                        'message': "No such thing\n42",
                        'arguments': ["No such thing", 42],
                        'context': {},
                        'debug': ANY,
                    },
                }
            },
        )
        debug = job.payload['error']['data']['debug']
        own = "Traceback (most recent call last): ... in async_foo... ValueError: ('No such thing', 42)"
        chain = f"Job {job.id} (res.partner.async_foo) was enqueued by anna (most recent call last):... in test_exception ..."
        self.assertEqual(debug, Like(f"{chain} {own}"))
        # who enqueued it is for managers; their owner sees the frames of the job, and so does the database
        self.assertEqual(job.with_user(self.manager).payload['error']['data']['debug'], debug)
        for stored in (job.with_user(self.user).payload, self.row(job, 'payload')):
            debug = stored['error']['data']['debug']
            self.assertEqual(debug, Like(own))
            self.assertNotIn("was enqueued by", debug)
            self.assertNotIn("in test_exception", debug)

    def test_text_without_encoding(self):
        """A client can read it all the same."""
        text = b'Gr\xf6\xdf'.decode(errors='surrogateescape')

        @self.add_method
        def async_foo(self):
            raise error

        for error in (UserError(text), ValueError(self, text)):
            with self.subTest(error=type(error)), mute_logger(RUNNER):
                job = self.ir_async.call_notify("x", self.partner_of(self.user).async_foo)
                self.run_jobs()
                self.assertIn(r"Gr\udcf6\udcdf", job.error_message)
                [listed] = self.ir_async.with_user(self.user).get_user_jobs(job.ids)[-1:]
                json.dumps([job.read(), listed], default=str, ensure_ascii=False).encode()

    def test_result_without_encoding(self):
        """Nothing of it is lost: both halves of a pair are one character, and keys stay different."""
        first, second = (byte.decode(errors='surrogateescape') for byte in (b'\x80', b'\x81'))
        result = {'\ud83d\ude00': '\ud83d\ude00', first: 1, second: [2, f'a{second}b'], '?': 3}
        expected = {'😀': '😀', r'\udc80': 1, r'\udc81': [2, r'a\udc81b'], '?': 3}
        self.assertEqual(json.loads(encode_result(result)), {'result': expected})

    def test_minimal_payload(self):
        for text in ('\\u0000', '\0', '\udce9'):
            with self.subTest(text=text):
                error = json.loads(minimal_payload(ValueError(text)))['error']
                self.assertEqual(error['data']['message'], r'\udce9' if text == '\udce9' else text)

    def test_model_that_is_gone(self):
        job = self.ir_async.call(self.partner.exists)
        other = self.ir_async.call(self.partner.concat, self.partner)
        job.flush_model()
        self.env.cr.execute("UPDATE ir_async SET res_model = 'gone' WHERE id = %s", job.ids)
        self.env.cr.execute("UPDATE ir_async SET args = replace(args, 'res.partner', 'gone') WHERE id = %s", other.ids)
        with mute_logger(RUNNER):
            self.run_jobs()
        for failed in (job, other):
            self.assertIn("has no model gone any more", failed.error_message)

    def test_log_of_an_attempt(self):
        """The log distinguishes a final failure from an attempt that is followed by another one."""

        @self.add_method
        def async_foo(self):
            raise error

        for error, level in ((UserError("Not like this"), 'WARNING'), (ValueError("Not like this"), 'ERROR')):
            with self.subTest(error=error):
                self.ir_async.with_options(max_attempts=2, retry_delay=0).call(self.partner.async_foo)
                with self.assertLogs(RUNNER) as log:
                    self.run_jobs()
                first, second = log.output
                self.assertRegex(first, r"attempt 1 of 2, runs again in 0s(?s:.*)Not like this")
                self.assertNotIn("attempt", second)
                self.assertEqual([record.levelname for record in log.records], ['WARNING', level])

    def test_user_error(self):
        @self.add_method
        def async_foo(self):
            raise error

        for error, name in (
            (UserError("Not like this"), 'odoo.exceptions.UserError'),
            (ValidationError("Not like this"), 'odoo.exceptions.ValidationError'),
        ):
            with self.subTest(error=error):
                job = self.ir_async.call(self.partner.async_foo)
                with self.assertLogs(RUNNER) as log:
                    self.run_jobs()
                self.assertEqual([record.levelname for record in log.records], ['WARNING'])
                self.assertIn("Not like this", log.output[0])
                self.assertNotIn("Traceback", log.output[0])
                data = job.payload['error']['data']
                self.assertEqual(
                    (data['name'], data['message'], data['arguments']), (name, "Not like this", ["Not like this"])
                )

    def test_chain(self):
        """The error tells who enqueued the job, from which job, and so on."""

        @self.add_method
        def async_foo(self, depth):
            if not depth:
                raise ValueError
            self.env['ir.async'].call(self.async_foo, depth - 1)

        self.ir_async.call(self.partner.async_foo, 3)
        with mute_logger(RUNNER):
            jobs = self.run_jobs()
        self.assertEqual(jobs.mapped('state'), ['done', 'done', 'done', 'failed'])
        debug = jobs[-1].payload['error']['data']['debug']
        # OdooBot's is not told from which test it came, in the others' tracebacks the frame that called is seen
        who = [self.env.user.login, *(f"job {job.id}" for job in jobs[:-1])]
        self.assertEqual(
            debug,
            Like(
                '...'.join(
                    [
                        "",
                        *(
                            f"Job {job.id} (res.partner.async_foo) was enqueued by {by}"
                            for job, by in zip(jobs, who, strict=True)
                        ),
                        "Traceback (most recent call last)",
                        "ValueError",
                    ]
                )
            ),
        )
        self.assertEqual(debug.count("was enqueued by"), 4)
        self.assertEqual(debug.count(", in async_foo"), 4)

    def test_unprintable_error(self):
        class Unprintable(Exception):
            def __init__(self):
                super().__init__(object(), float('nan'), {(1, 2): 3})

        @self.add_method
        def async_foo(self):
            raise Unprintable

        job = self.ir_async.call(self.partner.async_foo)
        with mute_logger(RUNNER):
            self.run_jobs()
        self.assertEqual(job.state, 'failed')
        self.assertEqual(len(job.payload['error']['data']['arguments']), 3)

    @mute_logger(RUNNER)
    def test_errors_that_cannot_be_read(self):
        """They are errors like all others: the attempts go on, and the hook is called in the end."""

        class Broken(Exception):
            def __str__(self):
                raise ZeroDivisionError

            __repr__ = __str__

        class Later(RetryJob):
            def __init__(self):
                pass

        @self.add_method
        def async_bar(self, kind):
            raise {'argument': ValueError(Broken()), 'key': ValueError({Broken(): 1}), 'later': Later()}[kind]

        failed = []
        self.patch(self.registry['ir.async'], '_on_failed', lambda job: failed.append(job.id))
        for kind in ('argument', 'key'):
            with self.subTest(kind=kind):
                job = self.ir_async.with_options(max_attempts=3).call(self.partner.async_bar, kind)
                self.run_jobs()
                self.assertRecordValues(job, [{'state': 'failed', 'attempts': 3, 'starts': 3}])
                self.assertEqual(failed.count(job.id), 1)
                self.assertIn('ValueError', job.payload['error']['data']['debug'])
        job = self.ir_async.with_options(retry_delay=600).call(self.partner.async_bar, 'later')
        self.run_jobs()
        self.assertRecordValues(job, [{'state': 'created', 'attempts': 0, 'starts': 1}])

    def test_sql_error(self):
        """As over RPC, an error of the database is told in words."""

        @self.add_method
        def async_foo(self):
            if kind == 'integrity':
                self.env.cr.execute("UPDATE res_partner SET id = NULL WHERE id = %s", self.ids)
            else:
                self.env.cr.execute("SELECT 1 / 0")

        for kind, name in (
            ('integrity', 'odoo.exceptions.ValidationError'),
            ('other', 'psycopg2.errors.DivisionByZero'),
        ):
            with self.subTest(kind=kind):
                job = self.ir_async.call(self.partner.async_foo)
                with mute_logger(RUNNER, 'odoo.sql_db'):
                    self.run_jobs()
                self.assertEqual(job.state, 'failed')
                self.assertEqual(job.payload['error']['data']['name'], name)

    def test_flush(self):
        """What the ORM writes late fails in time."""

        @self.add_method
        def async_foo(self):
            self.env['res.partner'].create({'name': "Child", 'parent_id': 0x7FFFFFFF})

        job = self.ir_async.call(self.partner.async_foo)
        with mute_logger(RUNNER, 'odoo.sql_db'):
            self.run_jobs()
        self.assertEqual(job.state, 'failed')

    def test_exit(self):
        """A method that wants the worker to exit has failed."""

        @self.add_method
        def async_foo(self):
            raise SystemExit(3)

        job = self.ir_async.call(self.partner.async_foo)
        with mute_logger(RUNNER):
            self.run_jobs()
        self.assertEqual(job.state, 'failed')

    def test_what_is_no_more(self):
        """Of what a job was made: its method, its records, the model of an argument."""

        @self.add_method
        def async_foo(self, *args):
            return self.exists().ids

        gone = self.partner.copy()
        job = self.ir_async.call(gone.async_foo, gone)
        gone.unlink()
        self.run_jobs()
        self.assertEqual(job.payload, {'result': []})

        jobs = self.ir_async.call(self.partner.async_foo) + self.ir_async.call(self.partner.async_foo, self.partner)
        jobs.flush_model()
        self.env.cr.execute("UPDATE ir_async SET method = 'no_such_method' WHERE id = %s", [jobs[0].id])
        self.env.cr.execute(
            "UPDATE ir_async SET args = replace(args, 'res.partner', 'no.such.model') WHERE id = %s", [jobs[1].id]
        )
        with mute_logger(RUNNER):
            self.run_jobs()
        self.assertEqual(jobs.mapped('state'), ['failed'] * 2)
        self.assertIn("no_such_method", jobs[0].payload['error']['data']['message'])
        self.assertIn("no.such.model", jobs[1].payload['error']['data']['message'])


class TestUser(MethodCase):
    """What becomes of the jobs of users that are no more."""

    def setUp(self):
        super().setUp()

        @self.add_method
        def async_foo(self):
            return self.env.uid

    def test_archived(self):
        job = self.ir_async.call(self.partner_of(self.user).async_foo)
        as_super = self.ir_async.call(self.partner_of(self.user).sudo().async_foo)
        self.user.active = False
        with self.assertLogs(RUNNER, 'WARNING') as log:
            self.run_jobs()
        self.assertEqual([record.levelname for record in log.records], ['WARNING'] * 2)
        self.assertEqual((job + as_super).mapped('state'), ['failed'] * 2)
        self.assertIn("anna has been archived", job.payload['error']['data']['message'])

    def test_root_and_public(self):
        """These two are inactive, and may have jobs."""
        public = self.env.ref('base.public_user')
        self.assertFalse((self.env.user + public).filtered('active'))
        jobs = self.ir_async.call(self.partner.async_foo) + self.ir_async.call(self.partner_of(public).sudo().async_foo)
        self.run_jobs()
        self.assertEqual([job.payload for job in jobs], [{'result': self.env.uid}, {'result': public.id}])

    def test_deleted(self):
        jobs = self.ir_async.call(self.partner_of(self.user).async_foo) + self.ir_async.call(
            self.partner_of(self.other_user).async_foo
        )
        attachments = self.env['ir.attachment'].create(
            [{'name': "export", 'res_model': 'ir.async', 'res_id': job.id} for job in jobs]
        )
        self.user.unlink()
        self.assertEqual(jobs.exists(), jobs[1])
        self.assertEqual(attachments.exists(), attachments[1])
