from odoo import Command
from odoo.exceptions import AccessError
from odoo.tests import Form, TransactionCase, new_test_user, tagged


@tagged('post_install', '-at_install')
class TestClient(TransactionCase):
    """What the server does for the web client."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.user = new_test_user(cls.env, 'async_user')
        cls.other = new_test_user(cls.env, 'async_other')
        cls.manager = new_test_user(cls.env, 'async_manager', 'base.group_user,ir_async.ir_async_group_manager')

    def enqueue(self, name, user=None, **values):
        target = self.env['res.partner'].with_user(user or self.user)
        job = self.env['ir.async'].call_notify(name, target.check_access, 'read')
        job.flush_model()
        for field, value in values.items():
            self.env.cr.execute(f"UPDATE ir_async SET {field} = %s WHERE id = %s", [value, job.id])  # pylint: disable=sql-injection
        job.invalidate_recordset()
        return job.with_user(self.user)

    def jobs_of(self, user, *args):
        return self.env['ir.async'].with_user(user).get_user_jobs(*args)

    def test_user_jobs(self):
        live = self.enqueue("Live")
        ready = self.enqueue("Ready", state='succeeded', payload='{"result": 42}', revision=3)
        nameless = self.enqueue(False)
        self.enqueue(False, state='done')
        dismissed = self.enqueue("Dismissed", state='done', dismissed=True)
        foreign = self.enqueue("Foreign", self.other)
        self.env['ir.async'].call(self.env['res.partner'].with_user(self.user).check_access, 'read')

        rows = self.jobs_of(self.user)
        self.assertEqual([row['id'] for row in rows], [live.id, ready.id, nameless.id])
        self.assertEqual(rows[1], {
            'id': ready.id, 'name': "Ready", 'state': 'succeeded', 'revision': 3, 'dismissed': None, 'elapsed': None,
            'payload': {'result': 42},
        })
        self.assertIs(rows[2]['name'], False)
        rows = self.jobs_of(self.user, [dismissed.id, foreign.id])
        self.assertEqual({row['id'] for row in rows}, {live.id, ready.id, nameless.id, dismissed.id}, "no job of others")

    def test_user_jobs_large_payload(self):
        self.enqueue("Large", state='succeeded', payload='{"result": "%s"}' % ('x' * 70_000))
        [row] = self.jobs_of(self.user)
        self.assertNotIn('payload', row, "it is read on demand")

    def test_user_jobs_limit(self):
        for number in range(130):
            self.enqueue(f"Job {number}", state='done' if number else 'processing')
        rows = self.jobs_of(self.user)
        self.assertEqual(len(rows), 100)
        self.assertEqual(rows[0]['name'], "Job 0", "what is not over comes first")

    def test_progress(self):
        job = self.enqueue("Export", state='processing')
        self.env.cr.execute(
            "INSERT INTO ir_async_progress (job_id, done, total, message) VALUES (%s, 1, 4, 'A quarter')", [job.id])
        [row] = self.jobs_of(self.user)
        self.assertEqual(row['progress'], {'done': 1, 'total': 4, 'message': "A quarter"})

    def test_lazy_session_info(self):
        job = self.enqueue("Export")
        info = self.env['ir.http'].with_user(self.user).lazy_session_info()
        self.assertEqual([row['id'] for row in info['async_jobs']], [job.id])
        portal = new_test_user(self.env, 'async_portal', 'base.group_portal')
        self.assertNotIn('async_jobs', self.env['ir.http'].with_user(portal).lazy_session_info())
        with self.assertRaises(AccessError):
            self.jobs_of(portal)

    def test_durations(self):
        dates = {'create_date': '2026-01-01 10:00:00', 'date_start': '2026-01-01 10:00:01'}
        slow = self.enqueue("Slow", state='done', **dates, date_done='2026-01-01 10:00:31')
        fast = self.enqueue("Fast", state='done', **dates, date_done='2026-01-01 10:00:11')
        queued = self.enqueue("Queued")
        self.assertEqual((slow + fast + queued).mapped('duration'), [30, 10, 0])
        self.assertEqual((slow + queued).mapped('wait_duration'), [1, 0])
        jobs = self.env['ir.async'].with_user(self.user)
        domain = [('id', 'in', (slow + fast).ids)]
        self.assertEqual(jobs.search(domain, order='duration'), fast + slow)
        self.assertEqual(jobs._read_group(domain, [], ['duration:avg', 'wait_duration:max']), [(20, 1)])
        self.assertEqual(jobs.fields_get(['duration'])['duration']['aggregator'], 'avg')

    def test_display_name(self):
        self.assertEqual(self.enqueue("Export").display_name, "Export")
        self.assertEqual(self.enqueue(False).display_name, "res.partner.check_access()")

    def test_views(self):
        job = self.enqueue("Export", state='done')
        for user, sees_args in ((self.user, False), (self.manager, True)):
            form = Form(job.with_user(user))
            self.assertEqual('args' in form._view['fields'], sees_args)
        child = self.enqueue("Child", parent_id=job.id)
        self.assertEqual(job.with_user(self.manager).child_ids, child)

    def test_workers(self):
        with self.assertRaises(AccessError):
            self.env['ir.async.worker'].with_user(self.user).search([])
        self.env.cr.execute("INSERT INTO ir_async_worker (id, host, pid) VALUES (2000000000, 'gone', 1) RETURNING id")
        worker = self.env['ir.async.worker'].with_user(self.manager).browse(2000000000)
        self.assertFalse(worker.is_alive)
        self.assertNotIn(worker, worker.search([('is_alive', '=', True)]))
        self.assertIn(worker, worker.search([('is_alive', '=', False)]))
        self.assertFalse(worker.current_job_id)
        job = self.enqueue("Export", state='processing', session=2000000000)
        worker.invalidate_recordset()
        self.assertEqual(worker.current_job_id, job)

    def test_channels(self):
        channel = self.env['ir.async.channel'].with_user(self.manager).create({'name': 'test_client', 'capacity': 1})
        channel.action_pause()
        self.assertTrue(channel.paused)
        with self.assertRaises(AccessError):
            channel.with_user(self.user).read(['name'])

    def test_menus(self):
        menu = self.env.ref('ir_async.ir_async_menu_workers')
        self.manager.group_ids = [Command.link(self.env.ref('base.group_system').id)]
        self.assertIn(menu.id, menu.with_user(self.manager)._visible_menu_ids(debug=True))
        self.assertNotIn(menu.id, menu.with_user(self.user)._visible_menu_ids(debug=True))
