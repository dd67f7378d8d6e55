import math
import unittest
from collections import OrderedDict, defaultdict
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

from freezegun import freeze_time
from markupsafe import Markup

from odoo import fields, models
from odoo.tools import frozendict

from .method_case import MethodCase
from odoo.addons.ir_async.tools.encoding import decode

try:
    import hypothesis
    import hypothesis.strategies as st
except ImportError:  # no requirement of Odoo
    hypothesis = None


def exact(value):
    """Return what tells a value from all others, for comparison: 1 is not 1.0, nor True, and 0.0 not -0.0."""
    match value:
        case list() | tuple():
            return type(value), [exact(item) for item in value]
        case set():
            return type(value), sorted(map(repr, map(exact, value)))
        case dict():
            return type(value), [(key, exact(item)) for key, item in value.items()]
        case float():
            return type(value), value.hex()
        case datetime():
            return type(value), value.isoformat(), value.fold, value.utcoffset(), value.tzname()
        case Decimal():
            return type(value), value.as_tuple()
        case bool() | None:
            return value
        case int():
            return type(value), hex(value)
        case models.BaseModel():
            return value._name, value._ids
    return type(value), value


def any_value(env):
    text = st.text(st.characters(codec=None, exclude_categories=()))  # with NUL and lone surrogates
    offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
    scalar = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.integers().map(lambda n: n * 2**20_000 + n)
        | st.floats(allow_nan=False, allow_infinity=False)
        | text
        | st.datetimes()
        | st.datetimes(timezones=offsets.map(timezone) | st.builds(timezone, offsets, text))
        | st.datetimes().map(lambda date: date.replace(fold=1))
        | st.dates()
        | st.decimals(allow_nan=False, allow_infinity=False)
        | st.binary()
        | text.map(Markup)
    )
    keys = text | st.sampled_from(
        ['$dict', '$tuple', '$set', '$int', '$date', '$datetime', '$decimal', '$bytes', '$records', '$markup', '$']
    )
    hashable = scalar | st.lists(scalar, max_size=3).map(tuple)
    records = st.tuples(
        st.sampled_from(['res.partner', 'res.users', 'ir.async']),
        st.lists(st.integers(1, 2**40), max_size=3),
    ).map(lambda found: env[found[0]].browse(found[1]))
    return st.recursive(
        scalar | records | st.sets(hashable, max_size=4),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(keys, inner, max_size=4)
        ),
        max_leaves=12,
    )


class TestEncoding(MethodCase):
    """Arguments come back as what they were."""

    def setUp(self):
        super().setUp()

        @self.add_method
        def async_foo(self, *args, **kwargs):
            received.append((self.env, args, kwargs))

        self.received = received = []

    @staticmethod
    def shorten(value):
        try:
            return repr(value)[:50]
        except ValueError:  # a number with too many digits
            return "…"

    def assertExact(self, value):
        job = self.ir_async.call(self.partner.async_foo, value, keyword=value)
        args, kwargs = self.row(job, 'args', 'kwargs')
        self.assertEqual(exact(decode(args, self.env)), exact([value]))
        self.assertEqual(exact(decode(kwargs, self.env)), exact({'keyword': value}))

    @unittest.skipUnless(hypothesis, "hypothesis is not installed")
    def test_anything(self):
        @hypothesis.settings(max_examples=300, deadline=None, database=None)
        @hypothesis.given(any_value(self.env))
        def check(value):
            self.assertExact(value)

        check()

    def test_by_example(self):
        for value in (
            None, True, False, 0, 1, -1, 2**63, -2**64, 10**5000, -10**5000, int('9' * 4300),
            0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1 + 0.2, 1e22, 1e16,
            "", "a\0b", "\ud800", "\U0001f600", "\\u0000", 'é"\'\n\u2028', Markup("<b>bold</b>"),
            datetime(2026, 11, 24, 12, 30, 1, 2), datetime.max,
            datetime(2026, 11, 24, tzinfo=timezone.utc), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-5, seconds=1))),
            datetime(2026, 10, 25, 2, 30, fold=1), datetime(2026, 10, 25, 2, 30, tzinfo=timezone.utc, fold=1),
            datetime(2026, 11, 24, tzinfo=timezone(timedelta(hours=1), "CET")), datetime(2026, 11, 24, tzinfo=timezone(timedelta(0), "")),
            date.min, date(2026, 11, 24), Decimal('1.10'), Decimal('-0'), Decimal('1E+30'), b'', b'\0\xff',
            (), (1, (2,)), set(), {1, 'a', (1, 2)}, [], {}, {'b': 1, 'a': 2},
            {'$date': '2026-11-24'}, {'$date': 1, 'x': 2}, {'$dict': [['a', 1]]}, {'$dict': {'$dict': None}}, {'$': 1}, {'': 1},
            {'$records': ['res.users', [1]]}, [{'$tuple': [1]}], ({'$unknown': (1, 2)},),
            self.partner, self.partner.browse(), self.user + self.other_user, [self.partner, {'user': self.user}],
            {10**5000},
        ):  # fmt: skip
            with self.subTest(value=self.shorten(value)):
                self.assertExact(value)

    def test_commands(self):
        """The commands of x2many fields are no plain numbers, but that is what they mean."""
        self.ir_async.call(self.partner.async_foo, [fields.Command.link(3), fields.Command.clear()])
        self.run_jobs()
        self.assertEqual(exact(self.received[0][1]), exact(([(4, 3, 0), (5, 0, 0)],)))

    def test_records_are_in_the_environment_of_the_job(self):
        target = self.partner_of(self.user).with_context(key=1)
        job = self.ir_async.call(target.async_foo, [self.partner.sudo()], user=self.other_user.with_context(key=2))
        self.run_jobs()
        [(env, ([[partner]]), kwargs)] = self.received
        self.assertEqual(partner, self.partner)
        self.assertEqual(kwargs, {'user': self.other_user})
        self.assertIs(partner.env, env)
        self.assertIs(kwargs['user'].env, env)
        self.assertEqual(
            (env.uid, env.su, dict(env.context)), (self.user.id, False, {'key': 1, 'async_job_id': job.id})
        )

    def test_refused(self):
        circular = []
        circular.append([circular])
        deep = []
        for _ in range(100_000):
            deep = [deep]
        new = self.env['res.partner'].new()

        class Text(str):
            __slots__ = ()

        class List(list):
            __slots__ = ()

        class Point(NamedTuple):
            x: int

        class Level(IntEnum):
            HIGH = 1

        def derived(base, *args):
            return type(f'My{base.__name__}', (base,), {})(*args)

        for value in (
            math.nan, math.inf, -math.inf, Decimal('NaN'), Decimal('Infinity'), 1j,
            {1: 'a'}, {None: 1}, {('a',): 1}, {b'a': 1}, {True: 1}, new, self.partner + new,
            object(), object, len, (i for i in 'ab'), iter([]), range(3), frozenset(), lambda: None, bytearray(), memoryview(b''),
            frozendict(), {}.keys(), self.env, self.registry, timedelta(1), datetime.min.time(), self.env.cr,
            Text(), List(), OrderedDict(), defaultdict(list), Point(1), {}.items(),
            Level.HIGH, derived(int, 1), derived(float, 1.5), derived(bytes, b'a'), derived(Decimal, '1.5'), derived(date, 2026, 11, 24),
            derived(datetime, 2026, 11, 24), derived(Markup, "a"), derived(set), derived(tuple), derived(dict),
            fields.Domain('id', '=', 1),
        ):  # fmt: skip
            for path, args, kwargs in (
                (r"args[1]", (0, value), {}),
                (r"kwargs['b']", (0,), {'b': value}),
                (r"args[1]['when'][0]", (0, {'then': [], 'when': [value]}), {}),
                (r"kwargs['b'][2]['c']", (), {'b': (0, 1, {'c': value})}),
            ):
                with self.subTest(value=self.shorten(value), path=path):
                    with self.assertRaises(TypeError) as cm:
                        self.ir_async.call(self.partner.async_foo, *args, **kwargs)
                    self.assertTrue(str(cm.exception).startswith(path), str(cm.exception))
        for value, path in (
            (circular, "args"),
            (deep, "args"),
            ({frozenset()}, "an item of args[0]"),
            ({10**5000: 1}, "args[0]["),
        ):
            with self.assertRaises(TypeError) as cm:
                self.ir_async.call(self.partner.async_foo, value)
            self.assertTrue(str(cm.exception).startswith(path), str(cm.exception))
        self.assertFalse(self.queued_jobs())

    def test_names_of_time_zones_would_be_lost(self):
        with self.assertRaisesRegex(TypeError, r"args\[0\].*time zone"):
            self.ir_async.call(self.partner.async_foo, datetime(2026, 7, 1, tzinfo=ZoneInfo('Europe/Brussels')))

    def test_frozen_time(self):
        """Tests freeze time: the dates that it gives are dates, also when it goes on."""
        with freeze_time('2026-11-24 12:30:00'):
            values = [datetime.now(), date.today(), datetime(2026, 1, 2), date(2026, 1, 2)]  # noqa: DTZ001, DTZ005, DTZ011
            jobs = self.ir_async.call(self.partner.async_foo, *values)
        jobs += self.ir_async.call(self.partner.async_foo, *values)
        self.run_jobs()
        expected = (datetime(2026, 11, 24, 12, 30), date(2026, 11, 24), datetime(2026, 1, 2), date(2026, 1, 2))
        self.assertEqual([args for _env, args, _kwargs in self.received], [expected] * 2)
