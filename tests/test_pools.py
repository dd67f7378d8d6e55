"""Odoo's connection pools while jobs run."""

from functools import partialmethod
from types import SimpleNamespace
from unittest.mock import patch

from odoo.sql_db import ConnectionPool, PoolError
from odoo.tests import BaseCase

from odoo.addons.ir_async.service import pools


class Pool:
    """A pool with the attributes that matter here."""

    def __init__(self, maxconn):
        self._maxconn = maxconn
        self._connections = []

    def borrow(self, _info):
        connection = SimpleNamespace(_pool_in_use=True, closed=0)
        self._connections.append(connection)
        return connection


class TestPools(BaseCase):
    def setUp(self):
        super().setUp()
        self.pool = Pool(2)
        self.startPatcher(patch.object(ConnectionPool, 'borrow', Pool.borrow))
        self.startPatcher(patch.object(pools, '_pools', lambda: [self.pool]))
        self.startPatcher(patch.object(pools._State, 'borrow', None))
        # A job has a context of its own, and its hooks may use the spare connections. Other tests leave out the context.
        self.addCleanup(pools.has_spare.reset, pools.has_spare.set(False))

    def borrow(self):
        return ConnectionPool.borrow(self.pool, {})

    def test_limit(self):
        """It counts the connections of the job, and is gone afterwards."""
        self.borrow()
        pools.begin()
        self.borrow()
        with pools.own_work():
            self.borrow()
        self.borrow()
        with self.assertRaises(PoolError):
            self.borrow()
        pools.end()
        self.borrow()
        self.assertEqual(self.pool._maxconn, 2)

    def test_function_that_an_addon_wraps(self):
        """A job may load the addon. Its wrapper stays around our function."""
        pools.begin()
        ConnectionPool.borrow = partialmethod(ConnectionPool.borrow)
        pools.end()
        self.borrow()
        pools.begin()
        self.borrow()
        pools.end()
        self.assertEqual(self.pool._maxconn, 2)
        self.assertEqual(len(self.pool._connections), 2)
