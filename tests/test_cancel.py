from unittest.mock import patch

from odoo.exceptions import AccessError, UserError
from odoo.tests import new_test_user
from odoo.tools import mute_logger

from .queue_common import QueueCase
from odoo.addons.ir_async.engine.claim import claim_one
from odoo.addons.ir_async.engine.fence import fence_off
from odoo.addons.ir_async.engine.job import Outcome
from odoo.addons.ir_async.engine.release import release
from odoo.addons.ir_async.exceptions import ClaimLost


class TestCancel(QueueCase):
    """Cancelling jobs in each state. What it takes to stop a method is shown by the system tests."""

    def stop_requests(self):
        self.env.cr.execute("SELECT job_id, reason FROM ir_async_stop")
        return dict(self.env.cr.fetchall())

    def in_state(self, state, **options):
        job = self.call(**options)
        if state == 'waiting':
            return self.call(after=job)
        if state != 'created':
            [claimed] = self.claim()
            self.assertEqual(claimed.id, job.id)
            if state != 'processing':
                self.finish(claimed, state)
        return job

    def test_queued_jobs_are_cancelled_at_once(self):
        for state in ('created', 'waiting'):
            job = self.in_state(state)
            revision = job.revision
            self.assertEqual(job.state, state)
            self.assertIs(job.cancel(), True)
            self.assertRecordValues(job, [{'state': 'cancelled', 'revision': revision + 1, 'attempts': 0}])
            self.assertTrue(job.date_done)
            self.assertFalse(self.stop_requests())

    def test_dated_job(self):
        job = self.call(delay=1000)
        job.cancel()
        self.assertEqual(job.state, 'cancelled')
        self.shift(job, date_scheduled=-1001)
        self.assertFalse(self.claim())

    def test_cancelled_jobs_are_never_claimed(self):
        job, other = self.call(), self.call()
        job.cancel()
        self.assertEqual([claimed.id for claimed in self.claim(50)], other.ids)
        self.assertFalse(claim_one(self.session, job.id))

    def test_a_running_jobs_row_is_left_to_its_worker(self):
        job = self.in_state('processing')
        revision = job.revision
        job.cancel()
        self.assertRecordValues(job, [{'state': 'processing', 'revision': revision}])
        self.assertEqual(self.stop_requests(), {job.id: 'cancel'})
        job.cancel()  # nothing more happens
        self.assertEqual(self.stop_requests(), {job.id: 'cancel'})

    def test_ended_jobs_cannot_be_cancelled(self):
        for state in ('succeeded', 'done', 'failed', 'cancelled'):
            job = self.in_state(state)
            with self.assertRaisesRegex(UserError, str(job.id)):
                job.cancel()
            self.assertEqual(job.state, state)

    def test_all_or_nothing(self):
        ended, queued, running = (
            self.in_state('done'),
            self.in_state('created', priority=20),
            self.in_state('processing'),
        )
        with self.assertRaises(UserError):
            (queued + running + ended).cancel()
        self.assertEqual((queued + running).mapped('state'), ['created', 'processing'])
        self.assertFalse(self.stop_requests())
        (queued + running).cancel()
        self.assertEqual(queued.state, 'cancelled')
        self.assertEqual(self.stop_requests(), {running.id: 'cancel'})

    def test_nothing(self):
        self.assertIs(self.env['ir.async'].cancel(), True)

    def test_whose_jobs(self):
        owner = new_test_user(self.env, 'ir_async_owner', groups='base.group_user')
        other = new_test_user(self.env, 'ir_async_other', groups='base.group_user')
        manager = new_test_user(self.env, 'ir_async_manager', groups='base.group_user,ir_async.ir_async_group_manager')

        def jobs():
            records = self.partner.with_user(owner)
            return self.env['ir.async'].call(records.read, ['name'])

        job, mine = jobs(), self.call()
        with self.assertRaises(AccessError):
            job.with_user(other).cancel()
        with self.assertRaises(AccessError):
            (job + mine).with_user(owner).cancel()
        self.assertEqual((job + mine).mapped('state'), ['created', 'created'])
        job.with_user(owner).cancel()
        job2 = jobs()
        (job2 + mine).with_user(manager).cancel()
        self.assertEqual(set((job + job2 + mine).mapped('state')), {'cancelled'})

    def test_the_key_is_free_again(self):
        job = self.call(key='k')
        job.cancel()
        other = self.call(key='k')
        self.assertNotEqual(job, other)
        # but not while the job still runs: its worker may need a second
        [claimed] = self.claim()
        other.cancel()
        self.assertEqual(self.call(key='k'), other)
        self.finish(claimed, 'cancelled')
        self.assertNotEqual(self.call(key='k'), other)

    # ------------------------------------------------------------
    # The race with the end
    # ------------------------------------------------------------

    def test_who_is_late_changes_nothing(self):
        """The worker finishes, then learns that it was to cancel; and the other way round."""
        Async = self.env['ir.async'].sudo()
        job = self.call()
        [claimed] = self.claim()
        job.cancel()
        self.finish(claimed)
        with self.assertRaises(ClaimLost):
            Async._finish(claimed._replace(stop='cancel'), Outcome('cancelled', attempts=0))
        self.assertEqual(job.state, 'done')

        job = self.call()
        [claimed] = self.claim()
        job.cancel()
        self.finish(claimed, 'cancelled', attempts=0)
        begun = claimed._replace(attempts=0, max_attempts=1)
        for late in (
            lambda: Async._finish(begun, Outcome('done')),
            lambda: Async._finish(begun, Async._outcome_of_error(begun, ValueError("x"))),
            lambda: self.begin(claimed),
        ):
            with self.assertRaises(ClaimLost):
                late()
        self.env.invalidate_all()
        self.assertRecordValues(job, [{'state': 'cancelled', 'attempts': 0}])

    def test_a_job_that_comes_back_is_cancelled_by_who_claims_it(self):
        """Its worker gave it back, or died, before it could be stopped."""
        job = self.call()
        [claimed] = self.claim()
        job.cancel()
        release(self.session, [claimed])
        [claimed] = self.claim()
        self.assertEqual((claimed.id, self.begin(claimed).stop), (job.id, 'cancel'))

    @mute_logger('odoo.addons.ir_async')
    def test_a_failed_attempt_that_was_to_be_cancelled_is_not_tried_again(self):
        job = self.call(max_attempts=5, retry_delay=0)
        [claimed] = self.claim()
        job.cancel()
        self.end_with(claimed, ValueError("x"))
        self.assertRecordValues(job, [{'state': 'cancelled', 'attempts': 0, 'starts': 1, 'date_scheduled': False}])
        self.assertFalse(self.stop_requests())
        self.assertFalse(self.claim())

    def test_a_request_does_not_outlive_the_job(self):
        job = self.call()
        [claimed] = self.claim()
        job.cancel()
        self.finish(claimed, 'cancelled', attempts=0)
        self.assertFalse(self.stop_requests())

    def test_a_job_that_runs_out_of_time(self):
        """It ends as its user wants: it is not tried again."""
        job = self.call()
        [claimed] = self.claim()
        fence_off(self.session, claimed, 'timeout')
        job.cancel()
        self.assertEqual(self.stop_requests(), {job.id: 'cancel'})

    # ------------------------------------------------------------
    # Who hears of it
    # ------------------------------------------------------------

    def test_the_worker_is_told_by_the_commit(self):
        job = self.in_state('processing')
        executed = []
        execute = type(self.env.cr).execute

        def record(cr, query, *args, **kwargs):
            executed.append(str(query))
            return execute(cr, query, *args, **kwargs)

        with patch.object(type(self.env.cr), 'execute', record):
            job.cancel()
        self.assertTrue(any('pg_notify' in query and 'ir_async_stop' in query for query in executed), executed)

    def test_workers_are_woken_for_the_children(self):
        job = self.call()
        self.call(after=job)
        self.env.cr.flush()  # new jobs wake them, too
        self.env.cr.postcommit.clear()
        with patch('odoo.addons.ir_async.engine.notifier.Notifier.notify') as notify:
            job.cancel()
            self.env.cr.flush()
            self.env.cr.postcommit.run()
        notify.assert_called_once_with(self.env.cr.dbname)

    def test_the_owner_is_told(self):
        user = new_test_user(self.env, 'ir_async_owner', groups='base.group_user')
        job = self.env['ir.async'].call_notify("Work", self.partner.with_user(user).read, ['name'])
        self.env.cr.precommit.run()
        self.env['bus.bus'].search([]).unlink()
        job.cancel()
        self.env.cr.precommit.run()
        [message] = self.env['bus.bus'].search([])
        self.assertIn('"state":"cancelled"', message.message.replace(' ', ''))
        self.assertIn(str(user.partner_id.id), message.channel)
