"""Workers' sessions inside of a test's transaction: what they do is seen by the test alone, and rolled back."""

import time
from contextlib import contextmanager
from datetime import timedelta
from unittest.mock import patch

from psycopg2.extensions import AsIs

from odoo.addons.ir_async.engine import claim, fence, maintenance, probes, rescue
from odoo.addons.ir_async.engine.connection import LOCK_CLASS
from odoo.addons.ir_async.engine.job import Outcome
from odoo.addons.ir_async.engine.origin import origin_expression
from odoo.addons.ir_async.engine.registration import register
from odoo.addons.ir_async.engine.session import PLANNER, Session
from odoo.addons.ir_async.exceptions import ClaimLost
from odoo.addons.ir_async.service.execution import Execution
from odoo.addons.ir_async.service.failure import record_failure
from odoo.addons.ir_async.tests.common import AsyncCase, _finish


class Clock:
    """Takes the place of the module ``time`` in the engine: it stands still until the test says so."""

    def __init__(self):
        self._now = 1000

    def monotonic(self):
        return self._now

    def advance(self, seconds):
        self._now += seconds


class InnerSession(Session):
    """A session whose connection is that of the test."""

    client_check: dict[str, str] = {}  # PostgreSQL 13 would refuse the question, and abort the transaction of the test

    def execute_prepared(self, name, *args):
        # Statements that were prepared are the connection's, and hold the id of the worker.
        self.execute("DEALLOCATE ALL")
        self._prepared.clear()
        return super().execute_prepared(name, *args)


class QueueCase(AsyncCase):
    """Jobs that are claimed by hand, and end as the test says."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.partner = cls.env['res.partner'].create({'name': "Anna"})

    def setUp(self):
        super().setUp()
        self.clock = Clock()
        for module in (claim, maintenance, probes, rescue):
            self.startPatcher(patch.object(module, 'time', self.clock))
        self.startPatcher(patch.dict(rescue._seen, clear=True))
        self.startPatcher(patch.dict(maintenance._next_warnings, clear=True))
        self.startPatcher(patch.object(self.env.cr, 'finish', self._finish, create=True))
        self.session = self.open_session()
        self.start = time.monotonic()

    def open_session(self):
        """Return the session of one more worker."""
        with self.env.cr._cnx.cursor() as cr:
            for name, value in PLANNER.items():
                cr.execute(f"SET LOCAL {name} = '{value}'")  # pylint: disable=sql-injection
            session = InnerSession(self.env.cr.dbname, self.env.cr._cnx, register(cr, AsIs(origin_expression(cr))))
        self.addCleanup(session.execute, "SELECT pg_advisory_unlock_all()")
        self.addCleanup(session.execute, "DEALLOCATE ALL")
        return session

    def call(self, name="x", **options):
        return self.env['ir.async'].with_options(**options).call(self.partner.name_create, name)

    def claim(self, limit=1, session=None):
        """Claim as a worker does that was notified some time after its last claim, and has time to look after the queue.

        :return: the jobs as workers know them
        """
        self.env['ir.async'].flush_model()
        session = session or self.session
        self.clock.advance(claim.SCAN_INTERVAL)
        session.wake()
        jobs = session.claim(limit)
        for _i in range(10):
            if jobs or session.maintain() != 0:
                break
            jobs = session.claim(limit)
        self.env.invalidate_all()
        return jobs

    def claimed(self, *args, **kwargs):
        """Claim; return the records."""
        return self.env['ir.async'].browse([job.id for job in self.claim(*args, **kwargs)])

    def begin(self, job):
        """Read what running a claimed job takes, as its worker does; return the job.

        :raises ClaimLost: when it is not this worker's any more
        """
        self.env.cr.execute(fence.BEGIN, fence.token(job))  # pylint: disable=sql-injection
        if not self.env.cr.rowcount:
            raise ClaimLost
        row = self.env.cr.fetchone()
        return job._replace(**dict(zip(job._fields[-len(row) :], row)))

    def finish(self, job, state='done', **kwargs):
        """End a claimed job."""
        self.env['ir.async'].sudo()._finish(self.begin(job), Outcome(state, **kwargs))
        self.env.invalidate_all()

    def end_with(self, job, exc):
        """Have the method of a claimed job raise; return how that ended the job.

        :rtype: Outcome
        """
        execution = Execution(self.begin(job))
        execution.starts = 1
        record_failure(self.env(su=True), execution, exc)
        self.env.invalidate_all()
        return self._last_outcome

    def _finish(self, job, outcome, starts):
        self._last_outcome = outcome
        return _finish(self.env.cr, job, outcome, starts)

    def cut(self, session):
        """End a session without a word: its lock is gone."""
        session.execute("SELECT pg_advisory_unlock(%s, %s)", [LOCK_CLASS, session.worker_id])

    def rescue(self):
        """Have another worker find the jobs of sessions that ended."""
        self.watch()  # it sees that they ended
        self.clock.advance(rescue.GRACE)
        return self.watch()

    def assertDelay(self, delay, expected):
        """Check when to look again, but for the time that the test has taken so far."""
        elapsed = time.monotonic() - self.start
        self.assertLessEqual(delay, expected)
        self.assertGreaterEqual(delay, expected - elapsed)

    def watch(self):
        """Have the session look after the queue; return when it does again."""
        self.env['ir.async'].flush_model()
        delay = self.session.maintain()
        self.env.invalidate_all()
        return delay

    def shift(self, jobs, **intervals):
        """Move dates of jobs: the clock of the database cannot be moved."""
        jobs.flush_recordset()
        if 'date_start' in intervals:
            self.env.cr.execute(
                "UPDATE ir_async_start SET date = date + %s WHERE job_id IN %s",
                [timedelta(seconds=intervals['date_start']), jobs._ids],
            )
        for column, seconds in intervals.items():
            self.env.cr.execute(  # pylint: disable=sql-injection
                f"UPDATE ir_async SET {column} = {column} + %s WHERE id IN %s", [timedelta(seconds=seconds), jobs._ids]
            )
        self.env.invalidate_all()

    @contextmanager
    def statements(self):
        """Record what sessions execute."""
        statements = []
        execute = Session.execute

        def record(session, query, params=()):
            statements.append(query)
            return execute(session, query, params)

        with patch.object(Session, 'execute', record):
            yield statements

    def method(self, function):
        """Make a function a method of partners, to be enqueued: ``self.partner.<name>``."""
        patcher = patch.object(self.registry['res.partner'], function.__name__, function, create=True)
        patcher.start()
        self.addCleanup(patcher.stop)
        return getattr(self.partner, function.__name__)
