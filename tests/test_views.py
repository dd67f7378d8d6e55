from unittest.mock import MagicMock, patch

from lxml import etree

from odoo.exceptions import AccessError
from odoo.tests import Form, TransactionCase, new_test_user, tagged

from .test_wait import WaitCase

LABELS = {
    'waiting': "Waiting",
    'created': "Queued",
    'processing': "Running",
    'succeeded': "Ready",
    'done': "Done",
    'failed': "Failed",
    'cancelled': "Cancelled",
}


class TestViews(WaitCase):
    """What the views show."""

    def arch(self, xmlid, user=None):
        view = self.env.ref(f'ir_async.{xmlid}')
        model = self.env[view.model].with_user(user or self.manager)
        return etree.fromstring(model.get_view(view.id, view.type)['arch'])

    def test_load(self):
        """Each view loads for those who may see it."""
        views = self.env['ir.ui.view'].search([('model', 'in', ('ir.async', 'ir.async.channel', 'ir.async.worker'))])
        self.assertGreater(len(views), 9)
        for view in views:
            with self.subTest(view=view.name):
                self.env[view.model].with_user(self.manager).get_view(view.id, view.type)
                if view.model == 'ir.async':
                    self.env[view.model].with_user(self.user).get_view(view.id, view.type)

    def test_labels(self):
        """One word for each state, wherever it is shown."""
        field = self.env['ir.async'].with_context(lang='en_US').fields_get(['state'])['state']
        self.assertEqual(dict(field['selection']), LABELS)
        filters = {node.get('name'): node.get('string') for node in self.arch('ir_async_view_search').iter('filter')}
        self.assertEqual(
            {
                state: filters[name]
                for state, name in zip(
                    LABELS, ('waiting', 'queued', 'running', 'succeeded', 'done', 'failed', 'cancelled')
                )
            },
            LABELS,
        )

    def test_one_name(self):
        """The feature has one name in all menus, actions, settings and groups."""
        env = self.env(context={'lang': 'en_US'})
        names = [
            *env['ir.actions.act_window'].search([('res_model', 'like', 'ir.async')]).mapped('name'),
            *env['ir.ui.menu']
            .browse(
                env['ir.model.data']
                .search([('module', '=', 'ir_async'), ('model', '=', 'ir.ui.menu')])
                .mapped('res_id')
            )
            .mapped('complete_name'),
            *env['ir.model'].search([('model', '=like', 'ir.async%')]).mapped('name'),
            env.ref('ir_async.ir_async_group_manager').full_name,
            env.ref('base.module_ir_async').shortdesc,
        ]
        for name in names:
            with self.subTest(name=name):
                self.assertRegex(name, '(?i)background job')
                self.assertNotIn('Async', name)

    def test_cancel_asks(self):
        """Each button that cancels asks, and its answers say what they do."""
        for xmlid in ('ir_async_view_list', 'ir_async_view_form', 'ir_async_view_kanban'):
            for button in self.arch(xmlid).iterfind('.//*[@name="cancel"]'):
                with self.subTest(view=xmlid):
                    self.assertRegex(button.get('confirm-title') or button.get('confirm'), r"^Cancel th\w+ jobs?\?")
                    self.assertIn("not saved yet are undone", button.get('confirm'))
                    self.assertIn(button.get('confirm-label'), ("Cancel Job", "Cancel Jobs"))
                    self.assertIn(button.get('cancel-label'), ("No, keep it", "No, keep them"))

    def test_run_anyway(self):
        for xmlid in ('ir_async_view_list', 'ir_async_view_form', 'ir_async_view_kanban'):
            self.assertTrue(self.arch(xmlid).findall('.//*[@name="run_anyway"]'), xmlid)
            self.assertFalse(self.arch(xmlid, self.user).findall('.//*[@name="run_anyway"]'), xmlid)

    def test_mobile(self):
        """A phone opens jobs, channels and workers as cards."""
        for xmlid in ('ir_async_action', 'ir_async_action_mine', 'ir_async_channel_action', 'ir_async_worker_action'):
            action = self.env.ref(f'ir_async.{xmlid}')
            self.assertIn('kanban', action.view_mode.split(','))
            self.assertEqual(action.mobile_view_mode, 'kanban')

    def test_error_first(self):
        """The error is above all else on the form, also that of a job that is tried again."""
        arch = self.arch('ir_async_view_form')
        children = [child.tag for child in arch if isinstance(child.tag, str)]
        sheet = children.index('sheet')
        self.assertTrue(arch[:sheet] and any(node.findall('.//field[@name="error_message"]') for node in arch[:sheet]))

    def test_error_message(self):
        job = self.make_job('failed')
        error = '{"error": {"message": "Odoo Server Error", "data": {"message": "No such product"}}}'
        self.set_state(job, 'failed', payload=error)
        self.assertEqual(job.error_message, "No such product")
        self.set_state(job, 'created', attempts=1)
        self.assertEqual(job.error_message, "No such product", "the last error of a job that is tried again")
        self.set_state(job, 'created', attempts=0)
        self.assertEqual(job.error_message, "No such product", "the reason why it is tried again")
        self.set_state(job, 'failed', payload='{"error": {"message": "Odoo Server Error"}}')
        self.assertEqual(job.error_message, "Odoo Server Error")
        self.set_state(job, 'succeeded', payload='{"result": {"error": 1}}')
        self.assertFalse(job.error_message)

    def test_form(self):
        """Owners and managers open the form of a job in any state."""
        for state in LABELS:
            job = self.make_job(state)
            for user in (self.user, self.manager):
                with self.subTest(state=state, user=user.login):
                    self.assertEqual(Form(job.with_user(user)).state, state)


class TestChannelViews(WaitCase):
    def test_counts(self):
        channel = self.env['ir.async.channel'].with_user(self.manager).create({'name': 'mail'})
        everything = (
            channel.create({'name': '*'})
            if not channel.search([('name', '=', '*')])
            else channel.search([('name', '=', '*')])
        )
        before = everything.running_count, everything.queued_count, everything.failed_count
        for state, count in (('processing', 1), ('created', 2), ('waiting', 1), ('failed', 4), ('done', 5)):
            for i in range(count):
                self.make_job(state, channel=f'mail/{i}' if i else 'mail')
        self.env.invalidate_all()
        self.assertEqual((channel.running_count, channel.queued_count, channel.failed_count), (1, 3, 4))
        after = everything.running_count, everything.queued_count, everything.failed_count
        self.assertEqual([new - old for new, old in zip(after, before)], [1, 3, 4])
        action = channel.action_open_jobs()
        self.assertEqual(self.ir_async.search_count(action['domain']), 13)

    def test_open_jobs_of_a_name_with_wildcards(self):
        channel = self.env['ir.async.channel'].create({'name': 'a_b'})
        job = self.make_job(channel='a_b/1')
        self.make_job(channel='axb/1')
        self.assertEqual(self.ir_async.search(channel.action_open_jobs()['domain']), job.with_user(self.env.user))

    def test_pause_everything(self):
        channels = self.env['ir.async.channel'].with_user(self.manager)
        for _i in range(2):
            channels.action_pause_everything()
            self.assertTrue(channels.search([('name', '=', '*')]).paused)
            self.assertEqual(self.ir_async._why_unserved(), 'paused')
        for _i in range(2):
            channels.action_resume_everything()
            self.assertNotEqual(self.ir_async._why_unserved(), 'paused')
        channels.search([('name', '=', '*')]).unlink()
        channels.action_resume_everything()
        for method in ('action_pause_everything', 'action_resume_everything'):
            with self.assertRaises(AccessError):
                getattr(channels.with_user(self.user), method)()

    def test_worker(self):
        """A worker leads to its job, and the job to its worker."""
        self.env.cr.execute("INSERT INTO ir_async_worker (host, pid) VALUES ('example', 42) RETURNING id")
        [worker_id] = self.env.cr.fetchone()
        worker = self.env['ir.async.worker'].with_user(self.manager).browse(worker_id)
        self.assertFalse(worker.action_open_job())
        job = self.make_job().with_user(self.manager)
        self.set_state(job, 'processing', worker_id=worker_id)
        self.env.cr.execute(
            "UPDATE ir_async SET date_start = now() AT TIME ZONE 'UTC' - interval '9 s' WHERE id = %s", [job.id]
        )
        self.env.invalidate_all()
        self.assertEqual((worker.current_job_id, worker.user_id), (job, self.user.with_user(self.manager)))
        self.assertGreaterEqual(worker.job_duration, 9)
        self.assertEqual(worker.display_name, "example (42)")
        self.assertEqual(worker.action_open_job()['res_id'], job.id)
        self.assertEqual(job.worker_id, worker)
        self.env.cr.execute("DELETE FROM ir_async_worker WHERE id = %s", [worker_id])
        self.env.invalidate_all()
        self.assertFalse(job.worker_id)
        self.assertFalse(job.web_read({'worker_id': {'fields': {'display_name': {}}}})[0]['worker_id'])


@tagged('post_install', '-at_install')
class TestMenus(TransactionCase):
    def menus(self, user):
        """Return which menus of ours the user sees in developer mode."""
        with patch('odoo.addons.base.models.ir_ui_menu.request', MagicMock(session=MagicMock(debug='1'))):
            loaded = self.env['ir.ui.menu'].with_user(user).load_menus(True)
        data = self.env['ir.model.data'].search([('module', '=', 'ir_async'), ('model', '=', 'ir.ui.menu')])
        return {entry.name for entry in data if entry.res_id in loaded}

    def test_manager_without_settings(self):
        manager = new_test_user(self.env, 'mona', 'base.group_user,ir_async.ir_async_group_manager')
        self.assertEqual(
            self.menus(manager),
            {
                'ir_async_menu_root',
                'ir_async_menu_root_jobs',
                'ir_async_menu_root_channels',
                'ir_async_menu_root_workers',
            },
        )
        menu = self.env.ref('ir_async.ir_async_menu_root')
        loaded = self.env['ir.ui.menu'].with_user(manager).load_menus(False)
        self.assertIn(menu.id, loaded['root']['children'])
        self.assertEqual(loaded[menu.id]['children'], menu.child_id.ids)
        self.assertNotIn(menu.id, self.env['ir.ui.menu'].with_user(self.env.ref('base.user_admin')).load_menus(False))

    def test_settings(self):
        """With Settings, the menus are there, and no app beside them."""
        self.assertEqual(
            self.menus(self.env.ref('base.user_admin')),
            {'ir_async_menu', 'ir_async_menu_channels', 'ir_async_menu_workers'},
        )

    def test_user(self):
        self.assertEqual(self.menus(new_test_user(self.env, 'anna')), set())

    def test_group_on_user_form(self):
        """The group can be given on the form of a user."""
        group = self.env.ref('ir_async.ir_async_group_manager')
        hierarchy = self.env['res.groups']._get_view_group_hierarchy()
        [privilege] = [
            privilege for privilege in hierarchy['privileges'].values() if group.id in privilege['group_ids']
        ]
        self.assertEqual(privilege['name'], "Background Jobs")
        self.assertTrue(any(privilege['id'] in category['privilege_ids'] for category in hierarchy['categories']))

    def test_settings_page(self):
        settings = self.env['res.config.settings'].create({})
        self.assertRegex(settings.async_summary, r"\d+ workers")
        settings.async_metrics_token = "secret"
        settings.execute()
        self.assertEqual(self.env['ir.config_parameter'].get_param('ir_async.metrics_token'), "secret")
