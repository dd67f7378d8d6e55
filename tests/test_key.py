import json
from datetime import datetime, timedelta

from odoo.exceptions import UserError
from odoo.tests import mute_logger

from .method_case import RUNNER, MethodCase


class TestKey(MethodCase):
    """Keys, as one transaction sees them; between transactions: tests/system/key_test.py."""

    def setUp(self):
        super().setUp()
        self.calls = calls = []

        @self.add_method
        def async_foo(self, *args, **kwargs):
            calls.append((self, args, kwargs))

    def call(self, *args, key='sync', target=None, **options):
        kwargs = options.pop('kwargs', {})
        return self.ir_async.with_options(key=key, **options).call(target or self.partner.async_foo, *args, **kwargs)

    def set_state(self, job, state, claim_number=0):
        job.flush_recordset()
        self.env.cr.execute(
            "UPDATE ir_async SET state = %s, claim_number = %s WHERE id = %s", [state, claim_number, job.id]
        )
        job.invalidate_recordset()

    def test_until_start(self):
        """The key is free from the moment the job begins, whatever becomes of it."""
        job = self.call(key_until='start')
        for state, claim_number in (('waiting', 0), ('created', 0)):
            self.set_state(job, state, claim_number)
            self.assertEqual(self.call(key_until='start'), job, state)
        for state, claim_number in (('processing', 1), ('created', 1), ('failed', 1), ('done', 1)):
            with self.subTest(state=state, claim_number=claim_number), self.env.cr.savepoint() as savepoint:
                self.set_state(job, state, claim_number)
                other = self.call(key_until='start')
                self.assertNotEqual(other, job)
                self.assertEqual(self.call(key_until='start'), other)
                self.env.cr.flush()
                self.set_state(job, 'created', claim_number)  # back into the queue
                savepoint.rollback()

    def test_until_start_enqueues_itself(self):
        @self.add_method
        def async_bar(self, count):
            calls.append(count)
            if count:
                self.env['ir.async'].with_options(key='bar', key_until='start').call(self.async_bar, count - 1)

        calls = []
        self.call(3, key='bar', key_until='start', target=self.partner.async_bar)
        jobs = self.run_jobs()
        self.assertEqual(calls, [3, 2, 1, 0])
        self.assertEqual(len(jobs), 4)

    def test_until_end_keeps_itself_out(self):
        @self.add_method
        def async_bar(self):
            return self.env['ir.async'].with_options(key='bar').call(self.async_bar) == self.env['ir.async'].current()

        job = self.call(key='bar', target=self.partner.async_bar)
        self.run_jobs()
        self.assertEqual(job.payload, {'result': True})

    def test_until_start_runs_with_the_last_call(self):
        """Two jobs, the second of which was called while the first one ran."""

        @self.add_method
        def async_bar(self):
            seen.append(self.name)
            if len(seen) == 1:
                self.name = "Changed"
                self.env['ir.async'].with_options(key='bar', key_until='start').call(self.async_bar)

        seen = []
        self.call(key='bar', key_until='start', target=self.partner.async_bar)
        self.run_jobs()
        self.assertEqual(seen, ["Azure Interior", "Changed"])

    def test_keep(self):
        """By default, the arguments of the first call stay."""
        job = self.call(1)
        self.assertEqual(self.call(2, priority=1, delay=60), job)
        self.env.cr.flush()
        self.assertEqual(self.call(3, priority=1, delay=60, on_duplicate='keep'), job)
        self.assertRecordValues(job.sudo(), [{'args': '[1]', 'priority': 10, 'date_scheduled': False, 'revision': 1}])

    def test_replace(self):
        admin = self.env.ref('base.user_admin')
        for flush in (False, True):
            with self.subTest(flush=flush):
                job = self.call(1, key=f'k{flush}', priority=3, at=datetime(2126, 1, 1), kwargs={'a': 1})
                if flush:
                    self.env.cr.flush()
                target = self.env['res.partner'].with_user(admin).with_context(lang='en_US').async_foo
                self.assertEqual(
                    self.call(2, key=f'k{flush}', priority=4, on_duplicate='replace', kwargs={'b': 2}, target=target),
                    job,
                )
                self.assertRecordValues(
                    job.sudo(),
                    [
                        {
                            'args': '[2]',
                            'kwargs': '{"b":2}',
                            'priority': 4,
                            'date_scheduled': False,
                            'res_ids': '[]',
                            'state': 'created',
                            'context': '{"lang":"en_US"}',
                            'user_id': admin.id,
                            'su': False,
                        }
                    ],
                )
                self.env.cr.execute("SHOW lock_timeout")
                self.assertEqual(self.env.cr.fetchone(), ('0',), "the rest of the transaction may wait for locks")
        self.run_jobs()
        self.assertEqual(
            [(records.ids, args, kwargs) for records, args, kwargs in self.calls], [([], (2,), {'b': 2})] * 2
        )

    def test_replace_raises_the_revision(self):
        job = self.call(1)
        self.env.cr.flush()
        for revision in (2, 3):
            self.call(2, on_duplicate='replace')
            self.call(3, on_duplicate='replace')
            self.assertEqual(job.revision, revision)
            self.assertEqual(job.sudo().args, '[3]')

    def test_debounce(self):
        """The date moves on with each call."""
        job = self.call(delay=60, on_duplicate='replace')
        for _again in range(3):
            # `cr.now` is the begin of the transaction.
            self.env.cr.execute("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
            [[now]] = self.env.cr.fetchall()
            self.assertEqual(self.call(delay=timedelta(seconds=60), on_duplicate='replace'), job)
            self.assertGreaterEqual(self.row(job, 'date_scheduled'), now + timedelta(seconds=60))
        self.call(at=datetime(2126, 1, 1), on_duplicate='replace')
        self.assertEqual(self.row(job, 'date_scheduled'), datetime(2126, 1, 1))

    def test_replace_leaves_what_waits_or_runs(self):
        parent = self.ir_async.call(self.partner.async_foo)
        job = self.call(1, after=parent)
        for state in ('waiting', 'processing'):
            if state == 'processing':
                self.set_state(job, state, 1)
            self.assertEqual(self.call(2, on_duplicate='replace', priority=1), job)
            self.env.cr.flush()
            self.assertRecordValues(job.sudo(), [{'state': state, 'args': '[1]', 'priority': 10}])

    def test_replace_by_one_that_waits(self):
        parent = self.ir_async.call(self.partner.async_foo)
        job = self.call(1)
        for flush in (False, True):
            if flush:
                self.env.cr.flush()
            with self.assertRaisesRegex(UserError, f'{job.id}.*"sync".*waits for other jobs'):
                self.call(2, on_duplicate='replace', after=parent)
            self.assertEqual(self.call(3, after=parent), job)
            self.assertEqual(self.call(4, on_duplicate='replace', after=self.ir_async), job)
        job.cancel()
        child = self.call(5, on_duplicate='replace', after=parent)
        self.assertEqual(self.call(6, on_duplicate='replace', after=parent), child)
        self.assertRecordValues(child.sudo(), [{'state': 'waiting', 'args': '[5]', 'after_ids': parent.ids}])

    def test_replace_in_a_savepoint(self):
        for flush in (True, False):
            job = self.call(1, key=f'k{flush}')
            with self.env.cr.savepoint(flush=flush) as savepoint:
                self.call(2, key=f'k{flush}', on_duplicate='replace')
                savepoint.rollback()
            self.env.cr.flush()
            self.assertEqual(job.sudo().args, '[1]')

    def test_replace_notifies(self):
        model = self.ir_async.with_options(key='sync', on_duplicate='replace')
        job = model.call_notify("Sync 1", self.partner.async_foo, 1)
        self.env.cr.flush()
        model.call_notify("Sync 2", self.partner.async_foo, 2)
        self.env.cr.flush()
        self.assertRecordValues(job, [{'name': "Sync 2", 'revision': 2}])
        self.env.cr.execute("SELECT message FROM bus_bus ORDER BY id DESC LIMIT 1")
        message = json.loads(self.env.cr.fetchone()[0])['payload']
        self.assertEqual((message['id'], message['name'], message['revision']), (job.id, "Sync 2", 2))

    def test_long_texts(self):
        """What is in an index has a limit in bytes, PostgreSQL's own is only found at the commit."""
        for option in ('key', 'channel'):
            for text in ('鍵' * 334, '🙂' * 251, 'a' * 1001, '鍵' * 1000):
                with (
                    self.subTest(option=option, text=text[:3]),
                    self.assertRaisesRegex(TypeError, f'option {option}.*1000 bytes'),
                ):
                    self.ir_async.with_options(**{option: text})
            for text in ('鍵' * 333, '🙂' * 250, 'a' * 1000):
                job = self.ir_async.with_options(**{option: text}).call(self.partner.async_foo)
                self.assertEqual(job[option], text)

    # ------------------------------------------------------------
    # retry()
    # ------------------------------------------------------------

    def test_retry_in_bulk(self):
        """Those whose key is taken are named; the others are run again."""
        failed = self.ir_async.concat(*(self.call(i, key=f'key {i}') for i in range(50)))
        for job in failed:
            self.set_state(job, 'failed')
        live = self.ir_async.concat(*(self.call(i, key=f'key {i}') for i in (3, 7, 11)))
        action = failed.retry()
        refused = failed[3] + failed[7] + failed[11]
        self.assertEqual(set(refused.mapped('state')), {'failed'})
        self.assertEqual(set((failed - refused).mapped('state')), {'created'})
        self.assertEqual((action['type'], action['tag']), ('ir.actions.client', 'display_notification'))
        for job in refused + live:
            self.assertIn(str(job.id), action['params']['message'])
        self.assertIn("47", action['params']['title'])

    def test_retry_of_none(self):
        failed = self.call(1) + self.call(2, key='other')
        for job in failed:
            self.set_state(job, 'cancelled')
        live = self.call(1) + self.call(2, key='other')
        for jobs, live_jobs in ((failed, live), (failed[0], live[0])):
            with self.assertRaises(UserError) as catcher:
                jobs.retry()
            for job in jobs + live_jobs:
                self.assertIn(str(job.id), str(catcher.exception))
        self.assertEqual(failed.mapped('state'), ['cancelled', 'cancelled'])

    def test_retry_of_two_with_one_key(self):
        first = self.call(1)
        self.set_state(first, 'failed')
        second = self.call(2)
        self.set_state(second, 'failed')
        action = (first + second).retry()
        self.assertEqual([first.state, second.state], ['created', 'failed'])
        self.assertIn(str(second.id), action['params']['message'])

    def test_retry_until_start(self):
        """A job that had begun does not take its key again, but another one's keeps it out."""
        job = self.call(1, key_until='start')
        self.set_state(job, 'failed', claim_number=1)
        other = self.call(2, key_until='start')
        with self.assertRaisesRegex(UserError, str(other.id)):
            job.retry()
        self.set_state(other, 'processing', claim_number=1)
        self.assertIs(job.retry(), True)
        self.assertEqual(job.state, 'created')

    def test_wrong_states_are_all_or_nothing(self):
        failed, done = self.call(1), self.call(2, key='other')
        self.set_state(failed, 'failed')
        self.set_state(done, 'done')
        with self.assertRaisesRegex(UserError, str(done.id)):
            (failed + done).retry()
        self.assertEqual(failed.state, 'failed')

    @mute_logger(RUNNER)
    def test_retry_after_a_run(self):
        @self.add_method
        def async_bar(self):
            raise ZeroDivisionError

        job = self.call(target=self.partner.async_bar, key_until='start')
        self.run_jobs()
        self.assertEqual(job.state, 'failed')
        job.retry()
        self.run_jobs()
        self.assertEqual(job.state, 'failed')
