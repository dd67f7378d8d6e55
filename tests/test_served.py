import re

from psycopg2.extensions import AsIs

from odoo.tools import SQL

from .queue_common import QueueCase
from odoo.addons.ir_async.engine.connection import PROCESS_LOCK_CLASS, connect
from odoo.addons.ir_async.engine.registration import register
from odoo.addons.ir_async.engine.serving import served_database


class TestServed(QueueCase):
    """Who would run a job."""

    def setUp(self):
        super().setUp()
        self.env.cr.execute("DELETE FROM ir_async_worker")

    def worker(self, key, channels=None, is_alive=True):
        """Add a worker process that serves this database; return what ends it."""
        self.env.cr.execute(
            SQL(
                "INSERT INTO ir_async_worker (process_number, channels, database) VALUES (%s, %s, %s)",
                key,
                channels,
                SQL(served_database(self.env['ir.async']._get_origin_expression())),
            )
        )
        if is_alive:
            connection = connect('postgres')
            self.addCleanup(connection.close)
            with connection.cursor() as cr:
                cr.execute("SELECT pg_advisory_lock(%s, %s)", [PROCESS_LOCK_CLASS, key])

            def end():
                with connection.cursor() as cr:
                    cr.execute("SELECT pg_advisory_unlock(%s, %s)", [PROCESS_LOCK_CLASS, key])

            return end
        return None

    def why(self, channel='default'):
        return self.env['ir.async']._why_unserved(channel)

    def test_no_worker(self):
        self.assertEqual(self.why(), 'no_worker')

    def test_a_worker(self):
        end = self.worker(11)
        for channel in ('default', 'export', 'a/b'):
            self.assertIsNone(self.why(channel))
        end()
        self.assertEqual(self.why(), 'no_worker', "its row stays, its lock is gone")

    def test_a_dead_worker(self):
        self.worker(11, is_alive=False)
        self.assertEqual(self.why(), 'no_worker')

    def test_a_worker_of_another_database(self):
        """It holds its lock, and has no row here."""
        connection = connect('postgres')
        self.addCleanup(connection.close)
        with connection.cursor() as cr:
            cr.execute("SELECT pg_advisory_lock(%s, %s)", [PROCESS_LOCK_CLASS, 11])
        self.assertEqual(self.why(), 'no_worker')

    def test_a_row_of_something_else(self):
        """It came with a copy, was written under another name, by another version, or before rows said so."""
        self.worker(11)
        self.env.cr.execute("SELECT database FROM ir_async_worker")
        [database] = self.env.cr.fetchone()
        for part in ('^[^/]*', '/[0-9]+', f'/{self.env.cr.dbname}', 'base [^,]*', 'ir_async .*', '.*'):
            with self.subTest(part=part):
                self.env.cr.execute("UPDATE ir_async_worker SET database = %s", [re.sub(part, 'x', database, count=1)])
                self.assertEqual(self.why(), 'no_worker')
                self.assertEqual(self.env['ir.async']._count_workers(), 0)
                self.assertFalse(self.env['ir.async.worker'].search([('is_alive', '=', True)]))
        self.env.cr.execute("UPDATE ir_async_worker SET database = NULL")
        self.assertEqual(self.why(), 'no_worker')
        self.env.cr.execute("UPDATE ir_async_worker SET database = %s", [database])
        self.assertIsNone(self.why())

    def test_versions(self):
        """Workers of another version leave a database alone."""
        self.worker(11)
        for name in ('base', 'ir_async'):
            module = self.env['ir.module.module'].search([('name', '=', name)])
            version, module.latest_version = module.latest_version, '19.0.9.9.9'
            module.flush_recordset()
            self.assertEqual(self.why(), 'no_worker')
            module.latest_version = version
            module.flush_recordset()
            self.assertIsNone(self.why())

    def test_registered(self):
        """What a worker writes counts, and goes where it does not any more."""
        self.worker(11)
        self.env.cr.execute("DELETE FROM ir_async_worker")
        origin = AsIs(self.env['ir.async']._get_origin_expression())
        with self.env.cr._cnx.cursor() as cr:
            key = register(cr, origin, 11)
            cr.execute("SELECT pg_advisory_unlock_all()")
            self.assertIsNone(self.why())
            register(cr, origin)
            self.assertTrue(self.env['ir.async.worker'].browse(key).exists())
            cr.execute("UPDATE ir_async_worker SET database = 'another'")
            register(cr, origin)
        self.assertFalse(self.env['ir.async.worker'].browse(key).exists())

    def test_a_session_that_closed(self):
        """An idle worker keeps no connection, and serves the database all the same."""
        self.worker(11)
        self.env.cr.execute("UPDATE ir_async_worker SET closed = true")
        self.assertIsNone(self.why())

    def test_channels(self):
        self.worker(11, 'export,mail')
        for channel, expected in (
            ('export', None),
            ('export/7', None),
            ('mail', None),
            ('default', 'no_worker'),
            ('exports', 'no_worker'),
            ('mail,export', 'no_worker'),
            ('a/export', 'no_worker'),
        ):
            with self.subTest(channel=channel):
                self.assertEqual(self.why(channel), expected)
        end = self.worker(12)
        self.assertIsNone(self.why('default'))
        end()
        self.assertEqual(self.why('default'), 'no_worker')

    def test_paused(self):
        self.worker(11)
        # a channel of that name may be there
        channel = self.env['ir.async.channel'].create({'name': 'ir_async_c'})
        everything = self.env['ir.async.channel'].create({'name': '*'})
        channel.action_pause()
        self.assertEqual(
            [self.why(name) for name in ('ir_async_c', 'ir_async_c/1', 'other')], ['paused', 'paused', None]
        )
        channel.action_resume()
        everything.action_pause()
        self.assertEqual([self.why(name) for name in ('ir_async_c', 'other')], ['paused', 'paused'])
        everything.action_resume()
        self.assertIsNone(self.why('ir_async_c'))

    def test_upgrading(self):
        self.worker(11)
        module = self.env['ir.module.module'].search([('state', '=', 'installed')], limit=1)
        for state in ('to install', 'to upgrade', 'to remove'):
            module.state = state
            module.flush_recordset()
            self.assertEqual(self.why(), 'upgrading')
        module.state = 'installed'
        module.flush_recordset()
        self.assertIsNone(self.why())

    def has_unserved(self):
        self.env['ir.async'].flush_model()
        return self.env['ir.async']._has_unserved()

    def test_has_unserved(self):
        self.assertFalse(self.has_unserved(), "there is no job")
        job = self.call(channel='a/1')
        self.assertTrue(self.has_unserved())
        end = self.worker(11, 'b')
        self.assertTrue(self.has_unserved())
        self.worker(12, 'a')
        self.assertFalse(self.has_unserved())
        self.call(channel='b', delay=1000)
        self.assertFalse(self.has_unserved())
        end()
        self.assertTrue(self.has_unserved())
        self.worker(13)
        self.assertFalse(self.has_unserved())
        job.cancel()
        self.assertFalse(self.has_unserved())

    def test_what_ended_needs_nobody(self):
        job = self.call()
        job.cancel()
        self.assertFalse(self.has_unserved())
