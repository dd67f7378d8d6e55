"""The connection and the cursor of the jobs."""

import contextlib
import select
from types import SimpleNamespace
from unittest.mock import Mock, patch

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import (
    ISOLATION_LEVEL_READ_COMMITTED,
    TRANSACTION_STATUS_IDLE,
    new_type,
    register_type,
)

from odoo.modules.registry import Registry
from odoo.tests import TransactionCase, mute_logger

from odoo.addons.ir_async.engine.connection import CLIENT_CHECK
from odoo.addons.ir_async.engine.job import Job, Outcome
from odoo.addons.ir_async.exceptions import ClaimLost, JobInterrupted
from odoo.addons.ir_async.service.cursor import JobCursor, JobPool
from odoo.addons.ir_async.service.runner import Runner


class ConnectionCase(TransactionCase):
    def setUp(self):
        super().setUp()
        version = self.env.cr._cnx.server_version
        self.pool = JobPool(self.env.cr.dbname, version, **CLIENT_CHECK if version >= 140000 else {})
        self.addCleanup(self.pool.close)
        self.cursor = self.open()

    def open(self):
        cursor = JobCursor(self.pool)
        self.addCleanup(cursor.close)
        cursor.begin()
        return cursor

    def next(self):
        """Have the next job begin."""
        self.cursor.close()
        self.cursor = self.open()

    def value(self, query):
        self.cursor.execute(query)
        return self.cursor.fetchone()[0]


class TestForget(ConnectionCase):
    """Each job begins as on a new connection."""

    def state(self):
        """Return all that there is of a session."""
        self.cursor.execute("SELECT name, setting FROM pg_settings")
        state = dict(self.cursor.fetchall())
        for name, query in {
            'temporary': "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relnamespace = pg_my_temp_schema()",
            'prepared': "SELECT count(*) FROM pg_prepared_statements",
            'cursors': "SELECT count(*) FROM pg_cursors WHERE is_holdable",
            'channels': "SELECT count(*) FROM pg_listening_channels()",
            'locks': "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            'users': "SELECT session_user || '/' || current_user",
            'own': "SELECT coalesce(current_setting('app.company', true), '')",
            'role': "SELECT current_setting('role')",
        }.items():
            state[name] = self.value(query)
        connection = self.cursor._cnx
        return state | {
            'sequence': self.last_value(),
            'python': (
                connection.autocommit,
                connection.isolation_level,
                connection.encoding,
                connection.cursor_factory,
                connection.readonly,
                self.value("SELECT 1"),
                connection.notifies[:],
                connection.notices[:],
                vars(connection).keys() - {'given', 'guard'},
            ),
        }

    def last_value(self):
        """Return the value that the session took last from any sequence."""
        with contextlib.suppress(psycopg2.errors.ObjectNotInPrerequisiteState), self.cursor.savepoint(flush=False):
            self.cursor.execute("SELECT lastval()", log_exceptions=False)
            return self.cursor.fetchone()[0]

    def test_whatever_a_job_did(self):
        backend, before = self.value("SELECT pg_backend_pid()"), self.state()
        checks = '500' if self.cursor._cnx.server_version >= 140000 else None
        self.assertEqual(before.get('client_connection_check_interval'), checks)
        self.assertEqual(before['transaction_isolation'], 'repeatable read')
        cnx = self.cursor._cnx
        function = "CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.company', '1', false) $$"
        for name, leave in {
            'text': lambda cr: cr.execute("SET lock_timeout = '1s'"),
            'sql': lambda cr: cr.execute(sql.SQL("SET app.company = '1'")),
            'comment': lambda cr: cr.execute("-- x\n/* y */ SET app.company = '1'"),
            'bytes': lambda cr: cr._obj.execute(b"SET app.company = '1'"),
            'below': lambda cr: cr._obj.execute("SET search_path = pg_catalog"),
            'callproc': lambda cr: cr._obj.callproc('set_config', ['work_mem', '1MB', False]),
            'executemany': lambda cr: cr._obj.executemany("SELECT set_config(%s, '1', false)", [['app.company']]),
            'function': lambda cr: (cr.execute(function), cr.execute("SELECT pg_temp.f()")),
            'isolation': lambda cr: cr.execute(
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"
            ),
            'read only': lambda cr: cr.execute("SET default_transaction_read_only = on"),
            'role': lambda cr: cr.execute("SELECT set_config('role', current_user, false)"),
            'sequence': lambda cr: cr.execute("SELECT nextval('ir_async_id_seq')"),
            'temporary table': lambda cr: cr.execute("CREATE TEMP TABLE left_over (a int)"),
            'prepared': lambda cr: cr.execute("PREPARE claim AS SELECT 1"),
            'cursor': lambda cr: cr.execute("DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
            'listen': lambda cr: cr.execute("LISTEN odoo_async"),
            'lock': lambda cr: cr.execute("SELECT pg_advisory_lock(1), pg_advisory_lock_shared(2)"),
            'encoding': lambda cr: cnx.set_client_encoding('LATIN1') if not cr.commit() else None,
            'psycopg2': lambda cr: cnx.set_isolation_level(ISOLATION_LEVEL_READ_COMMITTED) if not cr.commit() else None,
            'autocommit': lambda cr: setattr(cnx, 'autocommit', True) if not cr.commit() else None,
            'factory': lambda cr: setattr(cnx, 'cursor_factory', psycopg2.extensions.cursor),
            'types': lambda cr: register_type(new_type((23,), 'integer', lambda value, cr: 'left over'), cnx),
            'notice': lambda cr: cr.execute("DROP TABLE IF EXISTS left_over"),
            'notification': lambda cr: cr.execute("LISTEN left_over; NOTIFY left_over"),
            'attribute': lambda cr: setattr(cnx, 'left_over', 1),
        }.items():
            with self.subTest(name=name):
                leave(self.cursor)
                cnx.commit()
                self.next()
                self.assertEqual(self.value("SELECT pg_backend_pid()"), backend)
                after = self.state()
                self.assertEqual({key: after[key] for key in after if after[key] != before.get(key)}, {})

    def test_random_numbers(self):
        """They are not those that the last job can foresee."""
        numbers = set()
        for _i in range(2):
            self.cursor.execute("SELECT setseed(0.5)")
            self.next()
            numbers.add(self.value("SELECT random()"))
        self.assertEqual(len(numbers), 2)

    def test_a_job_is_read_in_its_transaction(self):
        self.cursor.close()
        self.cursor = JobCursor(self.pool)
        self.addCleanup(self.cursor.close)
        self.cursor.begin("SELECT txid_current()")
        [transaction] = self.cursor.fetchone()
        self.assertEqual(self.value("SELECT txid_current()"), transaction)

    def test_what_a_hook_after_the_rollback_left_open_is_rolled_back(self):
        low = self.cursor._cnx.cursor()
        self.cursor.postrollback.add(lambda: low.execute("CREATE TABLE ir_async_left_over (a int)"))
        self.next()
        self.assertIsNone(self.value("SELECT to_regclass('ir_async_left_over')"))

    def test_what_a_hook_left_open_is_rolled_back(self):
        self.env.cr.execute("SELECT id FROM res_partner LIMIT 1")
        self.cursor.commit()
        self.cursor._obj.execute("CREATE TABLE ir_async_left_over (a int)")
        self.next()
        self.assertIsNone(self.value("SELECT to_regclass('ir_async_left_over')"))

    def test_forget_now(self):
        """When no other job follows at once: neither locks nor a snapshot are kept."""
        self.cursor.execute("SELECT pg_advisory_lock(1)")
        self.cursor.commit()
        self.cursor.close()
        self.pool.forget()
        self.assertEqual(self.pool._connection.info.transaction_status, TRANSACTION_STATUS_IDLE)
        self.env.cr.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s",
            [self.pool._connection.get_backend_pid()],
        )
        self.assertEqual(self.env.cr.fetchone(), (0,))
        self.assertEqual(self.pool._connection.notices, [], "PostgreSQL warned of nothing, and will not fill its log")

    def test_transaction_that_psycopg2_does_not_know(self):
        """A method may turn autocommit on, and execute BEGIN itself. Its transaction ends like any other."""
        for end, status in (
            (self.cursor_commit, 'committed'),
            (self.cursor_rollback, 'aborted'),
            (self.pool_forget, 'aborted'),
            (self.next, 'aborted'),
        ):
            with self.subTest(end=end.__name__):
                self.cursor.commit()
                self.cursor._cnx.autocommit = True
                self.cursor.execute("BEGIN")
                transaction = self.value("SELECT txid_current()")
                end()
                self.assertEqual(self.value(f"SELECT txid_status({transaction})"), status)
                self.next()

    def cursor_commit(self):
        self.cursor.commit()

    def cursor_rollback(self):
        self.cursor.rollback()

    def pool_forget(self):
        self.cursor.close()
        self.pool.forget()
        self.assertEqual(self.pool._connection.info.transaction_status, TRANSACTION_STATUS_IDLE)
        self.cursor = self.open()

    @mute_logger('odoo.sql_db')
    def test_a_connection_that_was_cut(self):
        """It is not used again; the next job has another one."""
        backend = self.value("SELECT pg_backend_pid()")
        self.cursor.close()
        self.env.cr.execute("SELECT pg_terminate_backend(%s)", [backend])
        select.select([self.pool._connection], [], [])  # PostgreSQL 13 cannot wait for the end of a process
        with self.assertRaises(psycopg2.Error):
            self.open()
        self.cursor = self.open()
        self.assertNotEqual(self.value("SELECT pg_backend_pid()"), backend)

    @mute_logger('odoo.sql_db')
    def test_a_connection_that_cannot_forget(self):
        """It is not used again."""
        connection = self.cursor._cnx
        self.cursor.close()
        cursor = JobCursor(self.pool)
        with self.assertRaises(psycopg2.errors.DivisionByZero):
            cursor.begin("SELECT 1 / 0")
        self.assertTrue(connection.closed)
        self.cursor = self.open()

    def test_to_be_up_to_date_leaves_no_snapshot(self):
        """The registry may be loaded for a while: the connection is idle then."""
        runner = Runner(
            SimpleNamespace(
                dbname=self.env.cr.dbname,
                server_version=self.env.cr._cnx.server_version,
                client_check={},
                origin=getattr(self.registry, 'ir_async_origin', None),
            )
        )
        self.addCleanup(runner.close)
        with patch.object(Registry, 'check_signaling', side_effect=lambda cr: cr.execute("SELECT 1")) as check:
            runner.prepare(SimpleNamespace(signals='1 2'))
            runner.prepare(SimpleNamespace(signals='1 2'))
            self.assertEqual(check.call_count, 1, "nothing was signaled meanwhile")
            runner.prepare(SimpleNamespace(signals='1 3'))
            self.assertEqual(check.call_count, 2)
        self.assertEqual(runner._pool._connection.info.transaction_status, TRANSACTION_STATUS_IDLE)


class TestClosed(ConnectionCase):
    """A cursor of a job that has ended does nothing to the next one, whoever kept it."""

    def test_whatever_is_called(self):
        closed, connection = self.cursor, self.cursor._cnx
        low, named = connection.cursor(), connection.cursor(name='named')
        self.next()
        self.assertIs(self.cursor._cnx, connection)
        transaction = self.value("SELECT txid_current()")
        for call in (
            closed.commit,
            closed.rollback,
            closed.savepoint,
            lambda: closed.execute("SELECT 1"),
            lambda: closed.__exit__(None, None, None),
            lambda: closed.connection,
            lambda: closed._cnx.cursor(),  # noqa: PLW0108 -- the attribute raises
            lambda: low.execute("SELECT 1"),
            lambda: named.execute("SELECT 1"),
        ):
            with self.assertRaisesRegex(psycopg2.Error, "closed|isn't valid"):
                call()
        closed.close()
        self.assertTrue(closed.closed)
        self.assertEqual(self.value("SELECT txid_current()"), transaction)


class TestFence(ConnectionCase):
    """Nothing is committed of a job that is not this worker's any more. The table of jobs is one of the session here."""

    def setUp(self):
        super().setUp()
        self.cursor.execute("""
            CREATE TEMP TABLE ir_async (LIKE ir_async INCLUDING DEFAULTS);
            INSERT INTO ir_async (id, state, worker_id, claim_number, res_model, res_ids, method, user_id, args, kwargs, context,
                                  priority, channel, attempts, starts, revision)
                 VALUES (1, 'processing', 5, 7, 'm', '[]', 'x', 1, '', '', '', 10, 'default', 0, 0, 2);
            CREATE TEMP TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)
        """)
        self.cursor.commit()
        self.job = Job(*[None] * 13)._replace(id=1, worker_id=5, claim_number=7)
        self.execution = Mock(job=self.job, ended=False, interrupted=False, invalidated=set(), claim_count=None)
        self.cursor._execution = self.execution

    def lose(self):
        """Have another worker take the job over."""
        self.cursor._execution = None
        self.cursor.execute("UPDATE ir_async SET claim_number = claim_number + 1")
        self.cursor.commit()
        self.cursor._execution = self.execution

    def count(self):
        return self.value("SELECT count(*) FROM t")

    def test_a_commit_in_the_job(self):
        self.cursor.execute("INSERT INTO t VALUES (1)")
        self.cursor.commit()
        self.assertEqual(self.count(), 1)
        self.assertFalse(self.execution.ended)

    def test_a_commit_of_a_job_that_is_lost(self):
        """By Odoo's cursor or below it; again and again."""
        self.lose()
        for commit in (self.cursor.commit, self.cursor._cnx.commit, self.cursor.commit):
            self.cursor.execute("INSERT INTO t VALUES (1)")
            with self.assertRaises(ClaimLost):
                commit()
            self.cursor._cnx.rollback()
            self.assertEqual(self.count(), 0)

    def test_the_end(self):
        self.cursor.execute("INSERT INTO t VALUES (1)")
        self.assertEqual(self.cursor.finish(self.job, Outcome('done'), 1), 3)
        self.assertFalse(self.execution.ended)
        self.cursor.commit()
        self.assertTrue(self.execution.ended)
        self.execution.on_end.assert_called_once_with()
        self.cursor.execute("SELECT state, worker_id, attempts, starts, revision FROM ir_async")
        self.assertEqual(self.cursor.fetchone(), ('done', None, 1, 1, 3))

    def test_the_end_of_a_job_that_is_lost(self):
        self.lose()
        self.cursor.execute("INSERT INTO t VALUES (1)")
        with self.assertRaises(ClaimLost):
            self.cursor.finish(self.job, Outcome('done'), 1)
        self.cursor.rollback()
        self.assertEqual(self.count(), 0)
        self.assertFalse(self.execution.ended)

    def test_an_end_that_is_rolled_back(self):
        self.cursor.finish(self.job, Outcome('done'), 1)
        self.cursor.rollback()
        self.cursor.execute("INSERT INTO t VALUES (1)")
        self.cursor.commit()
        self.assertFalse(self.execution.ended)
        self.assertEqual(self.value("SELECT state FROM ir_async"), 'processing')

    def test_an_end_whose_commit_fails(self):
        """A deferred constraint: the job has not ended, and what follows is fenced."""
        self.cursor.execute("INSERT INTO t VALUES (1), (1)")
        self.cursor.finish(self.job, Outcome('done'), 1)
        with self.assertRaises(psycopg2.errors.UniqueViolation):
            self.cursor.commit()
        self.cursor.rollback()
        self.assertFalse(self.execution.ended)
        self.lose()
        self.cursor.execute("INSERT INTO t VALUES (1)")
        with self.assertRaises(ClaimLost):
            self.cursor.commit()

    @mute_logger('odoo.sql_db')
    def test_an_end_in_a_transaction_that_failed(self):
        """PostgreSQL would roll back without an error."""
        self.cursor.finish(self.job, Outcome('done'), 1)
        with self.assertRaises(psycopg2.errors.DivisionByZero):
            self.cursor.execute("SELECT 1 / 0")
        with self.assertRaisesRegex(psycopg2.errors.InFailedSqlTransaction, 'swallowed'):
            self.cursor.commit()
        self.cursor.rollback()
        self.assertFalse(self.execution.ended)

    def test_hooks_after_the_end_may_commit(self):
        self.cursor.finish(self.job, Outcome('done'), 1)
        self.cursor.commit()
        self.cursor.execute("INSERT INTO t VALUES (1)")
        self.cursor.commit()
        self.assertEqual(self.count(), 1)

    def test_an_interrupted_job_executes_nothing_more(self):
        self.execution.interrupted = True
        with self.assertRaises(JobInterrupted):
            self.cursor.execute("INSERT INTO t VALUES (1)")
