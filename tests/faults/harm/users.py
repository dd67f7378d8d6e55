"""Users who are archived and restored."""

from __future__ import annotations

import time

from ..injector import LONGEST
from ..intervals import Archived
from ..kinds import LEAVER


class Users:
    WEIGHTS = {'archive_user': 2}

    def archive_user(self):
        """a user archived for 1 to 6 s: their jobs that begin meanwhile fail, saying so"""
        database = self._database()
        self._meanwhile_once(database.name, self._archive, database, self.rng.uniform(1, LONGEST))

    def _archive(self, database, seconds):
        began, is_archived, ends = time.time(), None, None
        try:
            self._set_active(database, False)
            is_archived = time.time()
            time.sleep(seconds)
            ends = time.monotonic()
        finally:
            self._repeat(self._set_active, database, True)
            self.archived.append(Archived(database.name, began, is_archived, ends, time.time()))

    def _set_active(self, database, is_active):
        with database.env() as env:
            env['res.users'].with_context(active_test=False).search([('login', '=', LEAVER)]).active = is_active
