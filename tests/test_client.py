import json

from odoo import Command
from odoo.exceptions import AccessError, MissingError
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

    def test_ids_that_no_job_can_have(self):
        job = self.enqueue("Mine")
        ids = [-(10**12), -(2**31) - 1, -1, 0, 2**31 - 1, 2**31, 10**12, 10**30]
        self.assertEqual([row['id'] for row in self.jobs_of(self.user, [*ids, job.id])], job.ids)
        for id_ in filter(None, ids):
            for action in ('complete', 'cancel', 'retry', 'dismiss'):
                with self.subTest(id=id_, action=action), self.assertRaises(MissingError):
                    getattr(self.env['ir.async'].browse(id_), action)()

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
        self.assertEqual(
            rows[1],
            {
                'id': ready.id,
                'name': "Ready",
                'state': 'succeeded',
                'revision': 3,
                'dismissed': None,
                'elapsed': None,
                'payload': {'result': 42},
            },
        )
        self.assertIs(rows[2]['name'], False)
        rows = self.jobs_of(self.user, [dismissed.id, foreign.id])
        self.assertEqual(
            {row['id'] for row in rows}, {live.id, ready.id, nameless.id, dismissed.id}, "no job of others"
        )
        rows = self.jobs_of(self.user, [dismissed.id, 0, -1, 2**31, -(2**31) - 1, 2**63])
        self.assertEqual(
            {row['id'] for row in rows}, {live.id, ready.id, nameless.id, dismissed.id}, "the others do not exist"
        )

    def test_user_jobs_large_payload(self):
        self.enqueue("Large", state='succeeded', payload='{"result": "%s"}' % ('x' * 70_000))
        [row] = self.jobs_of(self.user)
        self.assertNotIn('payload', row, "it is read on demand")
        self.assertIs(row['result_type'], False, "there is nothing to open")

    def test_user_jobs_large_action(self):
        action = {'type': 'ir.actions.act_window', 'res_model': 'res.partner', 'context': {'text': '\x00' * 20_000}}
        self.enqueue("Large", state='succeeded', payload=json.dumps({'result': action}))
        [row] = self.jobs_of(self.user)
        self.assertNotIn('payload', row)
        self.assertEqual(row['result_type'], 'ir.actions.act_window')

    def test_user_jobs_huge_payload(self):
        self.enqueue(
            "Huge",
            state='succeeded',
            payload=json.dumps({'result': {'type': 'ir.actions.act_url', 'url': 'x' * 1_100_000}}),
        )
        [row] = self.jobs_of(self.user)
        self.assertIs(row['result_type'], False, "it is not parsed")

    def test_user_jobs_limit(self):
        for number in range(130):
            self.enqueue(f"Job {number}", state='done' if number else 'processing')
        rows = self.jobs_of(self.user)
        self.assertEqual(len(rows), 100)
        self.assertEqual(rows[0]['name'], "Job 0", "what is not over comes first")

    def test_user_jobs_order(self):
        """Running jobs are listed however many others there are, then results and errors, then queued ones."""
        running = [self.enqueue(f"Running {number}", state='processing').id for number in range(2)]
        failed = self.enqueue("Failed", state='failed').id
        for number in range(150):
            self.enqueue(f"Queued {number}")
        ids = [row['id'] for row in self.jobs_of(self.user)]
        self.assertEqual(len(ids), 100)
        self.assertEqual(ids[:3], [*running, failed])

    def test_user_jobs_running_beyond_the_limit(self):
        running = {self.enqueue(f"Running {number}", state='processing').id for number in range(120)}
        self.assertLessEqual(running, {row['id'] for row in self.jobs_of(self.user)})

    def test_user_jobs_times(self):
        """All times are differences by the clock of the database."""

        def ago(seconds):
            self.env.cr.execute("SELECT now() AT TIME ZONE 'UTC' - %s * interval '1 s'", [seconds])
            return self.env.cr.fetchone()[0]

        queued = self.enqueue("Tried before", date_start=ago(60))
        dated = self.enqueue("Dated", date_scheduled=ago(-90))
        due = self.enqueue("Due", date_scheduled=ago(5))
        running = self.enqueue("Running", state='processing', date_start=ago(30))
        ended = self.enqueue("Ended", state='done', date_start=ago(30), date_done=ago(10))
        rows = {row['id']: row for row in self.jobs_of(self.user)}
        self.assertIsNone(rows[queued.id]['elapsed'], "the time of an earlier attempt is none of this one")
        self.assertAlmostEqual(rows[dated.id]['scheduled_in'], 90)
        self.assertNotIn('scheduled_in', rows[due.id])
        self.assertAlmostEqual(rows[running.id]['elapsed'], 30)
        self.assertNotIn('ended_ago', rows[running.id])
        self.assertAlmostEqual(rows[ended.id]['elapsed'], 20)
        self.assertAlmostEqual(rows[ended.id]['ended_ago'], 10)

    def test_user_jobs_stuck(self):
        parent = self.enqueue("Parent")
        target = self.env['res.partner'].with_user(self.user)
        child = self.env['ir.async'].with_options(after=parent).call_notify("Child", target.check_access, 'read')
        self.assertNotIn('is_stuck', {row['id']: row for row in self.jobs_of(self.user)}[child.id])
        self.env.cr.execute("UPDATE ir_async SET state = 'failed' WHERE id = %s", [parent.id])
        self.assertTrue({row['id']: row for row in self.jobs_of(self.user)}[child.id]['is_stuck'])

    def test_progress_of_an_earlier_attempt(self):
        job = self.enqueue("Export", state='processing', revision=4)
        self.env.cr.execute(
            "INSERT INTO ir_async_progress (job_id, revision, done, total) VALUES (%s, 2, 9, 10)", [job.id]
        )
        [row] = self.jobs_of(self.user)
        self.assertIsNone(row['progress'])
        self.assertFalse(job.progress)
        self.env.cr.execute("UPDATE ir_async_progress SET revision = 4 WHERE job_id = %s", [job.id])
        job.invalidate_recordset()
        self.assertEqual(job.progress, {'done': 9, 'total': 10, 'message': None})
        self.env.cr.execute("UPDATE ir_async SET state = 'created' WHERE id = %s", [job.id])
        job.invalidate_recordset()
        self.assertFalse(job.progress, "it waits for its next attempt")

    def test_progress(self):
        job = self.enqueue("Export", state='processing')
        self.env.cr.execute(
            "INSERT INTO ir_async_progress (job_id, done, total, message) VALUES (%s, 1, 4, 'A quarter')", [job.id]
        )
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
        job = self.enqueue("Export", state='processing', worker_id=2000000000)
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
