from datetime import datetime, timedelta, timezone
from unittest.mock import patch

from odoo.exceptions import UserError
from odoo.tools import mute_logger

from .queue_common import QueueCase
from odoo.addons.ir_async.exceptions import JobTimeout, RetryJob, WorkerDied
from odoo.addons.ir_async.models.ir_async_run import MAX_DEATHS
from odoo.addons.ir_async.service.execution import Execution


class TestRetry(QueueCase):
    """What becomes of a job whose method raises, whose worker dies, or that is to be tried again."""

    def end_in_error(self, job, exc=None):
        """Have a job's method raise, the worker's way; return the record."""
        self.failed_at = datetime.now(timezone.utc)
        with patch('odoo.addons.ir_async.models.ir_async_run.datetime', wraps=datetime) as clock:
            clock.now.side_effect = lambda tz=None: self.failed_at
            self.env['ir.async'].sudo()._fail(job, exc or ValueError("Some error"))
        self.env.invalidate_all()
        return self.env['ir.async'].browse(job.id)

    def delay_of(self, job):
        """Return how many seconds after its failure a job is to be tried again; see :meth:`end_in_error`."""
        self.env.cr.execute("SELECT date_scheduled FROM ir_async WHERE id = %s", [job.id])
        return (self.env.cr.fetchone()[0] - self.failed_at.replace(tzinfo=None)).total_seconds()

    def attempt(self, job):
        """Have a scheduled job come due, claim it and fail; return its delay then."""
        self.env.cr.execute("UPDATE ir_async SET date_scheduled = NULL WHERE id = %s", [job.id])
        [claimed] = self.claim()
        self.assertEqual(claimed.id, job.id)
        return self.delay_of(self.end_in_error(claimed))

    # ------------------------------------------------------------
    # max_attempts
    # ------------------------------------------------------------

    def test_one_attempt_by_default(self):
        self.call()
        [claimed] = self.claim()
        job = self.end_in_error(claimed)
        self.assertRecordValues(job, [{'state': 'failed', 'attempts': 1, 'date_scheduled': False, 'session': 0}])
        self.assertTrue(job.date_done)

    def test_tried_again_until_the_attempts_are_used_up(self):
        job = self.call(max_attempts=3, retry_delay=0)
        for attempt in (1, 2):
            [claimed] = self.claim()
            self.end_in_error(claimed, ValueError(f"Error {attempt}"))
            self.assertRecordValues(job, [{'state': 'created', 'attempts': attempt, 'date_done': False}])
            # the last error can be read, and the next date seen
            self.assertEqual(job.payload['error']['data']['message'], f"Error {attempt}")
            self.assertTrue(job.date_scheduled)
        [claimed] = self.claim()
        self.end_in_error(claimed, ValueError("Error 3"))
        self.assertRecordValues(job, [{'state': 'failed', 'attempts': 3, 'date_scheduled': False}])
        self.assertEqual(job.payload['error']['data']['message'], "Error 3")
        self.assertFalse(self.claim())

    def test_success_at_last(self):
        job = self.call(max_attempts=3, retry_delay=0)
        [claimed] = self.claim()
        self.end_in_error(claimed)
        [claimed] = self.claim()
        self.finish(claimed)
        self.assertRecordValues(job, [{'state': 'done', 'attempts': 2, 'payload': False}])

    def test_every_change_raises_the_revision(self):
        job = self.call(max_attempts=2, retry_delay=0)
        revisions = [job.revision]
        for _i in range(2):
            [claimed] = self.claim()
            revisions.append(job.revision)
            self.assertEqual(claimed.revision, job.revision)
            self.end_in_error(claimed)
            revisions.append(job.revision)
        self.assertEqual(revisions, sorted(set(revisions)))

    def test_rolled_back_between_the_attempts(self):
        partners = self.env['res.partner']

        def ir_async_create_and_raise(records):
            records.create({'name': "ir_async leftover"})
            raise ValueError

        job = self.env['ir.async'].with_options(max_attempts=2, retry_delay=0).call(
            self.method(ir_async_create_and_raise))
        with mute_logger('odoo.addons.ir_async'):
            self.run_jobs()
        self.assertEqual(job.state, 'failed')
        self.assertEqual(job.attempts, 2)
        self.assertFalse(partners.search([('name', '=', "ir_async leftover")]))

    # ------------------------------------------------------------
    # retry_delay
    # ------------------------------------------------------------

    def test_delay_is_a_number(self):
        job = self.call(max_attempts=9, retry_delay=7.5)
        for _i in range(3):
            self.assertAlmostEqual(self.attempt(job), 7.5, places=4)

    def test_delay_is_a_list_whose_last_is_for_the_rest(self):
        job = self.call(max_attempts=9, retry_delay=[1, 20, 300])
        for expected in (1, 20, 300, 300, 300):
            self.assertAlmostEqual(self.attempt(job), expected, places=4)

    def test_delay_is_exponential_with_jitter(self):
        job = self.call(max_attempts=30)
        for low in (10, 20, 40, 80, 160, 320, 640, 1280):
            delay = self.attempt(job)
            self.assertLess(low - 0.001, delay)
            self.assertLess(delay, low * 1.5 + 0.001)
        for _i in range(5):
            delay = self.attempt(job)
            self.assertLess(2559, delay)
            self.assertLess(delay, 3600.001)
        self.assertAlmostEqual(delay, 3600, places=4)

    def test_jitter_spreads_the_attempts(self):
        jobs = self.call(max_attempts=2) + self.call(max_attempts=2) + self.call(max_attempts=2)
        self.assertEqual(len({round(self.delay_of(self.end_in_error(self.claim()[0])), 2) for _job in jobs}), 3)

    def test_nobody_takes_it_before_its_date(self):
        job = self.call(max_attempts=2, retry_delay=60)
        self.end_in_error(self.claim()[0])
        self.assertFalse(self.claim())
        self.assertDelay(self.watch(), 60)
        self.shift(job, date_scheduled=-60)
        self.assertEqual(self.claimed(), job)

    # ------------------------------------------------------------
    # RetryJob
    # ------------------------------------------------------------

    def test_retry_job_costs_no_attempt(self):
        job = self.call(max_attempts=1)
        for i in range(5):
            [claimed] = self.claim()
            self.end_in_error(claimed, RetryJob(f"not yet {i}", delay=60))
            self.assertRecordValues(job, [{'state': 'created', 'attempts': 0}])
            self.assertEqual(job.payload['error']['data']['message'], f"not yet {i}")
            self.assertAlmostEqual(self.delay_of(job), 60, places=4)
            self.shift(job, date_scheduled=-60)

    def test_retry_job_without_delay_waits_as_after_a_failure(self):
        job = self.call(retry_delay=33)
        self.end_in_error(self.claim()[0], RetryJob("later"))
        self.assertAlmostEqual(self.delay_of(job), 33, places=4)

    def test_retry_job_at_once(self):
        job = self.call(retry_delay=33)
        self.end_in_error(self.claim()[0], RetryJob("again", delay=0))
        self.assertEqual(self.claimed(), job)

    def test_retry_job_is_rolled_back(self):
        tries = []

        def ir_async_try_twice(records):
            records.create({'name': f"ir_async try {len(tries)}"})
            tries.append(records.env['ir.async'].current().attempts)
            if len(tries) < 3:
                raise RetryJob(f"not ready: {len(tries)}", delay=0)

        job = self.env['ir.async'].call(self.method(ir_async_try_twice))
        for _i in range(3):
            self.run_jobs()
        self.assertEqual(tries, [0, 0, 0])
        self.assertRecordValues(job, [{'state': 'done', 'attempts': 1}])
        self.assertEqual(
            self.env['res.partner'].search([('name', 'like', 'ir_async try')]).mapped('name'), ["ir_async try 2"])

    def test_after_retry_job_failures_count_as_ever(self):
        job = self.call(max_attempts=2, retry_delay=0)
        self.end_in_error(self.claim()[0], RetryJob("not yet", delay=0))
        self.end_in_error(self.claim()[0])
        self.assertRecordValues(job, [{'state': 'created', 'attempts': 1}])
        self.end_in_error(self.claim()[0])
        self.assertRecordValues(job, [{'state': 'failed', 'attempts': 2}])

    # ------------------------------------------------------------
    # Interruptions and deaths
    # ------------------------------------------------------------

    def test_an_interruption_costs_nothing(self):
        """As on shutdown: the worker gives the job back."""
        job = self.call()
        for _i in range(5):
            self.session.give_back(self.claim())
            self.env.invalidate_all()
            self.assertRecordValues(job, [{
                'state': 'created', 'attempts': 0, 'deaths': 0, 'session': 0, 'date_scheduled': False, 'payload': False}])
        self.assertEqual(job.claims, 5)

    def die(self, ready=True, limit=1):
        """Claim jobs in a session that ends without a word; have another worker look."""
        session = self.open_session()
        if ready:
            session.set_ready(True)
        jobs = self.claim(limit, session=session)
        session.execute("SELECT pg_advisory_unlock(%s, %s)", [0x69726173, session.key])
        self.watch()
        return jobs

    def test_deaths_are_counted_apart(self):
        job = self.call(max_attempts=2, retry_delay=0)
        self.die()
        self.assertRecordValues(job, [{'state': 'created', 'attempts': 0, 'deaths': 1}])
        self.end_in_error(self.claim()[0])
        self.assertRecordValues(job, [{'state': 'created', 'attempts': 1, 'deaths': 1}])

    def test_who_did_not_begin_is_not_charged(self):
        """The worker dies while it loads the modules, before any method runs."""
        job = self.call()
        self.die(ready=False)
        self.assertRecordValues(job, [{'state': 'created', 'attempts': 0, 'deaths': 0}])

    def test_who_waits_for_another_one_is_not_charged(self):
        """Of the jobs that were claimed together, the first one is running; the order is the queue's."""
        jobs = self.call() + self.call(priority=5) + self.call()
        self.die(limit=3)
        self.assertEqual(jobs.mapped('deaths'), [0, 1, 0])
        self.assertEqual(jobs.mapped('state'), ['created'] * 3)
        self.assertEqual(jobs.mapped('claims'), [1, 1, 1])

    def test_a_death_is_charged_once(self):
        """A neighbour that could not be rescued at first does not come to be the first."""
        jobs = self.call() + self.call()
        session = self.open_session()
        session.set_ready(True)
        self.claim(2, session=session)
        session.execute("SELECT pg_advisory_unlock(%s, %s)", [0x69726173, session.key])
        self.watch()
        self.assertEqual(jobs.mapped('deaths'), [1, 0])
        # as if somebody had had it locked
        self.env.cr.execute("UPDATE ir_async SET state = 'processing', session = %s WHERE id = %s", [session.key, jobs[1].id])
        self.watch()
        self.assertRecordValues(jobs, [{'state': 'created', 'deaths': 1}, {'state': 'created', 'deaths': 0}])

    def test_a_session_that_left_no_trace(self):
        """PostgreSQL empties the table of workers when it crashes: nobody is charged, the jobs are found by new sessions."""
        job = self.call()
        session = self.open_session()
        session.set_ready(True)
        self.claim(session=session)
        session.execute("SELECT pg_advisory_unlock(%s, %s)", [0x69726173, session.key])
        session.execute("DELETE FROM ir_async_worker")
        self.watch()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 0}])

    def test_three_deaths_fail_it_whatever_its_attempts(self):
        job = self.call(max_attempts=10)
        for _i in range(MAX_DEATHS):
            self.die()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 3}])
        [claimed] = self.claim()
        Async = self.env['ir.async'].sudo()
        with self.assertRaises(WorkerDied) as catcher:
            Async._perform(Execution(claimed))
        self.end_in_error(claimed, catcher.exception)
        self.assertEqual(job.state, 'failed')
        self.assertIn("3 workers died", job.payload['error']['data']['message'])

    def test_a_death_while_a_stop_was_asked_for_is_not_charged(self):
        """Code that keeps the GIL dies of being stopped: that is not the worker's death."""
        for reason in ('cancel', 'timeout'):
            with self.subTest(reason=reason):
                job = self.call()
                session = self.open_session()
                session.set_ready(True)
                [claimed] = self.claim(session=session)
                self.env.cr.execute("INSERT INTO ir_async_stop (job_id, reason) VALUES (%s, %s)", [job.id, reason])
                session.execute("SELECT pg_advisory_unlock(%s, %s)", [0x69726173, session.key])
                [claimed] = self.claim()
                self.assertEqual((claimed.id, claimed.stop, claimed.deaths), (job.id, reason, 0))
                self.finish(claimed, 'cancelled')

    def test_a_death_past_the_deadline_is_a_timeout(self):
        for seconds, stop, deaths in ((4, None, 1), (6, 'timeout', 0), (16, None, 1)):
            with self.subTest(seconds=seconds):
                job = self.call(timeout=5)
                session = self.open_session()
                session.set_ready(True)
                self.claim(session=session)
                self.shift(job, date_start=-seconds)
                self.env.cr.execute("UPDATE ir_async_worker SET date_ready = date_ready - interval '1 minute'")
                session.execute("SELECT pg_advisory_unlock(%s, %s)", [0x69726173, session.key])
                [claimed] = self.claim()
                self.assertEqual((claimed.id, claimed.stop, claimed.deaths), (job.id, stop, deaths))
                self.finish(claimed)

    def test_who_is_not_charged_is_not_late_either(self):
        """Neither who was to begin once its time would have been over, nor who was interrupted by a restart of PostgreSQL."""
        jobs = self.call(timeout=5) + self.call(timeout=5)
        session = self.open_session()
        session.set_ready(True)
        self.claim(2, session=session)
        self.shift(jobs, date_start=-6)
        self.env.cr.execute("UPDATE ir_async_worker SET server_start = server_start - interval '1 hour', date_ready = date_ready - interval '1 hour'")
        session.execute("SELECT pg_advisory_unlock(%s, %s)", [0x69726173, session.key])
        self.watch()
        self.assertRecordValues(jobs, [{'state': 'created', 'deaths': 0}] * 2)
        self.assertEqual([job.stop for job in self.claim(2)], [None, None])

    def test_reloading_the_modules_charges_nobody(self):
        job = self.call()
        session = self.open_session()
        session.set_ready(True)
        self.claim(session=session)
        session.set_ready(False)
        session.execute("SELECT pg_advisory_unlock(%s, %s)", [0x69726173, session.key])
        self.watch()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 0}])

    def test_the_deadline_counts_from_when_the_worker_was_ready(self):
        job = self.call(timeout=5)
        session = self.open_session()
        [claimed] = self.claim(session=session)
        session.set_ready(True)
        self.shift(job, date_start=-20)  # it took long to load the modules
        self.env.cr.execute("UPDATE ir_async_worker SET date_ready = date_ready - interval '6 seconds' WHERE id = %s", [session.key])
        session.execute("SELECT pg_advisory_unlock(%s, %s)", [0x69726173, session.key])
        [claimed] = self.claim()
        self.assertEqual((claimed.id, claimed.stop, claimed.deaths), (job.id, 'timeout', 0))

    # ------------------------------------------------------------
    # Time-out
    # ------------------------------------------------------------

    def test_a_timeout_is_a_failed_attempt(self):
        job = self.call(max_attempts=2, retry_delay=5, timeout=1)
        self.end_in_error(self.claim()[0], JobTimeout("The job took longer than 1 seconds"))
        self.assertRecordValues(job, [{'state': 'created', 'attempts': 1}])
        self.assertAlmostEqual(self.delay_of(job), 5, places=4)
        self.assertIn("longer than 1 seconds", job.payload['error']['data']['message'])

    # ------------------------------------------------------------
    # _on_failed
    # ------------------------------------------------------------

    def test_on_failed_is_called_when_it_ends_failed_alone(self):
        calls = []
        self.patch(self.registry['ir.async'], '_on_failed', lambda job: calls.append((job.id, job.state, job.env.su)))
        job = self.call(max_attempts=2, retry_delay=0)
        self.end_in_error(self.claim()[0])
        self.end_in_error(self.claim()[0], RetryJob("x", delay=0))
        self.assertFalse(calls)
        self.end_in_error(self.claim()[0])
        self.assertEqual(calls, [(job.id, 'failed', True)])

    def test_on_failed_that_fails_changes_nothing(self):
        def _on_failed(job):
            job.env['res.partner'].create({'name': "ir_async on failed"})
            raise ValueError

        self.patch(self.registry['ir.async'], '_on_failed', _on_failed)
        self.call()
        with self.assertLogs('odoo.addons.ir_async', 'ERROR'):
            job = self.end_in_error(self.claim()[0])
        self.assertEqual(job.state, 'failed')
        self.assertFalse(self.env['res.partner'].search([('name', '=', "ir_async on failed")]))

    # ------------------------------------------------------------
    # retry()
    # ------------------------------------------------------------

    def failed(self, **options):
        self.call(**options)
        return self.end_in_error(self.claim()[0])

    def test_retry_starts_from_zero(self):
        job = self.failed()
        self.env.cr.execute("UPDATE ir_async SET deaths = 2, dismissed = true WHERE id = %s", [job.id])
        revision = job.revision
        self.assertIs(job.retry(), True)
        self.assertRecordValues(job, [{
            'state': 'created', 'attempts': 0, 'deaths': 0, 'payload': False, 'date_done': False, 'dismissed': False,
            'date_scheduled': False, 'revision': revision + 1,
        }])
        self.assertEqual(self.claimed(), job)

    def test_retry_of_a_cancelled_job(self):
        job = self.call(delay=1000)
        job.cancel()
        job.retry()
        self.assertEqual(self.claimed(), job)

    def test_retry_forgets_that_it_was_to_be_stopped(self):
        job = self.call()
        [claimed] = self.claim()
        job.cancel()
        self.assertEqual(job.state, 'processing')
        self.end_in_error(claimed)  # it failed before it could be cancelled
        job.retry()
        [claimed] = self.claim()
        self.assertEqual((claimed.id, claimed.stop), (job.id, None))

    def test_retry_of_other_states(self):
        job = self.call()
        job.flush_recordset()
        for state in ('waiting', 'created', 'processing', 'succeeded', 'done'):
            self.env.cr.execute("UPDATE ir_async SET state = %s WHERE id = %s", [state, job.id])
            self.env.invalidate_all()
            with self.assertRaises(UserError):
                job.retry()
            self.assertEqual(job.state, state)

    def test_retry_is_all_or_nothing(self):
        failed, other = self.failed(), self.call()
        with self.assertRaises(UserError):
            (failed + other).retry()
        self.assertEqual(failed.state, 'failed')

    @mute_logger('odoo.sql_db')
    def test_retry_while_there_is_a_live_job_of_the_key(self):
        job = self.failed(key='k')
        other = self.call(key='k')
        self.assertNotEqual(other, job)
        with self.assertRaisesRegex(UserError, "key"):
            job.retry()
        self.assertEqual(job.state, 'failed')
        self.assertEqual(job.attempts, 1)
        other.cancel()
        job.retry()
        self.assertEqual(job.state, 'created')
        self.assertEqual(self.call(key='k'), job)

    @mute_logger('odoo.sql_db')
    def test_retry_of_two_jobs_of_one_key(self):
        jobs = self.failed(key='k') + self.failed(key='k')
        with self.assertRaisesRegex(UserError, "key"):
            jobs.retry()
        self.assertEqual(jobs.mapped('state'), ['failed', 'failed'])

    def test_failed_attempts_and_rescues_keep_the_key(self):
        """A job that comes back into the queue has never left it: there cannot be another one of its key."""
        job = self.call(key='k', max_attempts=2, retry_delay=0)
        self.end_in_error(self.claim()[0])
        self.assertEqual(self.call(key='k'), job)
        self.die()
        self.assertEqual(self.call(key='k'), job)
        self.session.give_back(self.claim())
        self.assertEqual(self.call(key='k'), job)

    def test_retry_wakes_the_workers(self):
        job = self.failed()
        self.env.cr.postcommit.clear()
        with patch('odoo.addons.ir_async.engine.notifier.Notifier.notify') as notify:
            job.retry()
            self.env.cr.postcommit.run()
        notify.assert_called_once_with(self.env.cr.dbname)

    # ------------------------------------------------------------
    # Dates
    # ------------------------------------------------------------

    def test_dated_jobs_in_the_order_of_their_priority_once_due(self):
        late = self.call(at=datetime(2001, 1, 2))
        early = self.call(at=datetime(2001, 1, 1))
        urgent = self.call(at=datetime(2001, 1, 3), priority=1)
        plain = self.call()
        future = self.call(delay=60, priority=-1)
        order = []
        self.watch()  # calls up those that are due; the others would come first without
        while claimed := self.claimed():
            order.append(claimed.id)
        self.assertEqual(order, [urgent.id, late.id, early.id, plain.id])
        self.assertEqual(future.state, 'created')

    def test_workers_sleep_until_the_next_date(self):
        self.call(delay=500)
        self.assertDelay(self.watch(), 500)
        self.call(delay=timedelta(milliseconds=300_500))
        self.assertDelay(self.watch(), 300.5)
