"""A plugin of pytest that counts the tests. It fails tests that log a warning, and tests that are skipped for lack of a browser.

A test that expects a warning asserts it with ``assertLogs`` or mutes it with ``mute_logger``.
"""

import json
import logging
import os
import re
from collections import Counter
from pathlib import Path

import pytest

HOOT = re.compile(r'\[HOOT\] (?:Passed |Failed \d+ tests \()(\d+)')


class LogRecorder(logging.Handler):
    def __init__(self):
        super().__init__()
        self.bad = []
        self.hoot = Counter()

    def emit(self, record):
        if record.levelno >= logging.WARNING:
            self.bad.append(f'{record.levelname} {record.name}: {record.getMessage()}')
        elif record.name.endswith('.browser') and (match := HOOT.search(record.getMessage())):
            self.hoot['passed'] += int(match[1])

    def take(self):
        bad, self.bad = self.bad, []
        return '\n'.join(bad)


recorder = LogRecorder()


def in_odoo(config):
    return config.pluginmanager.has_plugin('odoo')


def pytest_configure(config):
    if in_odoo(config):
        logging.getLogger().addHandler(recorder)


def needs_browser_or_http(item):
    from odoo.tests import HttpCase  # noqa: PLC0415 -- system tests run without Odoo

    return getattr(item, 'cls', None) and issubclass(item.cls, HttpCase)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if in_odoo(item.config):
        if bad := recorder.take():
            if report.passed:
                report.outcome, report.longrepr = 'failed', f'Odoo logged:\n{bad}'
        elif report.skipped and needs_browser_or_http(item):
            report.outcome, report.longrepr = 'failed', f'Must not be skipped: {report.longrepr}'
    return report


def pytest_terminal_summary(terminalreporter, config):
    if bad := recorder.take():
        terminalreporter.section('logged after the last test')
        terminalreporter.line(bad)
        terminalreporter.stats.setdefault('error', []).append(bad)
    stats = {key: len(reports) for key, reports in terminalreporter.stats.items()}
    counts = {
        'passed': stats.get('passed', 0) + stats.get('xpassed', 0) + recorder.hoot['passed'],
        'failed': stats.get('failed', 0) + stats.get('error', 0),
        'skipped': stats.get('skipped', 0) + stats.get('xfailed', 0),
        'hoot': recorder.hoot['passed'],
    }
    Path(os.environ['IR_ASYNC_TEST_REPORT']).write_text(json.dumps(counts), encoding='utf-8')
