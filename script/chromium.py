"""The browser for system tests, benchmark and screenshots."""

import contextlib
import shutil

from playwright.sync_api import sync_playwright

ARGS = ('--no-sandbox', '--disable-gpu', '--disable-background-networking')


@contextlib.contextmanager
def chromium(*args):
    """Provide Chromium as a browser of Playwright."""
    path = next(filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chromium-browser'))), None)
    with (
        sync_playwright() as playwright,
        contextlib.closing(playwright.chromium.launch(executable_path=path, args=[*ARGS, *args])) as browser,
    ):
        yield browser


def login(page, url):
    """Log in as the administrator."""
    page.goto(f'{url}/web/login')
    page.fill('[name=login]', 'admin')
    page.fill('[name=password]', 'admin')
    page.click('[type=submit]')
    page.wait_for_selector('.o_main_navbar')
