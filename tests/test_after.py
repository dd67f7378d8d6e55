from odoo.exceptions import AccessError, UserError
from odoo.tools import mute_logger

from .queue_common import QueueCase
from odoo.addons.ir_async.engine.claim import claim_one


class TestAfter(QueueCase):
    """Jobs that wait for others."""

    def setUp(self):
        super().setUp()
        self.Async = self.env['ir.async']

    def run_one(self, job, state='done', **kwargs):
        """Claim a certain job and end it, the worker's way."""
        self.Async.flush_model()
        [claimed] = claim_one(self.session, job.id)
        self.finish(claimed, state, **kwargs)
        if claimed.has_children:
            self.session.unblock([claimed.id])
        self.env.invalidate_all()

    def end(self, job, state):
        """Have a job end, with nobody there to tell its children."""
        self.Async.flush_model()
        [claimed] = claim_one(self.session, job.id)
        self.finish(claimed, state)

    # ------------------------------------------------------------
    # Order
    # ------------------------------------------------------------

    def test_chain(self):
        first = self.call()
        second = self.call(after=first)
        third = self.call(after=second)
        self.assertEqual((first + second + third).mapped('state'), ['created', 'waiting', 'waiting'])
        for job in (first, second, third):
            [claimed] = self.claim(50)
            self.assertEqual(claimed.id, job.id)
            self.finish(claimed)
            self.session.unblock([job.id])
        self.assertFalse(self.claim())

    def test_succeeded_is_ended_well_too(self):
        parent = self.call()
        child = self.call(after=parent)
        self.run_one(parent, 'succeeded', payload='{"result": 5}')
        self.assertEqual(child.state, 'created')

    def test_group(self):
        parents = self.call() + self.call() + self.call()
        child = self.call(after=parents)
        self.assertEqual(child.after_ids, parents)
        for parent in parents:
            self.assertEqual(child.state, 'waiting')
            self.run_one(parent)
        self.assertEqual(child.state, 'created')

    def test_diamond(self):
        top = self.call()
        left, right = self.call(after=top), self.call(after=top)
        bottom = self.call(after=left + right)
        self.run_one(top)
        self.assertEqual((left + right + bottom).mapped('state'), ['created', 'created', 'waiting'])
        self.run_one(left)
        self.assertEqual(bottom.state, 'waiting')
        self.run_one(right)
        self.assertEqual(bottom.state, 'created')

    def test_parents_of_chunks(self):
        jobs = self.Async.with_options(chunk_size=1).call(self.env['res.partner'].browse([1, 2, 3]).write, {})
        children = self.Async.with_options(chunk_size=1, after=jobs).call(
            self.env['res.partner'].browse([1, 2]).write, {}
        )
        self.assertEqual([child.after_ids for child in children], [jobs, jobs])
        for job in jobs:
            self.assertEqual(set(children.mapped('state')), {'waiting'})
            self.run_one(job)
        self.assertEqual(set(children.mapped('state')), {'created'})

    def test_duplicate_parents_are_one(self):
        parent = self.call()
        child = self.call(after=self.Async.browse([parent.id, parent.id]))
        self.run_one(parent)
        self.assertEqual(child.state, 'created')

    def test_parent_that_ended_before(self):
        parent = self.call()
        self.run_one(parent)
        child = self.call(after=parent)
        self.assertEqual(self.claimed(), child)

    def test_parent_that_is_gone_counts_as_ended_well(self):
        self.env.cr.execute("SELECT nextval('ir_async_id_seq')")
        gone = self.Async.browse(self.env.cr.fetchone())
        parent = self.call()
        child = self.call(after=gone)
        other = self.call(after=gone + parent)
        self.watch()
        self.assertEqual((child + other).mapped('state'), ['created', 'waiting'])
        self.run_one(parent)
        self.assertEqual(other.state, 'created')

    def test_parent_that_never_existed(self):
        """What no row can prove to have ended well is an error, at the call."""
        parent = self.call()
        for id_ in (parent.id + 1, 2**31 - 1, 2**31, 10**30, -1):
            with self.subTest(id=id_), self.assertRaisesRegex(UserError, f"do not exist.*: {id_}$"):
                self.call(after=self.Async.browse([id_, parent.id]))
        self.run_jobs()
        self.assertEqual(self.call(after=parent).after_ids, parent)

    def test_parent_that_is_vacuumed_counts_as_ended_well(self):
        parent = self.call()
        child = self.call(after=parent)
        self.end(parent, 'done')
        parent.sudo()._delete()
        self.watch()
        self.assertEqual(child.state, 'created')

    def test_no_parents(self):
        self.assertEqual(self.call(after=self.Async).state, 'created')
        self.assertEqual(self.call(after=None).state, 'created')

    def test_dated_child(self):
        """The date is one thing, the parents are another: it takes both."""
        parent = self.call()
        child = self.call(after=parent, delay=1000)
        self.run_one(parent)
        self.assertEqual(child.state, 'created')
        self.assertFalse(self.claim())
        self.shift(child, date_scheduled=-1001)
        self.assertEqual(self.claimed(), child)

    def test_dated_child_whose_date_comes_first(self):
        parent = self.call()
        child = self.call(after=parent, delay=1000)
        self.shift(child, date_scheduled=-1001)
        self.assertEqual(self.claimed(50), parent)
        self.assertFalse(self.claim())
        self.assertEqual(child.state, 'waiting')

    def test_child_of_a_limited_channel(self):
        self.env['ir.async.channel'].create({'name': 'c', 'capacity': 1})
        parent = self.call(channel='c')
        children = self.call(after=parent, channel='c') + self.call(after=parent, channel='c')
        self.run_one(parent)
        self.assertEqual(self.claimed(), children[0])
        self.assertFalse(self.claim())

    def test_cycles_are_impossible(self):
        """A job can wait for jobs alone that were there before it: there is no way to add a parent later."""
        job = self.call()
        child = self.call(after=job)
        self.assertLess(job.id, child.id)
        with self.assertRaises(AccessError):
            job.write({'after_ids': [(4, child.id)]})
        # a key does not make it wait, either
        keyed = self.call(key='k')
        child = self.call(after=keyed)
        self.assertEqual(self.call(key='k', after=child), keyed)
        self.assertFalse(keyed.after_ids)
        self.assertEqual(keyed.state, 'created')

    # ------------------------------------------------------------
    # Results
    # ------------------------------------------------------------

    def test_child_reads_its_parents_results(self):
        results = []

        def ir_async_sum(partner):
            parents = partner.env['ir.async'].current().after_ids
            results.extend(parent.payload['result'] for parent in parents.sorted('id'))

        def ir_async_value(partner, value):
            return value

        value = self.method(ir_async_value)
        parents = self.Async.union(*(self.Async.call(value, i) for i in (1, 2, 3)))
        self.Async.with_options(after=parents).call(self.method(ir_async_sum))
        self.run_jobs()
        self.assertEqual(results, [1, 2, 3])

    def test_child_of_a_user_reads_her_parents_results(self):
        user = self.env['res.users'].create(
            {'name': "Berta", 'login': 'ir_async_berta', 'group_ids': [(6, 0, [self.env.ref('base.group_user').id])]}
        )
        results = []

        def ir_async_sum(partner):
            results.append((partner.env.user, partner.env['ir.async'].current().after_ids.payload))

        def ir_async_value(partner):
            return 5

        records = self.partner.with_user(user)
        self.method(ir_async_value)
        self.method(ir_async_sum)
        parent = self.Async.call(records.ir_async_value)
        self.Async.with_options(after=parent).call(records.ir_async_sum)
        self.run_jobs()
        self.assertEqual(results, [(user, {'result': 5})])

    # ------------------------------------------------------------
    # Parents that do not end well
    # ------------------------------------------------------------

    def test_children_of_a_failed_parent_wait_until_it_is_retried_well(self):
        parent = self.call()
        child = self.call(after=parent)
        grandchild = self.call(after=child)
        self.end(parent, 'failed')
        self.watch()
        self.assertEqual((child + grandchild).mapped('state'), ['waiting', 'waiting'])
        parent.retry()
        self.watch()
        self.assertEqual(child.state, 'waiting')
        self.run_one(parent)
        self.assertEqual((child + grandchild).mapped('state'), ['created', 'waiting'])

    def test_children_wait_for_late_parents(self):
        """As if this one had been committed after the transaction that enqueued the child had begun."""
        parent, late = self.call(), self.call()
        child = self.call(after=parent)
        self.Async.flush_model()
        self.env.cr.execute("UPDATE ir_async SET late_parent_ids = %s WHERE id = %s", [late.ids, child.id])
        self.run_one(parent)
        self.assertEqual(child.state, 'waiting')
        self.watch()
        self.assertEqual(child.state, 'waiting')
        self.run_one(late)
        self.assertEqual(child.state, 'created')

    def test_children_of_a_parent_that_is_tried_again_wait(self):
        parent = self.call(max_attempts=2)
        child = self.call(after=parent)
        [claimed] = self.claim()
        self.end_with(claimed, ValueError("x"))
        self.session.unblock([parent.id])
        self.watch()
        self.assertEqual(child.state, 'waiting')

    def test_children_of_a_cancelled_parent_are_cancelled(self):
        parent, other = self.call(), self.call()
        child = self.call(after=parent + other)
        grandchild = self.call(after=child)
        revision = child.revision
        parent.cancel()
        self.watch()
        self.assertEqual((child + grandchild).mapped('state'), ['cancelled', 'cancelled'])
        self.assertTrue(child.date_done)
        self.assertGreater(child.revision, revision)
        self.assertEqual(other.state, 'created')

    def test_child_enqueued_after_a_cancelled_parent(self):
        parent = self.call()
        parent.cancel()
        child = self.call(after=parent)
        self.watch()
        self.assertEqual(child.state, 'cancelled')

    def test_cancelled_waits_for_nobody(self):
        """A waiting child that is cancelled stays so when its parent ends well."""
        parent = self.call()
        child = self.call(after=parent)
        child.cancel()
        self.run_one(parent)
        self.watch()
        self.assertEqual(child.state, 'cancelled')

    def test_retry_of_a_cancelled_child_needs_its_parent(self):
        parent = self.call()
        child = self.call(after=parent)
        parent.cancel()
        self.watch()
        with self.assertRaisesRegex(UserError, str(parent.id)):
            child.retry()
        self.assertEqual(child.state, 'cancelled')
        (parent + child).retry()
        self.assertEqual((parent + child).mapped('state'), ['created', 'waiting'])
        self.watch()
        self.assertEqual((parent + child).mapped('state'), ['created', 'waiting'])
        self.run_one(parent)
        self.assertEqual(child.state, 'created')

    def test_retry_of_a_cancelled_child_waits_for_its_parents(self):
        parent = self.call()
        child = self.call(after=parent)
        child.cancel()
        child.retry()
        self.assertEqual(child.state, 'waiting')
        self.end(parent, 'failed')
        child.cancel()
        child.retry()
        self.assertEqual(child.state, 'waiting')
        parent.retry()
        self.run_one(parent)
        self.assertEqual(child.state, 'created')

    def test_retry_of_a_cancelled_child_waits_for_late_parents(self):
        parent, late = self.call(), self.call()
        child = self.call(after=parent)
        self.Async.flush_model()
        self.env.cr.execute("UPDATE ir_async SET late_parent_ids = %s WHERE id = %s", [late.ids, child.id])
        self.run_one(parent)
        child.cancel()
        child.retry()
        self.assertEqual(child.state, 'waiting')

    def test_retry_of_a_failed_child_whose_parents_ended(self):
        parent = self.call()
        child = self.call(after=parent)
        self.run_one(parent)
        self.end(child, 'failed')
        child.retry()
        self.assertEqual(child.state, 'created')

    def test_completed_parent(self):
        parent = self.call()
        child = self.call(after=parent)
        self.end(parent, 'succeeded')
        parent.complete()
        self.watch()
        self.assertEqual(child.state, 'created')

    # ------------------------------------------------------------
    # Whoever unblocks
    # ------------------------------------------------------------

    def test_whoever_looks_unblocks_what_was_missed(self):
        """As after a crash right after the parent's commit."""
        parents = self.call() + self.call()
        children = self.call(after=parents) + self.call(after=parents[0])
        for parent in parents:
            self.end(parent, 'done')
        self.assertEqual(children.mapped('state'), ['waiting', 'waiting'])
        self.assertEqual(self.watch(), 0)
        self.assertEqual(children.mapped('state'), ['created', 'created'])

    def test_unblock_is_idempotent(self):
        parent = self.call()
        child = self.call(after=parent)
        self.end(parent, 'done')
        self.assertEqual(len(self.session.unblock([parent.id])), 1)
        self.assertEqual(len(self.session.unblock([parent.id])), 0)
        self.assertEqual(len(self.session.unblock()), 0)
        self.env.invalidate_all()
        self.assertEqual((child.state, child.revision), ('created', 2))

    def test_a_parent_of_this_transaction(self):
        with self.env.cr.savepoint():
            parent = self.Async.call(self.partner.name_create, "a")
            child = self.Async.with_options(after=parent).call(self.partner.name_create, "b")
        self.run_jobs()
        self.assertEqual((parent + child).mapped('state'), ['succeeded', 'succeeded'])

    def test_a_parent_that_is_rolled_back(self):
        with self.env.cr.savepoint() as savepoint:
            lost, flushed = self.call(), self.call()
            self.Async.flush_model()
            lost += self.call()
            parents = lost + flushed
            savepoint.rollback()
        kept = self.call()
        for parent in parents:
            with self.assertRaisesRegex(UserError, f"rolled back: {parent.id}$"):
                self.call(after=kept + parent)
        child = self.call(after=kept)
        self.assertEqual(child.after_ids, kept)
        self.assertEqual((kept + child).mapped('state'), ['created', 'waiting'])

    def test_a_child_costs_no_statement(self):
        """Unless its parent may be another transaction's: then one."""
        own = self.call()
        other = self.call()
        other.flush_recordset()
        vars(self.env.cr)['_ir_async_pending'].calls.pop(other.id)
        self.call(after=own)
        for parent, count in ((own, 0), (other, 1), (other, 0), (own, 0)):
            before = self.env.cr.sql_log_count
            self.call(after=parent)
            self.assertEqual(self.env.cr.sql_log_count - before, count)

    @mute_logger('odoo.addons.ir_async')
    def test_run_jobs_runs_chains_to_the_end(self):
        def ir_async_raise(partner):
            raise ValueError

        good = self.call()
        after_good = self.call(after=good)
        bad = self.Async.call(self.method(ir_async_raise))
        after_bad = self.call(after=bad + good)
        self.run_jobs()
        self.assertEqual(
            (good + after_good + bad + after_bad).mapped('state'), ['succeeded', 'succeeded', 'failed', 'waiting']
        )

    # ------------------------------------------------------------
    # Many
    # ------------------------------------------------------------

    def rows_read(self):
        self.env.cr.execute("""
            SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))
              FROM pg_stat_xact_user_tables WHERE relname IN ('ir_async', 'ir_async_after_rel')
        """)
        return int(self.env.cr.fetchone()[0])

    def test_enqueuing_a_large_group_takes_few_statements(self):
        parents = self.Async.with_options(chunk_size=1).call(self.env['res.partner'].browse(range(1, 2001)).write, {})
        self.Async.flush_model()
        count = self.env.cr.sql_log_count
        child = self.Async.with_options(after=parents).call(self.partner.name_create, "x")
        self.Async.flush_model()
        self.assertLess(self.env.cr.sql_log_count - count, 6)
        self.assertEqual(len(child.after_ids), 2000)

    def test_unblock_of_a_batch_reads_what_concerns_it(self):
        """Whether 100 or 2,000 parents are left, a batch of 10 costs the same."""
        self.env.cr.execute("SET LOCAL enable_seqscan = off")  # as it is where the tables are large
        costs = []
        for count in (100, 2000):
            parents = self.Async.with_options(chunk_size=1).call(
                self.env['res.partner'].browse(range(1, count + 1)).write, {}
            )
            self.call(after=parents)
            self.Async.flush_model()
            self.env.cr.execute("UPDATE ir_async SET state = 'done' WHERE id IN %s", [parents._ids[:10]])
            self.env.cr.execute("ANALYZE ir_async, ir_async_after_rel")
            before = self.rows_read()
            self.assertEqual(len(self.session.unblock(list(parents._ids[:10]))), 0)
            costs.append(self.rows_read() - before)
        self.assertLess(costs[1], 2 * costs[0] + 50, costs)
