import json
from contextlib import contextmanager
from datetime import datetime, timedelta
from unittest.mock import patch

from freezegun import freeze_time

from odoo.addons.ir_async.models.ir_async_call import OPTIONS
from odoo.addons.ir_async.tests.common import AsyncCase


class TestWithOptions(AsyncCase):
    """Where options go and where not, what they cost; see also test_options.py."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.partner = cls.env['res.partner'].create({'name': "Anna"})

    def call(self, **options):
        return self.env['ir.async'].with_options(**options).call(self.partner.name_create, "Berta")

    def now(self):
        """The clock of the database, that a job's dates are compared with."""
        self.env.cr.execute("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
        return self.env.cr.fetchone()[0]

    def stored(self, job, column):
        """The column as it is in the database: the ORM cuts dates off at the second."""
        job.flush_recordset()
        self.env.cr.execute(f'SELECT "{column}" FROM ir_async WHERE id = %s', [job.id])
        return self.env.cr.fetchone()[0]

    def test_the_clock_is_never_behind(self):
        """However long the statement takes that reads it. Else a delayed job would begin too early."""
        jobs = self.env['ir.async']
        pending = jobs._pending()
        jobs._mark(pending, 100_000)  # so many ids take a while
        self.assertLessEqual(self.now(), pending.now())

    # ------------------------------------------------------------
    # Defaults, and what each option means
    # ------------------------------------------------------------

    def test_plain_options_are_stored(self):
        job = self.call(priority=-3, max_attempts=4, retry_delay=[1, 2.5], timeout=90.5, channel='partner/7', key='k')
        self.assertRecordValues(
            job,
            [
                {
                    'priority': -3,
                    'max_attempts': 4,
                    'timeout': 90.5,
                    'channel': 'partner/7',
                    'key': 'k',
                }
            ],
        )
        self.assertEqual(json.loads(job.retry_delay), [1, 2.5])

    def test_timedelta_is_as_good_as_seconds(self):
        job = self.call(timeout=timedelta(minutes=2), retry_delay=[timedelta(seconds=1), 3], max_attempts=2)
        self.assertEqual(job.timeout, 120)
        self.assertEqual(json.loads(job.retry_delay), [1, 3])

    def test_at_keeps_microseconds(self):
        at = datetime(2044, 5, 6, 7, 8, 9, 123456)
        self.assertEqual(self.stored(self.call(at=at), 'date_scheduled'), at)

    def test_delay_counts_from_the_call(self):
        for delay in (90, 90.0, timedelta(seconds=90)):
            with self.subTest(delay=delay):
                before = self.now()
                date = self.stored(self.call(delay=delay), 'date_scheduled')
                self.assertLessEqual(before, date - timedelta(seconds=90) + timedelta(milliseconds=50))
                self.assertLessEqual(date - timedelta(seconds=90), self.now() + timedelta(milliseconds=50))

    def test_delay_counts_from_call_not_from_with_options(self):
        model = self.env['ir.async'].with_options(delay=10)
        before = self.now()
        job = model.call(self.partner.name_create, "Berta")
        self.assertGreaterEqual(self.stored(job, 'date_scheduled'), before + timedelta(seconds=10))

    def test_the_clock_is_that_of_the_database(self):
        """That of this server may be wrong."""
        for wrong in ('2020-01-01', '2044-01-01'):
            with freeze_time(wrong):
                before = self.now()
                for _again in range(2):  # the second one asks the database nothing
                    job = self.call(delay=10)
                    date = self.stored(job, 'date_scheduled')
                    self.assertGreaterEqual(date, before + timedelta(seconds=10))
                    self.assertLessEqual(date, self.now() + timedelta(seconds=10))

    def test_none_takes_an_option_back(self):
        model = self.env['ir.async'].with_options(delay=10, key='k', timeout=5, retry_delay=5)
        job = model.with_options(delay=None, key=None, timeout=None, retry_delay=None).call(
            self.partner.name_create, "Berta"
        )
        self.assertRecordValues(job, [{'date_scheduled': False, 'key': False, 'timeout': 0, 'retry_delay': False}])

    # ------------------------------------------------------------
    # Refused
    # ------------------------------------------------------------

    def test_all_options_of_the_error_are_those_that_there_are(self):
        with self.assertRaisesRegex(TypeError, "prio") as catcher:
            self.env['ir.async'].with_options(prio=5, priority=5)
        for option in (
            'priority',
            'at',
            'delay',
            'max_attempts',
            'retry_delay',
            'timeout',
            'channel',
            'key',
            'key_until',
            'on_duplicate',
            'after',
            'chunk_size',
        ):
            self.assertIn(option, str(catcher.exception))

    def test_options_that_exclude_each_other(self):
        Async = self.env['ir.async']
        at = datetime(2044, 1, 1)
        for options in ({'at': at, 'delay': 5}, {'key': 'k', 'chunk_size': 5}):
            with self.subTest(options=options):
                with self.assertRaises(TypeError) as catcher:
                    Async.with_options(**options)
                for option in options:
                    self.assertIn(option, str(catcher.exception))
        # also one after the other
        with self.assertRaisesRegex(TypeError, "at.*delay"):
            Async.with_options(at=at).with_options(delay=5)
        with self.assertRaisesRegex(TypeError, "key.*chunk_size"):
            Async.with_options(key='k').with_options(chunk_size=5)

    # ------------------------------------------------------------
    # Where options are, and where they are not
    # ------------------------------------------------------------

    def test_options_do_not_get_into_the_job(self):
        """Neither through the model they were given to, nor through an environment that was taken from it."""
        model = self.env['ir.async'].with_options(priority=5, delay=1000)
        for target in (self.partner, self.partner.with_env(model.env)):
            job = model.call(target.name_create, "Berta")
            context = json.loads(job.sudo().context)
            self.assertFalse([key for key in context if 'async' in key], context)

    def test_options_do_not_get_into_the_calls_that_follow(self):
        job = self.env['ir.async'].with_options(priority=5).call(self.partner.name_create, "Berta")
        self.assertNotIn(OPTIONS, job.env.context)
        # a job is a record of the model: what is called on it has no options of its making
        self.assertEqual(job.call(self.partner.name_create, "Carl").priority, 10)
        self.assertNotIn(OPTIONS, self.env['ir.async'].with_options(priority=5).current().env.context)

    def test_a_client_cannot_forge_options(self):
        """The context comes from the client, and JSON is all that it can be made of."""
        for forged in ({'priority': -100, 'key': 'stolen'}, [-100, None, None], "priority", 1):
            env = self.env(context={OPTIONS: forged})
            job = env['ir.async'].call(env['res.partner'].browse(self.partner.id).name_create, "Berta")
            self.assertRecordValues(job, [{'priority': 10, 'key': False, 'channel': 'default'}])
            self.assertNotIn(OPTIONS, job.sudo().context)
            self.assertEqual(env['ir.async'].with_options(priority=5).call(self.partner.name_create, "B").priority, 5)

    def test_options_are_those_of_the_model_that_is_called(self):
        """The target's environment may be another one, with another transaction even."""
        other = self.partner.with_user(self.env.ref('base.user_admin')).with_context(lang='en_US')
        job = self.env['ir.async'].with_options(priority=5).call(other.name_create, "Berta")
        self.assertEqual(job.priority, 5)
        self.assertEqual(job.sudo().user_id, self.env.ref('base.user_admin'))

    # ------------------------------------------------------------
    # Keys
    # ------------------------------------------------------------

    def keyed(self, key='k'):
        return self.env['ir.async'].with_options(key=key).call(self.partner.name_create, "Berta")

    def test_key_returns_the_live_job(self):
        job = self.keyed()
        self.assertEqual(self.keyed(), job)
        self.assertNotEqual(self.keyed('other'), job)
        job.flush_recordset()
        for state in ('waiting', 'created', 'processing'):
            self.env.cr.execute("UPDATE ir_async SET state = %s WHERE id = %s", [state, job.id])
            self.assertEqual(self.keyed(), job, state)

    def test_key_is_free_once_the_job_ended(self):
        job = self.keyed()
        job.flush_recordset()
        for state in ('succeeded', 'done', 'failed', 'cancelled'):
            self.env.cr.execute("UPDATE ir_async SET state = %s WHERE id = %s", [state, job.id])
            with self.env.cr.savepoint() as savepoint:
                other = self.keyed()
                self.assertNotEqual(other, job, state)
                self.assertEqual(other.state, 'created')
                savepoint.rollback()

    def test_key_of_a_job_to_be_is_kept_with_its_savepoint(self):
        with self.env.cr.savepoint() as savepoint:
            job = self.keyed()
            savepoint.rollback()
        other = self.keyed()
        self.assertNotEqual(other, job)
        self.assertTrue(other.exists())

    def test_key_is_any_text(self):
        for key in ("ß 'quoted' \"double\" %s \\ 🙂", "x" * 1000, " "):
            job = self.keyed(key)
            self.assertEqual(job.key, key)
            self.assertEqual(self.keyed(key), job)

    # ------------------------------------------------------------
    # Chunks
    # ------------------------------------------------------------

    def test_thousands_of_chunks_are_few_statements(self):
        """Their count does not grow with that of jobs."""
        partners = self.env['res.partner'].browse(range(1, 3001))
        model = self.env['ir.async'].with_options(chunk_size=1)
        with self._statements() as statements:
            jobs = model.call(partners.write, {})
            jobs.flush_model()
        self.assertEqual(len(jobs), 3000)
        self.assertEqual(sum(s.startswith('COPY ir_async ') for s in statements), 1, statements)
        self.assertLessEqual(len(statements), 12, statements)

    def test_thousands_of_calls_are_few_inserts(self):
        self.keyed()  # what is cached from now on is
        with self._statements() as statements:
            for _i in range(2000):
                job = self.env['ir.async'].call(self.partner.name_create, "Berta")
            job.flush_model()
        self.assertEqual(sum(s.startswith('COPY ir_async ') for s in statements), 1, statements)
        self.assertLessEqual(len(statements), 20)

    @contextmanager
    def _statements(self):
        """Record the beginnings of the statements that the test's cursor executes."""
        statements = []
        cursor_class = type(self.env.cr)
        execute = cursor_class.execute

        def record(cr, query, *args, **kwargs):
            statements.append(str(query)[:200])
            return execute(cr, query, *args, **kwargs)

        def record_copy(cr, query, file):
            statements.append(query)
            return cr._obj.copy_expert(query, file)

        with (
            patch.object(cursor_class, 'execute', record),
            patch.object(cursor_class, 'copy_expert', record_copy, create=True),
        ):
            yield statements
