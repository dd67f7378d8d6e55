"""What a claim costs, however many jobs there are, and were."""
import json
from unittest.mock import patch

from .queue_common import QueueCase
from odoo.addons.ir_async.service import session as session_module
from odoo.addons.ir_async.service.session import MAX_FLOORS


class TestClaimPlan(QueueCase):
    """The plans that PostgreSQL makes, on a table of some size."""

    def fill(self, count, state):
        """Add jobs by copying one, as fast as that goes."""
        job = self.call()
        job.flush_recordset()
        columns = ', '.join(field.name for field in job._fields.values() if field.store and field.column_type and field.name not in ('id', 'state'))
        self.env.cr.execute(f"""
            INSERT INTO ir_async (state, {columns})
                 SELECT %s, {columns} FROM ir_async, generate_series(1, %s) WHERE id = %s
        """, [state, count, job.id])
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
                scans.append((node['Node Type'], node['Index Name'], found + node.get('Rows Removed by Filter', 0), found))
        return sorted(scans, key=lambda scan: scan[1])

    def test_claim(self):
        """Two index scans that read what they return: of the queue, and of its rows by their ids."""
        self.fill(100_000, 'done')
        self.fill(1000, 'created')
        expected = [('Index Scan', 'ir_async_claim_idx', 20, 20), ('Index Scan', 'ir_async_pkey', 20, 20)]
        for analyzed in (False, True):
            with self.subTest(analyzed=analyzed):
                if analyzed:
                    self.env.cr.execute("ANALYZE ir_async")
                self.session._has_limited = False
                self.assertEqual(len(self.session.claim(20)), 20)
                arguments = ', '.join(map(json.dumps, self.session._stretches(self.session._floors))).replace('[', "'{").replace(']', "}'")
                self.assertEqual(self.scans(f"EXECUTE claim (20, {arguments})"), expected)

    def test_vacuum(self):
        """Months of finished jobs do not keep the rest of the table from being cleaned up."""
        self.env.cr.execute("SELECT unnest(reloptions) FROM pg_class WHERE relname = 'ir_async'")
        self.assertIn(('autovacuum_vacuum_scale_factor=0.02',), self.env.cr.fetchall())

    def test_how_a_job_ends(self):
        """Its row is found by its id, not in the index of all that is being processed, however few these are."""
        self.fill(10_000, 'done')
        [job] = self.claim() or [self.call() and self.claim()[0]]
        self.env.cr.execute("ANALYZE ir_async")
        query = self.env.cr.mogrify(session_module.HELD, job._asdict()).decode()
        self.assertEqual(self.scans(query), [('Index Scan', 'ir_async_pkey', 1, 1)])


class TestFloors(QueueCase):
    """Where claims are slow, since somebody holds an old snapshot, they begin where the last ones ended."""

    def setUp(self):
        super().setUp()
        self.session._has_limited = False
        self.claim()  # the first one does not count
        self.session.claim(1)
        settings = {'SLOW_LOOK': -1, 'LOOK_SHARE': 1e9, 'IDLE_LOOK_SHARE': 1e9, 'LOOK_INTERVAL': 1e9, 'IDLE_LOOK_INTERVAL': 1e9}
        for name, value in settings.items():
            self.startPatcher(patch.object(session_module, name, value))

    def ids(self, limit=1):
        self.env['ir.async'].flush_model()
        return [job.id for job in self.session.claim(limit)]

    def look_everywhere(self):
        self.session._full_look = 0, 0

    def test_what_comes_later_is_found(self):
        jobs = [self.call(priority=priority).id for priority in (10, 10, 5, 20)]
        self.assertEqual(self.ids(), [jobs[2]])
        self.assertEqual(self.ids(), [jobs[0]])
        later = [self.call(priority=priority).id for priority in (10, 7, 5, 1)]
        self.assertEqual(self.ids(2), [later[3], later[2]])
        self.assertEqual(self.ids(10), [later[1], jobs[1], later[0], jobs[3]])
        self.assertEqual(self.ids(), [])

    def test_what_is_below_is_found_by_a_full_look(self):
        early, other, late = self.call(), self.call(), self.call()
        self.env['ir.async'].flush_model()
        self.env.cr.execute("UPDATE ir_async SET state = 'waiting' WHERE id IN %s", [(early.id, other.id)])
        self.assertEqual(self.ids(), late.ids)
        # as if it were committed now, or given back
        self.env.cr.execute("UPDATE ir_async SET state = 'created' WHERE id IN %s", [(early.id, other.id)])
        self.assertEqual(self.ids(), [])
        delay = self.session.watch()
        self.assertGreater(delay, 0)
        self.look_everywhere()
        self.assertEqual(self.ids(), early.ids)
        self.assertEqual(self.ids(), other.ids, "the floor is below it now")

    def test_what_this_worker_puts_back_is_found(self):
        """Given back, rescued, called up, released: by whatever it changes itself, a worker lowers its floors."""
        first, second = self.call(), self.call()
        self.env['ir.async'].flush_model()
        jobs = self.session.claim(2)
        self.assertEqual([job.id for job in jobs], [first.id, second.id])
        self.session.give_back(jobs[:1])
        self.assertEqual(self.ids(2), first.ids)

    def test_a_full_look_is_taken_in_time(self):
        """The more often, the faster it is, and after some time in any case."""
        job = self.call()
        for name, value, found in (('LOOK_SHARE', 0, []), ('IDLE_LOOK_SHARE', 0, job.ids), ('IDLE_LOOK_INTERVAL', 0, job.ids)):
            with self.subTest(name=name), patch.object(session_module, name, value), self.env.cr.savepoint() as savepoint:
                self.session._floors = {10: job.id + 1}
                self.session._full_look = self.begin, 1
                self.session._is_short = True
                self.assertEqual(self.ids(), found)
                savepoint.rollback()

    def test_fast_looks_are_full(self):
        with patch.object(session_module, 'SLOW_LOOK', 60):
            job = self.call()
            self.session._floors = {10: job.id + 1}
            self.assertEqual(self.ids(), job.ids)

    def test_many_priorities(self):
        jobs = [self.call(priority=priority).id for priority in range(3 * MAX_FLOORS)]
        self.assertEqual([self.ids() for _job in jobs], [[id_] for id_ in jobs])
        self.assertLessEqual(len(self.session._floors), MAX_FLOORS)
