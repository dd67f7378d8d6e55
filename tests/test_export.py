import io
import json
import logging
import tempfile
import warnings
from datetime import datetime
from unittest.mock import patch

import lxml.html
import openpyxl
import xlsxwriter
from werkzeug.http import parse_options_header

from odoo import Command, http
from odoo.exceptions import AccessError, UserError
from odoo.tests import new_test_user, tagged
from odoo.tools import mute_logger

from .download_case import DownloadCase, extended
from odoo.addons.ir_async.models import base
from odoo.addons.ir_async.tools import export
from odoo.addons.ir_async.tools.request import as_request
from odoo.addons.web.controllers.export import CSVExport

ROUTE = 'odoo.addons.web.controllers.export'
FIELDS = [
    ('id', 'External ID', 'integer'),
    ('.id', 'Database ID', 'integer'),
    ('name', ' Name ', 'char'),
    ('comment', 'Notes', 'html'),
    ('color', 'Color', 'integer'),
    ('active', 'Active', 'boolean'),
    ('partner_latitude', 'Latitude', 'float'),
    ('partner_longitude', 'Money', 'monetary'),
    ('create_date', 'Created on', 'datetime'),
    ('type', 'Type', 'selection'),
    ('ref', 'Reference', 'char'),
    ('country_id', 'Country', 'many2one'),
    ('country_id/id', 'Country/ID', 'many2one'),
    ('category_id', 'Tags', 'many2many'),
    ('child_ids/name', 'Contacts/Name', 'one2many'),
    ('child_ids/country_id/code', 'Contacts/Country/Code', 'char'),
]


@tagged('post_install', '-at_install')
class TestExport(DownloadCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.user = new_test_user(
            cls.env,
            'exporter',
            groups='base.group_user,base.group_partner_manager,base.group_allow_export',
            password='exporter',
        )
        tags = cls.env['res.partner.category'].create([{'name': 'red'}, {'name': 'green, and blue'}])
        belgium, france = cls.env.ref('base.be'), cls.env.ref('base.fr')
        texts = [
            "plain",
            "=1+1",
            "-5",
            "+32 2 290 34 90",
            "with \"quotes\", and\r\nlines",
            " spaces ",
            "ünï ☃ 𝄞",
            "https://www.odoo.com",
            "x" * 33_000,
            "",
            "0012",
        ]
        cls.partners = cls.env['res.partner'].create(
            [
                {
                    'name': f"async {i:02}",
                    'ref': text,
                    'comment': f"<p>{i} &lt; {i + 1}</p>",
                    'color': i,
                    'active': i != 4,
                    'partner_latitude': i / 3,
                    'partner_longitude': -i * 1000.5,
                    'country_id': (belgium, france, belgium.browse())[i % 3].id,
                    'category_id': [Command.set(tags[: i % 3].ids)],
                    'child_ids': [
                        Command.create({'name': f"child {j}", 'country_id': france.id}) for j in range(i % 4)
                    ],
                }
                for i, text in enumerate(texts)
            ]
        )
        cls.domain = [('id', 'in', cls.partners.ids), ('parent_id', '=', False)]

    def setUp(self):
        super().setUp()
        self.authenticate('exporter', 'exporter')
        self.startPatch(patch.object(export, 'BATCH_SIZE', 3))

    def startPatch(self, patcher):
        self.addCleanup(patcher.stop)
        return patcher.start()

    def params(self, names=None, ids=False, **kwargs):
        return {
            'model': 'res.partner',
            'import_compat': False,
            'context': {'lang': 'en_US', 'tz': 'Europe/Brussels'},
            'domain': self.domain,
            'fields': [
                {'name': name, 'label': label, 'type': type_}
                for name, label, type_ in FIELDS
                if not names or name in names
            ],
            'groupby': [],
            'ids': ids,
            **kwargs,
        }

    def export_now(self, format_, params):
        return self.url_open(
            f'/web/export/{format_}', data={'data': json.dumps(params), 'csrf_token': http.Request.csrf_token(self)}
        )

    def start_export(self, format_, params):
        records = self.env(user=self.user, context={'lang': self.user.lang})[params['model']]
        return self.env['ir.async'].browse(records.async_export(format_, json.dumps(params))['asyncJobId'])

    def export(self, format_, params):
        """Export in a job and return the response of the download."""
        job = self.start_export(format_, params)
        self.assertEqual(self.run_jobs(), job)
        self.assertEqual(job.state, 'succeeded', job.payload)
        return self.url_open(job.payload['result']['url'])

    def assertSameExport(self, format_, params):
        now, later = self.export_now(format_, params), self.export(format_, params)
        self.assertEqual(now.status_code, 200, now.text)
        self.assertEqual(_filename(later), _filename(now))
        self.assertEqual(later.headers['Content-Type'].split(';')[0], now.headers['Content-Type'].split(';')[0])
        if format_ == 'csv':
            self.assertEqual(later.content, now.content)
        else:
            title, dimensions, widths, cells = _cells(now.content)
            self.assertEqual(
                _cells(later.content),
                (
                    title,
                    dimensions,
                    widths,
                    [
                        # Odoo makes a formula of a text
                        (coordinate, 's' if type_ == 'f' else type_, *rest)
                        for coordinate, type_, *rest in cells
                    ],
                ),
            )
        return later

    def test_csv(self):
        content = self.assertSameExport('csv', self.params()).content
        self.assertEqual(content.count(b'async '), 10)
        self.assertSameExport('csv', self.params(import_compat=True))
        self.assertSameExport('csv', self.params(domain=[('id', '=', 0)]))

    def test_csv_headers_over_lines(self):
        self.assertSameExport('csv', self.params(fields=[{'name': 'name', 'label': 'N"a\nme,', 'type': 'char'}]))

    def test_xlsx(self):
        response = self.assertSameExport('xlsx', self.params())
        sheet = openpyxl.load_workbook(io.BytesIO(response.content)).active
        self.assertEqual(sheet.max_row, 1 + sum(1 + max(i % 4 - 1, 0) + max(i % 3 - 1, 0) for i in range(11) if i != 4))
        self.assertSameExport('xlsx', self.params(import_compat=True))
        self.assertSameExport('xlsx', self.params(domain=[('id', '=', 0)]))

    def test_ids(self):
        for format_ in ('csv', 'xlsx'):
            self.assertSameExport(format_, self.params(ids=self.partners.ids[::-2]))
            self.assertSameExport(format_, self.params(ids=self.partners.ids, import_compat=True, domain=[]))

    def test_grouped(self):
        for groupby in (
            ['country_id'],
            ['active', 'create_date:month'],
            ['category_id'],
            ['color'],
            ['country_id', 'category_id', 'type'],
        ):
            with self.subTest(groupby=groupby):
                names = [name for name, *_ in FIELDS if name not in ('id', 'ref')]
                self.assertSameExport('xlsx', self.params(names, groupby=groupby))
        self.assertSameExport('xlsx', self.params(groupby=['country_id'], ids=self.partners.ids))
        self.assertSameExport('xlsx', self.params(groupby=['country_id'], domain=[('id', '=', 0)]))

    def test_grouped_in_csv(self):
        self.assertSameError('csv', self.params(groupby=['country_id']))

    def test_language_of_user(self):
        self.env['res.lang']._activate_lang('fr_FR')
        self.env['ir.model'].search([('model', '=', 'res.partner')]).with_context(lang='fr_FR').name = "Amis"
        self.user.lang = 'fr_FR'
        job = self.start_export('xlsx', self.params(['name']))
        self.assertEqual(job.name, "Amis (XLSX)")

    # errors

    def assertSameError(self, format_, params):
        with mute_logger(ROUTE):
            response = self.export_now(format_, params)
        self.assertEqual(response.status_code, 500)
        job = self.start_export(format_, params)
        with mute_logger('odoo.addons.ir_async.service.runner'):
            self.run_jobs()
        self.assertEqual(job.state, 'failed')
        now = json.loads(lxml.html.fromstring(response.text).xpath('//p')[0].text_content())
        for key in ('name', 'message', 'arguments'):
            self.assertEqual(job.payload['error']['data'][key], now['data'][key])

    def test_right_to_export(self):
        self.user.group_ids -= self.env.ref('base.group_allow_export')
        with self.assertEnqueuesNothing(), self.assertRaisesRegex(UserError, "rights to export"):
            self.start_export('csv', self.params())

    def test_right_to_export_is_lost(self):
        job = self.start_export('csv', self.params(domain=[('id', '=', 0)]))
        self.user.group_ids -= self.env.ref('base.group_allow_export')
        with mute_logger('odoo.addons.ir_async.service.runner'):
            self.run_jobs()
        self.assertIn("rights to export", job.payload['error']['data']['message'])

    def test_rights_on_records(self):
        self.env['ir.rule'].create(
            {
                'name': "but one",
                'model_id': self.env['ir.model']._get_id('res.partner'),
                'domain_force': [('id', '!=', self.partners[0].id)],
            }
        )
        self.assertSameExport('csv', self.params())
        self.assertSameError('csv', self.params(ids=self.partners[:2].ids))

    def test_rights_on_fields(self):
        params = self.params(
            model='ir.async', domain=[], fields=[{'name': 'args', 'label': 'Arguments', 'type': 'text'}]
        )
        self.start_export('csv', self.params(['name']))
        self.run_jobs()
        self.assertSameError('csv', params)

    def test_unknown_field(self):
        self.assertSameError('xlsx', self.params(fields=[{'name': 'nonsense', 'label': 'Nonsense', 'type': 'char'}]))

    def test_too_many_rows(self):
        class Workbook(xlsxwriter.Workbook):
            def add_worksheet(self, *args, **kwargs):
                sheet = super().add_worksheet(*args, **kwargs)
                sheet.xls_rowmax = 10
                return sheet

        self.startPatch(patch.object(xlsxwriter, 'Workbook', Workbook))
        self.assertSameError('xlsx', self.params(['name', 'child_ids/name']))  # 10 records, 19 rows
        self.assertSameError(
            'xlsx', self.params(['name'], domain=[('id', 'in', self.partners.ids + self.partners.child_ids.ids)])
        )
        self.assertFails('xlsx', self.params(['name']), "too many rows")  # Odoo drops the last one
        self.assertSameExport('xlsx', self.params(['name'], ids=self.partners.ids[:9]))

    def test_too_many_rows_with_groups(self):
        class Workbook(xlsxwriter.Workbook):
            def add_worksheet(self, *args, **kwargs):
                sheet = super().add_worksheet(*args, **kwargs)
                sheet.xls_rowmax = 12
                return sheet

        self.startPatch(patch.object(xlsxwriter, 'Workbook', Workbook))
        self.assertFails('xlsx', self.params(['name'], groupby=['country_id']), "too many rows")

    def test_too_many_columns(self):
        class Workbook(xlsxwriter.Workbook):
            def add_worksheet(self, *args, **kwargs):
                sheet = super().add_worksheet(*args, **kwargs)
                sheet.xls_colmax = 2
                return sheet

        self.startPatch(patch.object(xlsxwriter, 'Workbook', Workbook))
        self.assertFails('xlsx', self.params(['name', 'ref', 'color']), r"too many columns \(3 columns, limit: 2\)")

    def assertFails(self, format_, params, message):
        job = self.start_export(format_, params)
        with mute_logger('odoo.addons.ir_async.service.runner'):
            self.run_jobs()
        self.assertEqual(job.state, 'failed')
        self.assertRegex(job.payload['error']['data']['message'], message)

    # what Excel cannot hold

    def xlsx_texts(self, texts, **params):
        """Export partners of these references; return the cells of the references."""
        partners = self.env['res.partner'].create(
            [{'name': f"text {i:06}", 'ref': text} for i, text in enumerate(texts)]
        )
        response = self.export('xlsx', self.params(['name', 'ref'], domain=[('id', 'in', partners.ids)], **params))
        sheet = openpyxl.load_workbook(io.BytesIO(response.content)).active
        return [cell for [_name, cell] in sheet.iter_rows(min_row=2, min_col=1, max_col=2)]

    def test_xlsx_no_link_is_lost(self):
        long = "https://example.com/" + "x" * 2060
        texts = [
            "https://example.com/1",
            "mailto:a@example.com",
            long[:2079],
            long,
            "https://example.com/#" + "é" * 2080,
            "https://a.example.com\nhttps://b.example.com",
            "internal:Sheet1!A1",
            "external:c:\\x.xlsx",
            "file:///etc/hosts",
            "ftp://example.com",
            "http://" + "𝄞" * 1040,
            "https://" + "<" * 1000,
        ]
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            cells = self.xlsx_texts(texts)
        self.assertEqual([cell.value for cell in cells], texts)
        self.assertEqual({cell.data_type for cell in cells}, {'s'})
        self.assertEqual(
            [bool(cell.hyperlink) for cell in cells],
            [True, True, True, False, False, True, False, False, False, True, False, True],
        )

    def test_xlsx_links_beyond_the_limit(self):
        self.startPatch(patch.object(export, 'LINKS_MAX', 3))
        texts = [f"https://example.com/{i}" for i in range(7)]
        cells = self.xlsx_texts(texts)
        self.assertEqual([cell.value for cell in cells], texts)
        self.assertEqual([bool(cell.hyperlink) for cell in cells], [True] * 3 + [False] * 4)

    def test_xlsx_65_531_links(self):
        texts = [f"http://x.co/{i}" for i in range(65_531)]
        with tempfile.TemporaryDirectory() as folder, as_request(self.env), warnings.catch_warnings():
            warnings.simplefilter('error')
            writer = export.XlsxWriter(self.env, [{'name': 'ref', 'type': 'char'}], ["Ref"], len(texts), folder)
            with writer:
                for row, text in enumerate(texts, 1):
                    writer.write_cell(row, 0, text)
        sheet = openpyxl.load_workbook(io.BytesIO(writer.value), read_only=True).active
        self.assertEqual([value for [value] in sheet.iter_rows(min_row=2, values_only=True)], texts)

    def test_xlsx_no_text_is_a_formula(self):
        texts = ["=1+1", "{=1+1}", "=", "=HYPERLINK(\"http://x\")", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)"]
        cells = self.xlsx_texts(texts)
        self.assertEqual([(cell.value, cell.data_type) for cell in cells], [(text, 's') for text in texts])

    def test_xlsx_no_header_or_group_is_a_formula(self):
        self.partners[0].name = "=2+2"
        response = self.export(
            'xlsx',
            self.params(
                groupby=['name'], ids=self.partners[:1].ids, fields=[{'name': 'ref', 'label': "=1+1", 'type': 'char'}]
            ),
        )
        sheet = openpyxl.load_workbook(io.BytesIO(response.content)).active
        self.assertEqual(
            [(cell.value, cell.data_type) for [cell] in sheet.iter_rows()][:2], [("=1+1", 's'), ("=2+2 (1)", 's')]
        )

    def test_xlsx_no_text_is_cut_off(self):
        texts = ["x" * 32_767, "x" * 32_768, "𝄞" * 16_383, "𝄞" * 16_384, "=" * 32_768, "https://" + "x" * 32_760]
        cells = self.xlsx_texts(texts)
        for cell, text, is_kept in zip(cells, texts, (True, False, True, False, False, False), strict=True):
            if is_kept:
                self.assertEqual(cell.value, text)
            else:
                self.assertIn("The content of this cell is too long for an XLSX file", cell.value)
                self.assertIn("CSV", cell.value)

    # what is around

    def test_progress(self):
        job = self.start_export('csv', self.params())
        reported = []
        self.startPatch(
            patch.object(type(self.env['ir.async']), 'report_progress', lambda _self, *args: reported.append(args))
        )
        self.run_jobs()
        self.assertEqual(job.state, 'succeeded')
        self.assertEqual(reported, [(0, 10), (3, 10), (6, 10), (9, 10), (10, 10, "Writing the file…")])

    def test_log(self):
        self.url_open('/web/session/authenticate')
        job = self.start_export('csv', self.params(['name']))
        with self.assertLogs(ROUTE, logging.INFO) as log:
            self.run_jobs()
        self.assertEqual(job.state, 'succeeded')
        self.assertIn(
            f"User {self.user.id} exported 10 'res.partner' records from None. Fields: name. Domain: [['id', 'in',",
            log.output[0],
        )

    def test_job(self):
        job = self.start_export('xlsx', self.params(['name'], context={'default_type': 'url', 'default_name': "no"}))
        self.assertEqual((job.name, job.channel, job.user_id), ("Contact (XLSX)", 'export', self.user))
        for kind in ('export', 'report'):
            self.assertEqual(self.env['ir.async.channel'].search([('name', '=', kind)]).mapped('capacity'), [1])
        self.run_jobs()
        attachment = self.env['ir.attachment'].search([('res_model', '=', 'ir.async'), ('res_id', '=', job.id)])
        self.assertEqual(attachment.name, "Contact (res.partner).xlsx")
        self.assertEqual(attachment.create_uid, self.user)

    def test_file_is_the_owners(self):
        job = self.start_export('csv', self.params(['name']))
        self.run_jobs()
        url = job.payload['result']['url']
        attachment = self.env['ir.attachment'].search([('res_model', '=', 'ir.async'), ('res_id', '=', job.id)])
        self.assertIn('async 01', attachment.raw.decode())
        self.assertFalse(attachment.index_content)
        self.assertEqual(self.url_open(url).content, attachment.raw)
        for login, groups in (
            ('colleague', 'base.group_user'),
            ('boss', 'base.group_system,ir_async.ir_async_group_manager'),
        ):
            other = new_test_user(self.env, login, groups=groups, password=login)
            self.authenticate(login, login)
            with mute_logger('odoo.http'):
                self.assertEqual(self.url_open(url).status_code, 404)
            as_other = attachment.with_user(other)
            with self.assertRaises(AccessError):
                as_other.read(['raw'])
            self.assertFalse(as_other.search([('res_model', '=', 'ir.async')]))
            self.assertFalse(as_other.search([('id', '=', attachment.id)]))
        self.authenticate(None, None)
        with mute_logger('odoo.http'):
            self.assertNotEqual(self.url_open(url).content, attachment.raw)

    def test_file_goes_with_the_job(self):
        job = self.start_export('csv', self.params(['name']))
        self.run_jobs()
        attachment = self.env['ir.attachment'].search([('res_model', '=', 'ir.async'), ('res_id', '=', job.id)])
        self.env.cr.execute("UPDATE ir_async SET date_done = %s WHERE id = %s", [datetime(2020, 1, 1), job.id])
        self.env['ir.async']._gc_jobs()
        self.assertFalse(attachment.exists())

    # when it is done so

    def test_available(self):
        def available(user=self.user, format_='xlsx'):
            return self.env(user=user)['res.partner'].has_async_export(format_)

        info = self.make_jsonrpc_request('/web/session/get_session_info')
        self.assertEqual(info['async_downloads'], {'export': True, 'report': True})
        self.assertFalse(available(), "under test, jobs do not run by themselves")
        served = self.serve()
        self.assertTrue(available())
        for reason in ('no_worker', 'paused', 'upgrading'):
            served['export'] = reason
            self.assertFalse(available())
        served['export'] = None
        served['report'] = 'paused'
        self.assertTrue(available())
        self.assertFalse(available(format_='pdf'))

        settings = self.env['res.config.settings'].create({})
        self.assertTrue(settings.async_export)
        settings.async_export = False
        settings.execute()
        self.assertFalse(available())
        self.assertFalse(self.env['res.config.settings'].create({}).async_export)
        settings.async_export = True
        settings.execute()
        self.assertTrue(available())

        self.assertFalse(available(new_test_user(self.env, 'portal', groups='base.group_portal')))
        with patch.object(type(self.env['res.partner']), '_async_export', False):
            self.assertFalse(available())

    def queue(self, state, channel, worker_id=None):
        """Put a job of a channel into the queue, or have a worker run it."""
        job = self.env['ir.async'].with_options(channel=channel).call(self.partners.name_create, "x")
        job.flush_recordset()
        self.env.cr.execute("UPDATE ir_async SET state = %s, worker_id = %s WHERE id = %s", [state, worker_id, job.id])

    def test_short_ones_do_not_wait(self):
        self.serve()
        partners = self.env(user=self.user)['res.partner']
        short = json.dumps(self.params(ids=self.partners[:3].ids))
        by_domain = json.dumps(self.params(domain=[('id', 'in', self.partners[:3].ids)]))
        long = json.dumps(self.params(ids=self.partners[:4].ids))
        long_by_domain = json.dumps(self.params())
        self.startPatch(patch.object(base, 'BATCH_SIZE', 3))
        for data in (short, by_domain, long, long_by_domain, None):
            self.assertTrue(partners.has_async_export('csv', data))
        self.queue('processing', 'report', -1)
        self.assertFalse(partners.has_async_export('csv', short), "the only worker is busy")
        self.env.cr.execute("DELETE FROM ir_async")
        self.queue('created', 'default')
        self.queue('created', 'report')
        self.assertTrue(partners.has_async_export('csv', short))
        self.queue('created', 'export')
        for data in (short, by_domain, None):
            self.assertFalse(partners.has_async_export('csv', data), "one goes before")
        for data in (long, long_by_domain):
            self.assertTrue(partners.has_async_export('csv', data), "it can wait")

    def test_short_ones_do_not_wait_for_the_channel(self):
        """They are made in the foreground when their channel is paused, or its interval has not passed."""
        self.serve()
        partners = self.env(user=self.user)['res.partner']
        channel = self.env['ir.async.channel'].search([('name', '=', 'export')])
        everything = self.env['ir.async.channel'].create({'name': '*'})
        for record in (channel, everything):
            record.action_pause()
            self.assertFalse(partners.has_async_export('csv'))
            record.action_resume()
            self.assertTrue(partners.has_async_export('csv'))
        channel.write({'capacity': 0, 'interval': 40})
        self.assertTrue(partners.has_async_export('csv'), "it is the first one")
        for seconds, is_free in ((10, False), (50, True)):
            self.env.cr.execute(
                "DELETE FROM ir_async_start; INSERT INTO ir_async_start"
                " VALUES ('export', clock_timestamp() AT TIME ZONE 'UTC' - %s * interval '1 second', 1)",
                [seconds],
            )
            self.assertEqual(partners.has_async_export('csv'), is_free)
        self.queue('created', 'export')
        self.assertFalse(partners.has_async_export('csv'), "one goes before")

    def test_short_ones_go_first(self):
        self.startPatch(patch.object(base, 'BATCH_SIZE', 3))
        long = self.start_export('csv', self.params())
        short = self.start_export('csv', self.params(ids=self.partners[:3].ids))
        self.assertLess(short.priority, long.priority)
        self.assertEqual(self.run_jobs(), short + long)

    def test_asked_twice(self):
        params = self.params(['name'])
        job = self.start_export('csv', params)
        with self.assertEnqueuesNothing():
            self.assertEqual(self.start_export('csv', params), job)
            self.assertEqual(
                self.start_export('csv', dict(reversed(params.items()))), job, "the order of keys is nothing"
            )
        self.env.cr.flush()
        self.env.cr.execute("UPDATE ir_async SET state = 'processing', claim_number = 1 WHERE id = %s", [job.id])
        sent = []
        self.startPatch(
            patch.object(type(self.env['res.users']), '_bus_send', lambda _self, name, _message: sent.append(name))
        )
        other = self.start_export('csv', params)
        self.assertNotEqual(other, job, "what it has read may be old news")
        self.assertNotIn('simple_notification', sent)
        with self.assertEnqueuesNothing():
            self.assertEqual(self.start_export('csv', params), other)
        self.assertIn('simple_notification', sent)
        self.assertEqual(self.run_jobs(), other)
        self.assertNotIn(self.start_export('csv', params), job + other, "they have begun")

    def test_asked_otherwise(self):
        self.env['res.lang']._activate_lang('fr_FR')
        params = self.params(['name'])
        jobs = self.start_export('csv', params)
        for format_, changes in (
            ('xlsx', {}),
            ('csv', {'import_compat': True}),
            ('csv', {'ids': self.partners.ids}),
            ('csv', {'ids': self.partners.ids[::-1]}),
            ('csv', {'domain': []}),
            ('csv', {'groupby': ['color']}),
            ('csv', {'fields': []}),
            ('csv', {'context': {'lang': 'fr_FR'}}),
        ):
            jobs |= self.start_export(format_, {**params, **changes})
        self.assertEqual(len(jobs), 9)
        company = self.env['res.company'].create({'name': "another"})
        self.user.company_ids += company
        for context in ({'lang': 'fr_FR'}, {'allowed_company_ids': company.ids}, {'active_test': False}):
            records = self.env(user=self.user, context={'lang': self.user.lang, **context})['res.partner']
            jobs |= self.env['ir.async'].browse(records.async_export('csv', json.dumps(params))['asyncJobId'])
        colleague = new_test_user(self.env, 'colleague', groups='base.group_user,base.group_allow_export')
        records = self.env(user=colleague, context={'lang': self.user.lang})['res.partner']
        jobs |= self.env['ir.async'].browse(records.async_export('csv', json.dumps(params))['asyncJobId'])
        self.assertEqual(len(jobs), 13)

    def test_unknown_format(self):
        with self.assertEnqueuesNothing(), self.assertRaisesRegex(UserError, "Unknown export format pdf: .*csv, xlsx"):
            self.start_export('pdf', self.params())

    def test_internal_users_only(self):
        for groups in ('base.group_portal', 'base.group_public'):
            user = new_test_user(self.env, groups, groups=f'{groups},base.group_allow_export')
            partners = self.env(user=user)['res.partner']
            with self.assertEnqueuesNothing(), self.assertRaisesRegex(AccessError, "internal users"):
                partners.async_export('csv', json.dumps(self.params(['name'])))

    def test_internal_users_only_in_the_job(self):
        job = self.start_export('csv', self.params(['name']))
        self.user.group_ids = self.env.ref('base.group_portal') + self.env.ref('base.group_allow_export')
        with mute_logger('odoo.addons.ir_async.service.runner'):
            self.run_jobs()
        self.assertEqual(job.payload['error']['data']['name'], 'odoo.exceptions.AccessError')
        self.assertIn("internal users", job.payload['error']['data']['message'])

    # extensions

    def test_extensions(self):
        class Nothing:
            pass

        class AnotherFormat:
            @http.route('/web/export/nonsense', type='http', auth='user')
            def web_export_nonsense(self, data):
                raise NotImplementedError

        class PassesThrough:
            @http.route()
            def web_export_csv(self, data):
                if json.loads(data)['model'] == 'res.users':
                    return "mine"
                return super().web_export_csv(data=data)

        class Filename:
            def filename(self, base):
                return "mine"

        class Content:
            def from_data(self, fields, columns_headers, rows):
                return "mine"

        class Base:
            def base(self, data):
                return super().base(data.upper())

        class Request:
            def base(self, data):
                http.request.env.cr.execute("SELECT 1")
                return super().base(data)

        self.serve()
        partners = self.env(user=self.user)['res.partner']
        for mixin, is_background in (
            (Nothing, True),
            (AnotherFormat, True),
            (PassesThrough, True),
            (Filename, False),
            (Content, False),
            (Base, False),
            (Request, False),
        ):
            with self.subTest(mixin=mixin.__name__), extended(CSVExport, mixin):
                self.assertEqual(partners.has_async_export('csv'), is_background)
                self.assertTrue(partners.has_async_export('xlsx'))
        with extended(CSVExport, PassesThrough):
            self.assertTrue(partners.has_async_export('csv'))
            self.assertFalse(self.env(user=self.user)['res.users'].has_async_export('csv'))
        with extended(CSVExport, Content, module='odoo.addons.not_installed.controllers'):
            self.assertTrue(partners.has_async_export('csv'))


def _filename(response):
    return parse_options_header(response.headers['Content-Disposition'])[1]['filename']


def _cells(content):
    """Return all that a reader sees of a XLSX file."""
    book = openpyxl.load_workbook(io.BytesIO(content), rich_text=True)
    [sheet] = book.worksheets
    widths = {name: column.width for name, column in sheet.column_dimensions.items()}
    return (
        sheet.title,
        sheet.dimensions,
        widths,
        [
            (
                cell.coordinate,
                cell.data_type,
                cell.value,
                cell.number_format,
                cell.font.b,
                cell.fill.fgColor.rgb,
                cell.alignment.wrap_text,
                cell.hyperlink and cell.hyperlink.target,
            )
            for row in sheet.iter_rows()
            for cell in row
        ],
    )
