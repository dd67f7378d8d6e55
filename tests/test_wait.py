import logging
from datetime import datetime, timedelta
from unittest.mock import patch

from odoo.exceptions import AccessError, UserError

from .method_case import MethodCase
from odoo.addons.ir_async.models import ir_async_served

SERVED, NOT_SERVED = '%s::text IS NOT NULL', '%s::text IS NULL'  # instead of a look at live workers


class WaitCase(MethodCase):
    def setUp(self):
        super().setUp()

        @self.add_method
        def async_foo(self):
            pass

        self.startPatcher(patch.object(ir_async_served, 'IS_SERVED', SERVED))

    def make_job(self, state=None, user=None, name="Job", **options):
        job = self.ir_async.with_options(**options).call_notify(name, self.partner_of(user or self.user).async_foo)
        job.flush_model()
        if state:
            self.set_state(job, state)
        return job.with_user(user or self.user)

    def set_state(self, job, state, **columns):
        columns['state'] = state
        for name, value in columns.items():
            self.env.cr.execute(f"UPDATE ir_async SET {name} = %s WHERE id = %s", [value, job.id])
        self.env.invalidate_all()


class TestWaitReason(WaitCase):
    """What silently waits says why."""

    def assertReason(self, job, regex):
        for user in (self.user, self.manager):
            self.env.invalidate_all()
            self.assertRegex(job.with_user(user).wait_reason, regex)

    def test_worker(self):
        self.assertReason(self.make_job(), "free worker")

    def test_others(self):
        """What runs or has ended waits for nothing."""
        for state in ('processing', 'succeeded', 'done', 'failed', 'cancelled'):
            self.assertFalse(self.make_job(state).wait_reason)

    def test_date(self):
        self.user.tz = 'Asia/Tokyo'
        job = self.make_job(at=datetime(2126, 1, 1, 20, 30))
        self.assertRegex(job.wait_reason, r"before 01/02/2126 0?5:30")
        self.set_state(job, 'created', attempts=1)
        self.assertReason(job, "runs again on")
        due = self.make_job(at=datetime(2020, 1, 1))
        self.assertReason(due, "free worker")

    def test_parents(self):
        first, second = self.make_job(name="First"), self.make_job(name="Second")
        job = self.make_job(after=first + second)
        self.assertReason(job, "2 other jobs")
        self.assertEqual(job.blocking_ids, first + second)
        self.assertFalse(job.is_blocked)
        child = self.make_job(after=second)
        self.assertReason(child, rf"Second \({second.id}\)")
        self.env.cr.execute(
            "UPDATE ir_async_after_rel SET unmet = false WHERE job_id = %s AND after_id = %s", [job.id, first.id]
        )
        self.env.invalidate_all()
        self.assertEqual(job.blocking_ids, second, "that one ended well")
        self.env.cr.execute("UPDATE ir_async_after_rel SET unmet = false WHERE job_id = %s", [job.id])
        self.assertReason(job, "in a moment")

    def test_failed_parent(self):
        parent = self.make_job('failed', name="Import")
        other = self.make_job(name="Other")
        job = self.make_job(after=other + parent)
        self.assertReason(job, rf"failed: Import \({parent.id}\)")
        self.assertTrue(job.is_blocked)
        self.assertEqual(job.blocking_ids[0], parent)
        self.set_state(other, 'failed')
        self.assertReason(job, r"^2 jobs that it waits for have failed: Import \(\d+\), Other \(\d+\)")

    def test_parent_of_another_user(self):
        """Its name is nobody's business."""
        parent = self.make_job('failed', user=self.other_user, name="Secret")
        job = self.make_job(after=parent)
        self.assertTrue(job.is_blocked)
        self.assertIn("another user", job.wait_reason)
        self.assertNotIn("Secret", job.wait_reason)
        self.assertFalse(job.blocking_ids)
        job.web_read({'wait_reason': {}, 'blocking_ids': {'fields': {'display_name': {}}}})
        self.env.invalidate_all()
        self.assertIn("Secret", job.with_user(self.manager).wait_reason)

    def test_channel(self):
        channel = self.env['ir.async.channel'].create({'name': 'mail', 'capacity': 1})
        job = self.make_job(channel='mail/1')
        self.make_job('processing', channel='mail/2')
        self.assertReason(job, "free worker")
        self.make_job('processing', channel='mail/1')
        self.assertReason(job, "mail/1 is full: 1 of 1")
        channel.write({'capacity': 0, 'interval': 3600})
        self.env.cr.execute("INSERT INTO ir_async_start VALUES ('mail/1', now() AT TIME ZONE 'UTC', 1)")
        self.assertReason(job, "starts one job every 3600 seconds")
        channel.starts_per_interval = 2
        self.assertReason(job, "free worker")
        self.env.cr.execute("INSERT INTO ir_async_start SELECT * FROM ir_async_start")
        self.assertReason(job, "starts 2 jobs every 3600 seconds")
        self.env.cr.execute(
            "INSERT INTO ir_async_pause VALUES ('mail/1', now() AT TIME ZONE 'UTC' - interval '1 minute')"
        )
        self.assertReason(job, "starts 2 jobs every 3600 seconds")
        self.env.cr.execute("INSERT INTO ir_async_pause VALUES ('mail/1', '2100-02-03 10:00:00')")
        self.assertReason(job, "mail/1 is paused until .*2100.*, since one of its jobs")
        channel.interval = 0
        self.assertReason(job, "free worker")
        channel.paused = True
        self.assertReason(job, "channel mail is paused")

    def test_everything_paused(self):
        job = self.make_job()
        self.env['ir.async.channel'].action_pause_everything()
        self.assertReason(job, "All channels are paused")

    def test_upgrading(self):
        job = self.make_job()
        self.env.cr.execute("UPDATE ir_module_module SET state = 'to upgrade' WHERE name = 'bus'")
        self.assertReason(job, "Modules are being")

    def test_no_worker(self):
        job = self.make_job(channel='mail/1')
        self.startPatcher(patch.object(ir_async_served, 'IS_SERVED', NOT_SERVED))
        self.assertReason(job, "No worker serves the channel mail")

    def test_copied(self):
        job = self.make_job()
        child = self.make_job(after=job)
        self.env.cr.execute("UPDATE ir_async SET origin = 'production' WHERE id IN %s", [(job + child)._ids])
        for copied in (job, child):
            self.assertReason(copied, "copy of another database")

    def test_many(self):
        """A list of jobs costs as many queries as a few of them."""
        jobs = self.ir_async.concat(*(self.make_job(channel='mail') for _i in range(3)))
        parents = self.ir_async.concat(*(self.make_job(after=job) for job in jobs))
        self.env.invalidate_all()
        (jobs + parents).mapped('state')
        self.env.flush_all()
        with self.assertQueryCount(14):
            (jobs + parents).mapped('wait_reason')
        more = self.ir_async.concat(*(self.make_job(channel='mail', after=jobs) for _i in range(20)))
        self.env.invalidate_all()
        (jobs + more).mapped('state')
        with self.assertQueryCount(14):
            (jobs + more).mapped('wait_reason')


class TestRunAnyway(WaitCase):
    """A manager lets a job go on although one that it waits for has failed."""

    def setUp(self):
        super().setUp()
        self.parent = self.make_job('failed', name="Import")
        self.job = self.make_job(after=self.parent)

    def test_manager(self):
        with self.assertLogs('odoo.addons.ir_async.models.ir_async_wait', logging.INFO) as logs:
            self.job.with_user(self.manager).run_anyway()
        self.assertRegex(logs.output[0], rf"User mona \({self.manager.id}\) .*\[{self.job.id}\]")
        self.assertEqual((self.job.state, self.job.is_blocked), ('created', False))
        self.assertEqual(self.job.after_ids, self.parent, "it is still known what it was to wait for")
        self.assertEqual(self.row(self.job, 'revision'), 2)
        self.env.cr.execute("SELECT unmet FROM ir_async_after_rel WHERE job_id = %s", [self.job.id])
        self.assertEqual(self.env.cr.fetchall(), [(False,)], "nothing holds it back any more")

    def test_it_runs(self):
        self.job.with_user(self.manager).run_anyway()
        self.assertEqual(self.run_jobs(), self.job.sudo())
        self.assertEqual(self.job.state, 'done')

    def test_retried(self):
        """It does not wait again for what it does not depend on any more."""
        self.job.with_user(self.manager).run_anyway()
        self.set_state(self.job, 'failed')
        self.job.retry()
        self.assertEqual(self.job.state, 'created')

    def test_cancelled_parent(self):
        """What happens to the other job later does not matter any more."""
        self.job.with_user(self.manager).run_anyway()
        self.set_state(self.parent, 'cancelled')
        self.run_jobs()
        self.assertEqual(self.job.state, 'done')

    def test_owner(self):
        for user in (self.user, self.other_user):
            with self.assertRaises(AccessError):
                self.job.with_user(user).run_anyway()
        self.assertEqual(self.job.state, 'waiting')

    def test_states(self):
        """On many records all or nothing, and the message names those that cannot."""
        states = dict(self.ir_async._fields['state']._description_selection(self.env))
        for state in ('created', 'processing', 'succeeded', 'done', 'failed', 'cancelled'):
            other = self.make_job(state, name="Other")
            with (
                self.subTest(state=state),
                self.assertRaisesRegex(UserError, rf"Other \({other.id}: {states[state]}\)"),
            ):
                (self.job + other).with_user(self.manager).run_anyway()
        self.assertEqual(self.job.state, 'waiting')
        self.ir_async.browse().with_user(self.manager).run_anyway()


class TestDuration(WaitCase):
    def duration(self, state, start, done=None):
        now = self.env.cr.now()
        job = self.make_job()
        self.set_state(
            job,
            state,
            date_start=start and now - timedelta(seconds=start),
            date_done=done and now - timedelta(seconds=done),
        )
        return job.duration, self.ir_async.search([('id', '=', job.id)])._read_group(
            [('id', '=', job.id)], [], ['duration:avg']
        )[0][0]

    def test_duration(self):
        self.assertEqual(self.duration('done', 60, 30), (30, 30))
        value, average = self.duration('processing', 60)
        self.assertGreaterEqual(value, 60)
        self.assertGreaterEqual(average, 60)

    def test_retried(self):
        """It has stopped for a job that is tried again later, also in averages."""
        value, average = self.duration('created', 60)
        self.assertFalse(value)
        self.assertFalse(average)

    def test_clock(self):
        """The dates come from the clock of the database: a wrong clock of this server does not matter."""
        with self.env.registry.cursor() as cr:
            cr.execute("SELECT 1")
        with patch('odoo.fields.Datetime.now', lambda: datetime(2001, 1, 1)):
            self.assertGreaterEqual(self.duration('processing', 60)[0], 60)
