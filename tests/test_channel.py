from unittest.mock import patch

from psycopg2 import DatabaseError, IntegrityError

from odoo.exceptions import AccessError, ValidationError
from odoo.tests import new_test_user
from odoo.tools import mute_logger

from .queue_common import QueueCase
from odoo.addons.ir_async.engine.claim import END, claim_one
from odoo.addons.ir_async.engine.maintenance import LOOK_INTERVAL
from odoo.addons.ir_async.engine.probes import PROBE
from odoo.addons.ir_async.engine.release import release
from odoo.addons.ir_async.exceptions import RetryJob


class TestChannel(QueueCase):
    """How many jobs of a channel are claimed at once, how fast, and by whom."""

    def channel(self, name, **values):
        return self.env['ir.async.channel'].create({'name': name, **values})

    def calls(self, count, channel, **options):
        return self.env['ir.async'].union(*(self.call(channel=channel, **options) for _i in range(count)))

    def claim_all(self, limit=50):
        """Claim until nothing more is given; return the ids in order."""
        claimed = []
        while jobs := self.claim(limit):
            claimed += jobs
        return claimed

    # ------------------------------------------------------------
    # Order
    # ------------------------------------------------------------

    def test_priority_then_order_of_creation(self):
        jobs = {
            name: self.call(priority=priority)
            for name, priority in (
                ('first', 10),
                ('second', 10),
                ('urgent', 1),
                ('late', 20),
                ('third', 10),
                ('urgent too', 1),
            )
        }
        order = [self.claimed() for _i in range(6)]
        self.assertEqual(order, [jobs[name] for name in ('urgent', 'urgent too', 'first', 'second', 'third', 'late')])

    def test_one_claim_of_many_is_in_the_same_order(self):
        jobs = [self.call(priority=priority) for priority in (5, 1, 5, 3, 1)]
        self.assertEqual([job.id for job in self.claim(50)], [jobs[i].id for i in (1, 4, 3, 0, 2)])

    def test_an_urgent_job_comes_before_any_backlog(self):
        self.env['ir.async'].with_options(chunk_size=1).call(self.env['res.partner'].browse(range(1, 3001)).write, {})
        urgent = self.call(priority=0)
        self.assertEqual(self.claimed(), urgent)

    def test_order_is_kept_between_channels_with_and_without_limits(self):
        self.channel('limited', capacity=10)
        jobs = [
            self.call(priority=priority, channel=channel)
            for priority, channel in ((5, 'limited'), (5, 'default'), (1, 'default'), (0, 'limited'), (5, 'limited'))
        ]
        self.assertEqual([self.claimed() for _i in range(5)], [jobs[i] for i in (3, 2, 0, 1, 4)])

    # ------------------------------------------------------------
    # Capacity
    # ------------------------------------------------------------

    def test_unknown_channel_has_no_limit(self):
        jobs = self.calls(20, 'unknown')
        self.assertFalse(any(jobs.mapped('limited')))
        self.assertEqual([job.id for job in self.claim(50)], jobs.ids)

    def test_capacity(self):
        self.channel('c', capacity=3)
        jobs = self.calls(10, 'c')
        running = self.claim_all()
        self.assertEqual([job.id for job in running], jobs.ids[:3])
        while running:
            # one ends, one begins
            self.finish(running.pop(0))
            self.assertLessEqual(len(more := self.claim_all()), 1)
            running += more
        self.assertEqual(set(jobs.mapped('state')), {'done'})

    def test_capacity_holds_for_all_workers(self):
        self.channel('c', capacity=3)
        self.calls(10, 'c')
        sessions = [self.open_session() for _i in range(4)]
        claimed = [job for _round in range(2) for session in sessions for job in self.claim(50, session)]
        self.assertEqual(len(claimed), 3)
        self.finish(claimed[0])
        self.assertEqual(sum(len(self.claim(50, session)) for session in sessions), 1)

    def test_capacity_changes_at_once(self):
        channel = self.channel('c', capacity=3)
        self.calls(20, 'c')
        running = self.claim_all()
        self.assertEqual(len(running), 3)
        channel.capacity = 5
        running += self.claim_all()
        self.assertEqual(len(running), 5)
        channel.capacity = 1
        for left in (4, 3, 2, 1):
            self.finish(running.pop())
            self.assertFalse(self.claim_all())
            self.assertEqual(len(running), left)
        self.finish(running.pop())
        self.assertEqual(len(self.claim_all()), 1)
        channel.capacity = 0
        self.assertEqual(len(self.claim_all()), 20 - 5 - 1)

    def test_a_full_channel_does_not_hold_back_others(self):
        self.channel('full', capacity=1)
        self.channel('other', capacity=1)
        full = self.calls(3, 'full', priority=0)
        other, plain = self.call(channel='other'), self.call()
        self.assertEqual([self.claimed() for _i in range(3)], [full[0], other, plain])
        self.assertFalse(self.claim())

    def test_limits_that_come_after_the_jobs(self):
        jobs = self.calls(5, 'c')
        self.channel('c', capacity=2)
        self.assertEqual([job.id for job in self.claim_all()], jobs.ids[:2])

    def test_limits_that_come_after_the_jobs_began(self):
        self.calls(5, 'c')
        running = self.claim(3)
        self.assertEqual(len(running), 3)
        self.channel('c', capacity=2)
        for job in running[:2]:
            self.assertFalse(self.claim_all())
            self.finish(job)
        self.assertEqual(len(self.claim_all()), 1)

    def test_limits_behind_jobs_of_other_workers(self):
        """A worker of some channels looks for misplaced jobs in these, however many others come first."""
        self.calls(1, 'other')
        self.env['ir.async'].flush_model()
        columns = ', '.join(
            field.name
            for field in self.env['ir.async']._fields.values()
            if field.store and field.column_type and field.name != 'id'
        )
        self.env.cr.execute(
            f"INSERT INTO ir_async ({columns}) SELECT {columns} FROM ir_async, generate_series(1, 1000) WHERE channel = 'other'"
        )
        job = self.calls(1, 'c')
        self.channel('c', capacity=1)
        self.session.channels = ['c']
        self.assertEqual([job.id for job in self.claim_all()], job.ids)

    def test_limits_that_go(self):
        channel = self.channel('c', capacity=1)
        jobs = self.calls(5, 'c')
        self.assertEqual(len(self.claim_all()), 1)
        channel.unlink()
        self.assertEqual([job.id for job in self.claim_all()], jobs.ids[1:])

    def test_channel_is_renamed(self):
        channel = self.channel('a', capacity=1)
        a, b = self.calls(3, 'a'), self.calls(3, 'b')
        channel.name = 'b'
        self.assertEqual([job.id for job in self.claim_all()], [*a.ids, b.ids[0]])

    def test_a_job_that_is_filed_wrongly_is_filed_again(self):
        """The cache of the process that enqueued did not know of the limits yet, or not of their end."""
        self.channel('c', capacity=1)
        limited, free = self.calls(3, 'c'), self.calls(3, 'd')
        limited.flush_recordset()
        self.env.cr.execute("UPDATE ir_async SET limited = NOT limited WHERE id IN %s", [(limited + free)._ids])
        claimed = {job.id for job in self.claim_all()}
        self.assertEqual(claimed, {limited.ids[0], *free.ids})

    def test_limits_act_while_workers_are_busy(self):
        """A backlog of other channels does not hold up those that got their limits since."""
        jobs = self.calls(2, 'c')
        self.calls(2, 'backlog')
        jobs.flush_recordset()
        self.channel('c', capacity=1)
        for _look in range(2):
            self.session.maintain(is_busy=True)
        self.assertEqual(self.session.claim(1)[0].id, jobs.ids[0])

    # ------------------------------------------------------------
    # Names with a slash
    # ------------------------------------------------------------

    def test_subchannels_count_for_themselves(self):
        self.channel('partner', capacity=1)
        jobs = [
            self.call(channel=channel)
            for channel in (
                'partner/1',
                'partner/1',
                'partner/2',
                'partner',
                'partner',
                'partner/1/2',
                'partnership/1',
                'partnership/1',
            )
        ]
        self.assertEqual({job.id for job in self.claim_all()}, {jobs[i].id for i in (0, 2, 3, 5, 6, 7)})

    def test_subchannels_are_not_records(self):
        for name in ('partner/1', ' partner', 'partner ', '/'):
            with self.assertRaises(ValidationError):
                self.channel(name, capacity=1)

    # ------------------------------------------------------------
    # Interval
    # ------------------------------------------------------------

    def test_names_that_no_call_would_give(self):
        for name in (' c', 'c ', '/c'):
            with self.assertRaisesRegex(ValidationError, "begins with a slash, or has spaces around it"):
                self.channel(name)
        for name in ('', 'é' * 501):
            with self.assertRaisesRegex(ValidationError, "at least 1 and at most 1000 bytes"):
                self.channel(name)

    def test_interval(self):
        self.channel('c', interval=1000)
        jobs = self.calls(3, 'c')
        [claimed] = self.claim_all()
        self.assertEqual(claimed.id, jobs.ids[0])
        self.finish(claimed)
        # the worker knows when to look again
        self.assertFalse(self.session.claim(50))
        self.assertDelay(self.watch(), 1000)
        self.shift(jobs[0], date_start=-500)
        self.assertFalse(self.session.claim(50))
        self.assertDelay(self.watch(), 500)
        self.shift(jobs[0], date_start=-500)
        self.assertEqual(self.claimed(), jobs[1])
        self.assertFalse(self.claim_all())

    def test_interval_and_capacity(self):
        self.channel('c', interval=1000, capacity=2)
        jobs = self.calls(5, 'c')
        for i in range(2):
            self.assertEqual(self.claimed(), jobs[i])
            self.assertFalse(self.claim())
            self.shift(jobs[i], date_start=-1001)
        self.assertFalse(self.claim(), "the channel is full")

    def test_interval_of_subchannels(self):
        self.channel('c', interval=1000)
        jobs = self.call(channel='c/1') + self.call(channel='c/2') + self.call(channel='c/1')
        self.assertEqual({job.id for job in self.claim_all()}, set(jobs.ids[:2]))

    def test_a_start_of_an_interval_waits_for_nobody(self):
        """A job that waits for others of its batch would use up the interval of its channel."""
        self.channel('a', capacity=9)
        self.channel('b', interval=1000)
        self.channel('c', interval=1000)
        for channels in ('bc', 'ab', 'ba'):
            jobs = [self.call(channel=channel) for channel in channels]
            self.watch()
            for job in jobs:
                [claimed] = self.claim(50)
                self.assertEqual(claimed.id, job.id)
                self.finish(claimed)
                self.shift(job, date_start=-1001)

    def test_a_slot_that_nobody_waits_for(self):
        self.channel('c', interval=1000)
        jobs = self.calls(2, 'c')
        self.finish(self.claim()[0])
        self.assertFalse(self.session.claim(50))
        self.assertDelay(self.watch(), 1000)
        jobs[1].cancel()
        self.watch()
        self.assertFalse(self.session.claim(50))
        self.assertIsNone(self.watch())

    def test_a_slot_that_another_worker_took(self):
        """The worker that was slower knows when the next one comes."""
        self.channel('api', interval=10)
        self.calls(2, 'api')
        self.env['ir.async'].flush_model()
        slower, quicker = self.session, self.open_session()
        slower._channels.look()
        self.assertTrue(self.claim(session=quicker))
        self.assertEqual(slower._channels.claim(1, END), [])
        self.assertGreater(slower._channels.slot_delay, 9)

    def test_channels_whose_jobs_others_have_locked(self):
        """A claim asks for many of them at a time, and an idle worker looks again after a while."""
        self.channel('many', capacity=1)
        for number in range(300):
            self.call(channel=f'many/{number}')
        self.env['ir.async'].flush_model()
        execute, tries = self.session.execute, []

        def execute_as_if_locked(query, params=()):
            if query is PROBE:
                return [[None, None, None]] * len(params['names'])
            if 'pg_advisory_xact_lock' in query:
                tries.append(params['channel'])
                return []
            return execute(query, params)

        with patch.object(self.session, 'execute', execute_as_if_locked):
            self.assertEqual(self.session.claim(1), [])
            self.assertEqual(len(tries), len(set(tries)))
            self.assertLess(len(tries), 20)
            tries.clear()
            self.assertEqual(self.session.claim(1), [])
            self.assertFalse(tries, "it remembers these channels")
            self.assertEqual(self.session.maintain(), LOOK_INTERVAL)
        self.assertEqual(len(self.session.claim(1)), 1)

    def test_a_limited_job_that_another_worker_took(self):
        """A worker that left plain jobs where they are, for the sake of that one, claims them at once."""
        self.channel('c', capacity=1)
        self.watch()
        plain, _limited = self.call(), self.call(channel='c', priority=1)
        self.env['ir.async'].flush_model()
        self.session.wake()
        self.assertEqual(self.session.claim(1), [])
        self.assertTrue(self.claim(session=self.open_session()))
        self.assertEqual(self.session.maintain(), 0)
        self.assertEqual([job.id for job in self.session.claim(1)], plain.ids)

    def test_a_limited_job_before_its_notification(self):
        """A claim sees a transaction before the worker hears of it. The order holds all the same."""
        self.channel('c', capacity=1)
        first = self.call()
        self.watch()
        self.assertEqual([job.id for job in self.claim()], first.ids)
        plain, limited = self.call(), self.call(channel='c', priority=1)
        self.env['ir.async'].flush_model()
        self.assertEqual(self.session.claim(50), [])
        self.assertEqual(self.session.maintain(), 0)
        self.assertEqual([job.id for job in self.claim_all()], [*limited.ids, *plain.ids])

    def test_a_limited_job_that_the_worker_put_into_the_queue(self):
        """Nobody notifies it of its own changes."""
        self.channel('c', capacity=1)
        self.watch()
        plain, limited = self.call(delay=60), self.call(channel='c', priority=1, delay=60)
        self.shift(plain + limited, date_scheduled=-61)
        self.assertEqual(self.session.maintain(is_busy=True), 0)
        self.assertEqual(self.session.claim(1), [])
        self.assertEqual([job.id for job in self.claim(session=self.open_session())], limited.ids)
        self.assertEqual(self.session.maintain(), 0)
        self.assertEqual([job.id for job in self.session.claim(1)], plain.ids)

    def test_interval_is_not_forgotten_when_a_job_is_tried_again(self):
        self.channel('c', interval=1000)
        jobs = self.calls(2, 'c')
        [claimed] = self.claim_all()
        with mute_logger('odoo.addons.ir_async'):
            self.end_with(claimed, ValueError("x"))
        jobs[0].retry()
        self.assertFalse(self.claim_all())

    def test_starts_in_an_interval(self):
        """No more than three start in any 1000 seconds: each makes room for another one when it is that old."""
        self.channel('c', interval=1000, starts_per_interval=3)
        jobs = self.calls(9, 'c')
        started = self.claim_all()
        self.assertEqual([job.id for job in started], jobs.ids[:3])
        for job in started:
            self.finish(job)
        self.assertFalse(self.claim_all())
        self.assertDelay(self.watch(), 1000)
        self.shift(jobs[0], date_start=-600)
        self.shift(jobs[1], date_start=-400)
        self.assertFalse(self.session.claim(50))
        self.assertDelay(self.watch(), 400)
        self.shift(jobs[:2], date_start=-400)
        self.assertEqual([job.id for job in self.claim_all()], [jobs.ids[3]], "the second start is 800 seconds old")
        self.shift(jobs[1:4], date_start=-1000)
        self.assertEqual([job.id for job in self.claim_all()], jobs.ids[4:7])

    def test_starts_of_one_job_count(self):
        """A job that starts again and again has one row, with its last start."""
        self.channel('c', interval=1000, starts_per_interval=3)
        job = self.call(channel='c')
        for _start in range(3):
            [claimed] = self.claim_all()
            self.finish(claimed, 'created', delay=0)
            self.shift(job, date_scheduled=-1)
        self.assertFalse(self.claim_all())

    def test_starts_of_lost_jobs_count(self):
        """Nobody knows whether a job had begun whose worker is gone."""
        self.channel('c', interval=1000, starts_per_interval=2)
        self.calls(3, 'c')
        other = self.open_session()
        self.assertEqual(len(self.claim(1, other) + self.claim(1, other)), 2)
        self.cut(other)
        self.rescue()
        self.assertFalse(self.claim_all())

    def test_released_jobs_did_not_start(self):
        self.channel('c', interval=1000, starts_per_interval=2)
        jobs = self.calls(4, 'c')
        [first] = self.claim()
        self.finish(first, 'created', delay=0)
        self.shift(jobs[0], date_scheduled=-1)
        self.watch()
        [again] = self.claim()
        self.assertEqual(again.id, first.id)
        release(self.session, [again])
        self.assertEqual([job.id for job in self.claim_all()], [first.id], "its first start still counts")
        self.assertFalse(self.claim_all())

    def test_started_jobs_that_are_released_count(self):
        self.channel('c', interval=1000, starts_per_interval=2)
        self.calls(3, 'c')
        release(self.session, self.claim(), starts=1)
        self.assertEqual(len(self.claim_all()), 1)

    def test_starts_of_subchannels(self):
        self.channel('c', interval=1000, starts_per_interval=2)
        jobs = [self.call(channel=f'c/{i % 2}') for i in range(8)]
        self.assertEqual({job.id for job in self.claim_all()}, {job.id for job in jobs[:4]})

    def test_starts_hold_for_all_workers(self):
        self.channel('c', interval=1000, starts_per_interval=3)
        self.calls(10, 'c')
        sessions = [self.open_session() for _i in range(4)]
        self.assertEqual(sum(len(self.claim(50, session)) for _round in range(2) for session in sessions), 3)

    def test_starts_change_at_once(self):
        channel = self.channel('c', interval=1000, starts_per_interval=2)
        self.calls(20, 'c')
        self.assertEqual(len(self.claim_all()), 2)
        channel.starts_per_interval = 5
        self.assertEqual(len(self.claim_all()), 3)
        channel.starts_per_interval = 1
        self.assertFalse(self.claim_all())
        channel.interval = 0
        self.assertEqual(len(self.claim_all()), 15)

    def test_longer_interval_knows_earlier_starts(self):
        channel = self.channel('c', interval=10, starts_per_interval=2)
        jobs = self.calls(5, 'c')
        self.claim_all()
        self.shift(jobs[:2], date_start=-100)
        [third] = self.claim()
        self.assertEqual(third.id, jobs.ids[2])
        channel.interval = 1000
        self.assertFalse(self.claim_all())

    def test_starts_are_forgotten(self):
        """No more of them are kept than a claim needs. Those of a channel that was left go with the clean-up."""
        self.channel('c', interval=10, starts_per_interval=2)
        jobs = self.calls(6, 'c')
        for _round in range(3):
            self.assertEqual(len(self.claim_all()), 2)
            self.shift(jobs, date_start=-20)
        self.env.cr.execute("SELECT count(*) FROM ir_async_start")
        self.assertEqual(self.env.cr.fetchone(), (2,))
        self.env['ir.async']._gc_starts()
        self.env.cr.execute("SELECT count(*) FROM ir_async_start")
        self.assertEqual(self.env.cr.fetchone(), (2,), "the interval may be made longer")
        self.shift(jobs, date_start=-86400)
        self.env['ir.async']._gc_starts()
        self.env.cr.execute("SELECT count(*) FROM ir_async_start")
        self.assertEqual(self.env.cr.fetchone(), (0,))

    def test_a_start_outlives_a_crash_of_postgresql(self):
        """What the job has sent to others is not undone either. Other claims need not wait for the disk."""
        self.channel('c', interval=1000)
        self.channel('d', capacity=1)
        for channel, durable in (('d', 'off'), ('c', 'on')):
            self.call(channel=channel)
            self.assertEqual(len(self.claim()), 1)
            self.env.cr.execute("SHOW synchronous_commit")
            self.assertEqual(self.env.cr.fetchone(), (durable,))

    def test_starts_are_a_number(self):
        for starts in (0, -1, 10_001):
            with mute_logger('odoo.sql_db'), self.assertRaises(IntegrityError):
                self.channel('c', interval=1, starts_per_interval=starts).flush_recordset()

    def test_interval_is_a_number(self):
        """One that no date can be added to would have every claim fail, also those in other channels. PostgreSQL 13 has no infinity."""
        for interval in (-1, 2**31, 1e13, float('inf'), float('nan')):
            with mute_logger('odoo.sql_db'), self.assertRaises(DatabaseError), self.env.cr.savepoint():
                self.channel('c', interval=interval).flush_recordset()
        self.channel('c', interval=2**31 - 1)
        self.calls(2, 'c')
        self.assertEqual(len(self.claim_all()), 1)
        self.env['ir.async']._gc_starts()

    def test_interval_of_an_earlier_version(self):
        """Earlier versions took any interval."""
        self.channel('c', interval=1)
        self.env.cr.execute("ALTER TABLE ir_async_channel DROP CONSTRAINT ir_async_channel_check_interval")
        self.env.cr.execute("UPDATE ir_async_channel SET interval = 'NaN' WHERE name = 'c'")
        self.env['ir.async.channel'].init()
        self.calls(2, 'c')
        self.assertEqual(len(self.claim_all()), 1)

    def test_interval_that_was_off_knows_earlier_starts(self):
        channel = self.channel('c', interval=1000, starts_per_interval=2)
        self.calls(4, 'c')
        self.assertEqual(len(self.claim_all()), 2)
        channel.interval = 0
        self.assertEqual(len(self.claim()), 1)
        channel.interval = 1000
        self.assertFalse(self.claim_all())

    def test_start_of_a_job_that_is_not_marked_yet(self):
        """A job that is run by its id may be older than the limits of its channel."""
        jobs = self.calls(2, 'c')
        self.channel('c', interval=1000)
        self.env['ir.async'].flush_model()
        self.assertEqual(len(claim_one(self.session, jobs.ids[0])), 1)
        self.assertFalse(self.claim_all())

    def test_starts_of_a_clock_that_was_fast(self):
        """After the clock was set back, the clean-up has the channel start jobs in an interval, not in years."""
        self.channel('c', interval=10, starts_per_interval=2)
        jobs = self.calls(4, 'c')
        started = self.claim_all()
        self.shift(jobs[:2], date_start=365 * 86400)
        self.env['ir.async']._gc_starts()
        self.assertFalse(self.claim_all(), "they may be of just now")
        self.shift(jobs[:2], date_start=-10)
        self.assertEqual((len(started), len(self.claim_all())), (2, 2))

    # ------------------------------------------------------------
    # Turns
    # ------------------------------------------------------------

    def calls_by_users(self, *counts, **options):
        """Enqueue so many jobs of each user, those of one after the other; return the ids of the jobs of each."""
        ids = []
        for i, count in enumerate(counts):
            user = new_test_user(self.env, f'user {i} {options}', groups='base.group_system')
            partner = self.partner.with_user(user)
            queue = self.env['ir.async'].with_user(user).with_options(**options)
            ids.append([queue.call(partner.name_create, "x").id for _i in range(count)])
        return ids

    def run_all(self, limit=None):
        """Run one job after the other; return the ids in order."""
        ids = []
        while len(ids) != limit and (jobs := self.claim()):
            ids += [job.id for job in jobs]
            for job in jobs:
                self.finish(job)
        return ids

    def test_users_take_turns(self):
        self.channel('c', fair=True)
        a, b, c = self.calls_by_users(5, 2, 3, channel='c')
        self.assertEqual(self.run_all(), [a[0], b[0], c[0], a[1], b[1], c[1], a[2], c[2], *a[3:]])

    def test_turns_are_within_a_priority(self):
        self.channel('c', fair=True)
        [urgent] = self.calls_by_users(2, channel='c', priority=1)
        a, b = self.calls_by_users(2, 2, channel='c')
        self.assertEqual(self.run_all(), [*urgent, a[0], b[0], a[1], b[1]])

    def test_turns_go_on_after_other_priorities(self):
        """The urgent jobs of one user do not give the next user all turns."""
        self.channel('c', fair=True)
        a, b, c = self.calls_by_users(2, 2, 2, channel='c')
        last = self.env['ir.async'].browse(c[0]).user_id
        queue = self.env['ir.async'].with_user(last).with_options(channel='c', priority=1)
        turns = []
        for _i in range(6):
            queue.call(self.partner.with_user(last).name_create, "urgent")
            turns += self.run_all(2)[1:]
        self.assertEqual(turns, [a[0], b[0], c[0], a[1], b[1], c[1]])

    def test_turns_after_the_clock_was_set_back(self):
        self.channel('c', fair=True)
        a, b = self.calls_by_users(3, 2, channel='c')
        self.claim()
        self.shift(self.env['ir.async'].browse(a[0]), date_start=86400)
        self.assertEqual(self.run_all(), [a[1], b[0], a[2], b[1]])

    def test_turns_with_other_limits(self):
        self.channel('c', fair=True, capacity=2)
        a, b = self.calls_by_users(3, 1, channel='c')
        self.assertEqual([job.id for job in self.claim_all()], [a[0], b[0]])

    def test_a_turn_leaves_the_first_job(self):
        """That one comes before the jobs of other channels behind it."""
        self.channel('c', fair=True)
        self.channel('other', capacity=5)
        [a] = self.calls_by_users(2, channel='c')
        other = self.call(channel='other').ids
        [b] = self.calls_by_users(1, channel='c', priority=10)
        self.assertEqual(self.run_all(1), a[:1])
        claims = [[job.id for job in self.session.claim(2)] for _i in range(2)]
        self.assertEqual(claims, [b, [*a[1:], *other]])

    def test_turns_of_subchannels(self):
        self.channel('c', fair=True)
        (a, b), (c, d) = self.calls_by_users(2, 2, channel='c/1'), self.calls_by_users(2, 2, channel='c/2')
        ids = self.run_all()
        self.assertEqual([id_ for id_ in ids if id_ in a + b], [a[0], b[0], a[1], b[1]])
        self.assertEqual([id_ for id_ in ids if id_ in c + d], [c[0], d[0], c[1], d[1]])

    def test_turn_of_a_job_that_did_not_begin(self):
        self.channel('c', fair=True)
        a, b = self.calls_by_users(2, 2, channel='c')
        release(self.session, self.claim())
        self.assertEqual(self.run_all(), [a[0], b[0], a[1], b[1]])

    def test_order_without_turns(self):
        channel = self.channel('c', fair=True)
        a, b = self.calls_by_users(3, 1, channel='c')
        channel.write({'fair': False, 'capacity': 1})
        self.assertEqual(self.run_all(), [*a, *b])

    # ------------------------------------------------------------
    # Pause
    # ------------------------------------------------------------

    def test_pause_and_resume(self):
        channel = self.channel('c')
        jobs, other = self.calls(3, 'c'), self.call()
        channel.action_pause()
        self.assertEqual(self.claimed(), other)
        self.assertFalse(self.claim_all())
        channel.action_resume()
        self.assertEqual([job.id for job in self.claim_all()], jobs.ids)

    def test_pause_lets_what_runs_go_on(self):
        channel = self.channel('c', capacity=2)
        self.calls(3, 'c')
        running = self.claim_all()
        channel.action_pause()
        for job in running:
            self.finish(job)
        self.assertFalse(self.claim_all())
        channel.action_resume()
        self.assertEqual(len(self.claim_all()), 1)

    # ------------------------------------------------------------
    # Pause by a job
    # ------------------------------------------------------------

    def pause(self, job, **options):
        """Have a claimed job ask its channel to wait."""
        return self.end_with(job, RetryJob("Too many requests", pause_channel=True, **options))

    def test_pause_by_a_job(self):
        """No job of its channel starts until it does itself. Those that run go on, and the pause ends by itself."""
        self.channel('c', capacity=3)
        jobs = self.calls(4, 'c')
        running = self.claim(2) + self.claim(2)
        self.pause(running[0], delay=60)
        self.assertRecordValues(jobs[0], [{'state': 'created', 'attempts': 0}])
        self.finish(running[1])
        self.assertFalse(self.claim_all())
        self.assertDelay(self.watch(), 60)
        self.pass_time(60)
        self.shift(jobs[0], date_scheduled=-60)
        self.watch()
        self.assertEqual([job.id for job in self.claim_all()], [jobs.ids[0], *jobs.ids[2:]])

    def pass_time(self, seconds):
        self.env.cr.execute("UPDATE ir_async_pause SET until = until - %s * interval '1 second'", [seconds])

    def test_longest_pause_counts(self):
        self.channel('c', capacity=3)
        self.calls(4, 'c')
        running = self.claim() + self.claim() + self.claim()
        for job, delay in zip(running, (10, 60, 30)):
            self.pause(job, delay=delay)
        self.pass_time(40)
        self.assertFalse(self.claim_all())
        self.pass_time(20)
        self.assertEqual(len(self.claim_all()), 1)

    def test_pause_by_default_is_the_delay_of_the_job(self):
        self.channel('c', capacity=1)
        self.calls(2, 'c', retry_delay=30)
        self.pause(self.claim()[0])
        self.assertFalse(self.claim_all())
        self.assertDelay(self.watch(), 30)

    def test_pause_is_for_the_subchannel(self):
        self.channel('c', capacity=1)
        jobs = [self.call(channel=channel) for channel in ('c/1', 'c/1', 'c/2', 'c', 'd')]
        self.pause(self.claim()[0], delay=60)
        self.assertEqual({job.id for job in self.claim_all()}, {job.id for job in jobs[2:]})

    def test_other_ends_pause_nothing(self):
        self.channel('c', capacity=1)
        self.calls(3, 'c', max_attempts=2)
        self.end_with(self.claim()[0], RetryJob("later", delay=60))
        self.end_with(self.claim()[0], ValueError("x"))
        self.assertEqual(len(self.claim_all()), 1)

    def test_pause_outlives_its_job(self):
        self.channel('c', capacity=1)
        jobs = self.calls(2, 'c')
        self.pause(self.claim()[0], delay=60)
        jobs[0].cancel()
        self.assertFalse(self.claim_all())

    def test_manager_ends_a_pause(self):
        channel, other = self.channel('c', capacity=1), self.channel('cc', capacity=1)
        jobs = [self.call(channel=name) for name in ('c/1', 'cc', 'c/1', 'cc')]
        for job in self.claim(2):
            self.pause(job, delay=60)
        self.assertFalse(self.claim_all())
        for record, job in zip((channel, other), jobs):
            self.assertEqual(record.paused_until, job.date_scheduled.replace(microsecond=0))
        self.assertRaises(AccessError, channel.with_user(new_test_user(self.env, 'internal')).action_resume)
        channel.action_resume()
        self.env.invalidate_all()
        self.assertEqual((channel.paused_until, bool(other.paused_until)), (False, True))
        self.assertEqual([job.id for job in self.claim_all()], [jobs[2].id])

    def test_pause_in_a_channel_whose_users_take_turns(self):
        """Taking turns is a limit, too."""
        channel = self.channel('c', fair=True)
        self.calls(2, 'c')
        self.pause(self.claim()[0], delay=60)
        self.assertFalse(self.claim_all())
        channel.invalidate_recordset()
        self.assertTrue(channel.paused_until)

    def test_pause_in_a_channel_without_limits(self):
        """Claims there look at no state of a channel. The log says so."""
        self.channel('c')
        self.calls(2, 'c')
        with self.assertLogs('odoo.addons.ir_async', 'WARNING') as logs:
            self.pause(self.claim()[0], delay=60)
        self.assertIn("has no limits", logs.output[0])
        self.assertEqual(len(self.claim_all()), 1)

    def test_pause_of_a_channel_that_lost_its_limits(self):
        """Nobody could end the pause. A channel without limits waits for nothing."""
        for name, lose in (
            ('c', lambda channel: channel.write({'capacity': 0})),
            ('d', lambda channel: channel.unlink()),
        ):
            channel = self.channel(name, capacity=1)
            jobs = self.calls(2, name)
            self.pause(self.claim()[0], delay=60)
            lose(channel)
            later = self.call(channel=name)
            self.assertFalse(channel.exists().paused_until)
            self.assertEqual({job.id for job in self.claim_all()}, {jobs.ids[1], later.id})

    def test_pauses_are_forgotten(self):
        self.channel('c', capacity=2)
        self.calls(2, 'c')
        running = self.claim() + self.claim()
        for job, delay in zip(running, (10, 60)):
            self.pause(job, delay=delay)
        self.pass_time(30)
        self.env['ir.async']._gc_starts()
        self.env.cr.execute("SELECT count(*) FROM ir_async_pause")
        self.assertEqual(self.env.cr.fetchone(), (1,))

    def test_pause_of_everything(self):
        self.channel('c', capacity=5)
        everything = self.channel('*', paused=True)
        jobs = self.calls(2, 'c') + self.call() + self.call(channel='d/1')
        self.assertFalse(self.claim_all())
        self.assertEqual(set(jobs.mapped('state')), {'created'})
        everything.action_resume()
        self.assertEqual({job.id for job in self.claim_all()}, set(jobs.ids))

    def test_the_channel_of_everything_can_be_paused_only(self):
        for values in ({'capacity': 1}, {'interval': 1}, {'fair': True}):
            with self.assertRaises(ValidationError):
                self.channel('*', **values)

    def test_limits_are_not_negative(self):
        for values in ({'capacity': -1}, {'interval': -1}):
            with mute_logger('odoo.sql_db'), self.assertRaises(IntegrityError):
                self.channel('c', **values).flush_recordset()

    def test_one_record_a_name(self):
        self.channel('c', capacity=1)
        with mute_logger('odoo.sql_db'), self.assertRaises(IntegrityError):
            self.channel('c', capacity=2).flush_recordset()

    def test_changes_wake_the_workers(self):
        channel = self.channel('c', capacity=1)
        for change in (
            lambda: channel.write({'capacity': 2}),
            channel.action_pause,
            channel.action_resume,
            channel.unlink,
        ):
            self.env.cr.postcommit.clear()
            with patch('odoo.addons.ir_async.engine.notifier.Notifier.notify') as notify:
                change()
                self.env.cr.postcommit.run()
            notify.assert_called_with(self.env.cr.dbname)

    # ------------------------------------------------------------
    # The worker's own channels
    # ------------------------------------------------------------

    def test_a_workers_channels(self):
        self.channel('c', capacity=5)
        jobs = {channel: self.call(channel=channel) for channel in ('default', 'a', 'a/1', 'ab', 'c', 'c/1')}
        self.session.channels = ['a', 'c']
        self.assertEqual({job.id for job in self.claim_all()}, {jobs[name].id for name in ('a', 'a/1', 'c', 'c/1')})
        self.session.channels = []
        self.assertEqual({job.id for job in self.claim_all()}, {jobs[name].id for name in ('default', 'ab')})

    # ------------------------------------------------------------
    # What it costs
    # ------------------------------------------------------------

    def test_unlimited_channels_pay_nothing(self):
        """Once a worker has seen that no job is in a channel with limits, a claim is one statement."""
        self.channel('c', capacity=1)
        self.calls(6, 'unlimited')
        self.watch()
        self.session.claim(1)
        with self.statements() as statements:
            self.assertEqual(len(self.session.claim(5)), 5)
        executed = [statement for statement in statements if not statement.startswith(('DEALLOCATE', 'PREPARE'))]
        self.assertEqual(len(executed), 1, executed)

    def rows_read(self, count_before):
        self.env.cr.execute("""
            SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables WHERE relname = 'ir_async'
        """)
        return int(self.env.cr.fetchone()[0]) - count_before

    def test_a_full_channel_costs_the_same_however_many_wait(self):
        self.env.cr.execute("SET LOCAL enable_seqscan = off")  # as it is where the table is large
        self.channel('c', capacity=1)
        costs = []
        for count in (500, 2000):
            self.calls(count, 'c')
            self.env['ir.async'].flush_model()
            self.claim()
            before = self.rows_read(0)
            self.assertFalse(self.session.claim(50))
            costs.append(self.rows_read(before))
        self.assertLess(costs[1], 2 * costs[0], costs)

    def test_a_lost_race_for_a_slot_costs_the_same_however_many_wait(self):
        """Another worker takes the slot between our look at the channel and our claim."""
        self.env.cr.execute("SET LOCAL enable_seqscan = off")
        self.channel('c', capacity=1)
        costs = []
        for count in (500, 2000):
            self.calls(count, 'c')
            self.env['ir.async'].flush_model()
            before = self.rows_read(0)
            execute, other, lost = type(self.session).execute, self.open_session(), []

            def lose(session, query, params=(), *, execute=execute, other=other, lost=lost):
                if session is self.session and 'pg_advisory_xact_lock' in query:
                    lost.extend(self.claim(1, other))
                return execute(session, query, params)

            with patch.object(type(self.session), 'execute', lose):
                self.assertFalse(self.session.claim(50))
            costs.append(self.rows_read(before))
            [job] = lost
            self.finish(job)
        self.assertLess(costs[1], 2 * costs[0], costs)

    def test_a_claim_costs_the_same_however_many_channels_there_are(self):
        """As after a mass edit, where each record has a channel of its own."""
        self.env.cr.execute("SET LOCAL enable_seqscan = off")
        self.channel('partner', capacity=1)
        costs = []
        for count in (500, 2000):
            for i in range(count):
                self.call(channel=f'partner/{count}/{i}')
            self.env['ir.async'].flush_model()
            before = self.rows_read(0)
            self.assertEqual(len(self.session.claim(10)), 10)
            costs.append(self.rows_read(before))
        self.assertLess(costs[1], 2 * costs[0], costs)
