"""Reports printed by the real wkhtmltopdf, which fetches style sheets and images from the server."""

import contextlib
import io
import re
import shutil
from importlib import import_module

import psutil
import pypdf
import pytest
from harness import wait_until

pytestmark = pytest.mark.skipif(not shutil.which('wkhtmltopdf'), reason="there is no wkhtmltopdf")

HTTP = ('--workers=2', '--max-cron-threads=0')
ARCH = """
    <t t-name="test.card">
        <main>
            <div class="article" t-foreach="docs" t-as="doc">
                <p style="font-family: monospace">Card of <t t-out="doc.name"/></p>
                <p class="d-none" style="font-family: monospace">Without style</p>
            </div>
        </main>
    </t>
"""


def make_report(database):
    with database.env() as env:
        env['ir.ui.view'].create({'type': 'qweb', 'name': 'test.card', 'key': 'test.card', 'arch': ARCH})
        env['ir.actions.report'].create(
            {'name': "Card", 'model': 'res.partner', 'report_name': 'test.card', 'report_type': 'qweb-pdf'}
        )


def print_card(database, odoo, uid=1):
    """Have a job of a user print a card; return its text."""
    with database.env() as env:
        env['ir.config_parameter'].set_param('report.url', f'http://localhost:{odoo.port}')
        reports = env(user=uid)['ir.actions.report']
        job = env['ir.async'].call(reports._print_file, 'test.card', env.ref('base.main_partner').ids, {})
        job_id = job.id
    assert database.wait_for(job_id).state == 'succeeded', database.job(job_id).payload
    with database.env() as env:
        [attachment] = env['ir.attachment'].search([('res_model', '=', 'ir.async'), ('res_id', '=', job_id)])
        return ' '.join(
            ' '.join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(attachment.raw)).pages).split()
        )


@pytest.mark.parametrize('uid', [1, 2], ids=['superuser', 'administrator'])
def test_style_sheets_with_several_databases(make_database, server, cluster, uid):
    """A report has its style sheets, whoever prints it, although the server does not know which database is meant."""
    database, _other = make_database(), make_database()
    make_report(database)
    with server(args=HTTP, expected=[r'WARNING .* wkhtmltopdf: ']) as odoo:
        text = print_card(database, odoo, uid)
        assert text.startswith("Card of ")
        assert "Without style" not in text
        fetched = re.findall(r'"GET (/web/assets/\S+) HTTP/1.\d" (\d+)', odoo.log)
        assert fetched
        assert {status for _url, status in fetched} == {'200'}
        sessions = [
            path for path in (cluster.folder / 'data' / 'sessions').glob('*/*') if database.name in path.read_text()
        ]
        assert not sessions


def test_session_of_a_cancelled_report_can_be_found(database, server, cluster, tmp_path, monkeypatch):
    """Whoever removes the files of a worker that was ended by force finds the session of the user there."""
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    make_report(database)

    def sessions():
        return [
            path for path in (cluster.folder / 'data' / 'sessions').glob('*/*') if database.name in path.read_text()
        ]

    with server(database, args=HTTP) as odoo:
        with database.env() as env:
            env['ir.config_parameter'].set_param('report.url', f'http://localhost:{odoo.port}')
            env['ir.config_parameter'].set_param('report.print_delay', '600000')
            job_id = (
                env['ir.async']
                .call(env(user=2)['ir.actions.report']._print_file, 'test.card', env.ref('base.main_partner').ids, {})
                .id
            )
        wait_until(sessions, "wkhtmltopdf has a session")
        with database.env() as env:
            env['ir.async'].browse(job_id).cancel()
        assert database.wait_for(job_id).state == 'cancelled'
        for process in odoo.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if 'wkhtmltopdf' in process.name():
                    process.kill()
        with database.env() as env:
            # The addons are on the path once there is an environment.
            import_module('odoo.addons.ir_async.tools.sessions').delete_noted(tmp_path)
        assert not sessions()
        assert not list(tmp_path.glob('**/session.*'))
