from datetime import timedelta
from unittest.mock import patch

from odoo import fields
from odoo.tools import file_open

from .method_case import MethodCase

IR_ASYNC = 'odoo.addons.ir_async.models.ir_async_retention'


class TestRetention(MethodCase):
    """How long jobs are kept."""

    def setUp(self):
        super().setUp()

        @self.add_method
        def async_foo(self):
            pass

    def make_jobs(self, *states_and_ages, **options):
        jobs = self.ir_async.concat(
            *(self.ir_async.with_options(**options).call(self.partner.async_foo) for _ in states_and_ages)
        )
        jobs.flush_model()
        for job, (state, days) in zip(jobs, states_and_ages, strict=True):
            date = fields.Datetime.now() - timedelta(days=days)
            self.env.cr.execute(
                "UPDATE ir_async SET state = %s, create_date = %s, date_done = %s WHERE id = %s",
                [state, date, None if state in ('waiting', 'created', 'processing') else date, job.id],
            )
        jobs.invalidate_recordset()
        return jobs

    def vacuum(self):
        return self.ir_async._gc_jobs()

    def test_days(self):
        """Whatever is in the setting, it means days or the default."""
        for value, days in (
            ('3', 3),
            (' 3 ', 3),
            ('0', 0),
            ('7.9', 7),
            ('', 7),
            ('-5', 7),
            ('abc', 7),
            ('nan', 7),
            ('inf', 7),
            ('False', 7),
            ('99999999999', 36500),
        ):
            with self.subTest(value=value):
                self.env['ir.config_parameter'].set_param('ir_async.retention_days', value)
                self.assertEqual(self.ir_async._retention_days(), days)
                job = self.make_jobs(('succeeded', 0.5))
                self.vacuum()
                self.assertEqual(bool(job.exists()), bool(days))

    def test_retention(self):
        ages = [
            ('done', 8),
            ('succeeded', 8),
            ('cancelled', 8),
            ('failed', 31),  # too old
            ('done', 6),
            ('succeeded', 6),
            ('cancelled', 6),
            ('failed', 29),
            ('failed', 8),
            ('created', 400),
            ('waiting', 400),
            ('processing', 400),
        ]
        jobs = self.make_jobs(*ages)
        attachments = self.env['ir.attachment'].create(
            [
                {'name': "export", 'res_model': model, 'res_id': job.id, 'raw': b'x'}
                for model in ('ir.async', False)
                for job in jobs
            ]
        )
        done, remaining = self.vacuum()
        self.assertGreaterEqual(done, 4)
        self.assertFalse(remaining)
        self.assertEqual(jobs.exists(), jobs[4:])
        self.assertEqual(attachments.exists(), attachments[4:])

    def test_parameter(self):
        set_param = self.env['ir.config_parameter'].set_param
        jobs = self.make_jobs(('done', 8), ('failed', 31), ('done', 59), ('failed', 59), ('done', 61), ('failed', 61))
        for days, kept in (('60', 4), ('10', 1), ('1', 0)):
            set_param('ir_async.retention_days', days)
            self.vacuum()
            self.assertEqual(jobs.exists(), jobs[:kept])

    def test_batches(self):
        self.vacuum()
        jobs = self.make_jobs(*[('done', 8)] * 5)
        with patch(f'{IR_ASYNC}.GC_UNLINK_LIMIT', 2):
            self.assertEqual([self.vacuum() for _ in range(3)], [(2, True), (2, True), (1, False)])
        self.assertFalse(jobs.exists())

    def test_parents(self):
        """A job stays while others wait for it."""
        [parent] = self.make_jobs(('failed', 40))
        [child] = self.make_jobs(('waiting', 40), after=parent)
        self.vacuum()
        self.assertTrue(parent.exists())
        self.env.cr.execute("UPDATE ir_async SET state = 'done' WHERE id = %s", [parent.id])
        self.run_jobs()
        self.assertEqual(child.state, 'done')
        self.vacuum()
        self.assertEqual((parent + child).exists(), child)

    def test_parents_of_a_child_that_waits_for_another_one(self):
        """A child reads the results of all its parents: also those that ended long before the last one."""
        parents = self.make_jobs(('created', 40), ('failed', 40))
        [child] = self.make_jobs(('waiting', 40), after=parents)
        parents[0].flush_recordset()
        self.env.cr.execute(
            "UPDATE ir_async SET state = 'done', date_done = create_date WHERE id = %s", [parents[0].id]
        )
        self.env.cr.execute("UPDATE ir_async_after_rel SET unmet = false WHERE after_id = %s", [parents[0].id])
        for state in ('waiting', 'created', 'processing'):
            self.env.cr.execute("UPDATE ir_async SET state = %s WHERE id = %s", [state, child.id])
            self.vacuum()
            self.assertEqual(parents.exists(), parents, state)
        self.env.cr.execute("UPDATE ir_async SET state = 'done', date_done = create_date WHERE id = %s", [child.id])
        self.env.cr.execute("UPDATE ir_async_after_rel SET unmet = false")
        self.vacuum()
        self.assertFalse((parents + child).exists())

    def test_chains_go_as_a_whole(self):
        """However long a cancelled chain is, one run deletes it; but nothing that a kept job waits for, even through others."""
        chains = []
        for last in (('cancelled', 8), ('failed', 8), ('waiting', 8)):
            chain = self.ir_async
            for state, days in [('cancelled', 8)] * 4 + [last]:
                chain += self.make_jobs((state, days), after=chain[-1:])
            chains.append(chain)
        self.assertFalse(self.vacuum()[1])
        self.assertEqual([len(chain.exists()) for chain in chains], [0, 5, 5])

    def test_chains_go_in_batches(self):
        """What is left when a run is interrupted is still a chain."""
        chain = self.ir_async
        for _i in range(5):
            chain += self.make_jobs(('cancelled', 8), after=chain[-1:])
        with patch(f'{IR_ASYNC}.GC_UNLINK_LIMIT', 2):
            self.assertEqual(self.vacuum(), (2, True))
            self.assertEqual(chain.exists(), chain[:3])
            self.assertEqual(self.vacuum(), (2, True))
            self.assertEqual(self.vacuum(), (1, False))

    def test_parents_of_live_jobs(self):
        """A job stays as long as one that it has enqueued: nobody writes the row of that one, which may be running."""

        @self.add_method
        def async_bar(self):
            self.env['ir.async'].with_options(delay=1000).call(self.async_foo)

        parent = self.ir_async.call(self.partner.async_bar)
        self.run_jobs()
        child = self.ir_async.search([('parent_id', '=', parent.id)])
        self.env.cr.execute("UPDATE ir_async SET date_done = now() - interval '60 days' WHERE id = %s", [parent.id])
        for state in ('waiting', 'created', 'processing'):
            self.env.cr.execute("UPDATE ir_async SET state = %s, date_done = NULL WHERE id = %s", [state, child.id])
            self.vacuum()
            self.assertTrue(parent.exists(), state)
        self.env.cr.execute("SELECT xmin FROM ir_async WHERE id = %s", [child.id])
        before = self.env.cr.fetchone()
        parent._delete()
        self.env.cr.execute("SELECT xmin FROM ir_async WHERE id = %s", [child.id])
        self.assertEqual(self.env.cr.fetchone(), before)
        self.env.cr.execute("SELECT parent_id FROM ir_async WHERE id = %s", [child.id])
        self.assertEqual(self.env.cr.fetchone(), (parent.id,), "the row is as it was")
        child.invalidate_recordset()
        self.assertFalse(child.web_read({'parent_id': {'fields': {'display_name': {}}}})[0]['parent_id'])
        self.assertFalse(child.read(['parent_id'])[0]['parent_id'])
        domain = [('id', '=', child.id)]
        [group] = self.ir_async.web_read_group(domain, ['parent_id'], ['__count'])['groups']
        self.assertFalse(group['parent_id'])
        self.assertEqual(self.ir_async.search([*domain, *group['__extra_domain']]), child)
        self.assertFalse(self.ir_async.search([*domain, ('parent_id', '=', parent.id)]))

    def test_deleted_user(self):
        """The jobs of a user who is deleted go with their files; those of others who wait for them cannot run any more."""
        job = self.ir_async.call(self.partner_of(self.user).async_foo)
        child = self.ir_async.with_options(after=job).call(self.partner.async_foo)
        attachment = self.env['ir.attachment'].create(
            {'name': "export", 'res_model': 'ir.async', 'res_id': job.id, 'raw': b'x'}
        )
        self.user.unlink()
        self.assertFalse((job + child).exists() - child)
        self.assertFalse(attachment.exists())
        self.run_jobs()
        self.assertEqual(child.state, 'cancelled')

    def test_deleted_user_whose_job_is_done(self):
        """Those of others who wait for it go on, as after a vacuum."""
        job = self.ir_async.call(self.partner_of(self.user).async_foo)
        self.run_jobs()
        child = self.ir_async.with_options(after=job).call(self.partner.async_foo)
        self.user.unlink()
        self.assertFalse(job.exists())
        self.assertIn('ir_async.notified', self.env.cr.postcommit.data)
        self.run_jobs()
        self.assertEqual(child.state, 'done')

    def test_enqueued_by(self):
        """The job that enqueued another one may go first."""

        @self.add_method
        def async_bar(self):
            self.env['ir.async'].call(self.async_foo)

        parent = self.ir_async.call(self.partner.async_bar)
        [_parent, child] = self.run_jobs()
        parent._delete()
        child.invalidate_recordset()
        self.assertFalse(child.parent_id)

    def test_autovacuum(self):
        self.assertTrue(type(self.ir_async)._gc_jobs._autovacuum)

    def test_neutralize(self):
        """A copy of a database runs nothing of the original; what is enqueued there runs."""
        states = ['waiting', 'created', 'processing', 'succeeded', 'done', 'failed', 'cancelled']
        jobs = self.make_jobs(*[(state, 0) for state in states])
        scheduled = self.ir_async.with_options(delay=60, key='sync').call(self.partner.async_foo)
        self.env.cr.flush()
        self.env.cr.execute("INSERT INTO ir_async_pause (channel, until) VALUES ('default', 'infinity')")
        with file_open('ir_async/data/neutralize.sql') as file:
            self.env.cr.execute(file.read())
        self.env.invalidate_all()
        self.env.cr.execute("SELECT FROM ir_async_pause")
        self.assertFalse(self.env.cr.rowcount)
        self.assertEqual([job.state for job in jobs], ['cancelled'] * 3 + states[3:])
        self.assertEqual(scheduled.state, 'cancelled')
        self.assertFalse(self.run_jobs())
        later = self.ir_async.with_options(key='sync').call(self.partner.async_foo)
        self.assertEqual(self.run_jobs(), later)
        self.assertTrue(all(job.date_done for job in jobs if job.state == 'cancelled'), "else they are never vacuumed")
