import contextlib
import json
import logging
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from lxml import html
from werkzeug.http import parse_options_header

from odoo import Command, http
from odoo.exceptions import AccessError, UserError
from odoo.service import security
from odoo.tests import new_test_user, tagged
from odoo.tools import mute_logger

from .download_case import DownloadCase, extended
from odoo.addons.base.models import ir_actions_report
from odoo.addons.ir_async.exceptions import JobInterrupted
from odoo.addons.ir_async.models import ir_actions_report as models_report
from odoo.addons.ir_async.tools.sessions import cookie_jar, delete_noted
from odoo.addons.web.controllers.report import ReportController

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
class TestReport(DownloadCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.user = new_test_user(
            cls.env, 'printer', groups='base.group_user,base.group_partner_manager', password='printer'
        )
        cls.partners = cls.env['res.partner'].create([{'name': "Azure"}, {'name': "Deco"}])
        cls.env['ir.ui.view'].create(
            {
                'type': 'qweb',
                'name': 'ir_async.test_report',
                'key': 'ir_async.test_report',
                'arch': ARCH,
            }
        )
        cls.report = cls.env['ir.actions.report'].create(
            {
                'name': "Cards",
                'model': 'res.partner',
                'report_name': 'ir_async.test_report',
                'report_type': 'qweb-pdf',
                'print_report_name': "'Card %s' % object.name",
            }
        )

    def setUp(self):
        super().setUp()
        self.authenticate('printer', 'printer')
        self.env['ir.config_parameter'].set_param('report.url', self.base_url())

    def start_report(self, docids, data=None, context=None, report=None):
        reports = self.env(user=self.user, context=context or {})['ir.actions.report']
        name = (report or self.report).report_name
        return self.env['ir.async'].browse(reports.async_pdf(name, docids, data)['asyncJobId'])

    def print(self, docids, data=None, user=None, error=None):
        """Print in a job and return the response of the download, and what wkhtmltopdf was given.

        The real one asks this process, whose transaction is the test's: see tests/system/export_test.py.
        """
        context = {'lang': 'en_US', 'tz': 'UTC', 'uid': self.user.id, 'force_report_rendering': True}
        if user:
            job = self.env['ir.async'].call_notify(
                "x",
                self.env(user=user, su=False, context=context)['ir.actions.report']._render_qweb_pdf,
                self.report.report_name,
                docids,
                data={'context': context},
            )
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

        with (
            patch.object(ir_actions_report, '_run_wkhtmltopdf', run),
            patch.object(type(self.env['ir.actions.report']), 'get_wkhtmltopdf_state', lambda self: 'ok'),
        ):
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
                self.env['ir.rule'].create(
                    {
                        'name': "all",
                        'model_id': self.env['ir.model']._get_id('res.partner'),
                        'domain_force': [(1, '=', 1)],
                        'groups': [Command.set(self.env.ref('base.group_public').ids)],
                    }
                )
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
        with (
            patch.object(type(self.env['ir.actions.report']), 'get_wkhtmltopdf_state', lambda self: 'install'),
            mute_logger('odoo.addons.ir_async.service.runner'),
        ):
            self.run_jobs()
        self.assertEqual(job.state, 'failed')
        self.assertIn("Unable to find Wkhtmltopdf", job.payload['error']['data']['message'])

    def test_job(self):
        job = self.start_report(self.partners.ids)
        self.assertEqual((job.channel, job.user_id, job.su), ('report', self.user, False))

    def test_description(self):
        other = self.report.copy({'name': "Labels", 'report_name': 'ir_async.other'})
        names = [
            self.start_report(docids, data, report=report).name
            for report in (self.report, other)
            for docids, data in (
                (self.partners[0].ids, None),
                (self.partners[1].ids, None),
                (self.partners.ids, None),
                ([], {'a': 1}),
            )
        ]
        self.assertEqual(
            names,
            [
                "Cards: Azure",
                "Cards: Deco",
                "Cards (2)",
                "Cards",
                "Labels: Azure",
                "Labels: Deco",
                "Labels (2)",
                "Labels",
            ],
        )
        self.partners[1].unlink()
        self.assertEqual(self.start_report(self.partners[1].ids, {'a': 2}).name, "Cards (1)")

    def test_asked_twice(self):
        job = self.start_report(self.partners.ids)
        others = [
            self.start_report(self.partners.ids[::-1]),
            self.start_report(self.partners[0].ids),
            self.start_report(self.partners.ids, {'a': 1}),
            self.start_report(self.partners.ids, context={'key': 1}),
            self.start_report(self.partners.ids, report=self.report.copy({'report_name': 'ir_async.other'})),
        ]
        self.assertEqual(len({job, *others}), 6)
        with self.assertEnqueuesNothing():
            self.assertEqual(self.start_report(self.partners.ids), job)
        self.env.cr.flush()
        self.env.cr.execute("UPDATE ir_async SET state = 'processing', claim_number = 1 WHERE id = %s", [job.id])
        other = self.start_report(self.partners.ids)
        self.assertNotEqual(other, job, "what it has read may be old news")
        with self.assertEnqueuesNothing():
            self.assertEqual(self.start_report(self.partners.ids), other)

    def test_unknown_report(self):
        self.report.report_name = 'ir_async.renamed'
        with self.assertEnqueuesNothing(), self.assertRaisesRegex(UserError, "no report ir_async.test_report"):
            self.env(user=self.user)['ir.actions.report'].async_pdf('ir_async.test_report', self.partners.ids)

    def test_internal_users_only(self):
        for groups in ('base.group_portal', 'base.group_public'):
            user = new_test_user(self.env, groups, groups=groups)
            with self.assertEnqueuesNothing(), self.assertRaisesRegex(AccessError, "internal users"):
                self.env(user=user)['ir.actions.report'].async_pdf(self.report.report_name, user.partner_id.ids)

    def test_internal_users_only_over_rpc(self):
        new_test_user(self.env, 'portal', groups='base.group_portal', password='portal')
        self.authenticate('portal', 'portal')
        with mute_logger('odoo.http'):
            for model, method, args in (
                ('ir.actions.report', 'async_pdf', [self.report.report_name, self.partners.ids]),
                ('res.partner', 'async_export', ['csv', '{}']),
            ):
                response = self.url_open(
                    '/web/dataset/call_kw',
                    json={'params': {'model': model, 'method': method, 'args': args, 'kwargs': {}}},
                ).json()
                self.assertEqual(response['error']['data']['name'], 'odoo.exceptions.AccessError')

    def test_internal_users_only_in_the_job(self):
        job = self.start_report(self.partners.ids)
        self.user.group_ids = self.env.ref('base.group_portal')
        with mute_logger('odoo.addons.ir_async.service.runner'):
            self.run_jobs()
        self.assertEqual(job.payload['error']['data']['name'], 'odoo.exceptions.AccessError')
        self.assertIn("internal users", job.payload['error']['data']['message'])

    def available(self, user=None, **kwargs):
        return self.env(user=user or self.user)['ir.actions.report'].has_async_pdf(self.report.report_name, **kwargs)

    def test_available(self):
        state = self.startPatch(
            patch.object(type(self.env['ir.actions.report']), 'get_wkhtmltopdf_state', return_value='ok')
        )
        self.assertFalse(self.available(), "under test, jobs do not run by themselves")
        served = self.serve()
        self.assertTrue(self.available())
        for reason in ('no_worker', 'paused', 'upgrading'):
            served['report'] = reason
            self.assertFalse(self.available())
        served['report'] = None
        served['export'] = 'paused'
        self.assertTrue(self.available())
        state.return_value = 'install'  # Odoo has something to say about that
        self.assertFalse(self.available())
        state.return_value = 'ok'

        settings = self.env['res.config.settings'].create({'async_report': False})
        settings.execute()
        self.assertFalse(self.available())
        self.env['res.config.settings'].create({'async_report': True}).execute()
        self.assertTrue(self.available())

        self.assertFalse(self.available(new_test_user(self.env, 'portal', groups='base.group_portal')))
        with patch.object(type(self.env['res.partner']), '_async_report', False):
            self.assertFalse(self.available())
        self.report.report_name = 'ir_async.other'
        self.assertTrue(self.available())
        self.assertFalse(self.env['ir.actions.report'].has_async_pdf('ir_async.nonsense'))

    def test_short_ones_do_not_wait(self):
        self.serve()
        self.startPatch(patch.object(type(self.env['ir.actions.report']), 'get_wkhtmltopdf_state', return_value='ok'))
        self.startPatch(patch.object(models_report, 'SHORT_COUNT', 1))
        short, long = self.partners[0].ids, self.partners.ids
        job = self.start_report(long)
        job.channel  # noqa: B018 -- it is in the database now
        for channel, state, is_free in (
            ('export', 'created', True),
            ('report', 'created', False),
            ('export', 'processing', False),
        ):
            job.flush_recordset()
            self.env.cr.execute(
                "UPDATE ir_async SET state = %s, channel = %s, worker_id = -1 WHERE id = %s", [state, channel, job.id]
            )
            self.assertEqual(self.available(docids=short), is_free)
            self.assertEqual(self.available(), is_free)
            self.assertTrue(self.available(docids=long))

    def test_short_ones_go_first(self):
        self.startPatch(patch.object(models_report, 'SHORT_COUNT', 1))
        long, short = self.start_report(self.partners.ids), self.start_report(self.partners[0].ids)
        self.assertLess(short.priority, long.priority)

    # extensions

    def test_extension_of_another_format(self):
        class Xlsx:
            @http.route()
            def report_routes(self, reportname, docids=None, converter=None, **data):
                if converter == 'xlsx':
                    return http.request.make_response(reportname)
                return super().report_routes(reportname, docids, converter, **data)

            @http.route()
            def report_download(self, data, context=None, token=None):
                url, report_type = json.loads(data)
                if report_type == 'xlsx':
                    return self.report_routes(url, converter='xlsx')
                return super().report_download(data, context=context, token=token)

        class OneReport:
            @http.route()
            def report_routes(self, reportname, docids=None, converter=None, **data):
                if reportname == 'ir_async.other':
                    return http.request.make_response("mine")
                return super().report_routes(reportname, docids=docids, converter=converter, **data)

        class Two(Xlsx, OneReport):
            pass

        other = self.report.copy({'report_name': 'ir_async.other'})
        self.serve()
        self.startPatch(patch.object(type(self.env['ir.actions.report']), 'get_wkhtmltopdf_state', return_value='ok'))
        for mixin in (Xlsx, OneReport, Two):
            with self.subTest(mixin=mixin.__name__), extended(ReportController, mixin):
                self.assertTrue(self.available())
                self.assertTrue(self.available(docids=self.partners.ids))
                self.assertEqual(
                    self.env(user=self.user)['ir.actions.report'].has_async_pdf(other.report_name), mixin is Xlsx
                )

    def test_extension_of_pdf(self):
        class Answer:
            @http.route()
            def report_download(self, data, context=None, token=None):
                response = super().report_download(data, context=context, token=token)
                response.headers['X-Mine'] = 'x'
                return response

        class Arguments:
            @http.route()
            def report_routes(self, reportname, docids=None, converter=None, **data):
                return super().report_routes(reportname, docids, converter, **data, key='value')

        class Instead:
            @http.route()
            def report_routes(self, reportname, docids=None, converter=None, **data):
                return "mine"

        class Request:
            @http.route()
            def report_routes(self, reportname, docids=None, converter=None, **data):
                with contextlib.suppress(Exception):
                    http.request.session['printed'] = reportname
                return super().report_routes(reportname, docids, converter, **data)

        class WithoutRoute:
            def report_download(self, data, context=None, token=None, readonly=True):
                return self.report_routes('ir_async.other', converter='pdf')

        self.serve()
        self.startPatch(patch.object(type(self.env['ir.actions.report']), 'get_wkhtmltopdf_state', return_value='ok'))
        for mixin in (Answer, Arguments, Instead, Request, WithoutRoute):
            with self.subTest(mixin=mixin.__name__):
                with extended(ReportController, mixin), self.assertLogs('odoo.addons.ir_async', logging.INFO) as log:
                    self.assertFalse(self.available())
                    note = self.env['res.config.settings'].create({}).async_foreground_note
                self.assertRegex(
                    note,
                    rf"^PDF files are made in the foreground, since .*\.{mixin.__name__}\.report_\w+ extends them\.$",
                )
                self.assertRegex(
                    log.output[0], rf"PDF reports are made in the foreground, since .*\.{mixin.__name__}\.report_"
                )
                with extended(ReportController, mixin, module='odoo.addons.not_installed.controllers'):
                    self.assertTrue(self.available())
        self.assertTrue(self.available())
        self.assertFalse(self.env['res.config.settings'].create({}).async_foreground_note)

    def startPatch(self, patcher):
        self.addCleanup(patcher.stop)
        return patcher.start()


def _filename(response):
    return parse_options_header(response.headers['Content-Disposition'])[1]['filename']
