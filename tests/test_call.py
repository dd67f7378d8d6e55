import functools
import json
from collections import OrderedDict
from contextlib import closing
from unittest.mock import ANY

from odoo import api
from odoo.exceptions import UserError
from odoo.tests import mute_logger
from odoo.tools import frozendict

from .method_case import MethodCase
from odoo.addons.ir_async.models.ir_async_call import OPTIONS, PROCESS_CONTEXT


class TestCall(MethodCase):
    """What can be enqueued, how it is written, and as whom it runs."""

    def setUp(self):
        super().setUp()
        self.calls = calls = []

        @self.add_method
        def async_foo(self, *args, **kwargs):
            calls.append((self, args, kwargs))

    def assertCalled(self, *args, **kwargs):
        self.run_jobs()
        self.assertEqual(self.calls, [(self.partner, args, kwargs)])
        self.calls.clear()

    def assertRefused(self, error, pattern, *args, **kwargs):
        with self.assertRaisesRegex(error, pattern):
            self.ir_async.call(*args, **kwargs)
        self.assertFalse(self.queued_jobs())

    def test_announced(self):
        job = self.ir_async.call(self.partner.async_foo, 1, b=2)
        self.assertRecordValues(job, [{'name': False, 'notify': False, 'state': 'created'}])
        self.assertCalled(1, b=2)

        self.ir_async.call(self.partner.async_foo, args=[1], kwargs={'b': 2})
        self.assertCalled(1, b=2)

        job = self.ir_async.call_notify("Employee XLSX export", self.partner.async_foo, 1, b=2)
        self.assertRecordValues(job, [{'name': "Employee XLSX export", 'notify': True, 'state': 'created'}])
        self.assertCalled(1, b=2)

        self.ir_async.call_notify("Employee XLSX export", self.partner.async_foo, args=[1], kwargs={'b': 2})
        self.assertCalled(1, b=2)

        for nameless in (None, False, ""):
            job = self.ir_async.call_notify(nameless, self.partner.async_foo)
            self.assertRecordValues(job, [{'name': False, 'notify': True}])
        with self.assertRaisesRegex(TypeError, "description first"):
            self.ir_async.call_notify(self.partner.async_foo, 1)

    def test_bad_descriptions(self):
        """What the database cannot store must not break the caller's commit."""
        for description in ("a\0b", "\ud800"):
            with self.subTest(description=description), self.assertRaises(TypeError):
                self.ir_async.call_notify(description, self.partner.async_foo)
                self.env.cr.flush()

    def test_targets(self):
        @self.add_method
        def _private(self):
            return self.ids

        @self.add_method
        @api.model
        def on_model(self):
            return self.ids

        both = self.partner + self.user.partner_id
        for target in (
            self.partner._private,
            self.partner.on_model,
            both.on_model,
            (both + both)._private,
            both[:0]._private,
            self.env['res.partner'].on_model,
        ):
            with self.subTest(target=target):
                job = self.ir_async.call(target)
                self.run_jobs()
                self.assertEqual(job.payload, {'result': target.__self__.ids})

    def test_no_targets(self):
        partner = self.partner

        @functools.wraps(partner.async_foo)
        def wrapper(*args):
            return partner.async_foo(*args)

        class Plain:
            def method(self):
                pass

        @self.add_method
        def copy_data(self, default=None):
            return super(self.registry['res.partner'], self).copy_data(default)

        self.add_method(functools.partialmethod(copy_data), 'partial')
        for target in (
            None,
            'async_foo',
            42,
            partner,
            print,
            'text'.upper,
            self.env.ref,
            type(partner).async_foo,
            type(partner).browse,
            Plain().method,
            Plain.method,
            lambda: None,
            (lambda self: None).__get__(partner),
            wrapper,
            wrapper.__get__(partner),
            functools.partial(partner.async_foo, 1),
            partner.partial,
            super(type(partner), partner).copy_data,
            copy_data.__get__(Plain()),
        ):
            with self.subTest(target=target):
                self.assertRefused(TypeError, "method.*bound to a recordset|looks the method up by its name", target)

    def test_target_under_another_name(self):
        """A method in the place of another one keeps the name it was defined with, as those of automation rules do."""

        def _message_post(self, body):
            return f"{self.name}: {body}"

        def set_name(self):
            return "taken over"

        @functools.wraps(self.partner.async_foo.__func__)
        def wrapper(self):
            return "wrapped"

        self.add_method(_message_post, 'message_post')
        self.add_method(lambda self: None, 'set_name')
        self.add_method(set_name, 'set_name_in_place')
        self.add_method(wrapper, 'wrapped')
        for target, args, result in (
            (self.partner.message_post, ("Hello",), "Azure Interior: Hello"),
            (self.partner.set_name_in_place, (), "taken over"),
            (self.partner.wrapped, (), "wrapped"),
        ):
            with self.subTest(target=target):
                job = self.ir_async.call(target, *args)
                self.run_jobs()
                self.assertEqual(job.payload, {'result': result})

    def test_target_that_was_replaced(self):
        """A function that the class had, and has no more under any name."""
        old = self.partner.async_foo

        @self.add_method
        def async_foo(self):
            pass

        self.assertRefused(TypeError, "looks the method up by its name", old)

    def test_targets_that_cannot_be_shown(self):
        class Rude:
            def __repr__(self):
                raise ZeroDivisionError

            def method(self):
                pass

        for call in (
            lambda: self.ir_async.call(Rude()),
            lambda: self.ir_async.call(Rude().method),
            lambda: self.ir_async.call(self.partner.async_foo, [Rude()]),
            lambda: self.ir_async.call_notify(Rude().method, self.partner.async_foo),
            lambda: self.ir_async.with_options(priority=Rude()),
        ):
            with self.assertRaisesRegex(TypeError, 'Rude|method instance'):
                call()

    def test_unsaved_records(self):
        new = self.env['res.partner'].new({'name': "Nobody"})
        for records in (new, self.partner + new, self.env['res.partner'].new(origin=self.partner)):
            self.assertRefused(UserError, "Save", records.async_foo)

    def test_signature(self):
        @self.add_method
        def async_bar(self, a, /, b, *, c, d=4):
            self.name = f'{a} {b} {c} {d}'

        for args, kwargs, message in (
            ((), {}, "missing a required.*argument: 'a'"),
            ((1,), {'c': 3}, "missing a required argument: 'b'"),
            ((1, 2), {}, "missing a required .*argument: 'c'"),
            ((1, 2, 3), {'c': 3}, "too many positional arguments"),
            ((1, 2), {'c': 3, 'e': 5}, "got an unexpected keyword argument 'e'"),
            ((1, 2), {'b': 2, 'c': 3}, "multiple values for argument 'b'"),
            ((), {'args': [1], 'kwargs': {'b': 2}}, "missing a required .*argument: 'c'"),
        ):
            with self.subTest(args=args, kwargs=kwargs):
                self.assertRefused(
                    TypeError, rf"res\.partner\.async_bar\(\): {message}", self.partner.async_bar, *args, **kwargs
                )
        self.ir_async.call(self.partner.async_bar, 1, c=3, b=2)
        self.run_jobs()
        self.assertEqual(self.partner.name, '1 2 3 4')

    def test_signature_of_a_wrapper(self):
        """A wrapper may take fewer arguments than the function that it wraps."""

        def with_default(function):
            @functools.wraps(function)
            def wrapper(self, *, factor=2):
                return function(self, 1, factor=factor)

            return wrapper

        @self.add_method
        @with_default
        def async_bar(self, number=0, *, factor=1, unit=None):
            return number * factor

        self.assertRefused(TypeError, r"async_bar\(\): too many positional arguments", self.partner.async_bar, 5)
        self.assertRefused(TypeError, r"async_bar\(\): got an unexpected .*'unit'", self.partner.async_bar, unit="m")
        job = self.ir_async.call(self.partner.async_bar, factor=3)
        self.run_jobs()
        self.assertEqual(job.payload, {'result': 3})

    def test_thread_style(self):
        @self.add_method
        def anything(self, *args, **kwargs):
            return [args, kwargs]

        @self.add_method
        def has_args(self, args=None, **kw):
            return [args, kw]

        @self.add_method
        def has_kwargs(self, *rest, kwargs=None, **kw):
            return [rest, kwargs, kw]

        for method, args, kwargs, result in (
            # unpacked
            ('anything', (), {'args': [1, 2], 'kwargs': {'b': 3}}, [[1, 2], {'b': 3}]),
            ('anything', (), {'args': (1, 2)}, [[1, 2], {}]),
            ('anything', (), {'kwargs': {'b': 3}}, [[], {'b': 3}]),
            ('anything', (), {'args': None, 'kwargs': None}, [[], {}]),
            ('anything', (), {'args': [], 'kwargs': {}}, [[], {}]),
            ('anything', (), {'kwargs': OrderedDict(b=3)}, [[], {'b': 3}]),
            ('anything', (), {'args': [1], 'kwargs': frozendict(b=3)}, [[1], {'b': 3}]),
            ('anything', (), {'args': [[1]], 'kwargs': {'args': [2]}}, [[[1]], {'args': [2]}]),
            # partial-like in every other case: there are positional arguments, other keywords, other types, such parameters
            ('anything', (0,), {'args': [1]}, [[0], {'args': [1]}]),
            ('anything', (), {'args': [1], 'b': 3}, [[], {'args': [1], 'b': 3}]),
            ('anything', (), {'args': 'ab'}, [[], {'args': 'ab'}]),
            ('anything', (), {'args': [1], 'kwargs': [2]}, [[], {'args': [1], 'kwargs': [2]}]),
            ('anything', (), {'args': {'a': 1}}, [[], {'args': {'a': 1}}]),
            ('has_args', (), {'args': [1]}, [[1], {}]),
            ('has_args', (), {'kwargs': {'b': 3}}, [None, {'kwargs': {'b': 3}}]),
            ('has_kwargs', (), {'kwargs': {'b': 3}}, [[], {'b': 3}, {}]),
            ('has_kwargs', (), {'args': [1]}, [[], None, {'args': [1]}]),
        ):
            with self.subTest(method=method, args=args, kwargs=kwargs):
                job = self.ir_async.call(getattr(self.partner, method), *args, **kwargs)
                self.run_jobs()
                self.assertEqual(job.payload, {'result': result})

    def test_keywords_of_call_itself(self):
        """All keyword arguments are the method's."""
        self.ir_async.call_notify("Named", self.partner.async_foo, target=1, description=2, name=3)
        self.assertCalled(target=1, description=2, name=3)

    def test_environment(self):
        target = self.partner_of(self.user).with_context(lang='en_US', partner=self.partner, tags={1}, _x=(1, 2))
        for target in (target, target.sudo(), target.browse()):
            with self.subTest(target=target, su=target.env.su):
                job = self.ir_async.call(target.async_foo)
                self.assertEqual(job.user_id, self.user)
                self.run_jobs()
                [(records, _args, _kwargs)] = self.calls
                self.assertEqual(records, target)
                self.assertEqual(records.env.uid, target.env.uid)
                self.assertEqual(records.env.su, target.env.su)
                self.assertEqual(dict(records.env.context), {**target.env.context, 'async_job_id': job.id})
                self.calls.clear()

    def test_whose_job(self):
        """The target decides, not who calls."""
        for ir_async, target, user, su in (
            (self.ir_async, self.partner_of(self.user), self.user, False),
            (self.ir_async.with_user(self.user), self.partner, self.env.user, True),
            (self.ir_async.with_user(self.user), self.partner_of(self.other_user), self.other_user, False),
            (self.ir_async.with_user(self.user).sudo(), self.partner_of(self.user), self.user, False),
            (self.ir_async.with_user(self.user), self.partner_of(self.user).sudo(), self.user, True),
        ):
            with self.subTest(ir_async=ir_async.env, target=target.env):
                job = ir_async.call(target.async_foo)
                self.assertEqual(job.env, ir_async.env(su=False))
                self.assertRecordValues(job.sudo(), [{'user_id': user.id, 'su': su}])

    def test_context_of_this_process(self):
        """What cannot be stored is left out: it means nothing in another process."""
        target = self.partner.with_context(closure=lambda: None, nested={'deep': [object()]}, kept=1, nan=float('nan'))
        with self.assertLogs('odoo.addons.ir_async.models.ir_async_call', 'DEBUG') as log:
            self.ir_async.call(target.async_foo)
        self.assertEqual(log.output, [ANY] * 3)
        for path in ("context['closure']", "context['nested']['deep'][0]", "context['nan']"):
            self.assertIn(path, ''.join(log.output))
        self.run_jobs()
        self.assertEqual(dict(self.calls[0][0].env.context), {'kept': 1, 'async_job_id': ANY})

    def test_context_of_the_process(self):
        """What means something only to the process, request or transaction that enqueues is left out."""
        kept = {
            'lang': 'en_US',
            'tz': 'Europe/Brussels',
            'allowed_company_ids': [1],
            'active_id': 1,
            'active_ids': [1],
            'default_name': "x",
            'default_type': 'contact',
            'tracking_disable': True,
            'cron_id': 3,
            'lastcall': None,
            'own_key': {'a': 1},
        }
        dropped = dict.fromkeys(PROCESS_CONTEXT - {OPTIONS}, 1) | {'bin_size_image_1920': True, '__copy_data_seen': {}}
        self.ir_async.call(self.partner.with_context({**kept, **dropped}).async_foo)
        self.run_jobs()
        self.assertEqual(dict(self.calls[0][0].env.context), {**kept, 'async_job_id': ANY})

    def test_context_of_a_scheduled_action(self):
        """A job that was enqueued by one works to its end."""

        @self.add_method
        def async_bar(self):
            return self.env['ir.cron']._commit_progress(remaining=10)

        cron = self.env.ref('base.autovacuum_job')
        target = self.partner.with_context(cron_id=cron.id, cron_end_time=1.0, ir_cron_progress_id=2**31 - 1)
        job = self.ir_async.call(target.async_bar)
        self.run_jobs()
        self.assertEqual(json.loads(self.row(job, 'context')), {'cron_id': cron.id})
        self.assertIn(job.state, ('succeeded', 'done'))

    def test_current(self):
        @self.add_method
        def async_bar(self, depth):
            job = self.env['ir.async'].current()
            found.append((job.id, self.env.context['async_job_id'], job.state, job.env.su))
            if depth:
                self.env['ir.async'].call(self.async_bar, depth - 1)

        found = []
        first = self.ir_async.call(self.partner_of(self.user).sudo().async_bar, 1)
        self.assertFalse(self.ir_async.current())
        jobs = self.run_jobs()
        self.assertFalse(self.ir_async.current())
        self.assertEqual(jobs[0], first)
        self.assertEqual(jobs[1].parent_id, first)
        self.assertEqual(found, [(job.id, job.id, 'processing', False) for job in jobs])

    def test_forged_job_in_context(self):
        forged = self.ir_async.call(self.partner.async_foo)
        self.assertFalse(self.ir_async.with_context(async_job_id=forged.id).current())
        job = self.ir_async.with_context(async_job_id=forged.id).call(
            self.partner.with_context(async_job_id=forged.id, ir_async_options={'priority': 1}).async_foo
        )
        self.assertFalse(job.parent_id)
        self.assertRecordValues(self.run_jobs(), [{'id': forged.id, 'priority': 10}, {'id': job.id, 'priority': 10}])
        self.assertEqual(self.calls[1][0].env.context['async_job_id'], job.id)

    @mute_logger('odoo.sql_db')
    def test_other_cursor(self):
        """The job is in the transaction of the target."""
        with closing(self.registry.cursor()) as cr:
            partner = self.env(cr=cr)['res.partner'].search([], limit=1)
            job = self.ir_async.with_options(priority=3).call(partner.async_foo)
            self.assertIs(job.env.cr, cr)
            self.assertEqual(job.priority, 3)
            self.assertFalse(self.queued_jobs())
            self.assertFalse(self.ir_async.browse(job.id).exists())
