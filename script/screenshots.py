"""Take the screenshots of the documentation: see script/screenshots."""

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import time

import requests
from chromium import chromium, login
from devenv import ODOO, ROOT, STATE, cluster, psql
from PIL import Image
from run import DATABASE, default_port, prepare_database

from odoo.tools import config

IMAGES, DESCRIPTION = ROOT / 'docs' / 'images', ROOT / 'static' / 'description'
COPY = 'ir_async_screenshots'

# the jobs on the screenshots
ACTION = {'result': {'type': 'ir.actions.act_window', 'res_model': 'res.partner', 'view_mode': 'list'}}
FILE = {'result': {'type': 'ir.actions.act_url', 'url': '/web/content/1?download=true'}}
STACK = [
    ['/opt/odoo/addons/web/controllers/dataset.py', 38, 'call_kw'],
    ['/opt/addons/prices/models/product_pricelist.py', 42, 'action_import'],
]
TRACEBACK = """\
Traceback (most recent call last):
  File "/opt/addons/ir_async/models/ir_async_run.py", line 80, in _perform
    result = getattr(records, job.method)(*args, **kwargs)
  File "/opt/addons/prices/models/product_pricelist.py", line 57, in import_prices
    raise UserError(_("Line %(line)s: there is no product %(code)s.", line=118, code='CHAIR-7'))
odoo.exceptions.UserError: Line 118: there is no product CHAIR-7.
"""
ERROR = {
    'error': {
        'code': 0,
        'message': "Odoo Server Error",
        'data': {
            'name': 'odoo.exceptions.UserError',
            'message': "Line 118: there is no product CHAIR-7.",
            'arguments': ["Line 118: there is no product CHAIR-7."],
            'context': {},
            'debug': TRACEBACK,
        },
    }
}
# (name, model, method, state, payload, seconds since its creation, seconds waited, seconds run)
JOBS = [
    ("Newsletter to 5,000 subscribers", 'mailing.mailing', '_send_mail', 'done', None, 3600, 0.004, 312),
    ("Stock valuation", 'stock.quant', '_valuation', 'succeeded', ACTION, 1500, 0.003, 47),
    ("Price list import", 'product.pricelist', 'import_prices', 'failed', ERROR, 900, 0.003, 2.4),
    ("Contacts (XLSX)", 'res.partner', '_export', 'succeeded', FILE, 240, 0.002, 8.1),
    ("Invoices of October (PDF)", 'account.move', '_print', 'processing', None, 83, 0.003, None),
    ("Year archive", 'ir.attachment', '_archive', 'waiting', None, 80, None, None),
    ("Bank synchronization", 'account.journal', '_synchronize', 'created', None, 4, None, None),
]


def prepare_copy():
    prepare_database()
    subprocess.run(['dropdb', '--if-exists', '--force', COPY], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(['createdb', '-T', DATABASE, COPY], check=True)
    psql("UPDATE ir_config_parameter SET value = 'false' WHERE key = 'web.quick_login'", COPY)
    psql(
        "UPDATE res_partner SET name = 'Marc Demo' WHERE id = (SELECT partner_id FROM res_users WHERE login = 'admin')",
        COPY,
    )


def add_jobs():
    config.parse_config(['--load=base,web'], setup_logging=False)
    origin = importlib.import_module('odoo.addons.ir_async.engine.origin').EXPRESSIONS[True]
    psql("DELETE FROM ir_async", COPY)
    for name, model, method, state, payload, age, waited, ran in JOBS:
        values = ', '.join(map(quote, (name, model, method, state)))
        start = f"created + interval '{waited} s'" if waited is not None else 'NULL'
        done = f"created + interval '{waited + ran} s'" if ran else 'NULL'
        # without a worker, a ready job would say so
        scheduled = "created + interval '1 hour'" if state == 'created' else 'NULL'
        psql(
            f"""
            INSERT INTO ir_async (name, res_model, method, state, payload, res_ids, args, kwargs, context, user_id, notify,
                                  su, priority, channel, stack, origin, create_date, date_start, date_done, date_scheduled)
                 SELECT {values}, {quote(payload and json.dumps(payload))}::json,
                        '[]', '[]', '{{}}', '{{}}', u.id, true, false, 10, 'default', {quote(json.dumps(STACK))},
                        {origin}, created, {start}, {done}, {scheduled}
                   FROM res_users u, (SELECT now() AT TIME ZONE 'UTC' - interval '{age} s' AS created) AS times
                  WHERE u.login = 'admin'
        """,
            COPY,
        )
    psql(
        """
        INSERT INTO ir_async_progress (job_id, done, total, message)
             SELECT id, 6204, 10000, '6,204 of 10,000 invoices' FROM ir_async WHERE state = 'processing';
        INSERT INTO ir_async_after_rel (job_id, after_id)
             SELECT child.id, parent.id FROM ir_async child, ir_async parent
              WHERE child.state = 'waiting' AND parent.state = 'processing'
    """,
        COPY,
    )


def quote(value):
    return 'NULL' if value is None else "'" + value.replace("'", "''") + "'"


@contextlib.contextmanager
def server(port):
    """Run Odoo without workers and crons, so that the jobs stay as they are."""
    process = subprocess.Popen(
        [
            *ODOO,
            '-d',
            COPY,
            '--workers=0',
            '--max-cron-threads=0',
            '--http-interface=localhost',
            f'--http-port={port}',
            f'--logfile={STATE / "screenshots.log"}',
        ],
        env=os.environ | {'ODOO_IR_ASYNC_WORKERS': '0'},
        stdin=subprocess.DEVNULL,
    )
    url = f'http://localhost:{port}'
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f'{url}/web/login', timeout=60).ok:
                    break
            assert process.poll() is None and time.monotonic() < deadline, f'see {STATE / "screenshots.log"}'
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


class Camera:
    def __init__(self, browser, url, wanted):
        self.browser = browser
        self.url = url
        self.wanted = wanted

    @contextlib.contextmanager
    def page(self, path, width=1280, height=800, dark=False, **options):
        context = self.browser.new_context(
            viewport={'width': width, 'height': height}, device_scale_factor=2, reduced_motion='reduce', **options
        )
        if dark:
            context.add_cookies([{'name': 'color_scheme', 'value': 'dark', 'url': self.url}])
        page = context.new_page()
        login(page, self.url)
        page.goto(self.url + path)
        page.wait_for_selector('.o_ir_async_systray')
        page.wait_for_selector('.o_data_row, .o_kanban_record')
        page.evaluate('document.fonts.ready')
        try:
            yield page
        finally:
            context.close()

    def take(self, page, name, **options):
        if not self.wanted or name in self.wanted:
            page.screenshot(path=IMAGES / f'{name}.png', animations='disabled', **options)
            compress(IMAGES / f'{name}.png')
            print(IMAGES / f'{name}.png', flush=True)


def compress(path):
    """Reduce an image to 256 colours, which is enough without photos."""
    with Image.open(path) as image:
        image.convert('RGB').quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def draw_icon(browser):
    page = browser.new_page(viewport={'width': 100, 'height': 100})
    page.set_content(
        f'<style>body {{ margin: 0 }} svg {{ display: block }}</style>{(DESCRIPTION / "icon.svg").read_text(encoding="utf-8")}'
    )
    page.screenshot(path=DESCRIPTION / 'icon.png', omit_background=True)
    page.close()


def open_menu(page):
    page.click('.o_ir_async_systray')
    page.wait_for_selector('.o_ir_async_job')
    page.mouse.move(5, 795)


def shoot(camera):
    for scheme in ('light', 'dark'):
        with camera.page('/odoo/action-base.action_partner_form', dark=scheme == 'dark') as page:
            open_menu(page)
            camera.take(page, f'systray_{scheme}')
        with camera.page('/odoo/async-jobs', dark=scheme == 'dark') as page:
            page.wait_for_selector('.o_data_row')
            camera.take(page, f'list_{scheme}')
            page.click('.o_data_row:has-text("Price list") .o_data_cell[name=display_name]')
            page.wait_for_selector('.o_ir_async_traceback')
            camera.take(page, f'form_{scheme}')
    with camera.page('/odoo/action-base.action_partner_form', 390, 844, is_mobile=True, has_touch=True) as page:
        page.tap('.o_ir_async_systray')
        page.wait_for_selector('.o_ir_async_job')
        page.wait_for_timeout(500)  # the sheet slides in
        camera.take(page, 'systray_mobile')
    with camera.page('/odoo/action-base.action_partner_form') as page:
        page.evaluate("""() => {
            const { async_job } = odoo.__WOWL_DEBUG__.root.env.services;
            Object.values(async_job.jobs).filter((job) => job.name.startsWith("Contacts") || job.name.startsWith("Price"))
                .forEach((job) => async_job.toasts.showJob(job));
        }""")
        page.wait_for_selector('.o_notification')
        camera.take(page, 'toasts_light')


def main(wanted):
    IMAGES.mkdir(parents=True, exist_ok=True)
    prepare_copy()
    add_jobs()
    with server(default_port()) as url, chromium('--force-color-profile=srgb', '--hide-scrollbars') as browser:
        draw_icon(browser)
        shoot(Camera(browser, url, wanted))
    subprocess.run(['dropdb', '--force', COPY], check=True)
    for name in ('systray_light', 'systray_dark', 'systray_mobile', 'list_light', 'form_light'):
        shutil.copy(IMAGES / f'{name}.png', DESCRIPTION)  # the images that index.html shows


if __name__ == '__main__':
    with cluster():
        main(sys.argv[1:])
