"""The messages between workers, and the looks that they save."""

import os
from types import SimpleNamespace
from unittest.mock import Mock, patch

from odoo.tests import BaseCase

from .queue_common import Clock
from odoo.addons.ir_async.engine.maintenance import LOOK_INTERVAL
from odoo.addons.ir_async.engine.notifier import CHANNEL as NAMES
from odoo.addons.ir_async.engine.rescue import GRACE
from odoo.addons.ir_async.service import databases as databases_module
from odoo.addons.ir_async.service import lookout as lookout_module
from odoo.addons.ir_async.service.databases import LIST_INTERVAL, Databases
from odoo.addons.ir_async.service.lookout import LATE_STEP, LATE_TIME, OWED_TIME, READ_INTERVAL, Lookout
from odoo.addons.ir_async.service.roster import CHANNEL as WORKERS
from odoo.addons.ir_async.service.roster import Roster
from odoo.addons.ir_async.tools.config import Settings


class Listener:
    """Takes the place of a connection: the notifications of all workers are in one list."""

    def __init__(self, number, order):
        self.process_number = number
        self.is_connected = False
        self._order = order
        self._heard = 0

    def fds(self):
        return []

    def connect(self):
        before, self.is_connected = self.is_connected, True
        if not before:
            self._heard = len(self._order)
        return not before

    def send(self, channel, payload):
        self._order.append(SimpleNamespace(channel=channel, payload=payload))

    def read(self):
        heard, self._heard = self._order[self._heard :], len(self._order)
        return heard


class TestLookout(BaseCase):
    def setUp(self):
        super().setUp()
        self.clock = Clock()
        for module in (databases_module, lookout_module):
            self.startPatcher(patch.object(module, 'time', self.clock))
            self.startPatcher(patch.object(module, 'settings', Settings))
        self.startPatcher(patch.object(databases_module, 'Runner', Mock()))
        self.startPatcher(patch.object(databases_module.Session, 'open', self.open))
        self.startPatcher(patch.dict(lookout_module.config.options, {'db_name': []}))
        self.order = []  # of all notifications
        self.jobs = 0
        self.delay = None
        pipe = os.pipe()
        self.addCleanup(lambda: [os.close(end) for end in pipe])
        os.set_blocking(pipe[0], False)
        self.pipe = pipe[0]
        self.workers = [self.worker(number) for number in range(1, 6)]
        for worker in self.workers:
            self.wait(worker)
            self.look(worker)
        for worker in self.workers:
            self.wait(worker)
        self.wait_all()

    def open(self, name, _process_number):
        session = Mock(dbname=name, is_rescuing=False)
        session.claim.side_effect = lambda _limit: [self.take()] if self.jobs else []
        session.maintain.side_effect = lambda is_busy: self.delay
        return session, None

    def take(self):
        self.jobs -= 1

    def worker(self, number):
        listener = Listener(number, self.order)
        databases = Databases(lambda: ['a'], number)
        return SimpleNamespace(lookout=Lookout(listener, databases, []), databases=databases)

    def wait(self, worker):
        worker.lookout.wait(self.pipe, 0)

    def wait_all(self):
        for _turn in range(2):
            for worker in self.workers:
                self.wait(worker)

    def due(self):
        """Return the workers that look now."""
        return [worker for worker in self.workers if worker.databases.get('a').due <= self.clock.monotonic()]

    def look(self, worker):
        """Have a worker look. Return whether it found a job."""
        database = worker.databases.get('a')
        mark = worker.lookout.begin_look(database)
        found = bool(database.claim(1))
        worker.lookout.end_look(database, mark, found)
        return found

    def name(self):
        self.order.append(SimpleNamespace(channel=NAMES, payload='a'))
        self.wait_all()

    def said(self):
        return [message.payload.split(' ')[1:3] for message in self.order if message.channel == WORKERS]

    def test_two_look_at_once(self):
        self.assertEqual(self.due(), [])
        self.name()
        self.assertEqual(self.due(), self.workers[-2:])

    def test_nobody_else_looks_if_nothing_was_found(self):
        self.name()
        for worker in self.due():
            self.look(worker)
        self.wait_all()
        self.clock.advance(OWED_TIME + 1)
        self.assertEqual(self.due(), [])

    def test_those_on_duty_are_lost(self):
        """The next in rank looks and is on duty from then on."""
        self.name()
        self.workers = self.workers[:-2]
        self.clock.advance(OWED_TIME + 2 * LATE_STEP)
        self.assertEqual(self.due(), [self.workers[-1]])
        self.look(self.workers[-1])
        self.wait_all()
        self.name()
        self.assertEqual(self.due(), [self.workers[-1]])

    def test_a_second_batch(self):
        """A worker that has found jobs twice may leave some to others, so these come on duty. It comes on when it finds none."""
        self.jobs = 2
        self.name()
        [_other, worker] = self.due()
        self.look(worker)
        self.wait_all()
        self.assertEqual(len(self.due()), 3 - 1)
        self.assertNotIn('off', [verb for verb, _number in self.said()])
        self.look(worker)
        self.assertEqual(self.said()[-1], ['off', '5'])
        self.wait_all()
        self.assertIn(self.workers[2], self.due())
        self.assertFalse(self.look(worker))
        with patch.object(lookout_module.select, 'select', return_value=([self.pipe], [], [])):
            worker.lookout.wait(self.pipe, 1)
        self.assertEqual(self.said()[-1], ['on', '5'])

    def test_a_look_that_has_to_be_repeated(self):
        """Nothing to claim, but something was found that can be claimed next: others must not take it for nothing."""
        self.name()
        self.delay = 0
        before = len(self.order)
        self.look(self.due()[0])
        self.assertEqual(len(self.order), before)

    def test_the_next_look(self):
        """Who looked says when to look again. The others do a little later, one by one."""
        self.name()
        self.delay = 5
        for worker in self.due():
            self.look(worker)
        self.wait_all()
        self.clock.advance(5)
        self.assertEqual(self.due(), [self.workers[-1]])
        self.clock.advance(LATE_TIME + LATE_STEP)
        self.assertEqual(self.due(), self.workers[-2:])
        self.clock.advance(LATE_STEP)
        self.assertEqual(self.due(), self.workers[-3:])

    def test_reading_during_a_job(self):
        """The time of a message counts, not the end of the job."""
        worker = self.workers[0]
        self.name()
        self.delay = 5
        self.look(self.workers[-1])
        worker.lookout.note_job(True)
        worker.lookout.stand_in('a')
        self.clock.advance(READ_INTERVAL)
        worker.lookout.stand_in('a')
        worker.lookout.note_job(False)
        self.clock.advance(20)
        self.wait(worker)
        self.assertLess(worker.databases.get('a').due, self.clock.monotonic())

    def test_servers_that_cannot_stand_in_for_each_other(self):
        """Those of other channels are a group of their own."""
        self.name()
        with patch.object(lookout_module, 'settings', lambda: Settings(channels=['mail'])):
            other = self.worker(6)
        self.wait(other)
        self.look(other)
        self.wait_all()
        self.assertEqual(self.due(), self.workers[-2:], "its look is not theirs")
        self.name()
        self.wait(other)
        self.assertLessEqual(other.databases.get('a').due, self.clock.monotonic(), "it is on duty in its group")

    def test_many_are_lost(self):
        """However many were on duty before it, a worker looks in time for the jobs of all of them."""
        worker = self.workers[0]
        others = [Roster(number, lookout_module.group()) for number in range(10, 200)]
        for other in others:
            message = other.come_on()
            self.order.append(SimpleNamespace(channel=WORKERS, payload=message))
            other.hear(message)
        database = worker.databases.get('a')
        self.name()
        self.assertLess(database.due - self.clock.monotonic(), 2)
        mark = worker.lookout._roster.mark()
        self.order.append(SimpleNamespace(channel=WORKERS, payload=others[0].looked('a', mark, LOOK_INTERVAL)))
        self.wait(worker)
        self.assertFalse(database.owed)
        self.assertLess(
            database.due - self.clock.monotonic() + GRACE, 2, "a dead worker's job can be claimed again in two seconds"
        )

    def test_the_main_thread_reads_only_while_a_job_runs(self):
        """Later it would take away the notification that has the work thread look."""
        worker = self.workers[-1]
        worker.lookout.note_job(True)
        worker.lookout.note_job(False)
        self.clock.advance(READ_INTERVAL)
        self.order.append(SimpleNamespace(channel=NAMES, payload='a'))
        worker.lookout.stand_in('a')
        self.assertGreater(worker.databases.get('a').due, self.clock.monotonic())
        self.wait(worker)
        self.assertLessEqual(worker.databases.get('a').due, self.clock.monotonic())

    def test_a_busy_worker_is_watched(self):
        """Though nobody named its database: it may have found the child of its own job after all others had looked."""
        worker = self.workers[-1]
        worker.lookout.note_job(True)
        worker.lookout.stand_in('a')
        self.wait_all()
        self.clock.advance(LOOK_INTERVAL + LATE_TIME)
        self.assertEqual([other for other in self.due() if other is not worker], [self.workers[-2]])

    def test_what_came_while_a_message_was_sent(self):
        """The connection has read it, so nothing would wake the worker up."""
        worker = self.workers[-1]
        self.order.append(SimpleNamespace(channel=NAMES, payload='a'))
        with patch.object(lookout_module.select, 'select', side_effect=AssertionError("the worker sleeps")):
            worker.lookout.wait(self.pipe, 60)
        self.assertEqual(self.due(), [worker])

    def test_a_server_that_lacks_modules(self):
        """It has not looked, so the others do, and no longer count on it."""
        self.name()
        worker = self.workers.pop()
        with patch.dict(lookout_module.incomplete, {'a': ['sale']}):
            self.look(worker)
        self.wait_all()
        self.assertEqual(self.due(), self.workers[-2:])

    def test_workers_far_from_duty_read_later(self):
        """Those on duty begin the job meanwhile, and what these say wakes the others no second time."""
        for worker, is_far in ((self.workers[0], True), (self.workers[-1], False)):
            awaited = []

            def wait(descriptors, *_more, awaited=awaited):
                awaited.append(descriptors)
                self.clock.advance(1)
                return descriptors[1:] if len(awaited) == 1 else [], [], []

            with (
                patch.object(Listener, 'fds', return_value=[object()]),
                patch.object(lookout_module.select, 'select', wait),
            ):
                worker.lookout.wait(self.pipe, 3)
            self.assertEqual(len(awaited[1]) == 1, is_far)

    def test_an_unknown_name(self):
        """The worker lists the databases before long, not after its whole wait."""
        worker = self.workers[-1]
        self.clock.advance(LIST_INTERVAL)
        self.order.append(SimpleNamespace(channel=NAMES, payload='new'))
        with patch.object(lookout_module.select, 'select', side_effect=2 * [([], [], [])]):
            worker.lookout.wait(self.pipe, 1000)
        worker.databases._list_databases = lambda: ['a', 'new']
        self.wait(worker)
        self.assertTrue(worker.databases.get('new'))
