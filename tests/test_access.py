from odoo import SUPERUSER_ID, Command
from odoo.exceptions import AccessError
from odoo.tests import HttpCase, JsonRpcException, mute_logger, new_test_user, tagged

from .method_case import MethodCase

SECRETS = ('args', 'kwargs', 'context', 'stack')


class AccessCase(MethodCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.admin = cls.env.ref('base.user_admin')
        cls.portal = new_test_user(cls.env, 'paul', 'base.group_portal')
        cls.public = cls.env.ref('base.public_user')

    def setUp(self):
        super().setUp()

        @self.add_method
        def async_foo(self, *args, **kwargs):
            ran.append(self.env.uid)

        self.ran = ran = []
        self.jobs = {
            user: self.ir_async.call(self.partner_of(user).with_context(key="secret").async_foo, "secret")
            for user in (self.user, self.other_user, self.portal, self.public)
        }
        self.job = self.jobs[self.user]
        self.job.flush_model()


class TestAccess(AccessCase):
    """The row decides what code runs as whom: who may read it, and nobody writes it."""

    def test_read(self):
        everybody = self.ir_async.union(*self.jobs.values())
        for user, readable in (
            (self.user, self.job),
            (self.other_user, self.jobs[self.other_user]),
            (self.manager, everybody),
            (self.admin, everybody),
            (self.portal, None),
            (self.public, None),
        ):
            with self.subTest(user=user.login):
                jobs = everybody.with_user(user)
                if readable is None:
                    for job in jobs:
                        for look in (
                            lambda: jobs.search([]),
                            lambda: job.read(['state']),
                            lambda: job.state,
                            jobs.get_user_jobs,
                        ):
                            with self.assertRaises(AccessError):
                                look()
                    continue
                self.assertEqual(jobs.search([('id', 'in', jobs.ids)]), readable.sorted(reverse=True))
                readable.with_user(user).read(['name', 'state', 'payload', 'progress', 'method', 'user_id', 'res_ids'])
                for job in jobs - readable:
                    for name in ('state', 'payload', 'progress', 'duration'):
                        with self.assertRaises(AccessError):
                            job.read([name])

    def test_secrets(self):
        for name in SECRETS:
            with self.subTest(name=name):
                self.assertTrue(self.job.with_user(self.manager)[name])
                job = self.job.with_user(self.user)
                self.assertNotIn(name, job.fields_get())
                for look in (
                    lambda: job.read([name]),
                    lambda: job[name],
                    lambda: job.search([(name, 'like', 'secret')]),
                    lambda: job.search([], order=name),
                    lambda: job._read_group([], [name]),
                ):
                    with self.assertRaises(AccessError), mute_logger('odoo.models'):
                        look()

    def test_write(self):
        for user in (self.user, self.manager, self.admin, self.env.user, self.portal):
            job = self.job.with_user(user)
            for model in (job, job.sudo()):
                values = {
                    'res_model': 'res.users',
                    'res_ids': '[2]',
                    'method': 'unlink',
                    'user_id': SUPERUSER_ID,
                    'args': '[]',
                    'kwargs': '{}',
                    'context': '{}',
                }
                for change in (
                    lambda: model.create(values),
                    lambda: model.create([values]),
                    lambda: model.write({'method': 'unlink'}),
                    lambda: model.write({}),
                    model.unlink,
                    model.copy,
                    lambda: model.name_create("New"),
                    lambda: model.web_save({'method': 'unlink'}, {}),
                    lambda: model.browse().web_save(values, {}),
                    lambda: setattr(model, 'method', 'unlink'),
                    lambda: model.update({'user_id': user.id}),
                    lambda: model.after_ids.create(values),
                ):
                    with self.subTest(user=user.login, su=model.env.su), self.assertRaises(AccessError):
                        change()
                        model.flush_recordset()
        self.assertEqual(self.row(self.job, 'method', 'user_id'), ('async_foo', self.user.id))

    def test_write_through_relations(self):
        """No relation of another record leads to a job's row."""
        for name, value in (
            ('parent_id', self.job.id),
            ('child_ids', [Command.create({'method': 'unlink'})]),
            ('after_ids', [Command.update(self.job.id, {'method': 'unlink'})]),
            ('before_ids', [Command.delete(self.job.id)]),
        ):
            with self.subTest(name=name), self.assertRaises(AccessError):
                self.job.with_user(self.admin).write({name: value})

    def test_import(self):
        fields, rows = ['method', 'res_model', 'res_ids', 'user_id/.id'], [['unlink', 'res.users', '[2]', '1']]
        for user in (self.user, self.manager, self.admin, self.env.user):
            for names, values in ((fields, rows), ([*fields, '.id'], [[*rows[0], str(self.job.id)]])):
                with self.subTest(user=user.login, names=names):
                    try:
                        result = self.ir_async.with_user(user).load(names, values)
                    except AccessError:
                        continue
                    self.assertFalse(result['ids'])
        self.assertEqual(len(self.queued_jobs()), len(self.jobs))
        self.assertEqual(self.row(self.job, 'method', 'user_id'), ('async_foo', self.user.id))

    def test_defaults(self):
        """``default_…`` in the context of a caller or a target changes nothing."""
        forged = {
            'default_user_id': SUPERUSER_ID,
            'default_su': True,
            'default_method': 'unlink',
            'default_state': 'done',
        }
        job = self.ir_async.with_context(**forged).call(self.partner_of(self.user).with_context(**forged).async_foo)
        self.assertRecordValues(
            job.sudo(), [{'user_id': self.user.id, 'su': False, 'method': 'async_foo', 'state': 'created'}]
        )

    def test_other_models(self):
        for model, manager_may in (
            ('ir.async.channel', ('read', 'write', 'create', 'unlink')),
            ('ir.async.worker', ('read',)),
            ('ir.async.progress', ('read',)),
            ('ir.async.stop', ('read',)),
        ):
            for operation in ('read', 'write', 'create', 'unlink'):
                with self.subTest(model=model, operation=operation):
                    for user in (self.user, self.portal, self.public):
                        self.assertFalse(self.env[model].with_user(user).has_access(operation))
                    for user in (self.manager, self.admin):
                        self.assertEqual(
                            self.env[model].with_user(user).has_access(operation), operation in manager_may
                        )

    def test_manager(self):
        self.assertTrue(self.admin.has_group('ir_async.ir_async_group_manager'), "implied by Settings")
        self.assertFalse(self.manager.has_group('base.group_system'), "not the other way round")

    def test_user_jobs(self):
        """The client's list has the user's own jobs, and those he asks for only if they are his."""
        mine = self.ir_async.call_notify("Mine", self.partner_of(self.user).async_foo)
        self.ir_async.call_notify("Other", self.partner_of(self.other_user).async_foo)
        model = self.ir_async.with_user(self.user)
        self.assertEqual([job['name'] for job in model.get_user_jobs()], ["Mine"])
        all_ids = [job.id for job in self.jobs.values()]
        self.assertEqual({job['id'] for job in model.get_user_jobs(all_ids)}, {mine.id, self.job.id})
        self.assertEqual(self.ir_async.with_user(self.manager).get_user_jobs(all_ids), [])


@tagged('post_install', '-at_install')
class TestRpc(AccessCase, HttpCase):
    """What a client can call."""

    def setUp(self):
        super().setUp()
        for user in (self.user, self.other_user, self.manager, self.portal, self.admin):
            user.sudo().password = f'{user.login}-password'

    def login(self, user):
        self.authenticate(user.login, f'{user.login}-password')

    def rpc(self, method, *args, model='ir.async', **kwargs):
        return self.make_jsonrpc_request(
            '/web/dataset/call_kw', {'model': model, 'method': method, 'args': args, 'kwargs': kwargs}
        )

    def assertRpcRefused(self, error, method, *args, **kwargs):
        with self.assertRaises(JsonRpcException) as cm, mute_logger('odoo.http'):
            self.rpc(method, *args, **kwargs)
        self.assertEqual(str(cm.exception), f'odoo.exceptions.{error}')

    def test_private(self):
        """Nobody enqueues by RPC."""
        for user in (self.user, self.manager, self.admin):
            self.login(user)
            for method, args in (
                ('call', [[], 'res.partner.unlink']),
                ('call_notify', [[], "Name", 'unlink']),
                ('current', [[]]),
                ('with_options', [[]]),
                ('report_progress', [[], 1]),
                ('_enqueue', [[]]),
                ('_finish', [[]]),
                ('_perform', [[]]),
                ('_delete', [self.job.ids]),
                ('_update', [self.job.ids]),
                ('_run_jobs', []),
                ('_gc_jobs', []),
                ('_lock', [self.job.ids]),
                ('_send', []),
                ('_insert_pending', []),
                ('_on_failed', [self.job.ids]),
                ('init', [[]]),
            ):
                with self.subTest(user=user.login, method=method):
                    self.assertRpcRefused('AccessError', method, *args)
        self.assertEqual(len(self.queued_jobs()), len(self.jobs))

    def test_write(self):
        values = {'res_model': 'res.users', 'res_ids': '[2]', 'method': 'unlink', 'user_id': 1}
        for user in (self.user, self.manager, self.admin):
            self.login(user)
            for method, args in (
                ('create', [values]),
                ('create', [[values]]),
                ('write', [self.job.ids, {'method': 'unlink'}]),
                ('unlink', [self.job.ids]),
                ('copy', [self.job.ids]),
                ('web_save', [[], values, {}]),
                ('web_save', [self.job.ids, values, {}]),
                ('name_create', ["New"]),
            ):
                with self.subTest(user=user.login, method=method):
                    self.assertRpcRefused('AccessError', method, *args)
        self.assertEqual(self.row(self.job, 'method', 'user_id'), ('async_foo', self.user.id))
        self.assertEqual(len(self.queued_jobs()), len(self.jobs))

    def test_actions(self):
        self.login(self.user)
        others = self.jobs[self.other_user]
        self.assertRpcRefused('AccessError', 'cancel', [self.job.id, others.id])
        self.assertIs(self.rpc('cancel', [self.job.id]), True)
        self.assertRpcRefused('UserError', 'complete', [self.job.id])
        for method in ('cancel', 'complete', 'retry', 'dismiss'):
            self.assertRpcRefused('AccessError', method, [others.id])
        self.assertEqual((self.job + others).mapped('state'), ['cancelled', 'created'])

    def test_forged_context(self):
        """Neither a job id nor options in the context of a request mean anything."""

        @self.add_method
        def public_foo(self):
            return {
                'current': self.env['ir.async'].current().id,
                'asyncJobId': self.env['ir.async'].call(self.async_foo).id,
            }

        self.login(self.user)
        context = {'async_job_id': self.job.id, 'ir_async_options': {'priority': 1}, 'default_user_id': 1}
        answer = self.rpc('public_foo', self.partner.ids, model='res.partner', context=context)
        self.assertIs(answer['current'], False)
        job = self.ir_async.browse(answer['asyncJobId'])
        self.assertRecordValues(job, [{'parent_id': False, 'priority': 10, 'user_id': self.user.id, 'su': False}])

    def test_portal(self):
        self.login(self.portal)
        mine = self.jobs[self.portal]
        for method, args in (
            ('read', [mine.ids, ['state']]),
            ('search_read', [[]]),
            ('get_user_jobs', []),
            ('get_user_jobs', [mine.ids]),
            ('web_search_read', [[], {'id': {}}]),
        ):
            with self.subTest(method=method):
                self.assertRpcRefused('AccessError', method, *args)
