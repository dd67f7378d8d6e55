"""The connection on which a worker listens."""

import os
import select
import signal
import socket
import tempfile
from unittest.mock import patch

from odoo.tests import TransactionCase

from .queue_common import Clock
from odoo.addons.ir_async.engine import connection as connection_module
from odoo.addons.ir_async.engine.connection import LIVE_PROCESSES
from odoo.addons.ir_async.engine.notifier import CHANNEL as NAMES
from odoo.addons.ir_async.engine.notifier import Notifier
from odoo.addons.ir_async.service import listener as listener_module
from odoo.addons.ir_async.service.listener import RECONNECT_DELAY, Listener
from odoo.addons.ir_async.service.roster import CHANNEL as WORKERS
from odoo.addons.ir_async.tools.config import Settings


class TestListener(TransactionCase):
    def setUp(self):
        super().setUp()
        self.clock = Clock()
        self.startPatcher(patch.object(listener_module, 'time', self.clock))
        self.listener = Listener(4711)
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
        self.assertEqual([(sent.channel, sent.payload) for sent in self.listener.read()], [(NAMES, self.env.cr.dbname)])
        self.assertEqual(self.listener.read(), [])

    def test_it_hears_other_workers_and_itself(self):
        """In one order, and it does not wait while it sends."""
        for i in range(5):
            self.listener.send(WORKERS, f'message {i}')
        heard = []
        while len(heard) < 5:
            self.assertTrue(select.select(self.listener.fds(), [], [], 10)[0], "no notification within 10 seconds")
            heard += self.listener.read()
        self.assertEqual([sent.payload for sent in heard], [f'message {i}' for i in range(5)])

    def test_a_message_that_postgresql_does_not_take(self):
        """The connection stays, and so do its notifications."""
        before = self.backend()
        self.listener.send(WORKERS, 'x' * 8000)
        self.listener.send(WORKERS, 'message')
        heard = []
        while not heard:
            self.assertTrue(select.select(self.listener.fds(), [], [], 10)[0], "no notification within 10 seconds")
            heard = self.listener.read()
        self.assertEqual([sent.payload for sent in heard], ['message'])
        self.assertEqual(self.backend(), before)

    def test_a_server_that_does_not_answer(self):
        """Neither sending nor reading waits for it."""
        os.kill(self.backend(), signal.SIGSTOP)
        try:
            for i in range(100):
                self.listener.send(WORKERS, f'message {i}')
                self.assertEqual(self.listener.read(), [])
        finally:
            os.kill(self.backend(), signal.SIGCONT)

    def test_a_job_that_takes_its_descriptor(self):
        """What the job has opened there is neither written nor closed."""
        descriptor = self.listener.fds()[0].fileno()
        kept = os.dup(descriptor)  # for the server and the clean-up
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), descriptor)
            try:
                for use in (lambda: self.listener.send(WORKERS, 'message'), self.listener.read):
                    with self.assertRaises(OSError):
                        use()
                    self.assertEqual(os.fstat(file.fileno()).st_size, 0)
                    self.assertTrue(os.path.sameopenfile(file.fileno(), descriptor))
            finally:
                os.dup2(kept, descriptor)
                os.close(kept)

    def test_a_host_that_does_not_answer(self):
        """It connects to the next one, as other connections do."""
        here = self.listener.fds()[0].info
        with socket.create_server(('127.0.0.1', 0)) as silent:
            settings = Settings(db_host=f'127.0.0.1,{here.host}', db_port=f'{silent.getsockname()[1]},{here.port}')
            with (
                patch.object(connection_module, 'settings', lambda: settings),
                patch.dict(connection_module.CLIENT_LIMITS, connect_timeout=2),  # the least that libpq knows
            ):
                other = Listener(4712)
                self.assertTrue(other.connect())
                other.fds()[0].close()

    def test_a_connection_that_was_cut(self):
        """It connects again, after a while, and says so, since notifications may have been missed."""
        before = self.backend()
        self.assertFalse(self.listener.connect())
        self.env.cr.execute("SELECT pg_terminate_backend(%s)", [before])
        for _message in range(10):  # first a message comes, then the end
            if self.listener.is_connected:
                select.select(self.listener.fds(), [], [], 10)
                self.assertEqual(self.listener.read(), [])
        self.assertFalse(self.listener.is_connected)
        self.assertFalse(self.listener.connect(), "not in a loop")
        self.clock.advance(RECONNECT_DELAY)
        self.assertTrue(self.listener.connect())
        self.assertNotEqual(self.backend(), before)
