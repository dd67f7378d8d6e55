# ruff: noqa: EM101 -- a job is hardly more than an exception and its message
import asyncio
import contextlib
import decimal
import sys
import time
from datetime import timedelta

import psycopg2
import psycopg2.errors

from odoo import api, models
from odoo.exceptions import AccessError, UserError

from odoo.addons.ir_async import exceptions
from odoo.addons.ir_async.exceptions import RetryJob


def _broken(*_args, **_kwargs):
    raise ZeroDivisionError("broken")


class BrokenStr(Exception):
    __str__ = _broken


class BrokenRepr(Exception):
    __repr__ = __str__ = __format__ = _broken


class BrokenArgs(Exception):
    args = property(_broken)


class BrokenAttributes(Exception):
    def __getattribute__(self, name):
        raise ZeroDivisionError(name)


class BrokenBase(BaseException):
    __str__ = __repr__ = _broken
    args = property(_broken)


class BrokenHash(Exception):
    __hash__ = __eq__ = _broken


class BrokenObject:
    __str__ = __repr__ = __iter__ = __len__ = __bool__ = _broken


class NoModule(Exception):
    __module__ = None


class StrOfOtherType(Exception):
    def __str__(self):  # noqa: PLE0307 -- that is the point
        return 4711  # noqa: PLE0307


class ClassThatExits(Exception):
    __class__ = property(sys.exit)


class NameThatExits(type):
    __name__ = property(sys.exit)


class ExceptionWithoutName(Exception, metaclass=NameThatExits):
    pass


class BaseWithoutName(BaseException, metaclass=NameThatExits):
    pass


class OfOtherStr(str):
    __slots__ = ()
    __format__ = splitlines = encode = replace = __iter__ = __len__ = _broken


class StrOfSubclass(psycopg2.errors.SerializationFailure):
    pgcode = '40001'

    def __str__(self):
        return OfOtherStr("text")


class StrThatExits(Exception):
    def __str__(self):  # noqa: PLE0307
        sys.exit(1)


class TestAsyncEffect(models.Model):
    """Jobs that raise and return whatever there is."""

    _inherit = 'test.async.effect'

    @api.model
    def misbehave(self, kind, name):
        """Write a row, then raise or return something.

        :param str kind: what; a ``RetryJob`` of the past is raised the first time only, as it would be run for ever
        """
        self._trace(name)
        self.create({'name': name})
        self.env.cr.flush()
        if kind.endswith('negative') and len(self._read_trace(name)) > 1:
            return None
        return getattr(self, f'_kind_{kind}')()

    def _raise(self, exc):
        raise exc

    # RetryJob

    def _kind_retry_timedelta(self):
        raise RetryJob("later", delay=timedelta(minutes=10))

    def _kind_retry_huge(self):
        raise RetryJob("later", delay=10**30)

    def _kind_retry_huge_float(self):
        raise RetryJob("later", delay=1e300)

    def _kind_retry_beyond_dates(self):
        raise RetryJob("later", delay=3e11)

    def _kind_retry_huge_timedelta(self):
        raise RetryJob("later", delay=timedelta.max)

    def _kind_retry_negative(self):
        raise RetryJob("later", delay=-10)

    def _kind_retry_very_negative(self):
        raise RetryJob("later", delay=-1e12)

    def _kind_retry_nan(self):
        raise RetryJob("later", delay=float('nan'))

    def _kind_retry_inf(self):
        raise RetryJob("later", delay=float('inf'))

    def _kind_retry_text(self):
        raise RetryJob("later", delay='soon')

    def _kind_retry_number_as_text(self):
        raise RetryJob("later", delay='60')

    def _kind_retry_decimal(self):
        raise RetryJob("later", delay=decimal.Decimal('600.5'))

    def _kind_retry_list(self):
        raise RetryJob("later", delay=[1, 2])

    def _kind_retry_object(self):
        raise RetryJob("later", delay=object())

    def _kind_retry_changed(self):
        exc = RetryJob("later", delay=600)
        del exc.delay
        raise exc

    def _kind_retry_reason(self):
        raise RetryJob(BrokenObject(), delay=600)

    def _kind_retry_without_reason(self):
        raise RetryJob(None, delay=600)

    # exceptions

    def _kind_broken_str(self):
        raise BrokenStr("x")

    def _kind_broken_repr(self):
        raise BrokenRepr("x")

    def _kind_broken_args(self):
        raise BrokenArgs("x")

    def _kind_broken_attributes(self):
        raise BrokenAttributes("x")

    def _kind_broken_base(self):
        raise BrokenBase("x")

    def _kind_broken_hash(self):
        raise BrokenHash("x")

    def _kind_broken_argument(self):
        raise ValueError(BrokenObject())

    def _kind_broken_cause(self):
        raise ValueError("x") from BrokenRepr("y")

    def _kind_cause_of_itself(self):
        first, second = ValueError("x"), ValueError("y")
        first.__cause__, second.__cause__ = second, first
        raise first

    def _kind_no_module(self):
        raise NoModule("x")

    def _kind_str_of_other_type(self):
        raise StrOfOtherType("x")

    def _kind_str_that_exits(self):
        raise StrThatExits("x")

    def _kind_class_that_exits(self):
        raise ClassThatExits("x")

    def _kind_name_that_exits(self):
        raise ExceptionWithoutName("x")

    def _kind_base_without_name(self):
        raise BaseWithoutName("x")

    def _kind_cause_without_name(self):
        raise ValueError("x") from BaseWithoutName("y")

    def _kind_rollback_hook_without_name(self):
        self.env.cr.prerollback.add(lambda: self._raise(BaseWithoutName("prerollback")))
        raise ValueError("x")

    def _kind_arguments(self):
        raise ValueError(object(), {1: {2}}, float('nan'), b'\xff', self, decimal.Decimal('sNaN'), 10**5000)

    def _kind_recursive_argument(self):
        argument = []
        argument.append(argument)
        raise ValueError(argument)

    def _kind_deep_argument(self):
        argument = []
        for _i in range(100_000):
            argument = [argument]
        raise ValueError(argument)

    def _kind_characters(self):
        raise ValueError("\x00 \ud800 \udfff ü")

    def _kind_long_message(self):
        raise ValueError("x" * 5_000_000)

    def _kind_user_error(self):
        raise UserError(self.env['res.users'].browse(1))

    def _kind_access_error(self):
        raise AccessError("\x00")

    def _kind_exit(self):
        sys.exit(3)

    def _kind_exit_text(self):
        sys.exit("bye")

    def _kind_generator_exit(self):
        raise GeneratorExit

    def _kind_keyboard(self):
        raise KeyboardInterrupt

    def _kind_memory(self):
        raise MemoryError

    def _kind_memory_really(self):
        return bytearray(2**60)

    def _kind_recursion(self):
        return self._kind_recursion()

    def _kind_stop_iteration(self):
        raise StopIteration("x")

    def _kind_cancelled(self):
        raise asyncio.CancelledError

    def _kind_base(self):
        raise BaseException("x")  # noqa: TRY002 -- that is the point

    def _kind_nothing_to_raise(self):
        raise None

    def _kind_operational(self):
        raise psycopg2.OperationalError("of another server")

    def _kind_interface(self):
        raise psycopg2.InterfaceError("connection already closed")

    def _kind_database_error(self):
        raise psycopg2.DatabaseError("x")

    def _kind_of_ours_claim(self):
        raise exceptions.ClaimLost("x")

    def _kind_of_ours_interrupted(self):
        raise exceptions.JobInterrupted("x")

    def _kind_of_ours_timeout(self):
        raise exceptions.JobTimeout("x")

    def _kind_of_ours_died(self):
        raise exceptions.WorkerDied("x")

    def _kind_decimal_overflow(self):
        return decimal.Decimal('1e999999') * decimal.Decimal('1e999999')

    def _kind_sql(self):
        self.env.cr.execute("SELECT 1 / 0", log_exceptions=False)

    def _kind_sql_swallowed(self):
        """The transaction is aborted, and nobody says so."""
        with contextlib.suppress(psycopg2.Error):
            self.env.cr.execute("SELECT 1 / 0", log_exceptions=False)

    def _kind_commit_replaced(self):
        self.env.cr.commit = lambda: None

    def _kind_commit_of_connection_replaced(self):
        self.env.cr._cnx.commit = lambda: None

    def _kind_sql_swallowed_late(self):
        """In a hook of the last flush, when the outcome is written."""
        cr = self.env.cr

        def finish(*args):
            cr.precommit.add(self._kind_sql_swallowed)
            return type(cr).finish(cr, *args)

        cr.finish = finish

    def _kind_closes_cursor(self):
        self.env.cr.close()

    def _kind_closes_connection(self):
        self.env.cr._cnx.close()

    def _kind_ends_backend(self):
        self.env.cr.execute("SELECT pg_terminate_backend(pg_backend_pid())", log_exceptions=False)

    # hooks

    def _kind_precommit(self):
        self.env.cr.precommit.add(lambda: self._raise(ValueError("precommit")))

    def _kind_precommit_broken(self):
        self.env.cr.precommit.add(lambda: self._raise(BrokenRepr("precommit")))

    def _kind_hook_value(self):
        self.env.cr.postcommit.add(lambda: self._raise(ValueError("hook")))

    def _kind_hook_retry(self):
        self.env.cr.postcommit.add(lambda: self._raise(RetryJob("hook", delay=600)))

    def _kind_hook_broken(self):
        self.env.cr.postcommit.add(lambda: self._raise(BrokenRepr("hook")))

    def _kind_hook_broken_base(self):
        self.env.cr.postcommit.add(lambda: self._raise(BrokenBase("hook")))

    def _kind_hook_exit(self):
        self.env.cr.postcommit.add(sys.exit)

    def _kind_hook_keyboard(self):
        self.env.cr.postcommit.add(lambda: self._raise(KeyboardInterrupt()))

    def _kind_hook_serialization(self):
        self.env.cr.postcommit.add(lambda: self._raise(psycopg2.errors.SerializationFailure("hook")))

    def _kind_hook_claim(self):
        self.env.cr.postcommit.add(lambda: self._raise(exceptions.ClaimLost("hook")))

    def _kind_hook_sql(self):
        self.env.cr.postcommit.add(lambda: self.env.cr.execute("SELECT 1 / 0", log_exceptions=False))

    def _kind_hook_closes(self):
        self.env.cr.postcommit.add(self.env.cr.close)

    def _kind_hook_of_rollback(self):
        self.env.cr.postrollback.add(lambda: self._raise(ValueError("postrollback")))
        raise ValueError("x")

    def _kind_hook_before_rollback(self):
        self.env.cr.prerollback.add(lambda: self._raise(BrokenRepr("prerollback")))
        raise ValueError("x")

    # results

    def _kind_result_decimal(self):
        return decimal.Decimal('1e999999')

    def _kind_result_nan(self):
        return [decimal.Decimal('sNaN'), decimal.Decimal('NaN'), float('inf')]

    def _kind_result_int(self):
        return 10**5000

    def _kind_result_object(self):
        return BrokenObject()

    def _kind_result_deep(self):
        result = []
        for _i in range(100_000):
            result = [result]
        return result

    def _kind_result_recursive(self):
        result = {}
        result['x'] = result
        return result

    def _kind_result_keys(self):
        return {(1, 2): 1, None: 2, b'\xff': 3, frozenset(): 4}

    def _kind_result_characters(self):
        return "\x00 \ud800 ü"

    def _kind_result_generator(self):
        return (1 / i for i in (1, 0))

    def _kind_result_coroutine(self):
        return asyncio.sleep(0)

    # ------------------------------------------------------------
    # Others write the row, or lock it
    # ------------------------------------------------------------

    @api.model
    def enqueue_child(self, name, gate):
        """Enqueue a job from this one."""
        return self.env['ir.async'].call(self.effect_then_wait, name, gate).id

    @api.model
    def fail_at_gate(self, name, gate):
        self._trace(name)
        self._wait(gate)
        raise ValueError(name)

    @api.model
    def serializable(self, name, seconds):
        """Read what others write, at the highest isolation level."""
        self._trace(name)
        self.env.cr.commit()
        self.env.cr.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        self.env.cr.execute("SELECT sum(value) FROM test_async_effect")
        [total] = self.env.cr.fetchone()
        time.sleep(seconds)
        self.create({'name': name, 'value': (total or 0) + 1})

    @api.model
    def touch_all_jobs(self, name):
        """Write the rows of all jobs, its own, too."""
        self._trace(name)
        self.create({'name': name})
        self.env.cr.execute("UPDATE ir_async SET name = name")

    @api.model
    def read_jobs(self, name, gate):
        """Read the rows of all jobs, and later on the own one with a lock."""
        self._trace(name)
        self.env.cr.execute("SELECT count(*) FROM ir_async")
        self._wait(gate)
        self.env.cr.execute("SELECT FROM ir_async WHERE id = %s FOR UPDATE", [self.env['ir.async'].current().id])
        self.create({'name': name})
