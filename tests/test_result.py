import json
from collections import OrderedDict, deque
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from types import FunctionType
from typing import NamedTuple

from markupsafe import Markup

from odoo import fields
from odoo.tests import mute_logger
from odoo.tools import OrderedSet, frozendict, lazy

from .method_case import RUNNER, MethodCase

ENCODING = 'odoo.addons.ir_async.tools.encoding'


class Color(IntEnum):
    RED = 1


class Broken:
    """Whatever is asked of it, it raises."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __str__(self):
        raise RuntimeError

    __repr__ = __iter__ = __len__ = __str__


class BrokenMapping(Mapping):
    def __getitem__(self, key):
        raise KeyError(key)

    def __iter__(self):
        raise ZeroDivisionError

    def __len__(self):
        return 1


class BrokenText(str):
    __slots__ = ()

    def __str__(self):
        raise ZeroDivisionError

    __repr__ = __str__


class BrokenKey:
    def __str__(self):
        raise ZeroDivisionError

    __repr__ = __str__


class TestResult(MethodCase):
    """What a method returns, as its job's payload. No work is thrown away for its result."""

    def run_method(self, result):
        @self.add_method
        def returning(self):
            self.name = "worked"
            return result(self) if type(result) is FunctionType else result

        self.partner.name = "before"
        job = self.ir_async.call(self.partner.returning)
        self.run_jobs()
        return job

    def test_expressed(self):
        class Point(NamedTuple):
            x: int
            y: int

        for result, expected in (
            ({3, 1}, [1, 3]), (frozenset(['a']), ['a']), (OrderedSet([2, 1]), [2, 1]), ((1, (2,)), [1, [2]]), (Point(1, 2), [1, 2]),
            (range(3), [0, 1, 2]), (deque([1]), [1]), ({'a': 1}.keys(), ['a']), ({'a': 1}.values(), [1]), ({'a': 1}.items(), [['a', 1]]),
            (iter([1, 2]), [1, 2]), ((i * 2 for i in range(3)), [0, 2, 4]), (map(str, [1]), ['1']), (zip('a', 'b'), [['a', 'b']]),
            (Decimal('1.5'), 1.5), (Decimal('NaN'), None), (Decimal('sNaN'), None), (Decimal('-Infinity'), None), (Decimal('1E+999'), None),
            (b'text', "text"), ('é'.encode(), "é"), (b'\xff\x00', "/wA="), (bytearray(b'a'), "a"), (memoryview(b'a'), "a"),
            (float('nan'), None), ([float('inf'), -float('inf'), 1.0], [None, None, 1.0]),
            ({2: 'a', None: 'b', True: 'c'}, {'2': 'a', 'null': 'b', 'true': 'c'}), ({(1, 2): 3}, {'(1, 2)': 3}), ({b'a': 1}, {'a': 1}),
            ({date(2026, 1, 2): 1}, {'2026-01-02': 1}), ({Decimal('1.10'): 1}, {'1.10': 1}), ({1.5: 1}, {'1.5': 1}),
            (datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02 03:04:05"), (date(2026, 1, 2), "2026-01-02"),
            (lambda partner: partner, self.partner.ids), (lambda partner: partner.browse(), []),
            (lambda partner: {'a': [partner, {partner.id}]}, {'a': [self.partner.ids, self.partner.ids]}),
            (fields.Domain('id', '=', 1), [['id', '=', 1]]), (fields.Command.link(3), [4, 3, 0]), (Color.RED, 1),
            (Markup("<b/>"), "<b/>"), (BrokenText("text"), "text"), (lazy(lambda: {1}), [1]), (frozendict(a=(1,)), {'a': [1]}),
            (OrderedDict(b=1, a=2), {'b': 1, 'a': 2}), ("\0\ud800", "\0\\ud800"), (10**50, 10**50), ({}, {}), ([], []), (0, 0), (False, False),
            ({'error': 1}, {'error': 1}),
        ):  # fmt: skip
            with self.subTest(expected=expected):
                job = self.run_method(result)
                self.assertEqual((job.state, self.partner.name), ('succeeded', "worked"))
                value = job.payload['result']
                self.assertEqual(sorted(value) if isinstance(result, set) else value, expected)
                self.assertNotIn('warning', job.payload)

    def test_left_out(self):
        circular, deep, mapping = [], [], {}
        circular.append(circular)
        mapping['self'] = mapping
        for _i in range(100_000):
            deep = [deep]
        for result, pattern in (
            (object(), "object"),
            ({'rows': [1, object()]}, r"\['rows'\]\[1\]"),
            (timedelta(1), "timedelta"),
            (1j, "complex"),
            (datetime.min.time(), "time"),
            (Broken(), "Broken|RuntimeError"),
            ([Broken()], "Broken|RuntimeError"),
            (BrokenMapping(), "ZeroDivisionError"),
            ({BrokenKey(): 1}, "ZeroDivisionError"),
            (circular, "contains itself"),
            (mapping, "contains itself"),
            (deep, "nested too deeply"),
            (10**5000, "digits"),
            ([-(10**10000)], "digits"),
            (lazy(lambda: 1 / 0), "ZeroDivisionError"),
            (Enum('Plain', 'A').A, "Plain"),
            (lambda partner: partner.write, "method"),
            ([len], "builtin"),
        ):
            with self.subTest(pattern=pattern), self.assertLogs(ENCODING, 'WARNING') as log:
                job = self.run_method(result)
                self.assertEqual((job.state, self.partner.name), ('succeeded', "worked"))
                self.assertEqual(set(job.payload), {'result', 'warning'})
                self.assertIsNone(job.payload['result'])
                self.assertRegex(job.payload['warning'], pattern)
                self.assertRegex(log.output[0], pattern)

    def test_generator_is_the_method(self):
        """What a method does when it is iterated over is done in its job."""

        @self.add_method
        def generating(self):
            for name in ("one", "two"):
                self.name = name
                yield self.env['ir.async'].current().state

        job = self.ir_async.call(self.partner.generating)
        self.run_jobs()
        self.assertEqual(job.payload, {'result': ['processing'] * 2})
        self.assertEqual(self.partner.name, "two")

    @mute_logger(RUNNER)
    def test_generator_that_raises(self):
        """Half of the work is not committed: it is the method that raised."""

        @self.add_method
        def generating(self):
            self.name = "half"
            yield 1
            raise ValueError("the other half")  # noqa: EM101, TRY003

        for result in (lambda partner: partner.generating(), lambda partner: {'rows': map(int, ["1", "x"])}):
            job = self.run_method(result)
            self.assertEqual((job.state, self.partner.name), ('failed', "before"))
            self.assertIn('ValueError', json.dumps(job.payload))

    @mute_logger(RUNNER, 'odoo.sql_db')
    def test_database_error(self):
        """After it, nothing can be committed."""
        job = self.run_method(lambda partner: lazy(lambda: partner.env.cr.execute("SELECT no_such_column")))
        self.assertEqual((job.state, self.partner.name), ('failed', "before"))

    def test_none(self):
        job = self.run_method(None)
        self.assertEqual((job.state, job.payload), ('done', False))
