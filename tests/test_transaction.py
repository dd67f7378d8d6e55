import itertools
import select
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from unittest.mock import call, patch

import psycopg2

from odoo.tests import tagged

from .method_case import MethodCase
from odoo.addons.ir_async.engine import notifier as pg
from odoo.addons.ir_async.models.ir_async_insert import COPY_MIN
from odoo.addons.ir_async.tools.pending import COLUMNS, Insertion, Pending


class TestTransaction(MethodCase):
    """A job exists if and only if the transaction of the caller commits."""

    def setUp(self):
        super().setUp()
        self.woken = self.startPatcher(patch.object(pg.notifier, 'notify'))
        self.env.cr.postcommit.clear()

        @self.add_method
        def async_foo(self, *args):
            pass

    def call(self, *args):
        return self.ir_async.call(self.partner.async_foo, *args)

    def commit(self):
        """Do what a commit does, but for the commit."""
        self.env.cr.flush()
        self.env.cr.postcommit.run()

    def in_database(self):
        self.env.cr.execute("SELECT id FROM ir_async WHERE id > %s ORDER BY id", [self._last_foreign_job_id])
        return [job_id for (job_id,) in self.env.cr.fetchall()]

    def assertWoken(self, times):
        self.commit()
        self.assertEqual(self.woken.call_args_list, [call(self.env.cr.dbname)] * times)

    def test_ids_are_in_the_order_of_the_calls(self):
        """Whatever statements come between the calls, and whoever reads ids meanwhile."""
        for pattern in itertools.product(('call', 'statement', 'savepoint', 'id', 'key'), repeat=4):
            jobs = []  # to unite them would read their ids
            with self.subTest(pattern=pattern):
                for what in ('call', *pattern, 'call'):
                    match what:
                        case 'statement':
                            self.env['res.partner'].search([], limit=1)
                        case 'savepoint':
                            with self.env.cr.savepoint():
                                jobs.append(self.call())
                        case 'id':
                            jobs[-1].ids
                        case 'key':
                            keyed = self.ir_async.with_options(key=f'{pattern} {len(jobs)}')
                            jobs.append(keyed.call(self.partner.async_foo))
                        case 'call':
                            jobs.append(self.call())
                ids = [job.id for job in jobs]
                self.assertEqual(ids, sorted(ids))

    def test_very_many_insertions(self):
        """As in a loop that reads the state of each job. A recursion would be too deep."""
        first = whole = Insertion('first', ['item'])
        for number in range(5000):
            whole = Insertion(str(number), [], [whole])
        self.assertEqual(whole.all_items(), ['item'])
        self.assertTrue(first.counts({'4999'}))
        self.assertFalse(first.counts({'5000'}))

    def test_commit(self):
        jobs = self.call(1) + self.call(2)
        self.woken.assert_not_called()
        self.assertWoken(1)
        self.assertEqual(self.in_database(), jobs.ids)
        self.commit()
        self.assertWoken(1)

    def test_rollback(self):
        with closing(self.registry.cursor()) as cr:
            env = self.env(cr=cr)
            env['ir.async'].call(env['res.partner'].async_foo)
            cr.rollback()
            cr.commit()
        self.assertEqual(self.in_database(), [])
        self.assertWoken(0)

    def test_a_rolled_back_call_after_a_change(self):
        """As of a channel, of which the workers must hear."""
        with closing(self.registry.cursor()) as cr:
            env = self.env(cr=cr)
            env['ir.async']._wake_workers()
            with cr.savepoint(flush=False) as savepoint:
                env['ir.async'].call(env['res.partner'].async_foo)
                cr.flush()
                savepoint.rollback()
            cr.commit()
        self.assertWoken(1)

    def test_savepoint(self):
        with suppress(ZeroDivisionError), self.env.cr.savepoint():
            self.call()
            raise ZeroDivisionError
        self.assertWoken(0)
        self.assertEqual(self.in_database(), [])

        kept = self.call()
        for look in (lambda job: None, lambda job: job.state, lambda job: self.env.cr.flush()):
            with suppress(ZeroDivisionError), self.env.cr.savepoint():
                job = self.call()
                look(job)
                raise ZeroDivisionError
            self.assertFalse(job.exists())
        with self.env.cr.savepoint():
            kept += self.call()
            with suppress(ZeroDivisionError), self.env.cr.savepoint():
                self.call()
                raise ZeroDivisionError
            kept += self.call()
        self.assertWoken(1)
        self.assertEqual(self.in_database(), kept.ids)

    def rolled_back(self, way):
        """Return a context manager that rolls back what is done within, by one of the ways that there are."""

        # ruff: noqa: RUF075 -- an exception within is a failure of the test
        @contextmanager
        def closed():
            with closing(self.env.cr.savepoint()):
                yield

        @contextmanager
        def by_itself():
            with self.env.cr.savepoint() as savepoint:
                yield
                savepoint.rollback()

        @contextmanager
        def raised():
            with suppress(ZeroDivisionError), self.env.cr.savepoint():
                yield
                raise ZeroDivisionError

        @contextmanager
        def without_flush():
            with suppress(ZeroDivisionError), self.env.cr.savepoint(flush=False):
                yield
                raise ZeroDivisionError

        @contextmanager
        def as_an_import():
            savepoint = self.env.cr.savepoint(flush=False)
            yield
            savepoint.close(rollback=True)

        @contextmanager
        def by_statements():
            self.env.cr.execute("SAVEPOINT by_hand")
            yield
            self.env.cr.execute("ROLLBACK TO SAVEPOINT by_hand; RELEASE SAVEPOINT by_hand")

        @contextmanager
        def below_the_cursor():
            self.env.cr.execute("SAVEPOINT below")
            yield
            self.env.cr.execute("SELECT 1")
            self.env.cr._obj.execute("ROLLBACK TO SAVEPOINT below; RELEASE SAVEPOINT below")

        return locals()[way]()

    WAYS = ('closed', 'by_itself', 'raised', 'without_flush', 'as_an_import', 'by_statements', 'below_the_cursor')

    def test_no_job_survives_a_savepoint(self):
        """However it is made and rolled back, whatever was looked at, with and without a key."""

        def keyed(*args):
            return self.ir_async.with_options(key=f'key {next(numbers)}').call(self.partner.async_foo, *args)

        def many(*args):
            return self.ir_async.with_options(chunk_size=1).call(both.async_foo, *args)

        numbers = itertools.count()
        both = self.partner + self.user.partner_id
        kept = self.ir_async
        looks = (
            lambda job: None,
            lambda job: job.ids,
            lambda job: job.mapped('state'),
            lambda job: self.call(),
            lambda job: keyed(),
        )
        for way in self.WAYS:
            for call_, look in itertools.product((self.call, keyed, many), looks):
                with self.subTest(way=way):
                    kept += self.call()
                    before = call_()
                    with self.rolled_back(way):
                        lost = call_()
                        look(lost)
                    after = call_()
                    kept += before + after
                    self.assertFalse(lost.exists())
        self.assertWoken(1)
        self.assertEqual(self.in_database(), sorted(kept.ids))

    def test_nested_savepoints(self):
        for outer, inner in itertools.product(self.WAYS, repeat=2):
            with self.subTest(outer=outer, inner=inner):
                first = self.call()
                self.env.cr.flush()  # else, it is inserted by the first savepoint within that flushes
                with self.rolled_back(outer):
                    lost = self.call()
                    with self.rolled_back(inner):
                        lost += self.call()
                    lost += self.call()
                    with self.env.cr.savepoint(flush=False):
                        lost += self.call()
                with self.env.cr.savepoint(flush=False):
                    second = self.call()
                    with self.rolled_back(inner):
                        lost += self.call()
                self.assertFalse(lost.exists())
                self.assertEqual((first + second).exists(), first + second)

    def test_looked_at_within_a_savepoint(self):
        """A job that is older than the savepoint within which it was inserted is there afterwards."""
        for way in ('without_flush', 'as_an_import', 'by_statements', 'below_the_cursor'):
            for options in ({}, {'key': way}):
                with self.subTest(way=way, options=options):
                    job = self.ir_async.with_options(**options).call(self.partner.async_foo)
                    with self.rolled_back(way):
                        self.assertEqual(job.state, 'created')
                    self.commit()
                    self.assertIn(job.id, self.in_database())

    def test_key_within_a_savepoint(self):
        """A key that was rolled back is free."""

        def keyed():
            return self.ir_async.with_options(key='sync').call(self.partner.async_foo)

        for way in self.WAYS:
            with self.subTest(way=way):
                with self.rolled_back(way):
                    lost = keyed()
                    self.assertEqual(keyed(), lost)
                job = keyed()
                self.assertNotEqual(job, lost)
                with self.rolled_back(way):
                    self.assertEqual(keyed(), job)
                self.commit()
                self.assertEqual(job.exists(), job)
                self.assertFalse(lost.exists())
                job.cancel()

    def test_key_that_was_cancelled_within_a_savepoint(self):
        """The call before the savepoint counts again."""

        def keyed():
            return self.ir_async.with_options(key='sync').call(self.partner.async_foo)

        for way in self.WAYS:
            for flush in (False, True):
                with self.subTest(way=way, flush=flush):
                    job = keyed()
                    if flush:
                        self.env.cr.flush()
                    with self.rolled_back(way):
                        job.cancel()
                        self.assertNotEqual(keyed(), job)
                        with self.rolled_back('by_statements'):
                            keyed().cancel()
                            keyed()
                    self.assertEqual(keyed(), job)
                    self.commit()
                    self.assertEqual(keyed(), job)
                    job.cancel()

    def test_changes_within_a_savepoint(self):
        """Nobody hears of what was rolled back, and no worker looks for it."""
        for way in self.WAYS:
            with self.subTest(way=way):
                job = self.ir_async.call_notify("Export", self.partner_of(self.user).async_foo)
                self.commit()
                self.woken.reset_mock()
                last = self.env['bus.bus'].search([], order='id DESC', limit=1).id
                with self.rolled_back(way):
                    job.cancel()
                    job.dismiss()
                self.assertWoken(0)
                job.cancel()
                with self.rolled_back(way):
                    job.dismiss()
                self.assertWoken(1)
                job.dismiss()
                self.assertWoken(1)
                told = [
                    message['message']['payload'] for message in self.env['bus.bus']._poll([self.user.partner_id], last)
                ]
                expected = {'id': job.id, 'name': "Export", 'state': 'cancelled'}
                self.assertEqual(told, [{**expected, 'revision': 2}, {**expected, 'revision': 3, 'dismissed': True}])

    def last_id(self):
        self.env.cr.execute("SELECT last_value FROM ir_async_id_seq")
        return self.env.cr.fetchone()[0]

    def test_ids_are_not_wasted(self):
        """As many are taken as there are jobs, in the order of the calls."""
        self.call().flush_recordset()
        for count in (1, 6, 49, 50, 300):
            for look in (lambda job: None, lambda job: job.id):
                before = self.last_id()
                jobs = [self.call() for _i in range(count)]
                for job in jobs:
                    look(job)
                self.commit()
                self.assertEqual([job.id for job in jobs], list(range(before + 1, before + count + 1)))
                self.assertEqual(self.last_id(), before + count)

    def test_ids_of_keys(self):
        """Only the first of many calls takes one."""
        model = self.ir_async.with_options(key='sync')
        job = model.call(self.partner.async_foo)
        for _i in range(100):
            self.assertEqual(model.call(self.partner.async_foo), job)
        self.commit()
        before = self.last_id()
        for _i in range(100):
            self.assertEqual(model.call(self.partner.async_foo), job)
        self.commit()
        self.assertEqual(self.last_id(), before)

    def test_record_before_its_row(self):
        """What `call` returns is a record like any other, before it is in the database."""
        first, second, third = self.call(), self.call(), self.call()
        self.assertEqual([first.id, second.id, third.id], sorted({first.id, second.id, third.id}))
        for use in (
            lambda job: len(job) == 1 and bool(job),
            lambda job: job == job.browse(job.id),
            lambda job: hash(job) == hash(job.browse(job.id)),
            lambda job: repr(job) == f'ir.async({job.id},)',
            lambda job: job in self.ir_async.browse(job.id),
            lambda job: [*job] == [job],
            lambda job: job.with_context(a=1).id == job.id,
            lambda job: job.sudo().args == '[]',
            lambda job: (job | first)[0] == job,
            lambda job: job.ensure_one(),
            lambda job: list(job._prefetch_ids) == [],
            lambda job: not hasattr(job, 'no_such_attribute'),
            lambda job: job.ids == [job.id],
        ):
            self.assertTrue(use(self.call()))
        with self.assertRaisesRegex(AttributeError, "no_such_attribute"):
            self.call().no_such_attribute

    def test_record_after_the_transaction(self):
        with closing(self.registry.cursor()) as cr:
            env = self.env(cr=cr)
            job, other = (env['ir.async'].call(env['res.partner'].async_foo) for _i in range(2))
            cr.rollback()
            self.assertFalse(other.exists())
            third, fourth = (env['ir.async'].call(env['res.partner'].async_foo) for _i in range(2))
        self.assertEqual(len({*job.ids, *other.ids, *third.ids}), 3)
        self.assertFalse(fourth, "there is no job, and nobody to ask for an id")

    def test_many_insertions_in_parts(self):
        """When the mark that stands for many is rolled back, this is noticed although all of them count."""
        pending = Pending()
        parts = [Insertion(mark, []) for mark in ('i1', 'i2')]
        pending.insertions = [Insertion('i3', parts=parts)]
        self.assertFalse(pending.reopen({'i3'}))
        self.assertTrue(pending.reopen({'i1', 'i2'}))
        self.assertCountEqual(pending.insertions, parts)

    def test_call_in_precommit_hook(self):
        """Hooks may enqueue, whichever runs first."""
        late = []
        self.env.cr.precommit.add(lambda: late.append(self.call(0)))
        first = self.call(1)
        self.env.cr.precommit.add(lambda: late.append(self.call(2)))
        self.env.cr.precommit.add(lambda: self.env.cr.precommit.add(lambda: late.append(self.call(3))))
        self.assertWoken(1)
        self.assertEqual(len(late), 3)
        self.assertEqual(set(self.in_database()), {first.id, *(job.id for job in late)})

    def test_bulk(self):
        """Many jobs are few statements, and one NOTIFY."""
        self.call()
        self.commit()
        self.woken.reset_mock()
        statements = []
        execute = type(self.env.cr).execute

        def counting(cr, query, *args, **kwargs):
            statements.append(str(query))
            return execute(cr, query, *args, **kwargs)

        with patch.object(type(self.env.cr), 'execute', counting):
            jobs = self.ir_async.union(*(self.call(i) for i in range(1000)))
            self.commit()
        self.assertLess(len(statements), 20, statements)
        self.assertWoken(1)
        self.assertEqual(self.in_database()[1:], jobs.ids)
        self.assertEqual(jobs, jobs.sorted('id'))
        self.assertEqual(self.row(jobs[-1], 'args'), '[999]')

    def test_bulk_is_exact(self):
        """However many are inserted together, each value is what it is for a single one."""
        texts = ["a\tb", "a\nb\r\n", "\\", "\\N", "\\.", "\n\\.\n", "\\t", "'\"", "€ 😀", "NULL", "x" * 10_000]
        options = {
            'at': datetime(2126, 1, 2, 3, 4, 5, 678),
            'timeout': 1e-05,
            'retry_delay': [1, 2.5],
            'channel': "a\\b/c\td",
        }
        Async = self.ir_async.with_options(**options)
        target = self.partner.with_context(text=texts).async_foo

        def call_all():
            return self.ir_async.union(*(Async.call_notify(text, target, text) for text in texts))

        def rows(jobs):
            return [self.row(job, *set(COLUMNS) - {'id', 'stack'}) for job in jobs]

        few, many = call_all(), self.ir_async.union(*(call_all() for _i in range(COPY_MIN)))
        self.commit()
        expected = rows(few)
        self.assertEqual([row.count(None) for row in expected], [3] * len(texts), "parent_id, key, key_until")
        self.assertEqual(rows(many), expected * COPY_MIN)
        self.assertEqual(few.mapped('name'), texts)

    def test_bulk_with_notifications(self):
        statements = self.env.cr.sql_log_count
        for i in range(100):
            self.ir_async.call_notify(f"Number {i}", self.partner.async_foo, i)
        self.commit()
        self.assertLess(self.env.cr.sql_log_count - statements, 20)

    def test_visible_at_once(self):
        """Whoever looks in the same transaction finds the job."""
        for look in (
            lambda job: job.exists(),
            lambda job: self.ir_async.search([('id', '=', job.id)]),
            lambda job: self.ir_async.browse(job.id).filtered(lambda job: job.state == 'created'),
            lambda job: job.filtered_domain([('method', '=', 'async_foo')]),
            lambda job: job.browse(job.read(['state'])[0]['id']),
            lambda job: self.ir_async._read_group([('id', '=', job.id)], [], ['id:recordset'])[0][0],
            lambda job: job.sudo().search_fetch([('id', '=', job.id)], ['args']),
        ):
            job = self.call()
            self.assertEqual(look(job), job)

    def test_actions_at_once(self):
        job = self.call()
        job.cancel()
        self.assertEqual(job.state, 'cancelled')

    def test_real_notify(self):
        """Listeners on the database ``postgres`` hear it."""
        notifier, dbname = pg.Notifier(), self.env.cr.dbname
        with closing(pg.connect('postgres')) as listener:
            with listener.cursor() as cr:
                cr.execute("LISTEN odoo_async")
            for _again in range(2):
                notifier.notify(dbname)
                self.assertTrue(select.select([listener], [], [], 10)[0], "no NOTIFY within 10 seconds")
                listener.poll()
                self.assertIn(dbname, [notify.payload for notify in listener.notifies])
                listener.notifies.clear()
                notifier._connection.close()  # as PostgreSQL does with idle ones, and when it restarts

    def test_notify_fails(self):
        """That costs time, not the job."""
        notifier = pg.Notifier()
        self.woken.side_effect = notifier.notify
        with (
            patch.object(pg, 'connect', side_effect=psycopg2.OperationalError("down")),
            self.assertLogs('odoo.addons.ir_async.engine.notifier', 'WARNING') as log,
        ):
            job = self.call()
            self.commit()
        self.assertIn(f"jobs of database {self.env.cr.dbname} later: down", log.output[0])
        self.assertEqual(self.in_database(), job.ids)

    def test_without_workers(self):
        """The cron workers are woken instead."""

        def count_triggers():
            return self.env['ir.cron.trigger'].search_count([('cron_id', '=', cron.id)])

        cron = self.env.ref('ir_async.ir_cron_run_jobs')
        before = count_triggers()
        with (
            patch('odoo.addons.ir_async.models.ir_async_notify.module', current_test=False),
            self.enter_registry_test_mode(),
        ):
            self.call()
            self.call()
            self.commit()
        self.assertEqual(count_triggers(), before + 1)


@tagged('post_install', '-at_install')
class TestReferenced(MethodCase):
    """Another table refers to jobs: their rows are there in time."""

    def test_foreign_key(self):
        @self.add_method
        def async_foo(self):
            pass

        self.env['ir.model.fields'].create(
            [
                {
                    'model_id': self.env['ir.model']._get_id('res.partner'),
                    'name': 'x_job_id',
                    'ttype': 'many2one',
                    'relation': 'ir.async',
                    'on_delete': 'set null',
                }
            ]
        )
        self.partner.x_job_id = self.ir_async.call(self.partner.async_foo)
        self.partner.flush_recordset()
        [job] = self.run_jobs()
        self.assertEqual(self.partner.x_job_id, job)
        partner = self.partner.create({'name': "New", 'x_job_id': self.ir_async.call(self.partner.async_foo).id})
        self.assertEqual(partner.x_job_id.state, 'created')
