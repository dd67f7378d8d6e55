"""From a click to the result in the top bar: prefork Odoo behind nginx, job workers, Chromium."""

import contextlib
import re

import pytest
from chromium import login
from harness import Database, Server, complaints, free_port, wait_until
from nginx import Nginx
from playwright.sync_api import expect

GATE = 4711
EXPECTED = [
    r'ZeroDivisionError|Job \d+ .*failed',  # of the test
    # Odoo's own: about the styles of its login page, about browsers that leave, and about websockets on its HTTP port
    r'Undefined variable: "\$black"',
    r'websocket',
    r'odoo.http: Exception during request handling',
]
PATIENCE = 30_000  # milliseconds
expect.set_options(timeout=PATIENCE)


class Site:
    """What the tests need: tabs, and the gate that the jobs wait at."""

    def __init__(self, database, odoo, nginx, context):
        self.database = database
        self.odoo = odoo
        self.nginx = nginx
        self.context = context
        self.url = f'http://localhost:{nginx.port}'

    def open_tab(self, path='/odoo/async-test'):
        tab = self.context.new_page()
        tab.goto(self.url + path)
        expect(tab.locator('.o_web_client .o_main_navbar')).to_be_visible()
        return tab

    def login(self):
        tab = self.context.new_page()
        login(tab, self.url)
        tab.close()

    @contextlib.contextmanager
    def closed_gate(self):
        with contextlib.closing(self.database.cluster.connect(self.database.name)) as connection:
            connection.cursor().execute("SELECT pg_advisory_lock(%s)", [GATE])
            yield

    def wait_until_processing(self):
        """Wait until a job is at the gate."""
        wait_until(
            lambda: self.database.value(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted", [GATE]
            ),
            "a job is at the gate",
        )

    def wait_until_ended(self):
        self.database.wait_for_all()


@pytest.fixture(scope='module')
def database(cluster):
    database = Database(cluster, 'browser')
    cluster.odoo('-d', database.name, '-i', 'test_ir_async_web')
    yield database
    database.drop()


@pytest.fixture(scope='module')
def gevent_port():
    return free_port()


@pytest.fixture(scope='module')
def odoo(cluster, database, gevent_port, tmp_path_factory):
    odoo = Server(
        cluster,
        tmp_path_factory.mktemp('server'),
        ['-d', database.name, '--workers=2', '--max-cron-threads=0', '--proxy-mode', f'--gevent-port={gevent_port}'],
        expected=EXPECTED,
    )
    try:
        odoo.wait_until_ready()
        yield odoo
        odoo.stop()
        assert not complaints(odoo.log, EXPECTED)
    finally:
        odoo.kill()


@pytest.fixture
def site(database, odoo, gevent_port, browser, tmp_path):
    database.sql("DELETE FROM ir_async")
    database.sql("DELETE FROM bus_bus")  # a new browser gets the messages of the last minute
    nginx = Nginx(tmp_path, free_port(), odoo.port, gevent_port)
    nginx.start()
    context = browser.new_context(viewport={'width': 1280, 'height': 800})
    context.set_default_timeout(PATIENCE)
    try:
        site = Site(database, odoo, nginx, context)
        site.login()
        yield site
    finally:
        context.close()
        nginx.stop()


def systray(tab):
    return tab.locator('.o_ir_async_systray')


def expect_running(tab):
    expect(systray(tab).locator('.o_ir_async_spin')).to_be_visible()


def expect_results(tab, count):
    expect(systray(tab).locator('.o_ir_async_counter')).to_have_text(str(count))


def expect_no_results(tab):
    expect(systray(tab).locator('.o_ir_async_counter')).to_have_count(0)


def expect_said(tab, text):
    expect(tab.locator('output')).to_have_text(text)


def open_menu(tab):
    systray(tab).click()
    expect(tab.locator('.o_ir_async_menu_content')).to_be_visible()


def test_click_to_result(site):
    """The user goes on working, sees it progress, and opens the result from the top bar; a second tab follows."""
    tab, other = site.open_tab(), site.open_tab()
    with site.closed_gate():
        tab.click('button[name=action]')
        expect(tab.locator('.o_blockUI')).to_be_visible()
        expect_running(tab)
        expect_running(other)
        site.wait_until_processing()
        expect(tab.locator('.o_notification')).to_contain_text('the result will appear under Background jobs')
        expect(tab.locator('.o_blockUI')).to_have_count(0)
        open_menu(tab)
        expect(tab.locator('.o_ir_async_progress_message')).to_have_text(re.compile(r'Nearly there.*75%'))
        expect_no_results(tab)
    expect_said(tab, re.compile(r'^succeeded \d+$'))
    expect_results(tab, 1)
    expect_results(other, 1)
    expect(other.locator('.o_notification')).to_contain_text('Job with action')  # it was shown last
    expect(tab.locator('.o_notification:has-text("Job with action. The result")')).to_have_count(0)
    tab.locator('.o_ir_async_job .o_ir_async_open').click()
    expect(tab.locator('.o_breadcrumb')).to_contain_text('Countries')
    expect(tab.locator('.o_data_row').first).to_be_visible()
    expect_no_results(tab)
    expect_no_results(other)
    expect(other.locator('.o_notification:has-text("Job with action")')).to_have_count(0)
    assert site.database.states() == {'done': 1}


def test_late_result_leaves_the_page_alone(site):
    """A user fills in a form while a result arrives late: the text and the form stay, a toast offers the result."""
    tab = site.open_tab()
    with site.closed_gate():
        tab.click('button[name=run]')
        blocking = tab.locator('.o_ir_async_block')
        expect(blocking).to_contain_text('Job with action')
        expect(blocking.locator('.o_ir_async_progress_message')).to_have_text(re.compile(r'Nearly there.*75%'))
        blocking.locator('button:has-text("Continue in background")').click()
        expect(blocking).to_have_count(0)
        tab.evaluate("""odoo.__WOWL_DEBUG__.root.env.services.action.doAction({
            type: 'ir.actions.act_window', res_model: 'res.country', views: [[false, 'form']]})""")
        name = tab.locator('.o_form_view .o_field_widget[name=name] input')
        name.press_sequentially('Half a na')
        site.wait_until_processing()
    site.wait_until_ended()
    toast = tab.locator('.o_notification:has-text("The result is ready")')
    expect(toast).to_be_visible()
    name.press_sequentially('me')
    expect(name).to_have_value('Half a name')
    expect(name).to_be_focused()
    expect(tab.locator('.o_dialog')).to_have_count(0)
    expect_results(tab, 1)
    assert site.database.states() == {'succeeded': 1}


def test_late_error_leaves_the_page_alone(site):
    tab = site.open_tab()
    with site.closed_gate():
        tab.click('button[name=error]')
        tab.locator('.o_ir_async_continue').click()
        tab.locator('input[name=text]').press_sequentially('Half a na')
        site.wait_until_processing()
    toast = tab.locator('.o_notification:has-text("division by zero")')
    expect(toast).to_be_visible()
    tab.locator('input[name=text]').press_sequentially('me')
    expect(tab.locator('input[name=text]')).to_have_value('Half a name')
    expect(tab.locator('.o_dialog')).to_have_count(0)
    toast.locator('button:has-text("Show error")').click()
    expect(tab.locator('.o_error_dialog .o_ir_async_error_job')).to_contain_text('Job with error')
    tab.locator('.o_error_dialog .o_ir_async_error_retry').click()
    expect(tab.locator('.o_error_dialog')).to_have_count(0)
    expect(toast).to_be_visible()


def test_quick_result_opens_by_itself(site):
    tab = site.open_tab()
    tab.click('button[name=run]')
    expect(tab.locator('.o_breadcrumb')).to_contain_text('Countries')
    expect_no_results(tab)
    assert site.database.states() == {'done': 1}


def test_session_expired(site):
    """Polling stops without a word, until the user has logged in again."""
    site.url = f'http://localhost:{site.odoo.port}'  # without a websocket: the jobs are polled
    site.login()
    tab = site.open_tab()
    with site.closed_gate():
        tab.click('button[name=nothing]')
        tab.locator('.o_ir_async_continue').click()
        site.wait_until_processing()
        expect_running(tab)
        cookies = site.context.cookies()
        site.context.clear_cookies()
        with tab.expect_response(lambda response: 'get_user_jobs' in response.url) as polled:
            pass
        assert 'SessionExpired' in polled.value.text()
        expect(tab.locator('.o_dialog')).to_have_count(0)
    site.wait_until_ended()
    expect(tab.locator('.o_dialog')).to_have_count(0)
    expect_running(tab)
    site.context.add_cookies(cookies)
    tab.evaluate("odoo.__WOWL_DEBUG__.root.env.services.orm.searchCount('res.country', [])")
    expect_said(tab, 'done 4')


def test_spinner_turns_around_its_own_centre(site):
    """The ring's pixels stay within the icon's own square, at any angle."""
    tab = site.open_tab()
    with site.closed_gate():
        tab.click('button[name=nothing]')
        tab.locator('.o_ir_async_continue').click()
        site.wait_until_processing()
        open_menu(tab)
        for icon in tab.locator('.o_ir_async_spin').all():
            box = icon.evaluate("""icon => ({
                width: icon.offsetWidth, height: icon.offsetHeight, origin: getComputedStyle(icon).transformOrigin,
                animation: getComputedStyle(icon).animationName,
            })""")
            assert box['animation'] == 'fa-spin'
            assert box['width'] == box['height'] > 5
            x, y = (float(value.removesuffix('px')) for value in box['origin'].split())
            assert abs(x - box['width'] / 2) < 1
            assert abs(y - box['height'] / 2) < 1


def test_websocket_cut(site):
    """The job ends while nothing reaches the browser, neither websocket nor HTTP."""
    tab = site.open_tab()
    with site.closed_gate():
        tab.click('button[name=large]')
        expect_running(tab)
        site.wait_until_processing()
        site.nginx.stop()
    site.wait_until_ended()
    expect_running(tab)
    site.nginx.start()
    expect_said(tab, 'succeeded 100013')
    expect(systray(tab).locator('.o_ir_async_spin')).to_have_count(0)


def test_reload(site):
    """The page is loaded again while the job runs, and once more when it has ended."""
    tab = site.open_tab()
    with site.closed_gate():
        tab.click('button[name=action]')
        site.wait_until_processing()
        tab.reload()
        expect_running(tab)
        open_menu(tab)
        expect(tab.locator('.o_ir_async_progress_message')).to_have_text(re.compile(r'Nearly there.*75%'))
    expect_results(tab, 1)
    tab.reload()
    expect_results(tab, 1)
    open_menu(tab)
    tab.locator('.o_ir_async_job .o_ir_async_open').click()
    expect(tab.locator('.o_breadcrumb')).to_contain_text('Countries')


def test_failed(site):
    """The standard dialog shows the traceback of the server."""
    tab = site.open_tab()
    tab.click('button[name=error]')
    dialog = tab.locator('.o_error_dialog')
    expect(dialog).to_be_visible()
    expect_said(tab, 'RPC_ERROR')
    dialog.locator('button:has-text("technical details")').click()
    expect(dialog.locator('.o_error_detail')).to_contain_text('was enqueued by admin')
    expect(dialog.locator('.o_error_detail')).to_contain_text('ZeroDivisionError: division by zero')


def test_cancelled(site):
    tab = site.open_tab()
    with site.closed_gate():
        tab.click('button[name=nothing]')
        site.wait_until_processing()
        expect(tab.locator('.o_blockUI')).to_have_count(0)
        open_menu(tab)
        tab.locator('.o_ir_async_job .o_ir_async_cancel').click()
        dialog = tab.locator('.modal')
        expect(dialog).to_contain_text('“Job with nothing” is running')
        dialog.locator('button:has-text("No, keep it")').click()
        expect(dialog).to_have_count(0)
        expect(tab.locator('.o_ir_async_job[data-state=processing]')).to_be_visible()
        tab.locator('.o_ir_async_job .o_ir_async_cancel').click()
        dialog.locator('button:has-text("Cancel Job")').click()
        expect_said(tab, 'AsyncJobCancelledError')
        expect(tab.locator('.o_ir_async_job[data-state=cancelled]')).to_be_visible()
        expect(tab.locator('.o_error_dialog')).to_have_count(0)


def test_no_websocket(site):
    """Prefork without a proxy: the websocket is on another port, the jobs are polled."""
    site.url = f'http://localhost:{site.odoo.port}'
    site.login()
    tab = site.open_tab()
    with site.closed_gate():
        tab.click('button[name=nothing]')
        site.wait_until_processing()
    expect_said(tab, 'done 4')


def test_many(site, measured):
    """500 jobs that end within a second or two do not freeze the page, and one toast sums them up."""
    tab = site.open_tab()
    tab.evaluate("""() => {
        window.longest = 0;
        let last = performance.now();
        requestAnimationFrame(function measure(now) {
            window.longest = Math.max(window.longest, now - last);
            last = now;
            requestAnimationFrame(measure);
        });
    }""")
    tab.evaluate("odoo.__WOWL_DEBUG__.root.env.services.orm.call('test.async.web', 'start_many', [500])")
    expect(tab.locator('.o_notification')).to_have_text(re.compile(r'500 jobs have ended'), timeout=4 * PATIENCE)
    expect(tab.locator('.o_notification')).to_have_count(1)
    open_menu(tab)
    expect(tab.locator('.o_ir_async_job')).to_have_count(20)
    longest = tab.evaluate('window.longest')
    measured(f"500 jobs: longest frame of the page {longest:.0f} ms")
    assert longest < 2000  # a busy machine takes 500 ms
