"""Exports and reports in the background, as users see them: prefork Odoo behind nginx, job workers, Chromium."""

import io
import re
import shutil
import threading
import zipfile

import openpyxl
import pypdf
import pytest
from browser_test import (
    EXPECTED,
    PATIENCE,
    Site,
    open_menu,
    systray,
)
from harness import Database, Server, complaints, free_port, wait_until
from nginx import Nginx
from PIL import Image
from playwright.sync_api import expect

PARTNERS = 200_000
MEMORY = 300 << 20
FIELDS = ['name', 'email', 'phone', 'street', 'city', 'zip', 'ref', 'country_id', 'create_date', 'color']
LIST = f"""<list export_xlsx="1">{''.join(f'<field name="{name}"/>' for name in FIELDS)}</list>"""
REPORT = """
    <t t-name="test.cards">
        <main>
            <div class="article" t-foreach="docs" t-as="doc">
                <p style="font-family: monospace">
                    Card of <t t-out="doc.name"/> in <t t-out="context.get('lang')"/>, for <t t-out="user.login"/>
                </p>
                <img src="/web/image/IMAGE" width="64" height="64"/>
            </div>
        </main>
    </t>
"""


def image_file():
    file = io.BytesIO()
    Image.radial_gradient('L').save(file, 'PNG')
    return file.getvalue()


class LargeNginx(Nginx):
    """For large files, too: what is kept of them in memory is enough."""

    CONF = Nginx.CONF.replace('proxy_read_timeout', 'proxy_max_temp_file_size 0;\n                proxy_read_timeout')


@pytest.fixture(scope='module')
def database(cluster):
    database = Database(cluster, 'export')
    database.sql(
        """
        INSERT INTO res_partner (name, complete_name, email, phone, street, city, zip, ref, country_id, color, active, type,
                                 lang, is_company, create_date, write_date, create_uid, write_uid)
             SELECT name, name, name || '@example.com', '+32 2 ' || i, 'Street ' || i, 'City ' || i %% 500, i %% 9999, 'ref ' || i,
                    (SELECT min(id) FROM res_country) + i %% 200, i %% 12, true, 'contact',
                    'en_US', false, '2026-01-01'::timestamp + i * interval '1 second', now(), 1, 1
               FROM (SELECT i, 'P' || to_char(i, 'FM000000') AS name FROM generate_series(1, %s) AS i) AS numbers
    """,
        [PARTNERS],
    )
    database.sql("ANALYZE res_partner")
    with database.env() as env:
        env['ir.ui.view'].create({'name': "test", 'model': 'res.partner', 'type': 'list', 'priority': 1, 'arch': LIST})
        env['ir.actions.act_window'].create(
            {'name': "Partners", 'res_model': 'res.partner', 'view_mode': 'list,form', 'path': 'test-partners'}
        )
        env['ir.actions.act_window'].create(
            {
                'name': "Few",
                'res_model': 'res.partner',
                'view_mode': 'list,form',
                'path': 'test-few',
                'domain': "[('name', 'like', 'P00001')]",
            }
        )
        image = env['ir.attachment'].create(
            {
                'name': "for users",
                'res_model': 'res.partner',
                'res_id': env.ref('base.partner_admin').id,
                'raw': image_file(),
            }
        )
        env['ir.ui.view'].create(
            {'type': 'qweb', 'name': 'test.cards', 'key': 'test.cards', 'arch': REPORT.replace('IMAGE', str(image.id))}
        )
        env['ir.actions.report'].create(
            {
                'name': "Cards",
                'model': 'res.partner',
                'report_name': 'test.cards',
                'report_type': 'qweb-pdf',
                'print_report_name': "'Card of %s' % object.name",
            }
        ).create_action()
    yield database
    database.drop()


@pytest.fixture(scope='module')
def gevent_port():
    return free_port()


@pytest.fixture(scope='module')
def temporary(tmp_path_factory):
    """Where the server puts temporary files."""
    return tmp_path_factory.mktemp('temporary')


@pytest.fixture(scope='module')
def odoo(cluster, database, gevent_port, temporary, tmp_path_factory):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv('TMPDIR', str(temporary))
        # The expected line is one of Odoo's own exports.
        odoo = Server(
            cluster,
            tmp_path_factory.mktemp('server'),
            [
                '-d',
                database.name,
                '--workers=2',
                '--max-cron-threads=0',
                '--proxy-mode',
                f'--gevent-port={gevent_port}',
            ],
            expected=[*EXPECTED, r'\.web_export_(csv|xlsx)> called ignoring args'],
        )
    try:
        odoo.wait_until_ready()
        yield odoo
        odoo.stop()
        assert not complaints(odoo.log, odoo.expected)
    finally:
        odoo.kill()


@pytest.fixture
def site(database, odoo, gevent_port, browser, tmp_path):
    database.sql("DELETE FROM ir_async; DELETE FROM bus_bus; DELETE FROM ir_attachment WHERE res_model = 'ir.async'")
    nginx = LargeNginx(tmp_path, free_port(), odoo.port, gevent_port)
    nginx.start()
    set_params(database, **{'report.url': f'http://localhost:{nginx.port}', 'report.print_delay': '0'})
    context = browser.new_context(viewport={'width': 1280, 'height': 800})
    context.set_default_timeout(PATIENCE)
    try:
        site = Site(database, odoo, nginx, context)
        site.login()
        yield site
    finally:
        context.close()
        nginx.stop()


@pytest.fixture
def synchronous(database):
    """A function that switches the background off, or on again."""

    def switch(off):
        set_params(database, **{'ir_async.export': not off, 'ir_async.report': not off})

    yield switch
    switch(False)


def set_params(database, **params):
    """Set system parameters, of which the server has copies."""
    with database.env() as env:
        for key, value in params.items():
            env['ir.config_parameter'].set_param(key, value)
    env.registry.signal_changes()


class Memory:
    """How much the job workers grow meanwhile, at most, in bytes."""

    def __init__(self, odoo):
        self.processes = {worker: worker.memory_info().rss for worker in odoo.workers()}
        self.growth = 0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def _watch(self):
        while not self.is_over.wait(0.1):
            for worker, start in self.processes.items():
                self.growth = max(self.growth, worker.memory_info().rss - start)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *args):
        self.is_over.set()
        self.thread.join()


def export_all(tab):
    tab.click('.o_control_panel .o_cp_action_menus button')
    tab.click('.o_export_all_menu')


def export_by_dialog(tab, format_):
    """Export what is selected; the dialog stays open in the end."""
    tab.click('.o_control_panel .o_cp_action_menus button:has-text("Actions")')
    tab.click('.o-dropdown-item:has-text("Export")')
    tab.check(f'#o_radio{format_}', force=True)
    with tab.expect_download() as download:
        tab.click('.o_select_button')
    expect(tab.locator('.o_select_button')).to_be_enabled()
    tab.click('.modal .o_form_button_cancel')
    return download.value


def print_cards(tab):
    tab.click('.o_control_panel .o_cp_action_menus button:has-text("Print")')
    tab.click('.o-dropdown-item:has-text("Cards")')


def cells(path):
    with path.open('rb') as file:  # its name has no extension
        [sheet] = openpyxl.load_workbook(file).worksheets
    return [
        [(cell.data_type, cell.value, cell.number_format, cell.font.b) for cell in row] for row in sheet.iter_rows()
    ]


def pages(path):
    """Return what is on the pages of a PDF file: the text, and the images."""
    return [(page.extract_text(), [image.data for image in page.images]) for page in pypdf.PdfReader(path).pages]


def jobs(site):
    return [
        tuple(job)
        for job in site.database.sql("SELECT name, state, channel, dismissed IS TRUE FROM ir_async ORDER BY id")
    ]


def in_background(tab):
    return tab.locator('.o_notification', has_text="This is taking longer than expected")


def test_without_workers(database):
    """Exports do not wait for workers that are not there. (First here: the others' server was not started yet.)"""
    with database.env() as env:
        assert not env(user=2)['res.partner'].has_async_export('xlsx')


def test_quick(site, synchronous):
    """As without jobs: a file, the same one, and no trace of how it came."""
    files = {}
    for off in (True, False):
        synchronous(off)
        tab = site.open_tab('/odoo/test-few')
        with tab.expect_download() as download:
            export_all(tab)
        files[off, 'all'] = download.value
        tab.check('thead .o_list_record_selector input')
        files[off, 'csv'] = export_by_dialog(tab, 'csv')
        files[off, 'xlsx'] = export_by_dialog(tab, 'xlsx')
        expect(systray(tab)).to_have_count(0)
        expect(tab.locator('.o_notification')).to_have_count(0)
    wait_until(
        lambda: jobs(site) == [(f"Contact ({format_})", 'done', 'export', True) for format_ in ('XLSX', 'CSV', 'XLSX')]
    )
    for what in ('all', 'csv', 'xlsx'):
        assert files[False, what].suggested_filename == files[True, what].suggested_filename
    assert files[False, 'csv'].path().read_bytes() == files[True, 'csv'].path().read_bytes()
    for what in ('all', 'xlsx'):
        assert cells(files[False, what].path()) == cells(files[True, what].path())
    assert [row[0][1] for row in cells(files[False, 'all'].path())][1:3] == ['P000010', 'P000011']


def test_long(site, odoo, browser, measured):
    """The user goes on working, on whatever device, sees how far it is, and has the right file in the end."""
    with Memory(odoo) as memory:
        tab = site.open_tab('/odoo/test-partners')
        export_all(tab)
        expect(tab.locator('.o_blockUI')).to_be_visible()
        expect(in_background(tab)).to_be_visible()
        expect(tab.locator('.o_blockUI')).to_have_count(0)

        tab.click('.o_data_row >> nth=5 >> .o_data_cell >> nth=0')
        expect(tab.locator('.o_form_view')).to_be_visible()
        tab.goto(site.url + '/odoo/test-few')
        expect(tab.locator('.o_data_row')).to_have_count(10)
        open_menu(tab)
        done = [int(tab.locator('[role=progressbar]').get_attribute('aria-valuenow'))]
        while len(done) < 4:
            expect(tab.locator('[role=progressbar]')).not_to_have_attribute('aria-valuenow', str(done[-1]))
            done.append(int(tab.locator('[role=progressbar]').get_attribute('aria-valuenow')))
        assert done == sorted(done)
        tab.close()

        device = browser.new_context(viewport={'width': 800, 'height': 1000})
        device.set_default_timeout(PATIENCE)
        other = Site(site.database, odoo, site.nginx, device)
        other.login()
        tab = other.open_tab('/odoo/test-few')
        site.database.wait_for_all(300)
    expect(tab.locator('.o_notification')).to_contain_text("Your file is ready")
    tab.click('.o_notification_close')
    open_menu(tab)
    with tab.expect_download() as download:
        tab.click('.o_ir_async_open')
    wait_until(lambda: jobs(site) == [("Contact (XLSX)", 'done', 'export', False)])
    assert download.value.suggested_filename == 'Contact (res.partner).xlsx'
    with zipfile.ZipFile(download.value.path()) as archive:
        sheet = archive.read('xl/worksheets/sheet1.xml').decode()
    names = re.findall(r'<c r="A\d+" s="\d+" t="inlineStr"><is><t>([^<]*)</t>', sheet)
    assert names[1:] == [
        name
        for [name] in site.database.sql("SELECT complete_name FROM res_partner WHERE active ORDER BY complete_name, id")
    ]
    assert sheet.count('<c ') == (len(names)) * len(FIELDS)
    device.close()
    assert memory.growth < MEMORY
    measured(
        f"export of {len(names) - 1:,} partners with {len(FIELDS)} fields: a worker grew by {memory.growth >> 20} MiB"
    )


def test_cancel(site, temporary):
    """Nothing is left of an export that is cancelled in the middle."""
    tab = site.open_tab('/odoo/test-partners')
    export_all(tab)
    expect(tab.locator('.o_blockUI')).to_have_count(1)
    expect(tab.locator('.o_blockUI')).to_have_count(0)
    assert list(temporary.glob('ir_async.*/*'))
    open_menu(tab)
    tab.click('.o_ir_async_cancel')
    tab.click('.modal button:has-text("Cancel Job")')
    expect(tab.locator('.o_ir_async_job[data-state=cancelled]')).to_be_visible()
    assert jobs(site) == [("Contact (XLSX)", 'cancelled', 'export', False)]
    assert not site.database.value("SELECT count(*) FROM ir_attachment WHERE res_model = 'ir.async'")
    wait_until(lambda: not list(temporary.glob('ir_async.*/*')), "no temporary files are left")


@pytest.mark.skipif(not shutil.which('wkhtmltopdf'), reason="there is no wkhtmltopdf")
def test_report(site, synchronous):
    files = {}
    for off in (True, False):
        synchronous(off)
        tab = site.open_tab('/odoo/test-few')
        tab.check('.o_data_row >> nth=2 >> .o_list_record_selector input')
        with tab.expect_download() as download:
            print_cards(tab)
        expect(tab.locator('.o_blockUI')).to_have_count(0)
        expect(systray(tab)).to_have_count(0)
        files[off] = download.value
    wait_until(lambda: jobs(site) == [("Cards: P000012", 'done', 'report', True)])
    assert files[False].suggested_filename == files[True].suggested_filename == 'Card of P000012.pdf'
    [(text, images)] = pages(files[False].path())
    assert ' '.join(text.split()) == "Card of P000012 in en_US, for admin"
    assert images, "the image, which needs a login"
    assert pages(files[False].path()) == pages(files[True].path())


@pytest.mark.skipif(not shutil.which('wkhtmltopdf'), reason="there is no wkhtmltopdf")
def test_long_report(site):
    set_params(site.database, **{'report.print_delay': '6000'})
    tab = site.open_tab('/odoo/test-few')
    tab.check('.o_data_row >> nth=2 >> .o_list_record_selector input')
    print_cards(tab)
    expect(in_background(tab)).to_be_visible()
    expect(tab.locator('.o_blockUI')).to_have_count(0)
    with tab.expect_download() as download:
        tab.click('.o_notification button:has-text("Download")')
    [(text, images)] = pages(download.value.path())
    assert 'P000012' in text
    assert images
