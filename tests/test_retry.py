import contextlib
from datetime import datetime, timedelta
from unittest.mock import patch

from odoo.exceptions import UserError
from odoo.tools import mute_logger

from .queue_common import QueueCase
from odoo.addons.ir_async.engine.connection import DURABLE, LOCK_CLASS, connect
from odoo.addons.ir_async.engine.fence import FINISH, fence_off, token
from odoo.addons.ir_async.engine.job import Outcome
from odoo.addons.ir_async.engine.registration import CLOSE, note_running
from odoo.addons.ir_async.engine.release import fail, release
from odoo.addons.ir_async.engine.rescue import FULL_INTERVAL, GRACE, MAX_DEATHS, charge, take_over
from odoo.addons.ir_async.exceptions import ClaimLost, JobTimeout, RetryJob, WorkerDied
from odoo.addons.ir_async.service.execution import Execution
from odoo.addons.ir_async.service.runner import Runner


class TestRetry(QueueCase):
    """What becomes of a job whose method raises, whose worker dies, or that is to be tried again."""

    def end_in_error(self, job, exc=None):
        """Have a job's method raise, the worker's way; return the record."""
        before = self.database_now()
        self.outcome = self.end_with(job, exc or ValueError("Some error"))
        self.failed_between = before, self.database_now()
        return self.env['ir.async'].browse(job.id)

    def database_now(self):
        self.env.cr.execute("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
        return self.env.cr.fetchone()[0]

    def delay_of(self, job):
        """Return how many seconds after its failure a job is to be tried again; see :meth:`end_in_error`."""
        self.env.cr.execute("SELECT date_scheduled FROM ir_async WHERE id = %s", [job.id])
        [date] = self.env.cr.fetchone()
        # by the clock of the database
        delay = timedelta(seconds=self.outcome.delay)
        earliest, latest = (date + delay for date in self.failed_between)
        self.assertLessEqual(earliest, date)
        self.assertLessEqual(date, latest)
        return self.outcome.delay

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
        self.assertRecordValues(job, [{'state': 'failed', 'attempts': 1, 'date_scheduled': False, 'worker_id': False}])
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

        job = (
            self.env['ir.async']
            .with_options(max_attempts=2, retry_delay=0)
            .call(self.method(ir_async_create_and_raise))
        )
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
        self.assertEqual(len({self.delay_of(self.end_in_error(self.claim()[0])) for _job in jobs}), 3)

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
            self.env['res.partner'].search([('name', 'like', 'ir_async try')]).mapped('name'), ["ir_async try 2"]
        )

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
        """As on shutdown: the worker puts the job back."""
        job = self.call()
        for i in range(5):
            release(self.session, self.claim(), starts=1)
            self.env.invalidate_all()
            self.assertRecordValues(
                job,
                [
                    {
                        'state': 'created',
                        'attempts': 0,
                        'deaths': 0,
                        'worker_id': False,
                        'starts': i + 1,
                        'payload': False,
                    }
                ],
            )
        self.assertEqual(job.claim_number, 5)

    def test_who_never_began_did_not_start(self):
        """A job that was claimed with others and put back: it did not use up the interval of a channel either."""
        job = self.call()
        release(self.session, self.claim())
        self.env.invalidate_all()
        self.assertRecordValues(job, [{'state': 'created', 'starts': 0, 'date_start': False, 'date_scheduled': False}])

    def test_release_is_for_ones_own_jobs(self):
        """A worker that lost a job cannot put it back."""
        job = self.call()
        [claimed] = self.claim()
        other = self.open_session()
        self.assertEqual(release(other, [claimed]), set())
        self.env.invalidate_all()
        self.assertEqual(job.state, 'processing')
        self.assertEqual(release(self.session, [claimed]), {job.id})
        self.assertEqual(release(self.session, [claimed]), set())

    def test_release_for_later(self):
        """As after trouble of the server: the job waits, and costs no attempt."""
        job = self.call(max_attempts=1)
        release(self.session, self.claim(), starts=1, delay=60)
        self.assertFalse(self.claim())
        self.assertRecordValues(job, [{'state': 'created', 'attempts': 0, 'deaths': 0, 'starts': 1}])
        self.assertTrue(job.date_start)
        self.shift(job, date_scheduled=-60)
        self.assertEqual(self.claimed(), job)

    def test_release_wakes_the_workers(self):
        """Others may be idle; but not for a job that is to wait."""
        self.call()
        with patch('odoo.addons.ir_async.engine.notifier.Notifier.notify') as notify:
            release(self.session, self.claim())
            notify.assert_called_once_with(self.env.cr.dbname)
            release(self.session, self.claim(), delay=60)
            notify.assert_called_once()

    def test_whoever_puts_it_back_raises_the_revision(self):
        """Clients take a message of a lower revision for an old one."""
        job = self.call()
        revisions = [job.revision]
        for put_back in (
            lambda session, claimed: release(session, [claimed]),
            lambda session, claimed: (self.cut(session), self.rescue()),
            lambda session, claimed: charge(self.session, job.id, session.worker_id, claimed.claim_number),
        ):
            session = self.open_session()
            [claimed] = self.claim(session=session)
            revisions.append(job.revision)
            put_back(session, claimed)
            self.env.invalidate_all()
            self.assertEqual(job.state, 'created')
            revisions.append(job.revision)
        self.assertEqual(revisions, sorted(set(revisions)))

    def test_the_last_error_stays_until_there_is_another_one(self):
        job = self.call(max_attempts=3, retry_delay=0)
        self.end_in_error(self.claim()[0])
        release(self.session, self.claim())
        self.env.invalidate_all()
        self.assertEqual(job.payload['error']['data']['message'], "Some error")
        release(self.session, self.claim(), starts=1, payload='{"error": {"data": {"message": "Disk full"}}}')
        self.env.invalidate_all()
        self.assertEqual(job.payload['error']['data']['message'], "Disk full")

    def test_the_last_resort_ends_it_as_its_error_would(self):
        jobs = self.call() + self.call()
        first, second = self.claim(2)
        self.end_in_error(first)
        fail(self.session, second, '{"error": {"data": {"message": "Some error"}}}')
        self.env['ir.async'].invalidate_model()
        ended, expected = (job.read(['state', 'attempts', 'worker_id', 'claim_number', 'revision'])[0] for job in jobs)
        self.assertEqual({**ended, 'id': 0}, {**expected, 'id': 0})
        self.assertEqual((jobs[1].starts, bool(jobs[1].date_done)), (1, True))

    def test_a_stop_is_no_claim(self):
        """Fencing off raises the claim number. The end, or the return into the queue, sets it back to the number of claims."""
        job = self.call()
        [claimed] = self.claim()
        fenced = fence_off(self.session, claimed)
        release(self.session, [fenced], starts=1, claim_count=claimed.claim_number)
        self.env.invalidate_all()
        self.assertRecordValues(job, [{'state': 'created', 'claim_number': 1}])
        [claimed] = self.claim()
        fenced = fence_off(self.session, claimed, 'cancel')
        [taken] = take_over(self.session, job.id, fenced.worker_id, fenced.claim_number, 'cancel')
        values = {**Outcome('cancelled')._asdict(), 'starts': 1, 'claim_count': claimed.claim_number}
        self.env.cr.execute(FINISH, {**token(taken), **values})  # pylint: disable=sql-injection
        self.env.invalidate_all()
        self.assertRecordValues(job, [{'state': 'cancelled', 'claim_number': 2}])

    def test_what_a_crash_of_postgresql_must_not_undo(self):
        """All but claims, which end with their sessions."""
        self.call()
        session = self.open_session()
        [claimed] = self.claim(session=session)
        with self.statements() as statements:
            fence_off(session, claimed, 'cancel')
            release(session, [claimed])
            fail(session, claimed, '{}')
            charge(self.session, claimed.id, session.worker_id, claimed.claim_number)
        self.assertEqual(len(statements), 4)
        for statement in statements:
            self.assertTrue(statement.startswith(DURABLE), statement)

    def die(self, limit=1):
        """Claim jobs in a session whose worker dies while it runs the first one; have its parent report it."""
        session = self.open_session()
        jobs = self.claim(limit, session=session)
        self.cut(session)
        charge(self.session, jobs[0].id, session.worker_id, jobs[0].claim_number)
        self.env.invalidate_all()
        return jobs

    def test_deaths_are_counted_apart(self):
        job = self.call(max_attempts=2, retry_delay=0)
        self.die()
        self.assertRecordValues(job, [{'state': 'created', 'attempts': 0, 'deaths': 1, 'starts': 1}])
        self.end_in_error(self.claim()[0])
        self.assertRecordValues(job, [{'state': 'created', 'attempts': 1, 'deaths': 1, 'starts': 2}])

    def test_a_lost_connection_is_no_death(self):
        """The lock of a session is gone, and nobody reports that a process died: its jobs are free, and charged nothing."""
        jobs = self.call() + self.call()
        session = self.open_session()
        self.claim(2, session=session)
        self.cut(session)
        for _i in range(3):
            self.rescue()
        self.assertRecordValues(
            jobs, [{'state': 'created', 'attempts': 0, 'deaths': 0, 'starts': 0, 'worker_id': False}] * 2
        )

    def test_the_report_of_a_death_has_its_time(self):
        """Jobs of a session that ended are left alone for a moment, so that its parent can say why."""
        job = self.call()
        session = self.open_session()
        self.claim(session=session)
        self.cut(session)
        delay = self.watch()
        self.assertEqual(job.state, 'processing')
        self.assertAlmostEqual(delay, GRACE)
        self.clock.advance(GRACE / 2)
        self.assertAlmostEqual(self.watch(), GRACE / 2)
        self.assertEqual(job.state, 'processing')
        self.clock.advance(GRACE / 2)
        self.assertEqual(self.watch(), 0)
        self.assertEqual(job.state, 'created')

    def test_a_grace_that_outlives_the_session(self):
        """With many databases, a worker leaves each one between two visits."""
        job = self.call()
        session = self.open_session()
        self.claim(session=session)
        self.cut(session)
        self.watch()
        self.session = self.open_session()
        self.clock.advance(GRACE)
        self.watch()
        self.assertEqual(job.state, 'created')

    def test_the_grace_is_short_enough(self):
        """A job can be claimed again within two seconds."""
        self.assertLess(GRACE, 1)

    def test_a_session_of_another_database_is_another_one(self):
        """Each database numbers its sessions alike."""
        job = self.call()
        session = self.open_session()
        self.claim(session=session)
        self.cut(session)
        with contextlib.closing(connect('postgres')) as connection, connection.cursor() as cr:
            cr.execute("SELECT pg_advisory_lock(%s, %s)", [LOCK_CLASS, session.worker_id])
            self.rescue()
        self.assertEqual(job.state, 'created')

    def test_a_live_session_keeps_its_jobs(self):
        job = self.call()
        session = self.open_session()
        [claimed] = self.claim(session=session)
        for _i in range(3):
            self.rescue()
            self.clock.advance(FULL_INTERVAL)
        self.assertEqual(job.state, 'processing')
        self.assertEqual(self.begin(claimed).id, job.id)

    def test_who_waits_for_another_one_is_not_charged(self):
        """Of the jobs that were claimed together, the one that was running."""
        jobs = self.call() + self.call(priority=5) + self.call()
        [running, *_others] = self.die(limit=3)
        self.assertEqual(running.id, jobs[1].id)
        self.rescue()
        self.assertEqual(jobs.mapped('deaths'), [0, 1, 0])
        self.assertEqual(jobs.mapped('starts'), [0, 1, 0])
        self.assertEqual(jobs.mapped('state'), ['created'] * 3)
        self.assertEqual(jobs.mapped('claim_number'), [1, 1, 1])

    def test_a_death_is_charged_once(self):
        """Whether the report or the rescue is first; and whoever runs it by then is not disturbed."""
        job = self.call()
        self.die()
        self.rescue()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 1, 'starts': 1}])

        session = self.open_session()
        [claimed] = self.claim(session=session)
        self.cut(session)
        self.rescue()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 1, 'starts': 1}])
        [again] = self.claim()
        charge(self.session, job.id, session.worker_id, claimed.claim_number)
        self.env.invalidate_all()
        self.assertRecordValues(
            job, [{'state': 'processing', 'deaths': 2, 'starts': 2, 'worker_id': self.session.worker_id}]
        )
        self.finish(again)
        self.assertEqual(job.state, 'done')

    def test_a_death_after_a_stop_request_is_not_charged(self):
        """The worker was killed before it could stop the job."""
        job = self.call()
        session = self.open_session()
        [claimed] = self.claim(session=session)
        job.cancel()
        self.cut(session)
        charge(self.session, job.id, session.worker_id, claimed.claim_number)
        self.env.invalidate_all()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 0, 'starts': 1}])

    def test_what_ended_is_not_charged(self):
        """The worker died right after the commit, in a hook."""
        job = self.call()
        [claimed] = self.claim()
        self.finish(claimed)
        charge(self.session, job.id, claimed.worker_id, claimed.claim_number)
        self.env.invalidate_all()
        self.assertRecordValues(job, [{'state': 'done', 'deaths': 0, 'starts': 1}])

    def test_a_dead_worker_commits_nothing_more(self):
        """The job it was charged with has another claim."""
        self.call()
        [claimed] = self.die()
        for late in (lambda: self.finish(claimed), lambda: self.end_in_error(claimed)):
            with self.assertRaises(ClaimLost):
                late()

    def claim_between_looks(self):
        """Have a new session claim a job, long before the next look at all jobs that are processing.

        :return: the job and the session
        """
        self.call()
        self.claim()
        self.rescue()
        job = self.call()
        session = self.open_session()
        self.claim(session=session)
        return job, session

    def test_a_session_that_left_no_trace(self):
        """PostgreSQL empties the table of workers when it crashes: nobody is charged, and the jobs are found."""
        job, session = self.claim_between_looks()
        self.cut(session)
        session.execute("DELETE FROM ir_async_worker")
        self.rescue()
        self.assertEqual(job.state, 'processing')
        self.clock.advance(FULL_INTERVAL)
        self.watch()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 0, 'starts': 0}])

    def test_a_session_that_closes_before_its_job_has_ended(self):
        """Its row stays, so that others find the job."""
        job, session = self.claim_between_looks()
        session.execute(CLOSE, {'worker_id': session.worker_id})
        self.cut(session)
        self.rescue()
        self.assertEqual(job.state, 'created')

    def test_three_deaths_fail_it_whatever_its_attempts(self):
        job = self.call(max_attempts=10)
        for _i in range(MAX_DEATHS):
            self.die()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 3}])
        [claimed] = self.claim()
        with self.assertRaises(WorkerDied) as catcher:
            Runner(self.session)._perform(self.env(su=True), Execution(self.begin(claimed)))
        self.end_in_error(claimed, catcher.exception)
        self.assertRecordValues(job, [{'state': 'failed', 'deaths': 3, 'attempts': 0}])
        self.assertIn("3 workers died", job.payload['error']['data']['message'])

    # ------------------------------------------------------------
    # Stopped by force
    # ------------------------------------------------------------

    def test_a_death_while_it_was_stopped_is_not_charged(self):
        """Code that keeps the GIL dies of being stopped: whoever finds it ends the job as was asked for."""
        for reason, asked, expected in (
            ('cancel', 'cancel', 'cancel'),
            ('timeout', None, 'timeout'),
            ('timeout', 'cancel', 'cancel'),
        ):
            with self.subTest(reason=reason, asked=asked):
                job = self.call()
                session = self.open_session()
                [claimed] = self.claim(session=session)
                if asked:
                    self.env.cr.execute("INSERT INTO ir_async_stop (job_id, reason) VALUES (%s, %s)", [job.id, asked])
                self.cut(session)
                [taken] = take_over(self.session, job.id, session.worker_id, claimed.claim_number, reason)
                self.env.invalidate_all()
                self.assertRecordValues(
                    job, [{'state': 'processing', 'deaths': 0, 'worker_id': self.session.worker_id}]
                )
                self.assertEqual(self.begin(taken).stop, expected)
                with self.assertRaises(ClaimLost):
                    self.begin(claimed)
                self.assertFalse(take_over(self.session, job.id, session.worker_id, claimed.claim_number, reason))
                self.finish(taken, 'cancelled', attempts=0)

    def test_a_stop_is_for_one_claim(self):
        """A death while a job was stopped changes nothing of a later claim, not even one of the same worker."""
        job = self.call()
        session = self.open_session()
        [claimed] = self.claim(session=session)
        release(session, [claimed])
        [again] = self.claim(session=session)
        self.assertFalse(take_over(self.session, job.id, session.worker_id, claimed.claim_number, 'timeout'))
        self.assertIsNone(self.begin(again).stop)

    def test_a_cancelled_job_that_also_runs_out_of_time(self):
        job = self.call()
        [claimed] = self.claim()
        job.cancel()
        fenced = fence_off(self.session, claimed, 'timeout', "In a loop")
        self.assertEqual(self.begin(fenced).stop, 'cancel')

    def test_what_is_fenced_off_commits_nothing_more(self):
        """A job that is stopped is taken from its method first; it stays `processing`, so its slot is taken."""
        job = self.call()
        [claimed] = self.claim()
        fenced = fence_off(self.session, claimed, 'timeout', "In a loop")
        self.env.invalidate_all()
        self.assertRecordValues(job, [{'state': 'processing', 'worker_id': self.session.worker_id}])
        with self.assertRaises(ClaimLost):
            self.finish(claimed)
        begun = self.begin(fenced)
        self.assertEqual((begun.stop, begun.stop_debug), ('timeout', "In a loop"))
        self.assertIsNone(fence_off(self.session, claimed, 'cancel'), "it is not this claim's any more")

    def test_what_is_fenced_off_is_not_put_back(self):
        """Its method may lose its connection or a race at this moment. The one that stops the job writes its outcome."""
        job = self.call()
        [claimed] = self.claim()
        fenced = fence_off(self.session, claimed, 'cancel')
        self.assertEqual(release(self.session, [claimed], starts=1), set())
        fail(self.session, claimed, '{}')
        self.env.invalidate_all()
        self.assertRecordValues(job, [{'state': 'processing', 'starts': 0}])
        self.assertEqual(
            [taken.id for taken in take_over(self.session, job.id, fenced.worker_id, fenced.claim_number, 'cancel')],
            job.ids,
        )

    def test_fenced_off_without_a_reason(self):
        """As on shutdown: nothing is left that would stop it the next time."""
        job = self.call()
        [claimed] = self.claim()
        fenced = fence_off(self.session, claimed)
        self.assertEqual(release(self.session, [fenced], starts=1), {job.id})
        [claimed] = self.claim()
        self.assertIsNone(self.begin(claimed).stop)

    # ------------------------------------------------------------
    # In a cron worker, whose parent reports nothing
    # ------------------------------------------------------------

    def die_in_cron(self, note=True, stop=None, ended='process_start'):
        """Have a session end whose note is that of a process that has ended, or of a server that has."""
        session = self.open_session()
        [claimed] = self.claim(session=session)
        if note:
            note_running(session, claimed)
            if ended:
                session.execute(f"UPDATE ir_async_worker SET {ended} = 1 WHERE id = %s", [session.worker_id])  # pylint: disable=sql-injection
        if stop:
            self.env.cr.execute("INSERT INTO ir_async_stop (job_id, reason) VALUES (%s, %s)", [claimed.id, stop])
        self.cut(session)
        self.rescue()
        return claimed

    def test_cron_a_death_is_charged(self):
        job = self.call()
        self.die_in_cron()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 1, 'starts': 1}])
        self.rescue()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 1, 'starts': 1}])

    def test_cron_a_death_is_charged_after_others_came(self):
        """A new session forgets the rows of those that ended, but for this one."""
        job = self.call()
        session = self.open_session()
        [claimed] = self.claim(session=session)
        note_running(session, claimed)
        session.execute("UPDATE ir_async_worker SET process_start = 1 WHERE id = %s", [session.worker_id])
        self.cut(session)
        self.open_session()
        self.rescue()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 1, 'starts': 1}])

    def test_cron_a_stop_of_the_server_is_no_death(self):
        job = self.call()
        self.die_in_cron(ended='process_start = 1, server_start')
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 0, 'starts': 1}])

    def test_cron_a_process_that_lives_is_no_death(self):
        """Its connection was cut."""
        job = self.call()
        self.die_in_cron(ended=None)
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 0, 'starts': 1}])

    def test_cron_what_is_of_another_host_is_no_death(self):
        job = self.call()
        self.die_in_cron(ended="host = 'elsewhere', process_start")
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 0, 'starts': 1}])

    def test_cron_what_did_not_begin_is_not_charged(self):
        job = self.call()
        self.die_in_cron(note=False)
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 0, 'starts': 0}])

    def test_cron_who_waits_for_another_one_is_not_charged(self):
        jobs = self.call() + self.call()
        session = self.open_session()
        running, _waiting = self.claim(2, session=session)
        note_running(session, running)
        session.execute("UPDATE ir_async_worker SET process_start = 1 WHERE id = %s", [session.worker_id])
        self.cut(session)
        self.rescue()
        self.assertRecordValues(
            jobs, [{'state': 'created', 'deaths': 1, 'starts': 1}, {'state': 'created', 'deaths': 0, 'starts': 0}]
        )

    def test_cron_what_ended_is_not_charged(self):
        """The next job of that worker neither."""
        first, second = self.call(), self.call()
        session = self.open_session()
        [claimed] = self.claim(session=session)
        note_running(session, claimed)
        self.finish(claimed)
        note_running(session, None)
        self.claim(session=session)
        self.cut(session)
        self.rescue()
        self.assertRecordValues(first + second, [{'state': 'done', 'deaths': 0}, {'state': 'created', 'deaths': 0}])

    def test_cron_a_lost_connection_is_no_death(self):
        """The process that goes on takes its note back, by another session."""
        job = self.call()
        session = self.open_session()
        [claimed] = self.claim(session=session)
        note_running(session, claimed)
        self.cut(session)
        note_running(self.session, None, session.worker_id)
        self.rescue()
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 0}])

    def test_cron_a_stop_is_no_death(self):
        job = self.call()
        self.die_in_cron(stop='cancel')
        self.assertRecordValues(job, [{'state': 'created', 'deaths': 0, 'starts': 1}])
        [claimed] = self.claim()
        self.assertEqual(self.begin(claimed).stop, 'cancel')

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
        self.assertRecordValues(
            job,
            [
                {
                    'state': 'created',
                    'attempts': 0,
                    'deaths': 0,
                    'payload': False,
                    'date_done': False,
                    'dismissed': False,
                    'date_scheduled': False,
                    'revision': revision + 1,
                }
            ],
        )
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
        self.env['ir.async'].sudo()._finish(claimed, Outcome('failed'))  # it did not know of it yet
        self.env.invalidate_all()
        job.retry()
        [claimed] = self.claim()
        self.assertEqual((claimed.id, self.begin(claimed).stop), (job.id, None))

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

    def test_failed_attempts_and_rescues_keep_the_key(self):
        """A job that comes back into the queue has never left it: there cannot be another one of its key."""
        job = self.call(key='k', max_attempts=2, retry_delay=0)
        self.end_in_error(self.claim()[0])
        self.assertEqual(self.call(key='k'), job)
        self.die()
        self.assertEqual(self.call(key='k'), job)
        release(self.session, self.claim())
        self.assertEqual(self.call(key='k'), job)

    def test_retry_wakes_the_workers(self):
        job = self.failed()
        self.env.cr.postcommit.clear()
        with patch('odoo.addons.ir_async.engine.notifier.Notifier.notify') as notify:
            job.retry()
            self.env.cr.flush()
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
