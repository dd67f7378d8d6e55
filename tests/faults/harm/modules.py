"""Modules that change under load."""

from __future__ import annotations

import contextlib
import subprocess
import time

from harness import ODOO

from ..injector import LONGEST
from ..intervals import Settled

ARGUMENTS = ('--skip-auto-install', '--stop-after-init', '--no-http', '--max-cron-threads=0')
IN_FLUX = "SELECT EXISTS (SELECT FROM ir_module_module WHERE state IN ('to upgrade', 'to install', 'to remove'))"
IS_INSTALLED = "SELECT EXISTS (SELECT FROM ir_module_module WHERE name = %s AND state = 'installed')"
GUEST = 'ir_async_ledger_note'
LIMIT = 120  # seconds


class Modules:
    WEIGHTS = {'upgrade': 0.2, 'install': 0.3}

    def upgrade(self):
        """upgrade of ir_async by another process"""
        database = self._database()
        self._meanwhile_once(database.name, self._upgrade, database)

    def install(self):
        """installation of a module that adds a column, or its removal"""
        database = self._database()
        self._meanwhile_once(database.name, self._toggle_module, database, self.rng.uniform(1, LONGEST))

    def _upgrade(self, database):
        self._odoo('-d', database.name, '-u', 'ir_async', *ARGUMENTS)

    def _toggle_module(self, database, seconds):
        is_installed = database.value(IS_INSTALLED, [GUEST])
        self._odoo('module', 'uninstall' if is_installed else 'install', GUEST, '-d', database.name)
        since = time.time()
        if not database.value(IN_FLUX) and database.value(IS_INSTALLED, [GUEST]) != is_installed:
            time.sleep(seconds)
            self.settled.append(Settled(database.name, not is_installed, since, time.monotonic()))

    def _odoo(self, *arguments):
        # Another fault may break it. Then the modules stay in flux until the end of the run.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*ODOO, *arguments],
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=LIMIT,
            )

    def _reset_modules(self):
        for database in self.world.databases:
            if database.value(IN_FLUX):
                self._upgrade(database)
