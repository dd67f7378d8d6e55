"""The deaths of workers, on their way to the jobs."""

from .queue_common import QueueCase
from odoo.addons.ir_async.service.databases import Databases
from odoo.addons.ir_async.service.deaths import (
    note_death,
    report_deaths,
    take_obituaries,
)
from odoo.addons.ir_async.service.obituary import Mark, Obituary

ELSEWHERE = 'ir_async_no_such_database'


class TestDeaths(QueueCase):
    def setUp(self):
        super().setUp()
        self.databases = Databases(lambda: [ELSEWHERE, self.env.cr.dbname], 1)
        self.databases.refresh()
        self.databases.get(self.env.cr.dbname).session = self.session
        self.job = self.call()
        session = self.open_session()
        [self.claimed] = self.claim(session=session)
        self.cut(session)

    def obituary(self, dbname=None):
        job = self.claimed
        return Obituary(dbname or self.env.cr.dbname, job.id, job.worker_id, job.claim_number, None, job.claim_number)

    def test_each_is_taken_once(self):
        mark = Mark()
        self.addCleanup(mark.close)
        note_death(mark)
        self.assertEqual(take_obituaries(), [])
        mark.set(self.obituary())
        note_death(mark)
        self.assertEqual(take_obituaries(), [self.obituary()])
        self.assertEqual(take_obituaries(), [])

    def test_a_death_is_reported_to_its_database(self):
        """One of a database that was dropped is forgotten."""
        obituaries = [self.obituary(), self.obituary('dropped')]
        with self.assertLogs('odoo.addons.ir_async.service.deaths', 'WARNING'):
            report_deaths(obituaries, self.databases)
        self.env.invalidate_all()
        self.assertEqual(obituaries, [])
        self.assertRecordValues(self.job, [{'state': 'created', 'deaths': 1, 'starts': 1}])

    def test_a_death_that_cannot_be_reported_yet(self):
        """It stays in the list."""
        obituaries = [self.obituary(ELSEWHERE)]
        report_deaths(obituaries, self.databases)
        self.assertEqual(obituaries, [self.obituary(ELSEWHERE)])
        self.env.invalidate_all()
        self.assertRecordValues(self.job, [{'state': 'processing', 'deaths': 0}])
