"""The connection and the cursor of the jobs."""
from types import SimpleNamespace
from unittest.mock import patch

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS

from odoo.modules.registry import Registry
from odoo.tests import TransactionCase
from odoo.tools import SQL

from odoo.addons.ir_async.exceptions import ClaimLost
from odoo.addons.ir_async.service.cursor import JobCursor, JobPool
from odoo.addons.ir_async.service.runner import Runner


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

    def finish(self, query="INSERT INTO t VALUES (%(a)s) RETURNING a", **values):
        self.cursor.finish(query, values)

    def test_a_chain_of_transactions(self):
        for i in range(2):
            self.finish(a=i)
            self.cursor.commit()
            self.assertTrue(self.cursor.is_clean())
            self.assertEqual(self.cursor._cnx.info.transaction_status, TRANSACTION_STATUS_INTRANS)
        self.assertEqual(self.value("SHOW transaction_isolation"), 'repeatable read')
        self.cursor.execute("INSERT INTO t VALUES (3)")
        self.cursor.rollback()
        self.assertEqual(self.value("SELECT count(*) FROM t"), 2)
        self.cursor.commit()
        self.assertEqual(self.cursor._cnx.info.transaction_status, TRANSACTION_STATUS_IDLE)

    def test_a_rollback_forgets_the_end(self):
        self.finish(a=1)
        self.cursor.rollback()
        self.finish(a=2)
        self.cursor.commit()
        self.assertEqual(self.value("SELECT sum(a) FROM t"), 2)

    def test_a_job_that_is_lost(self):
        """Nothing is committed if the statement that ends the job finds nothing."""
        for _i in range(2):
            self.cursor.execute("INSERT INTO t VALUES (1)")
            self.finish("UPDATE t SET a = a WHERE a = %(a)s RETURNING a", a=2)
            with self.assertRaises(ClaimLost):
                self.cursor.commit()
            self.assertFalse(self.value("SELECT count(*) FROM t"))

    def test_a_commit_that_fails(self):
        """What follows is in a transaction again."""
        for finish in (lambda: None, lambda: self.finish(a=2)):
            self.cursor.execute("INSERT INTO t VALUES (1), (1)")
            finish()
            with self.assertRaises(psycopg2.errors.UniqueViolation):
                self.cursor.commit()
            self.cursor.execute("INSERT INTO t VALUES (1)")
            self.cursor.rollback()
            self.assertFalse(self.value("SELECT count(*) FROM t"))
            self.cursor.rollback()

    def test_a_constraint_is_not_mistaken_for_a_lost_job(self):
        """A deferred trigger fails with the very errors that tell that a job is lost."""
        self.cursor.execute("""
            CREATE FUNCTION pg_temp.fail() RETURNS trigger AS 'BEGIN PERFORM 1 / 0; END' LANGUAGE plpgsql;
            CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION pg_temp.fail();
        """)
        self.cursor.commit()
        self.finish(a=1)
        with self.assertRaises(psycopg2.errors.DivisionByZero):
            self.cursor.commit()

    def test_to_be_up_to_date_leaves_no_snapshot(self):
        """The jobs may be given back while the registry is loaded: the connection waits for the next one, then."""
        session = SimpleNamespace(dbname=self.env.cr.dbname, server_version=self.env.cr._cnx.server_version, set_ready=lambda ready: None)
        runner = Runner(session)
        self.addCleanup(runner.close)
        with patch.object(Registry, 'check_signaling', lambda registry, cr: cr.execute("SELECT 1")):
            runner.prepare(SimpleNamespace(signals='(1,2)'))
        self.assertEqual(runner.cr._cnx.info.transaction_status, TRANSACTION_STATUS_IDLE)

    def test_what_outlives_the_transaction_is_noticed(self):
        for query in (
            "CREATE TEMP TABLE u (a int)", "select 1 INTO TEMPORARY u", " SET lock_timeout = 0", "LISTEN c", "PREPARE p AS SELECT 1",
            "SELECT set_config('lock_timeout', '0', false)", "SELECT pg_try_advisory_lock(1)", SQL("SELECT 1; SET jit = on"),
            "DO $$ BEGIN END $$",
        ):
            with self.subTest(query=query):
                self.cursor.execute(query)
                self.assertTrue(self.cursor.is_lasting)
                self.cursor.close()
                self.cursor = self.open()
                self.assertFalse(self.cursor.is_lasting)
        for query in ("SELECT 1 AS template", "SAVEPOINT s", SQL("SELECT pg_advisory_xact_lock(%s)", 1)):
            self.cursor.execute(query)
            self.assertFalse(self.cursor.is_lasting, query)

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
        for i in range(1, 3):
            self.finish(a=i)
            self.cursor.commit()
        self.assertEqual(self.value("SELECT sum(generic_plans + custom_plans)::int FROM pg_prepared_statements"), 2)
