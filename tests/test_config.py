import os
import signal
import tempfile
from textwrap import dedent
from unittest.mock import patch

from odoo.tests import BaseCase
from odoo.tools import config

from odoo.addons.ir_async.tools.config import (
    MAX_SECONDS,
    PARSERS,
    Settings,
    settings,
)
from odoo.addons.ir_async.tools.options import MAX_INT


class TestConfig(BaseCase):
    """The section ``[ir_async]``."""

    def settings(self, content='', **environment):
        environment = {f'ODOO_IR_ASYNC_{key.upper()}': value for key, value in environment.items()}
        rest = {key: value for key, value in os.environ.items() if not key.startswith('ODOO_IR_ASYNC_')}
        with (
            tempfile.NamedTemporaryFile('w', encoding='utf-8', suffix='.conf') as file,
            patch.dict(os.environ, rest | environment, clear=True),
            patch.dict(config._runtime_options, config=file.name),
        ):
            file.write(content)
            file.flush()
            settings.cache_clear()
            try:
                return settings()
            finally:
                settings.cache_clear()

    def test_defaults(self):
        self.assertEqual(self.settings(), Settings(2, [], 3600, 8, 60, '', 0, 0))
        self.assertEqual(self.settings('[options]\nworkers = 7\n[other]\nworkers = x\n'), Settings())
        self.assertEqual(self.settings('[ir_async]\n'), Settings())
        self.assertEqual(self.settings('[ir_async]\nworkers =\nchannels =\n', poll_interval=''), Settings())
        self.assertEqual(set(PARSERS), set(Settings._fields))

    def test_values(self):
        self.assertEqual(
            self.settings(
                dedent("""
                [ir_async]
                workers = 4            ; processes
                channels = export, partner ,,
                limit_time_real = 0.5  # seconds
                stop_timeout = 0
                poll_interval = 1
                db_host = db.example.com
                db_port = 5433
                db_maxconn = 2
            """)
            ),
            Settings(4, ['export', 'partner'], 0.5, 0, 1, 'db.example.com', 5433, 2),
        )

    def test_timers_take_the_longest_times(self):
        values = self.settings(f'[ir_async]\nlimit_time_real = {MAX_SECONDS}\n')
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, *signal.getitimer(signal.ITIMER_REAL))
        signal.setitimer(signal.ITIMER_REAL, values.limit_time_real + 1)
        signal.setitimer(signal.ITIMER_REAL, MAX_INT + 1)  # of the option `timeout`

    def test_environment(self):
        """It wins over the file."""
        self.assertEqual(
            self.settings('[ir_async]\nworkers = 4\nstop_timeout = 3\n', workers='0', channels='a,b'),
            Settings(workers=0, channels=['a', 'b'], stop_timeout=3),
        )

    def test_errors(self):
        for content, environment, message in (
            ('workers = two', {}, r"\[ir_async\] workers = 'two': expected a whole number from 0 to 10000"),
            ('workers = -1', {}, r"workers = '-1'"),
            ('workers = 1.5', {}, r"workers = '1\.5'"),
            ('limit_time_real = 1h', {}, r"limit_time_real = '1h': expected a number of seconds"),
            ('limit_time_real = nan', {}, "limit_time_real"),
            ('limit_time_real = -1', {}, "limit_time_real"),
            ('limit_time_real = 99999999999', {}, "a number of seconds from 0 to 1000000000"),
            ('stop_timeout = 1e300', {}, "stop_timeout = '1e300'"),
            ('poll_interval = 1e10', {}, "poll_interval = '1e10'"),
            ('workers = 99999', {}, "workers = '99999': expected a whole number from 0 to 10000"),
            ('db_port = 70000', {}, "db_port = '70000': expected a whole number from 0 to 65535"),
            ('channels = root:4,export:1', {}, "channels = 'root:4,export:1': expected names of channels"),
            ('channels = partner/7', {}, "channels = 'partner/7'"),
            ('db_maxconn = 1', {}, "db_maxconn = '1': expected a whole number from 2 to 10000"),
            ('stop_timeout = inf', {}, "stop_timeout"),
            ('poll_interval = 0', {}, "poll_interval = '0': expected a number of seconds from 1"),
            ('db_port = pg', {}, "db_port"),
            ('', {'workers': 'many'}, "ODOO_IR_ASYNC_WORKERS = 'many': expected"),
            ('workers = 1', {'workers': 'many'}, "ODOO_IR_ASYNC_WORKERS = 'many': expected"),
            ('worker = 1\nthreads = 2', {}, r"\[ir_async\] threads, worker: no such setting\. Use workers, channels"),
            ('', {'worker': '1'}, r"ODOO_IR_ASYNC_WORKER: no such setting\. Use ODOO_IR_ASYNC_WORKERS, "),
            ('workers = 1\nworkers = 2', {}, "workers"),
            ('no equals sign', {}, "conf"),
        ):
            with self.subTest(content=content, environment=environment), self.assertRaisesRegex(ValueError, message):
                self.settings(f'[ir_async]\n{content}\n', **environment)
