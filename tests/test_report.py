from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from lxml import html
from werkzeug.http import parse_options_header

from odoo import http
from odoo.service import security
from odoo.tests import HttpCase, new_test_user, tagged
from odoo.tools import mute_logger

from .common import AsyncCase
from odoo.addons.base.models import ir_actions_report
from odoo.addons.ir_async.models import ir_async_download

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

    def print(self, docids, data=None):
        """Print in a job and return the response of the download, and what wkhtmltopdf was given.

        The real one asks this process, whose transaction is the test's: see tests/system/export_test.py.
        """
        context = {'lang': 'en_US', 'tz': 'UTC', 'uid': self.user.id, 'force_report_rendering': True}
        job = self.start_report(docids, data, context)
        given = {}

        def run(args):
            files = {arg.split('report.')[-1].split('.')[0]: Path(arg) for arg in args if 'report.' in arg}
            given['html'] = html.fromstring(files['body'].read_text(encoding='utf-8')).text_content()
            sid = files['cookie_jar'].read_text(encoding='utf-8').split('session_id=')[1].split(';')[0]
            given['session'] = http.root.session_store.get(sid)
            given['is_valid'] = security.check_session(given['session'], self.env)
            Path(args[-1]).write_bytes(b'%PDF-1.4')
            return SimpleNamespace(returncode=0, stderr='')

        with patch.object(ir_actions_report, '_run_wkhtmltopdf', run), \
                patch.object(type(self.env['ir.actions.report']), 'get_wkhtmltopdf_state', lambda self: 'ok'):
            self.assertEqual(self.run_jobs(), job)
        self.assertEqual(job.state, 'succeeded', job.payload)
        self.assertFalse(http.request)
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
        self.assertFalse(http.root.session_store.get(session.sid).uid)

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
