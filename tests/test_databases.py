from types import SimpleNamespace
from unittest.mock import Mock, patch

from odoo.tests import BaseCase

from .queue_common import Clock
from odoo.addons.ir_async.engine.maintenance import LOOK_INTERVAL
from odoo.addons.ir_async.service import databases as databases_module
from odoo.addons.ir_async.service.databases import (
    FIRST_BACK_OFF,
    IDLE_TIME,
    LAST_BACK_OFF,
    LIST_INTERVAL,
    MAX_FOREIGN,
    MAX_OPEN,
    OWN_LOOK,
    TURN,
    Databases,
)
from odoo.addons.ir_async.service.roster import Position
from odoo.addons.ir_async.tools.config import Settings

HERE = Position(1, 1)  # in the order of notifications
BEFORE, AFTER = Position(1, 0), Position(1, 2)


class TestDatabases(BaseCase):
    """Which database a worker looks at next, and to which ones it is connected."""

    def setUp(self):
        super().setUp()
        self.clock = Clock()
        self.names = ['a', 'b', 'c']
        self.listings = 0
        self.jobs = {}
        self.delay = None
        self.is_rescuing = False
        self.startPatcher(patch.object(databases_module, 'time', self.clock))
        self.startPatcher(patch.object(databases_module, 'random', SimpleNamespace(uniform=lambda low, high: low)))
        self.startPatcher(patch.object(databases_module, 'settings', Settings))
        self.startPatcher(patch.object(databases_module, 'Runner', Mock()))
        self.startPatcher(patch.object(databases_module.Session, 'open', self.open))
        self.closed = self.startPatcher(patch.object(databases_module.sql_db, 'close_db'))
        self.databases = Databases(self.list, 1)
        self.databases.refresh()

    def list(self):
        self.listings += 1
        return self.names

    def open(self, name, _process_number):
        session = Mock(dbname=name, is_rescuing=self.is_rescuing, has_more=False)
        session.claim.side_effect = lambda _limit: self.jobs.get(name, [])
        session.maintain.side_effect = lambda is_busy: self.delay
        return session, None

    def connected(self):
        return {database.name for database in self.databases if database.session}

    def visit(self, name=None):
        database = self.databases.get(name) if name else self.databases.next()
        self.databases.make_room(database)
        database.claim(1)
        return database.name

    def refreshes(self, count=50):
        """Return how many listings there are when a worker refreshes time and again within an interval."""
        before = self.listings
        for _i in range(count):
            self.databases.refresh()
            self.clock.advance(LIST_INTERVAL / count)
        return self.listings - before

    def test_a_stranger_costs_one_listing(self):
        """Notifications for databases of others do not make the worker look at all of its own."""
        for name in ('a', 'b', 'c'):
            self.visit(name)
        due = [database.due for database in self.databases]
        self.clock.advance(LIST_INTERVAL)
        self.databases.hear('stranger', HERE, 0)
        self.assertEqual(self.refreshes(), 1)
        for _i in range(5):
            self.databases.hear('stranger', HERE, 0)
            self.assertEqual(self.refreshes(), 0)
        self.assertEqual([database.due for database in self.databases], due)

    def test_many_strangers(self):
        """One listing per interval, however many names there are; and they are not remembered without bound."""
        self.clock.advance(LIST_INTERVAL)
        for i in range(MAX_FOREIGN + 100):
            self.databases.hear(f'stranger_{i}', HERE, 0)
        self.assertEqual(self.refreshes(), 1)
        self.assertLessEqual(len(self.databases._foreign), MAX_FOREIGN)
        # until the next regular listing
        self.clock.advance(Settings().poll_interval)
        self.databases.refresh()
        self.assertFalse(self.databases._foreign)

    def test_a_new_database(self):
        for name in ('a', 'b', 'c'):
            self.visit(name)
        self.names.append('new')
        self.databases.hear('new', HERE, 0)
        self.databases.refresh()
        self.assertIsNone(self.databases.get('new'), "it was listed just now")
        self.clock.advance(LIST_INTERVAL)
        self.databases.refresh()
        self.assertEqual(self.databases.next().name, 'new')

    def test_a_database_that_is_gone(self):
        self.visit('b')
        self.names.remove('b')
        self.clock.advance(Settings().poll_interval)
        self.databases.refresh()
        self.assertIsNone(self.databases.get('b'))
        self.closed.assert_called_once_with('b')

    def test_a_listing_that_fails(self):
        """It is tried again later, not in a loop."""
        with patch.object(self.databases, '_list_databases', side_effect=ValueError) as listing:
            self.databases.wake_all()
            with self.assertRaises(ValueError):
                self.databases.refresh()
            self.refreshes()
            self.assertEqual(listing.call_count, 1)
        self.clock.advance(LAST_BACK_OFF)
        self.assertEqual(self.refreshes(), 1)

    def test_each_gets_its_turn(self):
        """A backlog in one starves nobody."""
        self.jobs = {name: [object()] for name in self.names}
        order = []
        for _i in range(9):
            order.append(self.visit())
            self.clock.advance(TURN)
        self.assertEqual(order, ['a', 'b', 'c'] * 3)

    def test_next_look(self):
        """When its session says so, and not later than the safety net."""
        for delay, expected in ((None, 60), (5, 5), (1000, 60), (0, 0)):
            with self.subTest(delay=delay):
                self.delay = delay
                self.databases.get('a').wake()
                self.visit('a')
                self.assertEqual(self.databases.get('a').due, self.clock.monotonic() + expected)

    def test_jobs_do_not_wait_for_maintenance(self):
        """With jobs to run, it comes after them, and once in a while."""
        database = self.databases.get('a')
        self.jobs = {'a': [object()]}
        self.visit('a')
        self.assertFalse(database.session.maintain.called)
        for _i in range(3):
            database.maintain_if_due()
        database.session.maintain.assert_called_once_with(is_busy=True)
        self.clock.advance(LOOK_INTERVAL)
        self.delay = LOOK_INTERVAL / 2  # a dated job is due then
        database.maintain_if_due()
        self.assertEqual(database.session.maintain.call_count, 2)
        self.clock.advance(LOOK_INTERVAL / 2)
        database.maintain_if_due()
        self.assertEqual(database.session.maintain.call_count, 3)
        self.clock.advance(LOOK_INTERVAL)
        database.session.has_more = True
        for _i in range(2):
            database.maintain_if_due()
        self.assertEqual(database.session.maintain.call_count, 5)

    def test_back_off(self):
        """It starts small, for PostgreSQL may be back at once, and doubles up to a limit."""
        self.visit('a')
        database = self.databases.get('a')
        delays = []
        for _i in range(8):
            database.back_off()
            delays.append(database.due - self.clock.monotonic())
            self.assertIsNone(database.session)
            self.clock.advance(delays[-1])
        expected = [min(FIRST_BACK_OFF * 2**i, LAST_BACK_OFF) for i in range(8)]
        for delay, wanted in zip(delays, expected, strict=True):
            self.assertAlmostEqual(delay, wanted)
        self.visit('a')
        database.back_off()
        self.assertAlmostEqual(
            database.due - self.clock.monotonic(), FIRST_BACK_OFF, msg="it could be reached meanwhile"
        )

    def test_a_notification_does_not_shorten_the_back_off(self):
        database = self.databases.get('a')
        database.back_off()
        due = database.due
        self.databases.hear('a', HERE, 0)
        self.assertEqual(database.due, due)
        self.clock.advance(1)
        self.databases.hear('a', HERE, 0)
        self.assertLessEqual(database.due, self.clock.monotonic())

    def test_few_connections(self):
        """Those that were used last are kept."""
        self.names.extend(f'd{i}' for i in range(20))
        self.clock.advance(Settings().poll_interval)
        self.databases.refresh()
        for name in self.names:
            self.visit(name)
            self.clock.advance(0.1)
            self.assertLessEqual(len(self.connected()), MAX_OPEN)
        self.assertEqual(self.connected(), set(self.names[-MAX_OPEN:]))

    def test_more_busy_databases_than_connections(self):
        """Each has its turn, which lasts long enough to be worth the connections."""
        self.jobs = {name: [object()] for name in self.names}
        visits, opened = [], 0
        while len(visits) < 90:
            database = self.databases.next()
            opened += not database.session
            visits.append(self.visit())
            self.clock.advance(TURN / 10)
        self.assertLessEqual(opened, 10)
        self.assertEqual({name: 20 < visits.count(name) < 40 for name in self.names}, dict.fromkeys(self.names, True))

    def test_a_turn_goes_on_after_a_visit_to_another_database(self):
        self.jobs = {'a': [object()]}
        self.visit('b')
        self.visit('a')
        self.databases.get('b').wake()
        self.visit('b')
        self.assertEqual(self.databases.next().name, 'a')

    def test_a_turn_ends_without_jobs(self):
        for name in self.names:
            self.visit(name)
        self.databases.hear('a', HERE, 0)
        self.assertEqual(self.databases.next().name, 'a')

    def test_an_idle_database_is_left(self):
        """Whoever wants to drop or copy it is not disturbed; one with jobs is kept."""
        self.jobs = {'b': [object()]}
        for name in ('a', 'b'):
            self.visit(name)
        self.clock.advance(IDLE_TIME + 1)
        for database in self.databases:
            database.leave_if_idle()
        self.assertEqual(self.connected(), {'b'})

    def test_waking_reaches_the_session(self):
        self.visit('a')
        self.databases.hear('a', HERE, 0)
        self.databases.get('a').session.wake.assert_called_once_with()

    def test_others_have_looked(self):
        """A worker puts its own look off, unless it heard the database named after that."""
        database = self.databases.get('a')
        self.visit('a')
        for position, is_owed in ((HERE, False), (AFTER, False), (BEFORE, True), (None, True)):
            with self.subTest(position=position):
                self.databases.hear('a', HERE, 1)
                database.hear_looked(position, 5)
                self.assertEqual(bool(database.owed), is_owed)
                self.assertEqual(database.due, self.clock.monotonic() + (1 if is_owed else 5))
                self.visit('a')

    def test_a_look_that_comes_late(self):
        """One that began before the database was named does not replace the date that a newer one found."""
        database = self.databases.get('a')
        self.visit('a')
        self.databases.hear('a', HERE, 1)
        for position, seconds, expected in (
            (HERE, 5, 5),
            (BEFORE, 60, 5),
            (None, 60, 5),
            (BEFORE, 3, 3),
            (AFTER, 60, 60),
        ):
            with self.subTest(position=position, seconds=seconds):
                database.hear_looked(position, seconds)
                self.assertEqual(database.due, self.clock.monotonic() + expected)

    def test_looks_without_end(self):
        """A stranger who says time and again that there is nothing to do cannot keep a worker from looking."""
        database = self.databases.get('a')
        self.visit('a')
        limit = self.clock.monotonic() + OWN_LOOK * Settings().poll_interval
        for _i in range(2 * OWN_LOOK):
            database.hear_looked(AFTER, Settings().poll_interval)
            self.assertLessEqual(database.due, limit)
            self.clock.advance(Settings().poll_interval * 0.6)

    def test_looks_that_others_cannot_replace(self):
        """The first look at a database, the one after missed notifications, after its own jobs, and when jobs of dead workers are due."""
        database = self.databases.get('a')
        jobs = [object()]

        def missed():
            self.visit('a')
            self.databases.wake_all()

        def had_jobs():
            self.jobs = {'a': jobs}
            self.visit('a')
            self.jobs = {}

        def saw_dead():
            self.is_rescuing = True
            database.leave()
            self.visit('a')
            self.is_rescuing = False
            self.clock.advance(self.delay)

        self.delay = 0.7
        for prepare in (lambda: None, missed, had_jobs, saw_dead):
            prepare()
            database.hear_looked(AFTER, 5)
            self.assertLessEqual(database.due, self.clock.monotonic())
        database.leave()
        self.visit('a')
        database.hear_looked(AFTER, 5)
        self.assertEqual(database.due, self.clock.monotonic() + 5)
