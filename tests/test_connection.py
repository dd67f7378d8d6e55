"""The connection and the cursor of the jobs."""
from types import SimpleNamespace

import psycopg2
from psycopg2.extensions import STATUS_IN_TRANSACTION, STATUS_READY

from odoo.tests import TransactionCase

from odoo.addons.ir_async.service.runner import JobCursor, JobPool


class TestJobConnection(TransactionCase):

    def setUp(self):
        super().setUp()
        self.pool = JobPool(SimpleNamespace(dbname=self.env.cr.dbname, server_version=self.env.cr._cnx.server_version))
        self.addCleanup(self.pool.close)
        self.cursor = self.open()
        self.cursor.execute("CREATE TEMP TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        self.cursor.commit()

    def open(self):
        cursor = JobCursor(self.pool)
        self.addCleanup(cursor.close)
        return cursor

    def value(self, query):
        self.cursor.execute(query)
        return self.cursor.fetchone()[0]

    def test_nothing_is_left_to_the_next_one(self):
        self.cursor.execute("SET lock_timeout = '1s'; PREPARE p AS SELECT 1; SELECT pg_advisory_lock(1)")
        self.cursor.commit()
        backend, interval = self.value("SELECT pg_backend_pid()"), self.value("SHOW client_connection_check_interval")
        self.cursor.close()
        self.cursor = self.open()
        self.assertEqual(self.value("SELECT pg_backend_pid()"), backend)
        self.assertEqual(self.value("SHOW client_connection_check_interval"), interval)
        self.assertEqual(interval, '500ms')
        self.assertEqual(self.value("SHOW lock_timeout"), '0')
        self.assertEqual(self.value("SHOW transaction_isolation"), 'repeatable read')
        self.assertFalse(self.value("SELECT to_regclass('t')"))
        self.assertFalse(self.value("SELECT count(*) FROM pg_prepared_statements"))
        self.assertFalse(self.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"))

    def test_a_chain_of_transactions(self):
        connection = self.cursor._cnx
        connection.chains = True
        for i in range(2):
            self.cursor.execute("INSERT INTO t VALUES (%s)", [i])
            self.cursor.commit()
            self.assertTrue(self.cursor.is_clean())
            self.assertEqual(connection.status, STATUS_IN_TRANSACTION)
        self.assertEqual(self.value("SHOW transaction_isolation"), 'repeatable read')
        self.cursor.execute("INSERT INTO t VALUES (3)")
        self.cursor.rollback()
        connection.chains = False
        self.assertEqual(self.value("SELECT count(*) FROM t"), 2)
        self.cursor.commit()
        self.assertEqual(connection.status, STATUS_READY)

    def test_a_commit_that_fails(self):
        """What follows is in a transaction again."""
        for chains in (False, True):
            with self.subTest(chains=chains):
                self.cursor._cnx.chains = chains
                self.cursor.execute("INSERT INTO t VALUES (1), (1)")
                with self.assertRaises(psycopg2.errors.UniqueViolation):
                    self.cursor.commit()
                self.cursor.execute("INSERT INTO t VALUES (1)")
                self.cursor.rollback()
                self.assertFalse(self.value("SELECT count(*) FROM t"))
                self.cursor.rollback()

    def test_what_follows_is_noticed(self):
        self.cursor.execute("INSERT INTO t VALUES (2)")
        self.cursor.commit()
        self.assertTrue(self.cursor.is_clean())
        self.cursor.execute("INSERT INTO t VALUES (3)")
        self.assertFalse(self.cursor.is_clean())

    def test_what_a_hook_does_is_noticed(self):
        self.cursor.postcommit.add(lambda: self.cursor.execute("INSERT INTO t VALUES (1)"))
        self.cursor.execute("INSERT INTO t VALUES (2)")
        self.cursor.commit()
        self.assertFalse(self.cursor.is_clean())

    def test_the_end_of_jobs_is_prepared(self):
        query = "SELECT %(a)s::int / %(b)s::int"
        with self.assertRaises(psycopg2.errors.DivisionByZero):
            self.cursor.finish(query, {'a': 6, 'b': 0})
        self.cursor.rollback()
        for b, result in ((2, 3), (3, 2)):
            self.cursor.finish(query, {'a': 6, 'b': b})
            self.assertEqual(self.cursor.fetchone(), (result,))
        self.assertEqual(self.value("SELECT sum(generic_plans + custom_plans)::int FROM pg_prepared_statements"
                                    " WHERE name LIKE 'ir_async_finish_1'"), 2)
