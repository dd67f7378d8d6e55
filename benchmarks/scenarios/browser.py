"""A click → the top bar shows that the job is done, in Chromium behind nginx."""

import contextlib
import statistics
import sys
import tempfile
from pathlib import Path

from report import percentile
from systems.process import free_ports
from systems.system import ROOT, Unavailable

SYSTEMS = ('ours',)

# JavaScript clicks the button, since a real click would close the menu.
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


def run(bench):
    def measure(system, row):
        system.enqueue('noop', [], 1, with_record=True)  # creates a record to open
        row.samples = click_latencies(system, 20 if bench.quick else 100)
        row.values.append(statistics.median(row.samples))
        row.add_note(f'p95 {percentile(row.samples, 0.95):.0f}, max {max(row.samples):.0f} ms of {len(row.samples)}')
        system.clean()

    rows = bench.compare(
        "A click on a button → the top bar shows the no-op job as done, prefork server behind nginx, Chromium, p50",
        1,
        {bench.ours: measure},
        'ms',
    )
    if rows[bench.ours].values:
        rows[bench.ours].judge('≤ 150 ms', rows[bench.ours].value <= 150)


def click_latencies(system, count):
    """Return the milliseconds from each click to the frame in which the top bar shows the job as done.

    :param system: a prefork server
    :param int count: the number of clicks
    :rtype: list[float]
    :raises Unavailable: when there is no browser, or when it fails
    """
    sys.path.append(str(ROOT / 'script'))
    from chromium import chromium, login  # noqa: PLC0415
    from nginx import Nginx  # noqa: PLC0415
    from playwright.sync_api import Error  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        [port] = free_ports(1)
        nginx = Nginx(Path(stack.enter_context(tempfile.TemporaryDirectory())), port, *system.ports)
        nginx.start()
        stack.callback(nginx.stop)
        try:
            page = stack.enter_context(chromium()).new_page()
            login(page, f'http://localhost:{port}')
            page.goto(f'http://localhost:{port}/odoo/bench/1')
            page.click('button[name=action_notify]')  # the menu only appears after the first job
            page.click('.o_ir_async_systray')
            page.wait_for_selector('.o_ir_async_job[data-state=done]')
            for _i in range(5):
                page.evaluate(CLICK)
            return [page.evaluate(CLICK) for _i in range(count)]
        except Error as exc:
            raise Unavailable(f'Chromium: {exc}') from exc
