"""From a click to the top bar, in Chromium."""
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

from peers import Unavailable
from systems import ROOT, free_ports

sys.path.append(str(ROOT / 'script'))
from nginx import Nginx  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chromium-browser'))), None)
ARGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking']
# The button is clicked by the script: a real click would close the menu.
CLICK = """() => new Promise((resolve) => {
    const ended = () => [...document.querySelectorAll(".o_ir_async_job[data-state=done]")].map((row) => row.dataset.id);
    const before = new Set(ended());
    const observer = new MutationObserver(() => {
        if (ended().some((id) => !before.has(id))) {
            observer.disconnect();
            requestAnimationFrame(() => resolve(performance.now() - start));
        }
    });
    observer.observe(document.body, { subtree: true, childList: true, attributes: true });
    const start = performance.now();
    document.querySelector("button[name=action_notify]").click();
})"""


def click_latencies(system, count):
    """Return the milliseconds from each click to the frame in which the top bar shows the job as done.

    :param system: a prefork server
    :param int count: how many clicks
    :rtype: list[float]
    :raises Unavailable: when there is no browser, or it does not get on
    """
    from playwright.sync_api import Error, sync_playwright  # noqa: PLC0415
    with contextlib.ExitStack() as stack:
        [port] = free_ports(1)
        nginx = Nginx(Path(stack.enter_context(tempfile.TemporaryDirectory())), port, *system.ports)
        nginx.start()
        stack.callback(nginx.stop)
        try:
            playwright = stack.enter_context(sync_playwright())
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
            stack.callback(chromium.close)
            page = chromium.new_page()
            page.goto(f'http://localhost:{port}/web/login')
            page.fill('[name=login]', 'admin')
            page.fill('[name=password]', 'admin')
            page.click('[type=submit]')
            page.wait_for_selector('.o_main_navbar')
            page.goto(f'http://localhost:{port}/odoo/bench/1')
            page.click('button[name=action_notify]')  # there is no menu before
            page.click('.o_ir_async_systray')
            page.wait_for_selector('.o_ir_async_job[data-state=done]')
            for _i in range(5):
                page.evaluate(CLICK)
            return [page.evaluate(CLICK) for _i in range(count)]
        except Error as exc:
            raise Unavailable(f'Chromium: {exc}') from exc
