"""The batch of a worker, and the watchdog that looks after it."""

import os
import signal
import threading
import time

from .queue_common import QueueCase
from odoo.addons.ir_async.engine.claim import CLAIM_TIME
from odoo.addons.ir_async.engine.fence import fence_off
from odoo.addons.ir_async.service.batch import MAX_SIZE, Batch
from odoo.addons.ir_async.service.execution import Report
from odoo.addons.ir_async.service.obituary import Mark
from odoo.addons.ir_async.service.runner import Runner
from odoo.addons.ir_async.service.watchdog import Watchdog


class BatchCase(QueueCase):
    def setUp(self):
        super().setUp()
        self.mark = Mark()
        self.addCleanup(self.mark.close)
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)

    def batch(self, count=1, **options):
        """Return the batch of so many jobs, and these."""
        jobs = self.env['ir.async'].concat(*(self.call(**options) for _i in range(count)))
        runner = Runner(self.session)
        self.addCleanup(runner.close)
        return Batch(self.session, runner, self.mark, self.claim(count)), jobs

    def alarm(self):
        """Return whether the kernel will end this process."""
        return signal.getitimer(signal.ITIMER_REAL)[0] > 0


class TestBatch(BatchCase):
    def test_time_limit(self):
        """It ends with the job, and the worker lives on."""
        batch, _job = self.batch(timeout=1000)
        execution = batch.next(True)
        self.assertGreater(execution.deadline, time.monotonic())
        self.assertTrue(self.alarm())
        batch.end()
        self.assertFalse(self.alarm())

    def test_alarm_of_a_process_that_ends(self):
        """The job that is stopped does not turn it off or put it off when it ends meanwhile."""
        batch, _job = self.batch(timeout=1000)
        execution = batch.next(True)
        batch.is_stopping = True
        signal.setitimer(signal.ITIMER_REAL, 100)
        for leave in (execution.on_end, batch.end):
            leave()
            self.assertTrue(self.alarm())
            self.assertLessEqual(signal.getitimer(signal.ITIMER_REAL)[0], 100)

    def test_end_while_the_main_thread_waits(self):
        """The time limit of a method ends with it, even while the main thread puts prefetched jobs back. Hooks have their own."""
        batch, _job = self.batch(timeout=1000)
        execution = batch.next(True)
        execution.on_begin()
        thread = threading.Thread(target=execution.on_end, daemon=True)
        self.addCleanup(thread.join)
        with batch.lock:
            thread.start()
            thread.join(10)
            self.assertGreater(signal.getitimer(signal.ITIMER_REAL)[0], 1001)
            self.assertIsNone(self.mark.read())

    def test_mark(self):
        """Only while the method runs, its job is to blame for the end of the process."""
        batch, job = self.batch()
        execution = batch.next(True)
        for leave in (execution.on_end, execution.on_failure, batch.end):
            self.assertIsNone(self.mark.read())
            execution.on_begin()
            self.assertEqual(self.mark.read().job_id, job.id)
            leave()
        self.assertIsNone(self.mark.read())

    def test_no_job_begins_in_a_process_that_ends(self):
        batch, job = self.batch()
        self.assertIsNone(batch.next(False))
        batch.release_prefetched()
        self.env.invalidate_all()
        self.assertEqual(job.state, 'created')

    def test_a_released_job_does_not_begin(self):
        """One that could not be released stays in the batch."""
        batch, jobs = self.batch(2)
        taken = self.session.claim(1)
        self.assertFalse(taken)
        first, second = (execution.job for execution in batch._prefetched)
        fence_off(self.session, first)
        batch.release_prefetched()
        self.env.invalidate_all()
        self.assertEqual(jobs.mapped('state'), ['processing', 'created'])
        self.assertEqual(batch.next(True).job.id, first.id)
        self.assertNotEqual(second.id, first.id)
        self.assertIsNone(batch.next(True))

    def test_size(self):
        """It grows with the speed of the jobs, step by step, and has a limit."""
        batch, _job = self.batch()
        self.assertEqual(batch.next_size(), 1)
        batch.count = 10**9
        self.assertEqual(batch.next_size(), MAX_SIZE)


class TestWatchdog(BatchCase):
    def setUp(self):
        super().setUp()
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        self.watchdog = Watchdog(read, threading.current_thread())

    def watch(self, *args, **kwargs):
        batch, jobs = self.batch(*args, **kwargs)
        self.watchdog.watch(batch)
        return batch, jobs

    def test_prefetched_jobs_do_not_wait_for_a_long_one(self):
        batch, jobs = self.watch(2)
        batch.next(True)
        batch.begin -= CLAIM_TIME
        self.watchdog.look_after(None)
        self.env.invalidate_all()
        self.assertEqual(jobs.mapped('state'), ['processing', 'created'])

    def test_progress_is_not_saved_all_the_time(self):
        batch, _job = self.watch()
        execution = batch.next(True)
        saved = []
        for done in range(3):
            execution.progress = Report(done, 10, None)
            self.watchdog.look_after(None)
            saved.append(execution.progress is None)
        self.assertEqual(saved, [True, False, False])
