"""Workers' sessions inside of a test's transaction: what they do is seen by the test alone, and rolled back."""
import time
from contextlib import contextmanager
from datetime import timedelta
from unittest.mock import patch

from odoo.addons.ir_async.engine.job import Outcome
from odoo.addons.ir_async.engine.session import PLANNER, Session
from odoo.addons.ir_async.tests.common import AsyncCase, _finish


class InnerSession(Session):
    """A session whose connection is that of the test."""

    def execute_prepared(self, name, *args):
        # Statements that were prepared are the connection's, and hold the key of the session.
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
        self.session = self.open_session()
        self.begin = time.monotonic()

    def open_session(self):
        """Return the session of one more worker."""
        with self.env.cr._cnx.cursor() as cr:
            for name, value in PLANNER.items():
                cr.execute(f"SET LOCAL {name} = '{value}'")  # pylint: disable=sql-injection
            session = InnerSession(self.env.cr.dbname, self.env.cr._cnx, Session._register(cr))
        self.addCleanup(session.execute, "SELECT pg_advisory_unlock_all()")
        self.addCleanup(session.execute, "DEALLOCATE ALL")
        return session

    def call(self, name="x", **options):
        return self.env['ir.async'].with_options(**options).call(self.partner.name_create, name)

    def claim(self, limit=1, session=None):
        """Claim as a worker does, that looks after the queue when there is nothing to claim.

        :return: the jobs as workers know them
        """
        self.env['ir.async'].flush_model()
        session = session or self.session
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

    def finish(self, job, state='done', **kwargs):
        """End a claimed job."""
        _finish(self.env.cr, job, Outcome(state, **kwargs), 1)
        self.env.invalidate_all()

    def assertDelay(self, delay, expected):
        """Check when to look again, but for the time that the test has taken so far."""
        elapsed = time.monotonic() - self.begin
        self.assertLessEqual(delay, expected)
        self.assertGreaterEqual(delay, expected - elapsed)

    def watch(self):
        self.env['ir.async'].flush_model()
        delay = self.session.maintain()
        self.env.invalidate_all()
        return delay

    def shift(self, jobs, **intervals):
        """Move dates of jobs: the clock of the database cannot be moved."""
        jobs.flush_recordset()
        for column, seconds in intervals.items():
            self.env.cr.execute(f"UPDATE ir_async SET {column} = {column} + %s WHERE id IN %s", [
                timedelta(seconds=seconds), jobs._ids])
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
