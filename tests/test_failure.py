"""What becomes of a job that PostgreSQL or its server has set back."""

import time
from unittest.mock import patch

from odoo.sql_db import PoolError
from odoo.tools import mute_logger

from .queue_common import QueueCase
from odoo.addons.ir_async.engine.fence import fence_off
from odoo.addons.ir_async.exceptions import ClaimLost
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

    def settle(self, **counts):
        """Have the method raise. The failure is recorded by the connection of the test, which alone sees the job."""
        execution = Execution(self.begin(self.claimed)._replace(**counts))
        execution.starts = 1
        with patch.object(self.runner, 'run_in_place', lambda execution, step: step(self.env(su=True), execution)):
            settle(self.runner, execution, PoolError("full"), time.monotonic())
        self.env.invalidate_all()

    def test_trouble_of_the_server(self):
        """The job is not to blame, and waits until the trouble may be over."""
        self.settle()
        self.assertRecordValues(self.job, [{'state': 'created', 'attempts': 0, 'deaths': 0, 'starts': 1}])
        self.assertTrue(self.job.date_scheduled)

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
