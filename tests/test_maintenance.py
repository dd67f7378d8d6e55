from datetime import timedelta
from unittest.mock import patch

from .queue_common import QueueCase
from odoo.addons.ir_async.engine import maintenance
from odoo.addons.ir_async.engine.claim import END, claim_one
from odoo.addons.ir_async.engine.job import PORTION
from odoo.addons.ir_async.engine.maintenance import (
    BUSY_SWEEP_INTERVAL,
    FLUX_TIME,
    LOOK_INTERVAL,
    STUCK_TIME,
    SWEEP_INTERVAL,
    WARNING_INTERVAL,
)


class TestMaintenance(QueueCase):
    """What a worker does that has nothing to claim, and when it looks again."""

    def end(self, job, state):
        """Have a job end, with nobody there to look for its children."""
        self.env['ir.async'].flush_model()
        [claimed] = claim_one(self.session, job.id)
        self.finish(claimed, state)

    def settle(self):
        """Claim and look after the queue until there is nothing to do; return when to look again."""
        for _i in range(10):
            self.env['ir.async'].flush_model()
            self.assertFalse(self.session.claim(1))
            delay = self.watch()
            if delay != 0:
                return delay
        self.fail("it never comes to rest")
        return None

    # ------------------------------------------------------------
    # When there is nothing to do
    # ------------------------------------------------------------

    def test_an_empty_queue(self):
        self.assertIsNone(self.settle())

    def test_what_waits_for_a_notification_is_not_polled(self):
        """A paused channel, everything paused, a failed parent: only somebody's action changes anything."""
        channel = self.env['ir.async.channel'].create({'name': 'c', 'paused': True})
        self.call(channel='c')
        self.assertIsNone(self.settle())
        channel.action_resume()
        [claimed] = self.claim()
        self.finish(claimed, 'failed')
        self.call(after=self.env['ir.async'].browse(claimed.id))
        self.session.wake()
        self.settle()
        self.clock.advance(BUSY_SWEEP_INTERVAL)
        self.assertIsNone(self.settle())
        self.env['ir.async.channel'].create({'name': '*', 'paused': True})
        self.call()
        self.assertIsNone(self.settle())

    def test_what_is_running_is_looked_at(self):
        """Its worker may die."""
        self.call()
        self.claim(session=self.open_session())
        self.assertEqual(self.settle(), LOOK_INTERVAL)

    # ------------------------------------------------------------
    # Sweeps
    # ------------------------------------------------------------

    def test_a_sweep_that_was_skipped_is_owed(self):
        """A child of a parent that has ended does not wait for the next poll."""
        failed = self.call()
        self.end(failed, 'failed')
        self.call(after=failed)  # something always waits
        self.settle()
        parent = self.call()
        self.end(parent, 'done')
        child = self.call(after=parent)
        self.session.wake()
        self.assertFalse(self.session.claim(1))
        delay = self.watch()
        self.assertEqual(child.state, 'waiting', "the last sweep was just now")
        self.assertAlmostEqual(delay, SWEEP_INTERVAL)
        self.clock.advance(delay)
        self.assertEqual(self.watch(), 0)
        self.assertEqual(child.state, 'created')

    def test_a_later_sweep_is_owed(self):
        """The worker of a parent may die just after the first sweep, before it can unblock the children."""
        failed = self.call()
        self.end(failed, 'failed')
        self.call(after=failed)
        self.settle()
        self.session.wake()
        self.clock.advance(SWEEP_INTERVAL)
        self.assertEqual(self.watch(), BUSY_SWEEP_INTERVAL)
        self.clock.advance(BUSY_SWEEP_INTERVAL)
        self.assertIsNone(self.watch())

    def test_a_sweep_is_not_made_for_nothing(self):
        """Neither each time that somebody looks, nor each time that somebody is notified."""
        failed = self.call()
        self.end(failed, 'failed')
        self.call(after=failed)
        self.settle()
        with patch.object(self.session._dependencies, 'unblock', return_value=set()) as unblock:
            for _i in range(5):
                self.watch()
            self.clock.advance(SWEEP_INTERVAL)
            self.watch()
            self.assertEqual(unblock.call_count, 0)
            for _i in range(5):
                self.session.wake()
                self.watch()
            self.assertEqual(unblock.call_count, 1)

    def test_what_nobody_reported_is_swept_up(self):
        """The worker of the parent died between its commit and its children; another one goes on running jobs."""
        failed = self.call()
        self.end(failed, 'failed')
        self.call(after=failed)
        self.settle()
        parent = self.call()
        child = self.call(after=parent)
        self.end(parent, 'done')
        for _i in range(BUSY_SWEEP_INTERVAL):
            self.assertEqual(child.state, 'waiting')
            self.clock.advance(1)
            self.session.maintain(is_busy=True)
            self.env.invalidate_all()
        self.assertEqual(child.state, 'created')

    def test_without_waiting_jobs_nothing_is_swept(self):
        self.call()
        with patch.object(self.session._dependencies, 'unblock', return_value=set()) as unblock:
            self.session.wake()
            self.watch()
        self.assertFalse(unblock.called)
        self.assertFalse(self.session.has_waiting)

    # ------------------------------------------------------------
    # Dates
    # ------------------------------------------------------------

    def test_due_jobs_are_staged_by_a_busy_worker_too(self):
        job = self.call(delay=100)
        self.shift(job, date_scheduled=-101)
        self.assertEqual(self.session.maintain(is_busy=True), 0)
        self.env.invalidate_all()
        self.assertFalse(job.date_scheduled)

    def test_more_due_jobs_than_one_portion(self):
        """A busy worker goes on after its next batch, since an urgent one may be among them."""
        jobs = [self.call(delay=100) for _i in range(3)]
        for job in jobs:
            self.shift(job, date_scheduled=-101)
        stage = maintenance.STAGE.replace(f'LIMIT {PORTION}', 'LIMIT 2')
        with patch.object(maintenance, 'STAGE', stage), patch.object(maintenance, 'PORTION', 2):
            for expected in (True, False):
                self.session.maintain(is_busy=True)
                self.assertEqual(self.session.has_more, expected)

    def test_an_urgent_due_job_among_many(self):
        """It is in the first portion, though the others were due before it."""
        jobs = [self.call(delay=100, priority=priority) for priority in (10, 10, 10, 5)]
        for job, seconds in zip(jobs, (-190, -180, -170, -101), strict=True):
            self.shift(job, date_scheduled=seconds)
        future = self.call(delay=100, priority=1)
        with patch.object(maintenance, 'STAGE', maintenance.STAGE.replace(f'LIMIT {PORTION}', 'LIMIT 2')):
            self.session.maintain(is_busy=True)
        self.env.invalidate_all()
        self.assertEqual([bool(job.date_scheduled) for job in jobs], [False, True, True, False])
        self.assertTrue(future.date_scheduled)

    def test_a_due_job_that_somebody_has_locked(self):
        """The worker looks again later, not in a loop."""
        job = self.call(delay=60)
        self.env['ir.async'].flush_model()
        self.env.cr.execute(
            "UPDATE ir_async SET date_scheduled = date_scheduled - interval '2 minutes' WHERE id = %s", [job.id]
        )
        self.assertFalse(self.session.claim(1))
        with patch.object(self.session, 'change', return_value=set()):  # as SKIP LOCKED does
            self.assertEqual(self.watch(), LOOK_INTERVAL)

    def test_a_staged_job_keeps_its_revision(self):
        job = self.call(delay=100)
        self.shift(job, date_scheduled=-101)
        self.watch()
        self.assertRecordValues(job, [{'state': 'created', 'revision': 1, 'date_scheduled': False}])

    def test_others_are_notified_of_what_changed(self):
        job = self.call(delay=100)
        self.shift(job, date_scheduled=-101)
        with patch.object(maintenance.notifier, 'notify') as notify:
            self.watch()
            notify.assert_called_once_with(self.env.cr.dbname)
            self.watch()
            notify.assert_called_once()

    # ------------------------------------------------------------
    # Modules in flux
    # ------------------------------------------------------------

    def upgrade(self, seconds=0):
        """Have a module wait for its upgrade, since some seconds."""
        module = self.env['ir.module.module'].search([('state', '=', 'installed')], limit=1)
        module.state = 'to upgrade'
        module.flush_recordset()
        self.env.cr.execute(
            "UPDATE ir_module_module SET write_date = write_date - %s WHERE id = %s",
            [timedelta(seconds=seconds), module.id],
        )

    def test_modules_in_flux_hold_jobs_up_and_that_is_said(self):
        job = self.call()
        self.upgrade(seconds=60)
        with self.assertNoLogs('odoo.addons.ir_async.engine.maintenance', 'WARNING'):
            self.assertFalse(self.claim())  # most upgrades are over soon
        self.shift(job, create_date=-FLUX_TIME)
        with self.assertLogs('odoo.addons.ir_async.engine.maintenance', 'WARNING') as log:
            for _i in range(5):
                self.assertEqual(self.watch(), LOOK_INTERVAL)
        self.assertEqual(len(log.output), 1, "once a minute")
        self.assertIn(f"Jobs of database {self.env.cr.dbname} wait because of modules", log.output[0])
        self.clock.advance(WARNING_INTERVAL)
        with self.assertLogs('odoo.addons.ir_async.engine.maintenance', 'WARNING'):
            self.watch()

    def test_modules_in_flux_since_the_look(self):
        """The claim itself sees them."""
        self.env['ir.async.channel'].create({'name': 'c', 'capacity': 1})
        self.call(channel='c')
        self.env['ir.async'].flush_model()
        self.session._channels.look()
        self.upgrade(seconds=60)
        self.assertEqual(self.session._channels.claim(1, before=END), [])

    def test_modules_in_flux_hold_limited_jobs_up_and_that_is_said(self):
        """Exports and reports are such jobs."""
        self.env['ir.async.channel'].create({'name': 'c', 'capacity': 1})
        job = self.call(channel='c')
        self.upgrade(seconds=60)
        self.shift(job, create_date=-FLUX_TIME)
        with self.assertLogs('odoo.addons.ir_async.engine.maintenance', 'WARNING') as log:
            self.assertFalse(self.claim())
        self.assertIn("wait because of modules", log.output[0])
        self.assertEqual(self.watch(), LOOK_INTERVAL)
        self.clock.advance(WARNING_INTERVAL)
        self.env['ir.async.channel'].search([('name', '=', 'c')]).action_pause()
        with self.assertNoLogs('odoo.addons.ir_async.engine.maintenance', 'WARNING'):
            self.watch()

    def test_without_jobs_nothing_is_said(self):
        self.upgrade()
        with self.assertNoLogs('odoo.addons.ir_async.engine.maintenance', 'WARNING'):
            self.watch()

    def test_modules_that_were_left_over_are_reset(self):
        """As Odoo's crons do, after the same time."""
        job = self.call()
        self.upgrade(seconds=STUCK_TIME + 60)
        for seconds, count in ((-STUCK_TIME + 60, 0), (-120, 1)):
            self.shift(job, create_date=seconds)
            self.clock.advance(WARNING_INTERVAL)
            with (
                self.assertLogs('odoo.addons.ir_async.engine.maintenance', 'WARNING'),
                patch.object(maintenance, 'reset_modules_state') as reset,
            ):
                self.watch()
            self.assertEqual(reset.call_count, count)

    def test_modules_that_change_now_are_left_alone(self):
        """A job may have waited for hours for something else, such as a paused channel."""
        self.shift(self.call(), create_date=-STUCK_TIME - 60)
        self.upgrade(seconds=5)
        with (
            self.assertNoLogs('odoo.addons.ir_async.engine.maintenance', 'WARNING'),
            patch.object(maintenance, 'reset_modules_state') as reset,
        ):
            self.watch()
            self.upgrade(seconds=STUCK_TIME + 60)
            self.session.maintain(is_busy=True)
        self.assertFalse(reset.called, "a busy worker does not know whether a job waits for the modules")
