"""Modules that change under load."""

from __future__ import annotations

import contextlib
import subprocess

from harness import ODOO

ARGUMENTS = ('--skip-auto-install', '--stop-after-init', '--no-http', '--max-cron-threads=0')
IN_FLUX = "SELECT EXISTS (SELECT FROM ir_module_module WHERE state IN ('to upgrade', 'to install', 'to remove'))"
LIMIT = 120  # seconds


class Modules:
    WEIGHTS = {'upgrade': 0.2}

    def upgrade(self):
        """upgrade of ir_async by another process"""
        self._meanwhile(self._upgrade, self._database())

    def _upgrade(self, database):
        # Another fault may break it. Then the modules stay in flux until the end of the run.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*ODOO, '-d', database.name, '-u', 'ir_async', *ARGUMENTS],
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=LIMIT,
            )

    def _reset_modules(self):
        for database in self.world.databases:
            if database.value(IN_FLUX):
                self._upgrade(database)
