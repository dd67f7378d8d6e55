"""What becomes of a job that PostgreSQL or its server has set back."""

import time
from unittest.mock import patch

import psycopg2

from odoo.sql_db import PoolError
from odoo.tools import mute_logger

from .queue_common import QueueCase
from odoo.addons.ir_async.engine.fence import fence_off
from odoo.addons.ir_async.exceptions import ClaimLost, RetryJob
from odoo.addons.ir_async.service import failure
from odoo.addons.ir_async.service.execution import Execution
from odoo.addons.ir_async.service.failure import MAX_SETBACKS, settle
from odoo.addons.ir_async.service.runner import Runner


class TestSetback(QueueCase):
    def setUp(self):
        super().setUp()
        self.job = self.call()
        [self.claimed] = self.claim()
        self.runner = Runner(self.session)
        self.addCleanup(self.runner.close)

    def settle(self, exc=None, was_lost=False, **counts):
        """Have the method raise. The failure is recorded by the connection of the test, which alone sees the job."""
        execution = Execution(self.begin(self.claimed)._replace(**counts))
        execution.starts, execution.was_lost = 1, was_lost
        with patch.object(self.runner, 'run_in_place', lambda execution, step: step(self.env(su=True), execution)):
            settle(self.runner, execution, exc or PoolError("full"), time.monotonic())
        self.env.invalidate_all()

    def test_trouble_of_the_server(self):
        """The job is not to blame, and waits until the trouble may be over."""
        self.settle()
        self.assertRecordValues(self.job, [{'state': 'created', 'attempts': 0, 'deaths': 0, 'starts': 1}])
        self.assertTrue(self.job.date_scheduled)
        self.assertIn("full", str(self.job.payload))

    @mute_logger('odoo.addons.ir_async.service.runner')
    def test_a_pool_that_the_job_has_filled(self):
        """In a process of its own, the job alone uses the pool. It would never run to its end."""
        self.runner.owns_process = True
        self.settle()
        self.assertRecordValues(self.job, [{'state': 'failed', 'attempts': 1}])

    def test_a_method_whose_connection_was_lost(self):
        """It may raise anything then."""
        self.settle(ValueError("x"), was_lost=True)
        self.assertRecordValues(self.job, [{'state': 'created', 'attempts': 0}])

    def test_a_method_that_asks_for_another_try_when_its_connection_was_lost(self):
        self.settle(RetryJob("later", delay=600), was_lost=True)
        self.assertRecordValues(self.job, [{'state': 'created', 'attempts': 0}])
        self.assertDelay(self.watch(), 600)

    def test_a_shutdown_of_postgresql(self):
        """The method may have lost another connection than its own."""
        try:
            with self.env.cr.savepoint():
                self.env.cr._obj.execute("DO $$ BEGIN RAISE EXCEPTION 'ending' USING ERRCODE = '57P01'; END $$")
        except psycopg2.Error as exc:
            self.settle(exc)
        self.assertRecordValues(self.job, [{'state': 'created', 'attempts': 0}])

    def test_a_job_that_cannot_be_put_back(self):
        """The session must end: its worker would go on, and the job would stay."""
        with patch.object(failure, 'release', return_value=set()), self.assertRaises(psycopg2.OperationalError):
            self.settle()

    @mute_logger('odoo.addons.ir_async.service.runner')
    def test_a_death_after_a_failure_is_recorded(self):
        """The job's own code has been left, so it is not to blame."""
        with patch.object(Execution, 'on_failure') as on_failure:
            self.settle(ValueError("x"))
        on_failure.assert_called_once()

    def test_a_death_after_the_job_was_put_back(self):
        with patch.object(Execution, 'on_failure') as on_failure:
            self.settle()
        on_failure.assert_called_once()

    @mute_logger('odoo.addons.ir_async.service.runner')
    def test_trouble_that_does_not_pass(self):
        """In the end it counts as the method's error."""
        self.settle(starts=MAX_SETBACKS - 1)
        self.assertRecordValues(self.job, [{'state': 'failed', 'attempts': 1}])

    def test_attempts_and_deaths_are_no_setbacks(self):
        self.settle(starts=MAX_SETBACKS + 1, attempts=1, deaths=2)
        self.assertEqual(self.job.state, 'created')

    def test_a_lost_claim(self):
        """The job is not put back by the one that lost it."""
        job = self.begin(self.claimed)
        fence_off(self.session, job, 'cancel')
        with self.assertRaises(ClaimLost):
            settle(self.runner, Execution(job), PoolError("full"), time.monotonic())
        self.env.invalidate_all()
        self.assertEqual(self.job.state, 'processing')
