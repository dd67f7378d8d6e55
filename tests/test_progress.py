import json
import sys

from odoo.tests import new_test_user

from .queue_common import QueueCase
from odoo.addons.ir_async.service.execution import Execution


class TestProgress(QueueCase):
    """What a job reports while it runs. That it is seen at once is shown by the system tests."""

    def setUp(self):
        super().setUp()
        self.Async = self.env['ir.async']

    def running(self, job):
        """Make a job the one that this thread runs."""
        running = Execution(job)
        token = Execution.current.set(running)
        self.addCleanup(Execution.current.reset, token)
        return running

    def save(self, running):
        self.Async.sudo()._save_progress(running.job, running.progress)
        self.env.invalidate_all()

    def test_outside_of_a_job_nothing_happens(self):
        self.Async.report_progress(1, 2, "x")
        self.assertFalse(self.Async.current())
        self.assertEqual(len(self.Async.current()), 0)

    def test_a_client_cannot_pretend_to_be_a_job(self):
        job = self.call()
        Async = self.Async.with_context(async_job_id=job.id)
        self.assertFalse(Async.current())
        Async.report_progress(1)
        self.assertFalse(job.progress)

    def test_current(self):
        seen = []

        def ir_async_look(partner):
            job = partner.env['ir.async'].current()
            seen.append((job.id, job.state, partner.env.context['async_job_id']))

        job = self.Async.call(self.method(ir_async_look))
        self.run_jobs()
        self.assertEqual(seen, [(job.id, 'processing', job.id)])
        self.assertFalse(self.Async.current())

    def test_what_was_reported_last_is_kept(self):
        job = self.call()
        running = self.running(self.claim()[0])
        for i in range(1000):
            self.Async.report_progress(i, 1000, f"{i} of 1,000")
        self.save(running)
        self.assertEqual(job.progress, {'done': 999, 'total': 1000, 'message': "999 of 1,000"})
        self.Async.report_progress(1000)
        self.save(running)
        self.assertEqual(job.progress, {'done': 1000, 'total': None, 'message': None})
        self.assertEqual(self.env['ir.async.progress'].sudo().search_count([('job_id', '=', job.id)]), 1)

    def test_reporting_executes_nothing(self):
        self.call()
        self.running(self.claim()[0])
        count = self.env.cr.sql_log_count
        for i in range(1000):
            self.Async.report_progress(i, 1000)
        self.assertEqual(self.env.cr.sql_log_count, count)

    def test_reporting_costs_next_to_nothing(self):
        """10,000 times a second must cost less than 1 %, a microsecond each: that is a handful of calls in Python."""
        self.call()
        self.running(self.claim()[0])
        report, calls = self.Async.report_progress, []
        sys.setprofile(lambda _frame, event, _arg: calls.append(event) if event in ('call', 'c_call') else None)
        try:
            report(1, 10, "message")
        finally:
            sys.setprofile(None)
        self.assertLess(len(calls), 15)

    def test_numbers_alone(self):
        self.call()
        self.running(self.claim()[0])
        for args in (("x",), (None,), ([],), (1, "x"), (1, {}), (10**400,), (1, -(10**400))):
            with self.subTest(args=args), self.assertRaises(TypeError):
                self.Async.report_progress(*args)

    def test_odd_reports_do_no_harm(self):
        """Whatever was reported can be saved, and told."""
        job = self.call()
        running = self.running(self.claim()[0])
        for args in ((0, 0), (5, 3), (-1,), (True, 2), (0.5, 1, 7), (1, 2, "ß\n'\"%s🙂"), (1, 2, "x" * 10_000)):
            with self.subTest(args=args):
                self.Async.report_progress(*args)
                self.save(running)
                self.assertEqual(job.progress['done'], args[0])

    def test_nul_and_nan_do_no_harm(self):
        """PostgreSQL has no NUL, JSON has no NaN: neither may break the job, or what the browser reads."""
        job = self.call()
        running = self.running(self.claim()[0])
        for args in ((1, 2, "a\0b"), (float('nan'),), (1, float('inf'))):
            with self.subTest(args=args):
                try:
                    self.Async.report_progress(*args)
                except (TypeError, ValueError):
                    continue  # refused, as good
                self.save(running)
                json.dumps(job.progress, allow_nan=False)

    def test_the_owner_is_told(self):
        user = new_test_user(self.env, 'ir_async_owner', groups='base.group_user')
        job = self.Async.call_notify("Work", self.partner.with_user(user).read, ['name'])
        running = self.running(self.claim()[0])
        self.env.cr.precommit.run()
        self.env['bus.bus'].search([]).unlink()
        self.Async.report_progress(3, 10, "three")
        self.save(running)
        self.env.cr.precommit.run()
        [message] = self.env['bus.bus'].search([])
        self.assertIn(str(user.partner_id.id), message.channel)
        for part in (
            '"done":3',
            '"total":10',
            '"message":"three"',
            f'"id":{job.id}',
            '"state":"processing"',
            f'"revision":{job.revision}',
        ):
            self.assertIn(part, message.message.replace(' ', ''))
        self.assertEqual(job.with_user(user).progress, {'done': 3, 'total': 10, 'message': "three"})

    def test_nobody_is_told_of_a_plain_call(self):
        self.call()
        running = self.running(self.claim()[0])
        self.env.cr.precommit.run()
        self.env['bus.bus'].search([]).unlink()
        self.Async.report_progress(3, 10, "three")
        self.save(running)
        self.env.cr.precommit.run()
        self.assertFalse(self.env['bus.bus'].search([]))

    def test_retry_starts_over(self):
        job = self.call()
        running = self.running(self.claim()[0])
        self.Async.report_progress(3)
        self.save(running)
        self.finish(running.job, 'failed')
        self.assertEqual(job.progress['done'], 3, "of interest when it failed")
        job.retry()
        self.assertFalse(job.progress)

    def test_progress_of_a_job_that_is_gone(self):
        job = self.call()
        running = self.running(self.claim()[0])
        self.Async.report_progress(3)
        job.sudo()._delete()
        self.save(running)
        self.assertFalse(self.env['ir.async.progress'].sudo().search([('job_id', '=', job.id)]))
