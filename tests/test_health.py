import json
import re
from unittest.mock import patch

from odoo.tests import HttpCase, mute_logger, tagged
from odoo.tools import SQL

from .method_case import MethodCase
from odoo.addons.ir_async.models import (
    ir_async_health,
    ir_async_served,
    ir_async_statistics,
)

TOKEN = "töken-1"
SERVED, NOT_SERVED = '%s::text IS NOT NULL', '%s::text IS NULL'  # instead of a look at live workers
CONTROLLER = 'odoo.addons.ir_async.controllers.monitoring'


class HealthCase(MethodCase):
    def setUp(self):
        super().setUp()

        @self.add_method
        def async_foo(self):
            pass

        self.env.cr.execute("DELETE FROM ir_async")
        self.workers(2)

    def workers(self, count):
        """Have so many workers alive, as far as the database can say."""
        self.startPatcher(patch.object(self.registry['ir.async'], '_count_workers', lambda model: count))
        self.startPatcher(patch.object(ir_async_served, 'IS_SERVED', SERVED if count else NOT_SERVED))

    def make_job(self, state='created', age=0, **options):
        """Return a job that was created some seconds ago."""
        job = self.ir_async.with_options(**options).call(self.partner.async_foo)
        job.flush_model()
        self.env.cr.execute(
            "UPDATE ir_async SET state = %s, create_date = create_date - %s * interval '1 second' WHERE id = %s",
            [state, age, job.id],
        )
        job.invalidate_recordset()
        return job

    def codes(self):
        return [reason['code'] for reason in self.ir_async._health()['reasons']]

    def samples(self):
        """Return the metrics as Prometheus reads them: the value by name and labels."""
        samples = {}
        for line in self.ir_async._metrics().splitlines():
            if not line.startswith('#'):
                name, labels, value = re.fullmatch(r'(\w+)(?:\{(.*)\})? (\S+)', line).groups()
                samples[name, labels or ''] = float(value)
        return samples


class TestHealth(HealthCase):
    """Whether the queue is well, and why not."""

    def test_well(self):
        self.make_job()
        self.assertEqual(self.ir_async._health()['status'], 'ok')
        self.assertEqual(self.codes(), [])

    def test_no_worker(self):
        self.workers(0)
        self.assertEqual(self.codes(), ['no_worker'])

    def test_channel_without_worker(self):
        """Live workers that serve other channels alone do not pass for those of this one."""
        self.make_job(channel='mail/7')
        self.startPatcher(
            patch.object(
                self.registry['ir.async'],
                '_why_unserved',
                lambda model, channel='default': 'no_worker' if channel == 'mail' else None,
            )
        )
        self.assertEqual(self.codes(), ['no_worker'])
        self.assertIn('mail', self.ir_async._health()['reasons'][0]['message'])

    def test_overdue(self):
        self.make_job(age=290)
        self.assertEqual(self.codes(), [])
        self.make_job(age=310, channel='slow', priority=3)
        self.assertEqual(self.codes(), ['overdue'])
        self.assertIn('slow', self.ir_async._health()['reasons'][0]['message'])
        self.env['ir.config_parameter'].set_param('ir_async.overdue_seconds', '3600')
        self.assertEqual(self.codes(), [])
        self.env['ir.config_parameter'].set_param('ir_async.overdue_seconds', 'often')
        self.assertEqual(self.codes(), ['overdue'], "a wrong value is as good as none")

    def test_overdue_among_younger_ones(self):
        """The oldest job is found behind any number of others, in each kind of queue."""
        for name, options in (
            ('plain', {'priority': 20}),
            ('limited', {'channel': 'two/b', 'priority': 7}),
            ('dated', {'delay': 1}),
        ):
            with self.subTest(name=name):
                self.env.cr.execute("DELETE FROM ir_async")
                self.env['ir.async.channel'].search([('name', '=', 'two')]).unlink()
                self.env['ir.async.channel'].create({'name': 'two', 'capacity': 2})
                for _i in range(3):
                    self.make_job()
                    self.make_job(channel='two/a')
                    self.make_job(channel='two/b')
                old = self.make_job(age=400, **options)
                if name == 'dated':
                    self.env.cr.execute(
                        "UPDATE ir_async SET date_scheduled = now() AT TIME ZONE 'UTC' - interval '400 s' WHERE id = %s",
                        [old.id],
                    )
                self.assertEqual(self.codes(), ['overdue'])

    def test_not_yet_due(self):
        """What waits for a date or another job is not overdue, nor what a limit holds back."""
        self.make_job(age=4000, delay=7200)
        self.make_job(state='waiting', age=4000)
        channel = self.env['ir.async.channel'].create({'name': 'one', 'capacity': 1})
        self.make_job(state='processing', channel='one')
        self.make_job(age=4000, channel='one')
        self.assertEqual(self.codes(), [])
        channel.capacity = 2
        self.assertEqual(self.codes(), ['overdue'])
        channel.paused = True
        self.assertEqual(self.codes(), [], "somebody wants it so")

    def test_not_before_the_next_slot(self):
        """The age of a job counts from when its channel made room for it."""
        channel = self.env['ir.async.channel'].create({'name': 'slow', 'capacity': 1, 'interval': 3600})
        last = self.make_job(state='done', channel='slow')
        self.env.cr.execute(
            "UPDATE ir_async SET date_start = now() AT TIME ZONE 'UTC' - interval '400 s' WHERE id = %s", [last.id]
        )
        self.env.cr.execute(
            "INSERT INTO ir_async_start SELECT channel, date_start, id FROM ir_async WHERE id = %s", [last.id]
        )
        self.make_job(age=4000, channel='slow')
        self.assertEqual(self.codes(), [], "its interval is not over")
        channel.starts_per_interval = 2
        self.assertEqual(self.codes(), ['overdue'])
        channel.starts_per_interval = 1
        self.assertEqual(self.codes(), [])
        channel.interval = 0
        self.assertEqual(self.codes(), ['overdue'])
        self.env.cr.execute("UPDATE ir_async SET date_done = now() AT TIME ZONE 'UTC' WHERE id = %s", [last.id])
        self.assertEqual(self.codes(), [], "the last one has ended just now")

    def test_everything_paused(self):
        self.env['ir.async.channel'].action_pause_everything()
        self.assertEqual(self.codes(), ['paused'])
        self.env['ir.async.channel'].action_resume_everything()
        self.assertEqual(self.codes(), [])

    def test_upgrading(self):
        for state in ('to install', 'to upgrade', 'to remove'):
            with self.subTest(state=state):
                self.env.cr.execute("UPDATE ir_module_module SET state = %s WHERE name = 'bus'", [state])
                self.assertEqual(self.codes(), ['upgrading'])
                self.assertIn('bus', self.ir_async._health()['reasons'][0]['message'])

    def test_ids(self):
        for table in ('ir_async', 'ir_async_progress', 'ir_async_stop'):
            with self.subTest(table=table):
                used = self.ir_async._used_ids()
                self.assertLess(used[table], 0.01)
                with patch.object(ir_async_health, 'ID_LIMIT', used[table]):
                    self.assertIn('ids', self.codes())

    def test_copied(self):
        for state in ('created', 'waiting'):
            with self.subTest(state=state):
                self.env.cr.execute("DELETE FROM ir_async")
                copied = self.make_job(state=state)
                self.make_job()
                self.assertEqual(self.codes(), [])
                self.copy(copied)
                self.assertEqual(self.codes(), ['copied'])

    def copy(self, job):
        self.env.cr.execute("UPDATE ir_async SET origin = 'production' WHERE id = %s", [job.id])

    def test_all_reasons(self):
        self.make_job(age=400)
        self.workers(0)
        self.env.cr.execute("UPDATE ir_module_module SET state = 'to upgrade' WHERE name = 'bus'")
        self.assertEqual(self.codes(), ['upgrading', 'no_worker', 'overdue'])

    def test_leaves_no_trace(self):
        """The transaction goes on as it was."""

        def settings():
            return [
                self.env.execute_query_dict(SQL(f"SHOW {name}"))[0]
                for name in ('statement_timeout', 'lock_timeout', 'enable_seqscan')
            ]

        before = settings()
        with patch.object(ir_async_statistics, 'SAMPLE_PAGES', 0):
            self.ir_async._metrics()
        self.assertEqual(settings(), before)


class TestMetrics(HealthCase):
    def setUp(self):
        super().setUp()
        # Other tests leave a large table behind, which would be sampled.
        self.startPatcher(patch.object(ir_async_statistics, 'SAMPLE_PAGES', 10**9))

    def test_jobs(self):
        for state, count in (
            ('waiting', 1),
            ('created', 2),
            ('processing', 3),
            ('succeeded', 4),
            ('done', 5),
            ('failed', 6),
            ('cancelled', 7),
        ):
            for _i in range(count):
                self.make_job(state=state)
        self.make_job(state='failed', channel='partner/1')
        self.make_job(state='failed', channel='partner/2')
        samples = self.samples()
        self.assertEqual(
            [
                samples['ir_async_jobs', f'state="{state}",channel="default"']
                for state in ('waiting', 'created', 'processing', 'succeeded', 'done', 'failed', 'cancelled')
            ],
            [1, 2, 3, 4, 5, 6, 7],
        )
        self.assertEqual(samples['ir_async_jobs', 'state="failed",channel="partner"'], 2)
        self.assertEqual(samples['ir_async_jobs', 'state="done",channel="partner"'], 0)
        self.assertEqual(samples['ir_async_jobs_estimated', ''], 0)
        self.assertEqual(samples['ir_async_workers', ''], 2)

    def test_large_table(self):
        """Where the table is large, what is alive or failed is still exact; the rest is an estimate, and says so."""
        for state in ('waiting', 'created', 'processing', 'succeeded', 'failed', 'cancelled', 'done'):
            self.make_job(state=state)
        self.make_job(channel='export')
        self.make_job(delay=60)
        expected, is_estimated = self.ir_async._count_jobs()
        self.assertFalse(is_estimated)
        with patch.object(self.registry['ir.async'], '_sample_share', lambda model: 99.999999):
            counts, is_estimated = self.ir_async._count_jobs()
        self.assertTrue(is_estimated)
        self.assertEqual(counts, expected)
        with (
            patch.object(self.registry['ir.async'], '_sample_share', lambda model: 0.000001),
            patch.object(ir_async_statistics, 'COUNT_MAX', 3),
        ):
            counts, _is_estimated = self.ir_async._count_jobs()
        expected = {key: count for key, count in expected.items() if key[0] not in ('done', 'created')}
        self.assertEqual({key: count for key, count in counts.items() if key[0] not in ('done', 'created')}, expected)

    def test_large_table_is_not_read(self):
        """No plan reads the whole of a large table."""
        statements = []
        execute_query = type(self.env).execute_query

        def record(env, query):
            statements.append(query)
            return execute_query(env, query)

        self.make_job()
        with (
            patch.object(ir_async_statistics, 'SAMPLE_PAGES', 0.0001),
            patch.object(type(self.env), 'execute_query', record),
        ):
            self.ir_async._metrics()
        self.env.cr.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        for query in statements:
            text = query.code
            if ' ir_async ' in f' {text} ' and 'pg_relation_size' not in text:
                plan = "\n".join(row for (row,) in self.env.execute_query(SQL("EXPLAIN %s", query)))
                self.assertNotIn('Seq Scan on ir_async ', plan)

    def test_ages_and_durations(self):
        self.make_job(age=100)
        jobs = self.ir_async.concat(*(self.make_job(state='done') for _i in range(3)))
        self.env.cr.execute(
            "UPDATE ir_async SET date_start = now() AT TIME ZONE 'UTC' - interval '60 s',"
            " date_done = now() AT TIME ZONE 'UTC' - interval '30 s' WHERE id IN %s",
            [jobs._ids],
        )
        samples = self.samples()
        self.assertGreaterEqual(samples['ir_async_oldest_due_seconds', ''], 100)
        self.assertEqual(samples['ir_async_job_duration_seconds', 'channel="default",quantile="0.5"'], 30)
        self.assertEqual(samples['ir_async_jobs_ended_last_hour', 'channel="default"'], 3)

    def test_channels(self):
        self.env['ir.async.channel'].create({'name': 'a"b\\c', 'capacity': 4, 'paused': True})
        samples = self.samples()
        self.assertEqual(samples['ir_async_channel_capacity', r'channel="a\"b\\c"'], 4)
        self.assertEqual(samples['ir_async_channel_paused', r'channel="a\"b\\c"'], 1)
        self.assertEqual(samples['ir_async_channel_paused', 'channel="*"'], 0)

    def test_health(self):
        self.workers(0)
        samples = self.samples()
        self.assertEqual(samples['ir_async_unhealthy', 'reason="no_worker"'], 1)
        self.assertEqual(samples['ir_async_unhealthy', 'reason="overdue"'], 0)

    def test_format(self):
        """Each family has its help and its type, once, before its samples."""
        seen = []
        for line in self.ir_async._metrics().splitlines():
            if line.startswith('# HELP '):
                seen.append(line.split()[2])
            elif line.startswith('# TYPE '):
                self.assertEqual(line.split()[2:], [seen[-1], 'gauge'])
            else:
                self.assertRegex(line, rf'^{seen[-1]}(\{{|\s)')
        self.assertEqual(len(seen), len(set(seen)))


@tagged('post_install', '-at_install')
class TestMonitoringRoutes(HealthCase, HttpCase):
    """What a monitoring system gets."""

    ROUTES = ('/ir_async/health', '/ir_async/metrics')

    def set_token(self, token=TOKEN):
        self.env['ir.config_parameter'].set_param('ir_async.metrics_token', token)

    def get(self, path, token=None, method='GET', scheme='Bearer', **headers):
        if token is not None:
            headers['Authorization'] = f'{scheme} {token}'.encode()
        return self.url_open(path, headers=headers, method=method)

    def test_off(self):
        for token in (None, '', '  '):
            if token is not None:
                self.set_token(token)
            for path in self.ROUTES:
                for given in (None, '', TOKEN):
                    with self.subTest(token=token, path=path, given=given):
                        self.assertEqual(self.get(path, given).status_code, 404)

    def test_unauthorized(self):
        self.set_token()
        self.authenticate('admin', 'admin')
        for path in self.ROUTES:
            for given in (None, '', 'x', TOKEN[:-1], TOKEN + 'x', TOKEN.upper(), '日本'):
                with self.subTest(path=path, given=given):
                    response = self.get(path, given)
                    self.assertEqual(response.status_code, 401)
                    self.assertIn('Bearer', response.headers['WWW-Authenticate'])
            self.assertEqual(self.get(path, TOKEN, scheme='Basic').status_code, 401)
            self.assertEqual(self.get(f'{path}?token={TOKEN}').status_code, 401)

    def test_health(self):
        self.set_token()
        response = self.get('/ir_async/health', TOKEN, scheme='bearer')
        self.assertEqual(response.status_code, 200, response.text)
        self.assertEqual(response.headers['Content-Type'], 'application/json')
        self.assertEqual(response.json()['status'], 'ok')
        self.workers(0)
        response = self.get('/ir_async/health', TOKEN)
        self.assertEqual(response.status_code, 503)
        self.assertEqual([reason['code'] for reason in response.json()['reasons']], ['no_worker'])

    def test_metrics(self):
        self.set_token()
        self.make_job()
        self.workers(0)
        response = self.get('/ir_async/metrics', TOKEN)
        self.assertEqual(response.status_code, 200)
        self.assertTrue(response.headers['Content-Type'].startswith('text/plain; version=0.0.4'))
        self.assertIn('ir_async_jobs{state="created",channel="default"} 1\n', response.text)
        self.assertNotIn('Set-Cookie', response.headers)

    def test_head(self):
        for path in self.ROUTES:
            self.assertEqual(self.get(path, method='HEAD').status_code, 404)
            self.set_token()
            self.assertEqual(self.get(path, method='HEAD').status_code, 401)
            response = self.get(path, TOKEN, method='HEAD')
            self.assertEqual((response.status_code, response.text), (200, ''))
            self.workers(0)
            self.assertEqual(self.get('/ir_async/health', TOKEN, method='HEAD').status_code, 503)
            self.workers(1)
            self.set_token('')

    def test_database(self):
        """A database is named as for Odoo's own routes."""
        self.set_token()
        name = self.env.cr.dbname
        for path in self.ROUTES:
            self.assertEqual(self.get(f'{path}?db={name}', TOKEN).status_code, 200)
            self.assertEqual(self.get(path, TOKEN, **{'X-Odoo-Database': name}).status_code, 200)
            for other in ('no_such_database', 'postgres', '', "'; DROP TABLE x", '../x'):
                with self.subTest(path=path, other=other):
                    self.assertEqual(self.get(f'{path}?db={other}', TOKEN).status_code, 404 if other else 200)

    def test_trouble(self):
        """Whatever is wrong, there is an answer, and it keeps the details to itself."""
        self.set_token()

        def break_down(model):
            model.env.cr.execute("SELECT * FROM no_such_table_secret")

        self.startPatcher(patch.object(self.registry['ir.async'], '_due_heads', break_down))
        for path in self.ROUTES:
            with mute_logger('odoo.sql_db'), self.assertLogs(CONTROLLER, 'WARNING'):
                response = self.get(path, TOKEN)
            self.assertEqual(response.status_code, 503)
            self.assertEqual([reason['code'] for reason in json.loads(response.text)['reasons']], ['error'])
            self.assertNotIn('secret', response.text)
