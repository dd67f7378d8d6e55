from odoo.exceptions import AccessError, MissingError, UserError
from odoo.tests import mute_logger

from .method_case import RUNNER, MethodCase
from odoo.addons.ir_async.models.ir_async import ENDED, LIVE


class TestActions(MethodCase):
    """What a user does with his jobs: which states there are, and how they follow each other."""

    def setUp(self):
        super().setUp()
        self.calls = calls = []

        @self.add_method
        def async_foo(self):
            calls.append(self)
            return "result"

    def make_jobs(self, *states, user=None):
        """Return a job in each of some states, as their user sees them."""
        target = self.partner_of(user or self.user).async_foo
        jobs = self.ir_async.concat(*(self.ir_async.call_notify(state, target) for state in states))
        jobs.flush_model()
        for job, state in zip(jobs, states, strict=True):
            self.env.cr.execute(
                "UPDATE ir_async SET state = %s, attempts = 2, deaths = 1, payload = '{\"result\": 1}',"
                "       date_done = CASE WHEN %s THEN create_date END, worker_id = CASE WHEN %s = 'processing' THEN 1 END"
                " WHERE id = %s",
                [state, state in ENDED, state, job.id],
            )
        jobs.invalidate_recordset()
        return jobs.with_user(user or self.user)

    def revisions(self, jobs):
        return [job.revision for job in jobs.sudo()]

    def test_which_state(self):
        """What is possible in which state, and what comes of it."""
        possible = {
            'complete': {'succeeded': 'done', 'done': 'done'},
            'cancel': {'waiting': 'cancelled', 'created': 'cancelled', 'processing': 'processing'},
            'retry': {'failed': 'created', 'cancelled': 'created'},
            'dismiss': {state: state for state in ENDED},
        }
        for action, states in possible.items():
            for state in (*LIVE, *ENDED):
                with self.subTest(action=action, state=state):
                    job = self.make_jobs(state)
                    others = self.make_jobs(*states) if state not in states else job.browse()
                    if state in states:
                        self.assertIs(getattr(job, action)(), True)
                        self.assertEqual(job.state, states[state])
                        is_noop = (action, state) in (('complete', 'done'), ('cancel', 'processing'))
                        self.assertEqual(job.revision, 1 if is_noop else 2)
                    else:
                        with self.assertRaisesRegex(UserError, str(job.id)):
                            getattr(others + job, action)()
                        self.assertEqual([other.state for other in others], list(states), "all or nothing")
                        self.assertEqual(self.revisions(others + job), [1] * (len(states) + 1))

    def test_whose(self):
        for action, state in (
            ('complete', 'succeeded'),
            ('cancel', 'created'),
            ('retry', 'failed'),
            ('dismiss', 'done'),
        ):
            with self.subTest(action=action):
                mine, others = self.make_jobs(state), self.make_jobs(state, user=self.other_user).with_user(self.user)
                for jobs in (others, mine + others):
                    with self.assertRaises(AccessError):
                        getattr(jobs, action)()
                self.assertEqual(self.revisions(mine + others), [1, 1])
                getattr((mine + others).with_user(self.manager), action)()
                self.assertEqual(self.revisions(mine + others), [2, 2])
                getattr(mine.browse(), action)()
                with self.assertRaises(MissingError):
                    getattr(mine.browse(2**31 - 1), action)()

    def test_complete(self):
        job = self.ir_async.call(self.partner_of(self.user).async_foo).with_user(self.user)
        with self.assertRaises(UserError):
            job.complete()
        self.run_jobs()
        self.assertRecordValues(job, [{'state': 'succeeded', 'revision': 3}])
        job.complete()
        job.complete()
        self.assertRecordValues(job, [{'state': 'done', 'revision': 4, 'payload': {'result': "result"}}])

    def test_dismiss(self):
        job = self.make_jobs('done')
        job.dismiss()
        job.dismiss()
        self.assertRecordValues(job, [{'dismissed': True, 'state': 'done', 'revision': 2}])

    def test_revision(self):
        """It grows with every change of state."""

        @self.add_method
        def async_bar(self):
            revisions.append(self.env['ir.async'].current().revision)
            raise ValueError

        revisions = []
        job = self.ir_async.with_options(max_attempts=2).call(self.partner.async_bar)
        revisions.append(job.revision)
        with mute_logger(RUNNER):
            self.run_jobs()
        job.retry()
        revisions.append(job.revision)
        job.cancel()
        revisions.append(job.revision)
        # created, processing, (created,) processing, (failed,) created, cancelled
        self.assertEqual(revisions, [1, 2, 4, 6, 7])
