"""What a claim costs, however many jobs there are, and were."""

from contextlib import contextmanager
from unittest.mock import ANY, patch

from psycopg2.extensions import AsIs

from odoo.tests import new_test_user

from .queue_common import QueueCase
from odoo.addons.ir_async.engine import fence
from odoo.addons.ir_async.engine.claim import (
    LONGEST_SCAN_INTERVAL,
    MAX_MARKS,
    PATIENCE,
    SCAN_INTERVAL,
    claim_one,
)
from odoo.addons.ir_async.engine.job import Outcome
from odoo.addons.ir_async.engine.maintenance import BUSY_SWEEP_INTERVAL, LOOK_INTERVAL
from odoo.addons.ir_async.engine.origin import COUNT_COPIES, EXPRESSIONS, IS_PERMITTED
from odoo.addons.ir_async.engine.release import release
from odoo.addons.ir_async.engine.session import LOOK
from odoo.addons.ir_async.tools.options import MAX_INT


class TestClaimPlan(QueueCase):
    """The plans that PostgreSQL makes, on a table of some size."""

    def fill(self, count, state):
        """Add jobs by copying one, as fast as that goes."""
        job = self.call()
        job.flush_recordset()
        columns = ', '.join(
            field.name
            for field in job._fields.values()
            if field.store and field.column_type and field.name not in ('id', 'state')
        )
        self.env.cr.execute(
            f"""
            INSERT INTO ir_async (state, {columns})
                 SELECT %s, {columns} FROM ir_async, generate_series(1, %s) WHERE id = %s
        """,
            [state, count, job.id],
        )
        self.env.cr.execute("UPDATE ir_async SET state = %s WHERE id = %s", [state, job.id])

    def scans(self, statement):
        """Execute a statement; return how its plan reads jobs: the kind of scan, the index, the rows read and found."""
        self.env.cr.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
        [[[plan]]] = self.env.cr.fetchall()
        nodes, scans = [plan['Plan']], []
        while nodes:
            node = nodes.pop()
            nodes += node.get('Plans', [])
            if node.get('Relation Name') == 'ir_async' and 'Scan' in node['Node Type']:
                found = round(node['Actual Rows'] * node['Actual Loops'])
                scans.append(
                    (node['Node Type'], node['Index Name'], found + node.get('Rows Removed by Filter', 0), found)
                )
        return sorted(scans, key=lambda scan: scan[1])

    def test_claim(self):
        """Two index scans that read what they return: of the queue, and of its rows by their ids."""
        self.fill(100_000, 'done')
        self.fill(1000, 'created')
        executed = []
        expected = [
            ('Index Scan', 'ir_async_claim_idx', 20, 20),
            ('Index Only Scan', 'ir_async_limited_claim_idx', 0, 0),
            ('Index Scan', 'ir_async_pkey', 20, 20),
        ]
        for analyzed in (False, True):
            with self.subTest(analyzed=analyzed):
                if analyzed:
                    self.env.cr.execute("ANALYZE ir_async")
                self.watch()
                self.assertEqual(len(self.session.claim(20)), 20)
                execute = self.session.execute
                with patch.object(self.session, 'execute', lambda *args: executed.append(args) or execute(*args)):
                    self.session.claim(20)
                [query, params] = executed.pop()
                self.assertEqual(self.scans(self.env.cr.mogrify(query, params).decode()), expected)

    def test_claim_in_an_interval(self):
        """It reads as many starts as the channel may have in the interval, though the statistics say that there are none."""
        self.env.cr.execute("ANALYZE ir_async, ir_async_start, ir_async_channel")
        self.env['ir.async.channel'].create({'name': 'api', 'interval': 1000, 'starts_per_interval': 100})
        for _i in range(2):
            self.call(channel='api')
        self.env.cr.execute(
            "INSERT INTO ir_async_start SELECT 'api/' || i, now(), 1 FROM generate_series(1, 20000) i"
            " UNION ALL SELECT 'api', now() - make_interval(hours => i), 1 FROM generate_series(1, 20000) i"
        )
        with self.rows_read() as explained:
            self.assertEqual(len(self.session.claim(1)), 1)
        self.assertTrue(any('ir_async_start' in statement for _rows, statement in explained))
        for rows, statement in explained:
            # The first claim also forgets all starts that it finds beyond those.
            self.assertLess(rows, 20000 + 500 if 'forgotten' in statement else 500, statement)
        with self.rows_read() as explained:
            release(self.session, self.session.claim(1))
        for rows, statement in explained:
            self.assertLess(rows, 500, statement)

    def test_claim_in_turn(self):
        """A claim reads as much, however many jobs and users there are, though the statistics say that there are none."""
        self.env.cr.execute("ANALYZE ir_async, ir_async_channel")
        self.env['ir.async.channel'].create({'name': 'default', 'fair': True})
        self.fill(5000, 'done')
        self.fill(5000, 'created')
        users = [new_test_user(self.env, f'user {i}').id for i in range(20)]
        self.env.cr.execute(
            "UPDATE ir_async SET user_id = (%s)[1 + id %% 20] WHERE state = 'created' AND id %% 3 = 0", [users]
        )
        self.session.claim(1)
        with self.rows_read() as explained:
            self.assertEqual(len(self.session.claim(1)), 1)
        self.assertTrue(any('round' in statement for _rows, statement in explained))
        for rows, statement in explained:
            self.assertLess(rows, 1000, statement)  # the look at the channels reads 200 jobs

    def test_claim_in_turn_before_a_backlog(self):
        """A claim reads no jobs with another priority."""
        self.env['ir.async.channel'].create({'name': 'default', 'fair': True})
        self.fill(40_000, 'created')
        for _i in range(2):
            self.call(priority=1)
        self.env['ir.async'].flush_model()
        self.session.claim(1)
        with self.rows_read(count_pages=True) as explained:
            self.assertEqual([job.priority for job in self.session.claim(1)], [1])
        [pages] = [pages for pages, statement in explained if 'round' in statement]
        self.assertLess(pages, 200)

    @contextmanager
    def rows_read(self, count_pages=False):
        """Provide a list of the statements that the session executes: pairs of the rows that it reads and its text.

        Count pages instead where a plan does not tell what is read: how many entries of an index it passes over.
        """

        def explain(query, params=()):
            for statement in self.env.cr.mogrify(query, params).decode().split(';'):
                if statement.split()[:1] in (['WITH'], ['SELECT'], ['EXECUTE']):
                    self.env.cr.execute("SAVEPOINT explain")
                    self.env.cr.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}")
                    [[[plan]]] = self.env.cr.fetchall()
                    self.env.cr.execute("ROLLBACK TO explain")
                    nodes, rows = [plan['Plan']], 0
                    while nodes:
                        node = nodes.pop()
                        nodes += node.get('Plans', [])
                        found = node['Actual Rows'] if 'Scan' in node['Node Type'] else 0
                        removed = sum(value for key, value in node.items() if key.startswith('Rows Removed'))
                        rows += (found + removed) * node['Actual Loops']
                    pages = plan['Plan']['Shared Hit Blocks'] + plan['Plan']['Shared Read Blocks']
                    explained.append((pages if count_pages else rows, statement))
            return execute(query, params)

        self.env['ir.async'].flush_model()
        execute, explained = self.session.execute, []
        with patch.object(self.session, 'execute', explain):
            yield explained

    def fan_out(self, count):
        """Call one job, others that wait for it, and one that waits for all of these; return the ids of both ends."""
        first = self.call()
        jobs = self.env['ir.async'].with_options(after=first)
        children = jobs.browse([jobs.call(self.partner.name_create, "x").id for _i in range(count)])
        last = self.call(after=children)
        self.env['ir.async'].flush_model()
        return first.id, last.id

    def sweep(self):
        self.clock.advance(BUSY_SWEEP_INTERVAL)
        while self.session.maintain() == 0:
            self.clock.advance(BUSY_SWEEP_INTERVAL)

    def test_many_children_after_none(self):
        """What their parent's end costs is in proportion to their number, though the statistics say that nothing waits."""
        count = 2000
        self.fan_out(100)
        self.env.cr.execute("UPDATE ir_async SET state = 'done'")
        self.env.cr.execute("UPDATE ir_async_after_rel SET unmet = false")
        self.env.cr.execute("ANALYZE ir_async, ir_async_after_rel")
        _first_id, last_id = self.fan_out(count)
        with self.rows_read() as explained:
            [job] = self.claim()
            self.finish(job)
            self.session.unblock([job.id])
            self.sweep()
        self.assertTrue(explained)
        for rows, statement in explained:
            self.assertLess(rows, 100 if 'claim' in statement.split() else 10 * count, statement)
        self.assertEqual(self.env['ir.async'].search_count([('state', '=', 'created')]), count)
        self.assertEqual(self.env['ir.async'].search([('state', '=', 'waiting')]).ids, [last_id])

    def test_children_that_were_cancelled(self):
        """A sweep does not look at what they waited for, but at what waits."""
        first_id, last_id = self.fan_out(1000)
        self.env.cr.execute("UPDATE ir_async SET state = 'cancelled' WHERE id BETWEEN %s AND %s", [first_id, last_id])
        parent = self.call(delay=1000)
        child = self.call(after=parent)
        with self.rows_read() as explained:
            self.sweep()
        self.assertTrue(any("'cancelled'" in statement for _rows, statement in explained))
        for rows, statement in explained:
            self.assertLess(rows, 300, statement)
        self.assertEqual(child.state, 'waiting')

    def test_a_chain_that_is_cancelled(self):
        """Each level is found by the one before."""
        jobs = [self.call(delay=1000)]
        for _i in range(200):
            jobs.append(self.call(after=jobs[-1]))
        jobs[0].cancel()
        with self.rows_read() as explained:
            self.sweep()
        self.assertLess(sum(rows for rows, statement in explained if "SET state = 'cancelled'" in statement), 200 * 20)
        self.env.invalidate_all()
        self.assertEqual({job.state for job in jobs}, {'cancelled'})

    def test_dated_jobs(self):
        """One that comes due is found without those that do not."""
        self.env.cr.execute("ANALYZE ir_async")
        for _i in range(1000):
            self.call(delay=1000)
        due = self.call(delay=1000)
        self.env['ir.async'].flush_model()
        self.shift(due, date_scheduled=-1001)
        with self.rows_read() as explained:
            self.assertEqual(self.session.maintain(), 0)
        self.assertTrue(any('date_scheduled = NULL' in statement for _rows, statement in explained))
        for rows, statement in explained:
            self.assertLess(rows, 300, statement)
        self.assertEqual([job.id for job in self.session.claim(2)], due.ids)

    def test_due_jobs_of_many_priorities(self):
        """Each is read once, though the statistics know of one priority only."""
        for _i in range(500):
            self.call(delay=1000)
        self.env['ir.async'].flush_model()
        self.env.cr.execute("ANALYZE ir_async")
        for priority in range(50):
            self.call(delay=1000, priority=priority)
        self.env['ir.async'].flush_model()
        self.env.cr.execute(
            "UPDATE ir_async SET date_scheduled = date_scheduled - interval '1 hour' WHERE state = 'created'"
        )
        with self.rows_read() as explained:
            self.assertEqual(self.session.maintain(), 0)
        [rows] = [rows for rows, statement in explained if 'date_scheduled = NULL' in statement]
        self.assertLess(rows, 10 * 550)

    def test_opening(self):
        """A worker that comes to a database reads none of the jobs that ended there."""
        self.fill(2000, 'done')
        self.env.cr.execute("ANALYZE ir_async")
        self.env.cr.execute(IS_PERMITTED)
        [is_permitted] = self.env.cr.fetchone()
        origin = self.session.origin
        with self.rows_read() as explained:
            self.session.execute(LOOK, {'process_number': 0, 'origin': AsIs(EXPRESSIONS[is_permitted])})
            self.session.execute(COUNT_COPIES, {'origin': origin, 'max': 1000})
        self.assertEqual(len(explained), 2)
        for rows, statement in explained:
            self.assertLess(rows, 100, statement)

    def test_vacuum(self):
        """Months of finished jobs do not keep the rest of the table from being cleaned up."""
        self.env.cr.execute("SELECT unnest(reloptions) FROM pg_class WHERE relname = 'ir_async'")
        self.assertIn(('autovacuum_vacuum_scale_factor=0.02',), self.env.cr.fetchall())

    def test_how_a_job_ends(self):
        """Its row is found by its id, not in the index of all that is being processed, however few these are."""
        self.fill(10_000, 'done')
        self.call()
        [job] = self.claim()
        self.env.cr.execute("ANALYZE ir_async")
        for statement in (fence.READ, fence.CHECK, fence.WRITE):
            with self.subTest(statement=statement):
                params = {**fence.token(job), **Outcome('done')._asdict(), 'starts': 1, 'claim_count': None}
                self.env.cr.execute("SAVEPOINT plan")
                scans = self.scans(self.env.cr.mogrify(statement, params).decode())
                self.env.cr.execute("ROLLBACK TO plan")
                self.assertEqual(scans, [('Index Scan', 'ir_async_pkey', 1, 1)])


class TestMarks(QueueCase):
    """Somebody may hold an old snapshot, so claims begin where the last ones of this worker ended."""

    def setUp(self):
        super().setUp()
        self.watch()
        self.session.claim(1)  # the first scan is full

    def ids(self, limit=1):
        self.env['ir.async'].flush_model()
        return [job.id for job in self.session.claim(limit)]

    def marks(self):
        return self.session._claim._marks

    def set_state(self, state, *jobs):
        self.env['ir.async'].flush_model()
        self.env.cr.execute("UPDATE ir_async SET state = %s WHERE id IN %s", [state, tuple(job.id for job in jobs)])

    def below_the_mark(self):
        """Return a job that comes to be in the queue after a later one was claimed, and that later one."""
        early, late = self.call(), self.call()
        self.set_state('waiting', early)
        self.assertEqual(self.ids(), late.ids)
        self.set_state('created', early)  # as if it were committed now, or released by others
        self.session._claim._scan_time = SCAN_INTERVAL / PATIENCE  # so long that the marks stay
        return early, late

    def test_what_comes_later_is_found(self):
        jobs = [self.call(priority=priority).id for priority in (10, 10, 5, 20)]
        self.assertEqual(self.ids(), [jobs[2]])
        self.assertEqual(self.ids(), [jobs[0]])
        later = [self.call(priority=priority).id for priority in (10, 7, 5, 1)]
        self.assertEqual(self.ids(2), [later[3], later[2]])
        self.assertEqual(self.ids(10), [later[1], jobs[1], later[0], jobs[3]])
        self.assertEqual(self.ids(), [])

    def test_what_is_below_comes_with_a_wake_up(self):
        """An idle worker finds it at once."""
        early, _late = self.below_the_mark()
        self.assertEqual(self.ids(), [], "nobody notified it")
        self.session.wake()
        self.assertEqual(self.ids(), early.ids)

    def test_a_busy_worker_scans_once_per_interval(self):
        """Whatever is above the marks is claimed meanwhile; the scan that is owed is made in time, and in order."""
        early, _late = self.below_the_mark()
        above = [self.call().id for _i in range(4)]
        for i in range(2):
            self.session.wake()
            self.assertEqual(self.ids(), above[i : i + 1])
            self.assertEqual(self.session._claim.next_scan, self.clock.monotonic() + SCAN_INTERVAL)
        self.clock.advance(SCAN_INTERVAL)
        self.assertEqual(self.ids(), early.ids)
        self.assertIsNone(self.session._claim.next_scan, "nothing is owed any more")
        self.assertEqual(self.ids(10), above[2:])

    def test_a_busy_worker_that_owes_nothing_scans_seldom(self):
        """With an old snapshot, a full scan reads all that was ever queued. It only finds what somebody had locked before."""
        early, _late = self.below_the_mark()
        above = [self.call().id for _i in range(3)]
        self.clock.advance(SCAN_INTERVAL)
        self.assertEqual(self.ids(), above[:1])
        self.clock.advance(LONGEST_SCAN_INTERVAL)
        self.assertEqual(self.ids(2), [early.id, above[1]])

    def test_a_full_scan_that_ends_at_urgent_jobs(self):
        """It has not seen the other priorities. A job below their marks still comes before later ones."""
        early, _late = self.below_the_mark()
        later, urgent = self.call(), self.call(priority=1)
        self.session.wake()
        self.clock.advance(SCAN_INTERVAL)
        self.assertEqual(self.ids(), urgent.ids)
        self.assertEqual(self.ids(2), [early.id, later.id])

    def test_behind_limited_jobs(self):
        """A job below the marks comes before jobs of limited channels with a lower priority, although these have free slots."""
        self.env['ir.async.channel'].create({'name': 'limited', 'capacity': 10})
        early, _late = self.below_the_mark()
        limited = [self.call(channel='limited', priority=20).id for _i in range(4)]
        self.env['ir.async'].flush_model()
        self.session.wake()
        self.session.maintain()
        self.assertEqual(self.ids(), limited[:1])
        self.session.wake()
        self.clock.advance(LONGEST_SCAN_INTERVAL)
        self.assertEqual(self.ids(), early.ids)
        self.assertEqual(self.ids(), limited[1:2])

    def test_scans_before_limited_jobs(self):
        """They do not pay the debt of a full scan, since they see no later plain jobs. What they see is claimed in its turn."""
        self.env['ir.async.channel'].create({'name': 'limited', 'capacity': 10})
        early, _late = self.below_the_mark()
        last = self.call(priority=30)
        limited = [self.call(channel='limited', priority=priority).id for priority in (1, 20)]
        self.env['ir.async'].flush_model()
        self.session.maintain()
        self.session.wake()
        self.clock.advance(SCAN_INTERVAL)
        self.assertEqual(self.ids(), limited[:1])
        self.assertEqual(self.session._claim.next_scan, self.clock.monotonic() + SCAN_INTERVAL)
        self.assertEqual(self.ids(), early.ids)
        with patch.object(self.session._channels, '_look'):  # others were quicker
            self.assertEqual(self.ids(), last.ids)
        self.assertEqual(self.ids(), limited[1:])

    def test_scans_before_limited_jobs_are_seldom_full(self):
        """Also when there are no plain jobs."""
        self.env['ir.async.channel'].create({'name': 'limited', 'capacity': 10})
        self.below_the_mark()[0].cancel()
        for _i in range(4):
            self.call(channel='limited', priority=20)
        self.env['ir.async'].flush_model()
        self.session.maintain()
        parts = []
        execute = self.session.execute_prepared

        def execute_prepared(name, query, params, *args):
            if name in ('claim', 'first'):
                parts.append(len(args[0]))
            return execute(name, query, params, *args)

        with patch.object(self.session, 'execute_prepared', execute_prepared):
            for _i in range(4):
                self.session.wake()
                self.assertTrue(self.ids())
                self.clock.advance(SCAN_INTERVAL / 2)
        self.assertEqual(parts, [2, 2, 2, 2, 1, 1, 2, 2])

    def test_slow_scans_leave_time_for_jobs(self):
        """As long as an old snapshot is open, a full scan may take a second. Owed ones come later then, but come."""
        early, _late = self.below_the_mark()
        above = [self.call().id for _i in range(3)]
        self.session._claim._scan_time = 2 * SCAN_INTERVAL / PATIENCE
        self.session.wake()
        self.clock.advance(SCAN_INTERVAL)
        self.assertEqual(self.ids(), above[:1])
        self.session._claim._scan_time = 100
        self.assertEqual(self.ids(), above[1:2])
        self.clock.advance(LONGEST_SCAN_INTERVAL - SCAN_INTERVAL)
        self.assertEqual(self.ids(2), [early.id, above[2]])

    def test_an_idle_worker_finds_what_was_locked(self):
        early, _late = self.below_the_mark()
        self.assertEqual(self.ids(), [])
        self.assertEqual(self.session.maintain(), LOOK_INTERVAL)
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(self.ids(), early.ids)

    def sorted_from(self):
        """Return the jobs at which a look for misplaced jobs begins, in the order of their priorities."""
        return self.session._claim.parts_to_sort()[1]

    def test_misplaced_jobs_are_looked_for_where_claims_were(self):
        self.sorted_from()
        first, second = (self.call() for _i in range(2))
        self.assertEqual(self.ids(), first.ids)
        self.assertEqual(self.sorted_from(), [0], "no look was there yet")
        jobs = self.session.claim(1)
        self.assertEqual(self.sorted_from(), [0, second.id])
        self.assertEqual(self.sorted_from(), [0, second.id + 1])
        release(self.session, jobs)
        self.assertEqual(self.sorted_from(), [0, second.id], "it may belong elsewhere by now")
        self.session.wake()
        self.clock.advance(SCAN_INTERVAL)
        self.session.claim(1)
        self.assertEqual(self.sorted_from(), [0], "the scan was full")

    def test_a_worker_sleeps_no_longer_than_until_the_scan_that_is_owed(self):
        self.below_the_mark()
        above = self.call()
        self.session.wake()
        self.assertEqual(self.ids(), above.ids)
        self.clock.advance(SCAN_INTERVAL / 4)
        delay = self.session.maintain()
        self.assertGreater(delay, 0)
        self.assertLessEqual(delay, SCAN_INTERVAL * 0.75)

    def test_an_urgent_job_that_came_late(self):
        """The interval bounds how long a job below the mark of its priority is overtaken by less urgent ones."""
        first, urgent = self.call(priority=1), self.call(priority=1)
        self.set_state('waiting', first)
        self.assertEqual(self.ids(), urgent.ids)
        self.set_state('created', first)
        plain = [self.call().id for _i in range(3)]
        self.session.wake()
        self.assertEqual(self.ids(), plain[:1])
        self.clock.advance(SCAN_INTERVAL)
        self.assertEqual(self.ids(2), [first.id, plain[1]])

    def test_what_this_worker_puts_back_is_found(self):
        """By whatever it changes itself, a worker lowers its marks."""
        first, second, third = self.call(), self.call(), self.call()
        self.env['ir.async'].flush_model()
        jobs = self.session.claim(3)
        self.assertEqual([job.id for job in jobs], [first.id, second.id, third.id])
        release(self.session, jobs[:2])
        self.assertEqual(self.marks()[10], first.id)
        self.assertEqual(self.ids(3), [first.id, second.id])

    def test_what_this_worker_unblocks_is_found(self):
        parent = self.call()
        child = self.call(after=parent)
        late = self.call()
        self.env['ir.async'].flush_model()
        jobs = self.session.claim(2)
        self.assertEqual([job.id for job in jobs], [parent.id, late.id])
        self.finish(jobs[0])
        self.session.unblock([parent.id])
        self.assertEqual(self.ids(), child.ids)

    def test_what_comes_due_is_found(self):
        dated, late = self.call(delay=100), self.call()
        self.assertEqual(self.ids(), late.ids)
        self.shift(dated, date_scheduled=-101)
        self.assertEqual(self.session.maintain(), 0)
        self.assertEqual(self.ids(), dated.ids)

    def test_without_marks_a_scan_is_full(self):
        job = self.call()
        self.session._claim._last_scan = self.clock.monotonic()
        self.assertFalse(self.marks())
        self.assertEqual(self.ids(), job.ids)

    def test_many_priorities(self):
        jobs = [self.call(priority=priority).id for priority in range(3 * MAX_MARKS)]
        self.assertEqual([self.ids() for _job in jobs], [[id_] for id_ in jobs])
        self.assertLessEqual(len(self.marks()), MAX_MARKS)

    def test_priorities_at_the_ends(self):
        jobs = {priority: self.call(priority=priority).id for priority in (MAX_INT, 0, -MAX_INT, -1)}
        self.assertEqual([self.ids() for _job in jobs], [[jobs[priority]] for priority in sorted(jobs)])
        later = {priority: self.call(priority=priority).id for priority in (MAX_INT, 5, -MAX_INT)}
        self.assertEqual([self.ids() for _job in later], [[later[priority]] for priority in sorted(later)])


class TestClaimOne(QueueCase):
    def test_all_that_running_it_takes_is_read(self):
        job = self.call(max_attempts=3, retry_delay=5)
        self.env['ir.async'].flush_model()
        [claimed] = claim_one(self.session, job.id)
        self.assertEqual(self.begin(claimed), claimed)
        self.assertEqual(
            (claimed.max_attempts, claimed.retry_delay, claimed.user_active, claimed.stop), (3, '5', ANY, None)
        )
        self.assertFalse(claim_one(self.session, job.id))

    def test_each_claim_is_one_of_a_kind(self):
        job = self.call()
        tokens = set()
        for session in (self.session, self.open_session(), self.session):
            [claimed] = self.claim(session=session)
            tokens.add((claimed.worker_id, claimed.claim_number))
            release(session, [claimed])
        self.assertEqual(len(tokens), 3)
        self.env.invalidate_all()
        self.assertEqual(job.claim_number, 3)
