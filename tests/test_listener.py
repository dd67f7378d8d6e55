"""The connection on which a worker listens."""

import select
from unittest.mock import patch

from odoo.tests import TransactionCase

from .queue_common import Clock
from odoo.addons.ir_async.engine.connection import LIVE_PROCESSES
from odoo.addons.ir_async.engine.notifier import Notifier
from odoo.addons.ir_async.service import listener as listener_module
from odoo.addons.ir_async.service.listener import RECONNECT_DELAY, Listener


class TestListener(TransactionCase):
    def setUp(self):
        super().setUp()
        self.clock = Clock()
        self.startPatcher(patch.object(listener_module, 'time', self.clock))
        self.listener = Listener()
        self.assertTrue(self.listener.connect())
        self.addCleanup(lambda: self.listener.fds() and self.listener.fds()[0].close())

    def backend(self):
        return self.listener.fds()[0].get_backend_pid()

    def test_others_see_that_it_lives(self):
        self.env.cr.execute(LIVE_PROCESSES)
        self.assertIn((self.listener.process_number,), self.env.cr.fetchall())

    def test_it_listens_when_it_has_connected(self):
        """So a worker that then looks at all databases misses nothing."""
        notifier = Notifier()
        notifier.notify(self.env.cr.dbname)
        self.addCleanup(notifier._connection.close)
        self.assertTrue(select.select(self.listener.fds(), [], [], 10)[0], "no NOTIFY within 10 seconds")
        self.assertIn(self.env.cr.dbname, self.listener.read())
        self.assertEqual(self.listener.read(), set())

    def test_a_connection_that_was_cut(self):
        """It connects again, after a while, and says so, since notifications may have been missed."""
        before = self.backend()
        self.assertFalse(self.listener.connect())
        self.env.cr.execute("SELECT pg_terminate_backend(%s)", [before])
        while self.listener.is_connected:  # first a message comes, then the end
            select.select(self.listener.fds(), [], [])
            self.assertEqual(self.listener.read(), set())
        self.assertFalse(self.listener.connect(), "not in a loop")
        self.clock.advance(RECONNECT_DELAY)
        self.assertTrue(self.listener.connect())
        self.assertNotEqual(self.backend(), before)
