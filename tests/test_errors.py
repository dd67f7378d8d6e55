import psycopg2
from psycopg2 import errors

from odoo.exceptions import ConcurrencyError, UserError
from odoo.sql_db import PoolError
from odoo.tests import TransactionCase, mute_logger

from odoo.addons.ir_async.engine.errors import Kind, kind_of
from odoo.addons.ir_async.exceptions import JobTimeout, RetryJob


class TestKind(TransactionCase):
    """What an exception says about a job."""

    def raised(self, code):
        """Return the exception that an error of PostgreSQL comes as."""
        with mute_logger('odoo.sql_db'), self.assertRaises(psycopg2.Error) as catcher, self.env.cr.savepoint():
            self.env.cr.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '%s'; END $$" % code)  # pylint: disable=sql-injection
        self.assertEqual(catcher.exception.pgcode, code)
        return catcher.exception

    def test_codes(self):
        for kind, codes in {
            Kind.RACE: ('40001', '40P01', '55P03'),
            Kind.LOST: ('57P01', '57P02', '57P03', '57P05', '25P03', '08000', '08003', '08006', '08P01'),
            Kind.SERVER: (
                '53000',
                '53100',
                '53200',
                '53300',
                '53400',
                '58000',
                '58030',
                '58P01',
                '55006',
                'XX000',
                'XX001',
                'XX002',
                '57P04',
            ),
            Kind.METHOD: (
                '22012',
                '22P02',
                '23502',
                '23503',
                '23505',
                '23514',
                '25006',
                '42501',
                '42601',
                '42703',
                '42P01',
                '57014',
                '0A000',
                'P0001',
            ),
        }.items():
            for code in codes:
                with self.subTest(code=code):
                    self.assertIs(kind_of(self.raised(code)), kind)

    def test_without_a_code(self):
        for exc, kind in (
            (psycopg2.OperationalError("server closed the connection unexpectedly"), Kind.LOST),
            (psycopg2.OperationalError("could not connect to server"), Kind.LOST),
            (psycopg2.InterfaceError("connection already closed"), Kind.LOST),
            (psycopg2.InterfaceError("cursor already closed"), Kind.LOST),
            (psycopg2.DatabaseError("error with status PGRES_TUPLES_OK and no message from the libpq"), Kind.LOST),
            (psycopg2.ProgrammingError("no results to fetch"), Kind.METHOD),
            (psycopg2.InterfaceError("only protocol 3 supported"), Kind.METHOD),
        ):
            with self.subTest(exc=exc):
                self.assertIs(kind_of(exc), kind)

    def test_others(self):
        for exc, kind in (
            (ConcurrencyError("x"), Kind.RACE),
            (PoolError("The Connection Pool Is Full"), Kind.SERVER),
            (ValueError("connection closed"), Kind.METHOD),
            (ConnectionError("closed"), Kind.METHOD),
            (UserError("x"), Kind.METHOD),
            (RetryJob("x"), Kind.METHOD),
            (JobTimeout("x"), Kind.METHOD),
            (SystemExit(1), Kind.METHOD),
            (GeneratorExit(), Kind.METHOD),
            (KeyboardInterrupt(), Kind.METHOD),
        ):
            with self.subTest(exc=exc):
                self.assertIs(kind_of(exc), kind)

    def test_a_real_race(self):
        with mute_logger('odoo.sql_db'), self.registry.cursor() as cr:
            cr.execute("SET LOCAL lock_timeout = '10ms'")
            self.env.cr.execute("SELECT pg_advisory_xact_lock(1769103731, 1)")
            with self.assertRaises(errors.LockNotAvailable) as catcher:
                cr.execute("SELECT pg_advisory_xact_lock(1769103731, 1)")
            cr.rollback()
        self.assertIs(kind_of(catcher.exception), Kind.RACE)
