"""Odoo's connection pools while jobs run."""

from functools import partialmethod
from types import SimpleNamespace
from unittest.mock import patch

from odoo import sql_db
from odoo.sql_db import ConnectionPool, PoolError
from odoo.tests import BaseCase
from odoo.tools import config

from odoo.addons.ir_async.service import pools


class Connection(SimpleNamespace):
    def __init__(self, **_kwargs):
        super().__init__(closed=0, server_version=150000, dsn='dbname=x', get_backend_pid=lambda: 1)

    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return self is other

    def reset(self):
        pass

    def close(self):
        self.closed = 1


class TestPools(BaseCase):
    def setUp(self):
        super().setUp()
        self.pool = ConnectionPool(64)
        self.startPatcher(patch.object(sql_db, '_Pool', self.pool))
        self.startPatcher(patch.object(sql_db, '_Pool_readonly', ConnectionPool(64, readonly=True)))
        self.startPatcher(patch.object(sql_db.psycopg2, 'connect', Connection))
        self.startPatcher(patch.dict(config.options, db_maxconn=2))

    def borrow(self):
        return self.pool.borrow({'dbname': 'x'})

    def test_limit(self):
        """It counts the connections of the job alone, and leaves room for what comes after the method."""
        self.borrow()
        pools.begin()
        self.borrow()
        with pools.own_work():
            self.borrow()
        self.borrow()
        with self.assertRaisesRegex(PoolError, "the job has 2 cursors open"):
            self.borrow()
        pools.spare()
        pools.spare()
        self.borrow()
        self.borrow()
        with self.assertRaisesRegex(PoolError, "the job has 4 cursors open"):
            self.borrow()
        self.assertEqual(pools.close(), 4)
        self.borrow()
        self.borrow()
        with self.assertRaisesRegex(PoolError, "the job has 2 cursors open"):
            self.borrow()
        pools.end()
        self.borrow()

    def test_no_connection_of_a_job_is_used_again(self):
        """Not by the next job, nor by the next try, nor by the worker."""
        seen = []
        for after in (pools.close, pools.end, pools.begin):
            pools.begin()
            seen.append(self.borrow())
            self.pool.give_back(seen[-1])
            self.assertIs(self.borrow(), seen[-1])
            self.assertEqual(pools.close(), 1)
            self.assertTrue(seen[-1].closed)
            after()
            seen.append(self.borrow())
            self.pool.give_back(seen[-1])
        self.assertEqual(len(set(seen)), 6)
        self.pool.give_back(seen[0])  # by a cursor that somebody kept

    def test_the_workers_connections_stay(self):
        """Also those that it borrows and gives back while a job runs."""
        before = self.borrow()
        pools.begin()
        with pools.own_work():
            within = self.borrow()
        self.pool.give_back(before)
        self.assertIsNot(self.borrow(), before)
        pools.close()
        self.pool.give_back(within)
        pools.end()
        self.assertEqual({self.borrow(), self.borrow()}, {before, within})

    def test_dropped_database(self):
        """Code that drops a database closes all connections to it first."""
        before = self.borrow()
        pools.begin()
        within = self.borrow()
        self.pool.close_all({'dbname': 'x'})
        self.assertTrue(before.closed and within.closed)
        left = self.borrow()
        pools.end()
        self.pool.close_all({'dbname': 'x'})
        self.assertFalse(left.closed, "a thread that the job has left may execute a statement")

    def test_function_that_an_addon_wraps(self):
        """A job may load the addon."""
        pools.begin()
        with patch.object(ConnectionPool, 'borrow', partialmethod(ConnectionPool.borrow)):
            self.borrow()
            pools.end()
            self.borrow()
            pools.begin()
            self.borrow()
            pools.end()
