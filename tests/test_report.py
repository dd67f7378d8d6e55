import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from lxml import html
from werkzeug.http import parse_options_header

from odoo import Command, http
from odoo.exceptions import UserError
from odoo.service import security
from odoo.tests import HttpCase, new_test_user, tagged
from odoo.tools import mute_logger

from .common import AsyncCase
from odoo.addons.base.models import ir_actions_report
from odoo.addons.ir_async.exceptions import JobInterrupted
from odoo.addons.ir_async.models import ir_async_download
from odoo.addons.ir_async.tools.sessions import cookie_jar, delete_noted

ARCH = """
    <t t-name="ir_async.test_report">
        <main>
            <div class="article" t-foreach="docs or [user.partner_id]" t-as="doc">
                <h1>Card of <t t-out="doc.name"/></h1>
                <p t-if="message">Message: <t t-out="message"/></p>
                <p>In the language <t t-out="context.get('lang')"/>, for <t t-out="user.login"/></p>
            </div>
        </main>
    </t>
"""


@tagged('post_install', '-at_install')
class TestReport(AsyncCase, HttpCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.user = new_test_user(cls.env, 'printer', groups='base.group_user,base.group_partner_manager', password='printer')
        cls.partners = cls.env['res.partner'].create([{'name': "Azure"}, {'name': "Deco"}])
        cls.env['ir.ui.view'].create({
            'type': 'qweb', 'name': 'ir_async.test_report', 'key': 'ir_async.test_report',
            'arch': ARCH,
        })
        cls.report = cls.env['ir.actions.report'].create({
            'name': "Cards", 'model': 'res.partner', 'report_name': 'ir_async.test_report', 'report_type': 'qweb-pdf',
            'print_report_name': "'Card %s' % object.name",
        })

    def setUp(self):
        super().setUp()
        self.authenticate('printer', 'printer')
        self.env['ir.config_parameter'].set_param('report.url', self.base_url())

    def start_report(self, docids, data=None, context=None):
        reports = self.env(user=self.user, context=context or {})['ir.actions.report']
        return self.env['ir.async'].browse(reports.async_pdf(self.report.report_name, docids, data)['asyncJobId'])

    def print(self, docids, data=None, user=None, error=None):
        """Print in a job and return the response of the download, and what wkhtmltopdf was given.

        The real one asks this process, whose transaction is the test's: see tests/system/export_test.py.
        """
        context = {'lang': 'en_US', 'tz': 'UTC', 'uid': self.user.id, 'force_report_rendering': True}
        if user:
            job = self.env['ir.async'].call_notify("x", self.env(user=user, su=False, context=context)[
                'ir.actions.report']._render_qweb_pdf, self.report.report_name, docids,
                data={'context': context})
        else:
            job = self.start_report(docids, data, context)
        given = {}

        def run(args):
            files = {arg.split('report.')[-1].split('.')[0]: Path(arg) for arg in args if 'report.' in arg}
            given['html'] = html.fromstring(files['body'].read_text(encoding='utf-8')).text_content()
            sid = files['cookie_jar'].read_text(encoding='utf-8').split('session_id=')[1].split(';')[0]
            given['session'] = http.root.session_store.get(sid)
            given['is_valid'] = bool(given['session'].uid) and security.check_session(given['session'], self.env)
            given['notes'] = [path.name for path in files['cookie_jar'].parent.glob('session.*')]
            given['folder'] = files['cookie_jar'].parent
            if error:
                raise error
            Path(args[-1]).write_bytes(b'%PDF-1.4')
            return SimpleNamespace(returncode=0, stderr='')

        with patch.object(ir_actions_report, '_run_wkhtmltopdf', run), \
                patch.object(type(self.env['ir.actions.report']), 'get_wkhtmltopdf_state', lambda self: 'ok'):
            self.assertEqual(self.run_jobs(), job)
        self.assertFalse(http.request)
        if user or error:
            return job, SimpleNamespace(**given)
        self.assertEqual(job.state, 'succeeded', job.payload)
        return self.url_open(job.payload['result']['url']), SimpleNamespace(**given)

    def test_report(self):
        response, given = self.print(self.partners[0].ids)
        self.assertEqual(response.content, b'%PDF-1.4')
        self.assertEqual(response.headers['Content-Type'], 'application/pdf')
        self.assertEqual(_filename(response), "Card Azure.pdf")
        self.assertIn("Card of Azure", given.html)
        self.assertIn("In the language en_US, for printer", given.html)

    def test_data(self):
        response, given = self.print([], {'message': "from a wizard"})
        self.assertEqual(_filename(response), "Cards.pdf")
        self.assertIn("Message: from a wizard", given.html)

    def test_session_is_temporary(self):
        _response, given = self.print(self.partners[0].ids)
        session = given.session
        self.assertEqual((session.uid, session.login, session.db), (self.user.id, 'printer', self.env.cr.dbname))
        self.assertTrue(given.is_valid)
        self.assertNothingLeft(given)

    def assertNothingLeft(self, given):
        self.assertFalse(Path(http.root.session_store.get_session_filename(given.session.sid)).exists())
        self.assertFalse(given.folder.exists())

    def test_session_is_deleted_however_it_ends(self):
        with mute_logger('odoo.addons.ir_async.service.runner'):
            job, given = self.print(self.partners[0].ids, error=UserError("wkhtmltopdf is ill"))
        self.assertEqual(job.state, 'failed')
        self.assertTrue(given.session.uid)
        self.assertNothingLeft(given)
        with self.assertRaises(JobInterrupted), cookie_jar(self.env(user=self.user), self.base_url()) as path:
            [note] = Path(path).parent.glob('session.*')
            sid = note.name.removeprefix('session.')
            self.assertEqual(http.root.session_store.get(sid).uid, self.user.id)
            raise JobInterrupted
        self.assertFalse(Path(path).parent.exists())
        self.assertFalse(http.root.session_store.get(sid).uid)

    def test_session_is_noted_before_it_exists(self):
        noted = []
        store = type(http.root.session_store)
        save = store.save

        def record(store, session):
            noted.append([path.name for path in Path(tempfile.gettempdir()).glob(f'ir_async.*/session.{session.sid}')])
            return save(store, session)

        with patch.object(store, 'save', record):
            _response, given = self.print(self.partners[0].ids)
        self.assertIn([f'session.{given.session.sid}'], noted)
        self.assertEqual(given.notes, [f'session.{given.session.sid}'])

    def test_noted_sessions_of_a_killed_worker(self):
        store = http.root.session_store
        sessions = [store.new() for _i in range(3)]
        for session in sessions:
            session.uid = self.user.id
            store.save(session)
            self.addCleanup(store.delete, session)
        noted, below, other = sessions
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, 'below').mkdir()
            Path(folder, f'session.{noted.sid}').touch()
            Path(folder, 'below', f'session.{below.sid}').touch()
            Path(folder, 'session.nonsense').touch()
            delete_noted(folder)
            delete_noted(folder)
            self.assertEqual([path.name for path in Path(folder).glob('**/session.*')], ['session.nonsense'])
        delete_noted(folder)  # it is gone
        self.assertEqual([bool(store.get(session.sid).uid) for session in (noted, below, other)], [False, False, True])

    def test_session_of_the_superuser_has_no_user(self):
        for user in (self.env.ref('base.user_root'), self.env.ref('base.public_user')):
            with self.subTest(user=user.login):
                self.env['ir.rule'].create({
                    'name': "all", 'model_id': self.env['ir.model']._get_id('res.partner'), 'domain_force': [(1, '=', 1)],
                    'groups': [Command.set(self.env.ref('base.group_public').ids)]})
                job, given = self.print(self.partners[0].ids, user=user)
                self.assertEqual(job.state, 'succeeded', job.payload)
                session = given.session
                self.assertEqual(session.db, self.env.cr.dbname)
                self.assertEqual((session.uid, session.login, session.session_token), (None, None, None))
                self.assertFalse(given.is_valid)
                self.assertNothingLeft(given)

    def test_cookie_jar_is_no_matter_of_clients(self):
        reports = self.env(context={'cookie_jar': '/etc/passwd'})['ir.actions.report']
        self.assertNotIn('--cookie-jar', reports._build_wkhtmltopdf_args(self.env.company.paperformat_id, False))

    def test_error(self):
        job = self.start_report(self.partners[0].ids, context={'force_report_rendering': True})
        with patch.object(type(self.env['ir.actions.report']), 'get_wkhtmltopdf_state', lambda self: 'install'), \
                mute_logger('odoo.addons.ir_async.service.runner'):
            self.run_jobs()
        self.assertEqual(job.state, 'failed')
        self.assertIn("Unable to find Wkhtmltopdf", job.payload['error']['data']['message'])

    def test_job(self):
        job = self.start_report(self.partners.ids)
        self.assertEqual((job.name, job.channel, job.user_id, job.su), ("Cards", 'export', self.user, False))

    def test_available(self):
        def available(user=self.user):
            return self.env(user=user)['ir.actions.report'].has_async_pdf(self.report.report_name)

        state = self.startPatch(patch.object(
            type(self.env['ir.actions.report']), 'get_wkhtmltopdf_state', return_value='ok'))
        self.assertFalse(available(), "under test, jobs do not run by themselves")
        self.startPatch(patch.object(ir_async_download.module, 'current_test', None))
        workers = self.startPatch(patch.object(ir_async_download, 'workers_alive', return_value=True))
        self.assertTrue(available())
        workers.return_value = False
        self.assertFalse(available())
        workers.return_value = True
        state.return_value = 'install'  # Odoo has something to say about that
        self.assertFalse(available())
        state.return_value = 'ok'

        settings = self.env['res.config.settings'].create({'async_report': False})
        settings.execute()
        self.assertFalse(available())
        self.env['res.config.settings'].create({'async_report': True}).execute()
        self.assertTrue(available())

        self.assertFalse(available(new_test_user(self.env, 'portal', groups='base.group_portal')))
        with patch.object(type(self.env['res.partner']), '_async_report', False):
            self.assertFalse(available())
        self.report.report_name = 'ir_async.other'
        self.assertTrue(available())
        self.assertFalse(self.env['ir.actions.report'].has_async_pdf('ir_async.nonsense'))

    def startPatch(self, patcher):
        self.addCleanup(patcher.stop)
        return patcher.start()


def _filename(response):
    return parse_options_header(response.headers['Content-Disposition'])[1]['filename']
