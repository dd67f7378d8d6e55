from unittest.mock import patch

from odoo.exceptions import AccessError, UserError
from odoo.tests import new_test_user
from odoo.tools import mute_logger

from .queue_common import QueueCase
from odoo.addons.ir_async.engine import origin
from odoo.addons.ir_async.engine.claim import claim_one
from odoo.addons.ir_async.models import ir_async_served

OF_PRODUCTION = '7000000000000000001/16384'


class TestOrigin(QueueCase):
    """Jobs that came with a copy of another database."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.user = new_test_user(cls.env, 'anna', 'base.group_user,base.group_allow_export')
        cls.manager = new_test_user(cls.env, 'mona', 'base.group_user,ir_async.ir_async_group_manager')
        cls.env['ir.async.channel'].create({'name': 'limited', 'capacity': 1})

    def copied(self, state='created', **options):
        """Return a job as it is in a copy."""
        job = self.call(**options)
        job.flush_model()
        self.env.cr.execute(
            "UPDATE ir_async SET origin = %s, state = %s, worker_id = CASE %s WHEN 'processing' THEN 4711 END WHERE id = %s",
            [OF_PRODUCTION, state, state, job.id],
        )
        self.env.invalidate_all()
        return job

    def test_rows_have_the_origin(self):
        """However many are enqueued, with or without a key, and in whatever way they are inserted."""
        jobs = self.call() + self.call(key='k')
        for count in (3, 200):
            jobs += self.env['ir.async'].concat(*(self.call() for _i in range(count)))
        self.env.cr.execute(
            "SELECT system_identifier || '/' || oid FROM pg_control_system(), pg_database WHERE datname = current_database()"
        )
        [here] = self.env.cr.fetchone()
        self.assertEqual(set(jobs.sudo().mapped('origin')), {here})
        self.assertEqual(self.session.origin, here)
        self.assertFalse(jobs.filtered('is_elsewhere'))

    def test_another_savepoint(self):
        """What a rollback takes away is read again."""
        with self.assertRaises(ZeroDivisionError), self.env.cr.savepoint():
            self.call()
            raise ZeroDivisionError
        self.assertEqual(self.call().sudo().origin, self.session.origin)

    def test_without_the_privilege(self):
        """Where nobody may ask for the identifier of the cluster, the database has its number and name."""
        self.env.cr.execute(f"SELECT {origin.EXPRESSIONS[False]}")
        [here] = self.env.cr.fetchone()
        self.assertRegex(here, rf'^unknown/\d+/{self.env.cr.dbname}$')
        with patch.object(origin, 'IS_PERMITTED', "SELECT false"), self.env.cr._cnx.cursor() as cr:
            self.assertEqual(origin.read_origin(cr), here)

    def test_nothing_is_claimed(self):
        """Plain, limited, dated, waiting, of a certain id, or of a dead worker: none is run, or changed."""
        parent = self.call()
        jobs = self.copied() + self.copied(channel='limited') + self.copied(channel='limited/x') + self.copied(delay=60)
        jobs += (
            self.copied('waiting', after=parent)
            + self.copied('processing')
            + self.copied('processing', channel='limited')
        )
        cancelled, due = self.call(), self.call(delay=60)
        jobs += self.copied('waiting', after=cancelled)
        self.call(after=due)  # for its sake, workers sweep
        cancelled.cancel()
        self.shift(jobs + due, date_scheduled=-61)
        before = jobs.read(['state', 'revision', 'date_scheduled', 'claim_number'])
        [claimed] = self.claim(50)
        self.assertEqual(claimed.id, parent.id)
        self.finish(claimed)
        self.session.unblock([parent.id])
        own = self.call(channel='limited')
        self.assertEqual(self.claimed(50), own, "the slot of the copied one is free")
        self.session.unblock()
        self.assertEqual(self.claimed(50), due)
        self.assertFalse(self.claim(50))
        for job in jobs:
            self.assertFalse(claim_one(self.session, job.id))
        self.env.invalidate_all()
        self.assertEqual(jobs.read(['state', 'revision', 'date_scheduled', 'claim_number']), before)

    def test_a_large_backlog_costs_nothing(self):
        """Claims do not go through the jobs of another database."""
        own = self.call()
        self.copied()
        self.env.cr.execute(
            """
            INSERT INTO ir_async (state, res_model, res_ids, method, user_id, args, kwargs, context, priority, channel, limited, origin)
                 SELECT 'created', 'res.partner', '[]', 'x', 1, '[]', '{}', '{}', 0, 'default', false, %s FROM generate_series(1, 5000)
        """,
            [OF_PRODUCTION],
        )
        self.env.cr.execute("SELECT pg_stat_get_xact_tuples_fetched('ir_async'::regclass)")
        [before] = self.env.cr.fetchone()
        self.assertEqual(self.claimed(), own)
        self.env.cr.execute("SELECT pg_stat_get_xact_tuples_fetched('ir_async'::regclass)")
        [after] = self.env.cr.fetchone()
        self.assertLess(after - before, 200)

    def test_keys(self):
        """A copied job does not stand for one that is enqueued here."""
        copied = self.copied(key='sync')
        own = self.call(key='sync')
        self.assertNotEqual(own, copied)
        self.assertEqual(self.call(key='sync'), own)
        with self.assertRaisesRegex(UserError, "same key"), mute_logger('odoo.sql_db'):
            copied.with_user(self.manager).adopt()
        self.assertTrue(copied.is_elsewhere)
        own.cancel()
        copied.with_user(self.manager).adopt()
        self.assertEqual(self.call(key='sync'), copied)

    def test_adopt(self):
        jobs = self.copied() + self.copied(channel='limited') + self.copied('processing')
        waiting = self.copied('waiting', after=jobs[0])
        ended, own = self.copied('failed'), self.call()
        self.assertEqual(
            self.env['ir.async'].search([('is_elsewhere', '=', True)]), (jobs + waiting).sorted('id', reverse=True)
        )
        self.assertNotIn(waiting, self.env['ir.async'].search([('is_elsewhere', '=', False)]))
        everything = jobs + waiting + ended + own
        with self.assertRaises(AccessError):
            everything.with_user(self.user).adopt()
        self.assertIs(everything.with_user(self.manager).adopt(), True)
        self.env.invalidate_all()
        self.assertFalse(self.env['ir.async'].search([('is_elsewhere', '=', True)]))
        self.assertEqual(everything.mapped('state'), ['created'] * 3 + ['waiting', 'failed', 'created'])
        self.assertEqual(set(everything.sudo().mapped('origin')), {self.session.origin, OF_PRODUCTION})
        self.assertEqual(ended.sudo().origin, OF_PRODUCTION, "nothing to run")
        claimed = [self.claimed(50) for _i in range(3)]  # the limited one is between the others
        self.assertEqual(set(self.env['ir.async'].concat(*claimed)), set(jobs + own))

    def test_cancel_and_retry(self):
        """Somebody who cancels or retries a copied job means it, whatever its worker did in the other database."""
        running = self.copied('processing')
        running.cancel()
        self.assertEqual(running.state, 'cancelled')
        self.env.cr.execute("SELECT count(*) FROM ir_async_stop WHERE job_id = %s", [running.id])
        self.assertEqual(self.env.cr.fetchone(), (0,))
        running.retry()
        self.assertFalse(running.is_elsewhere)
        self.assertEqual(self.claimed(), running)

    def test_own_child_of_a_copied_parent(self):
        parent = self.copied()
        child = self.call(after=parent)
        self.assertFalse(self.claim(50))
        parent.with_user(self.manager).adopt()
        [claimed] = self.claim(50)
        self.assertEqual(claimed.id, parent.id)
        self.finish(claimed)
        self.session.unblock()
        self.assertEqual(self.claimed(50), child)

    def test_copied_jobs_leave_room(self):
        """Workers leave them out, and so does whatever says why a job waits, for how long, and whether a worker is free."""
        self.copied('processing', channel='limited')
        self.copied(channel='limited')
        model = self.env['ir.async']
        with patch.object(ir_async_served, 'IS_SERVED', '%s::text IS NOT NULL'):
            self.assertTrue(model._is_worker_free('limited'))
            job = self.call(channel='limited')
            job.flush_model()
            self.assertIn("waits for a free worker", job.wait_reason)
            self.shift(job, create_date=-500)
            self.assertGreaterEqual(model._health()['oldest_due_seconds'], 500)

    def test_what_users_see(self):
        """Lists, forms and exports of a user who is no manager have copied jobs in them."""
        job = self.env['ir.async'].call_notify("Export", self.partner.with_user(self.user).name_create, "x")
        job.flush_model()
        self.env.cr.execute("UPDATE ir_async SET origin = NULL WHERE id = %s", [job.id])
        self.env.invalidate_all()
        mine = self.env['ir.async'].with_user(self.user)
        self.assertEqual([row['id'] for row in mine.get_user_jobs()], job.ids)
        self.assertEqual(mine.search([('is_elsewhere', '=', True)]), job)
        self.assertEqual(mine.browse(job.id).export_data(['name', 'is_elsewhere'])['datas'], [["Export", True]])
        self.assertEqual(mine.browse(job.id).web_read({'is_elsewhere': {}})[0]['is_elsewhere'], True)

    def test_warning(self):
        with self.env.cr._cnx.cursor() as cr:
            here = origin.read_origin(cr)
            with patch.object(origin, '_reported', set()):
                with self.assertNoLogs(origin.__name__, 'WARNING'):
                    origin.warn_of_copies(cr, 'copy', here)
                self.copied()
                self.copied('failed')
                with self.assertLogs(origin.__name__, 'WARNING') as log:
                    origin.warn_of_copies(cr, 'copy', here)
                self.assertIn("Database copy: 1 queued jobs came with a copy of another database", log.output[0])
                with self.assertNoLogs(origin.__name__, 'WARNING'):
                    origin.warn_of_copies(cr, 'copy', here)
