"""Users who are archived and restored."""

from __future__ import annotations

import time

from ..archived import Archived
from ..injector import LONGEST
from ..kinds import LEAVER


class Users:
    WEIGHTS = {'archive_user': 2}

    def archive_user(self):
        """a user archived for 1 to 6 s: their jobs that begin meanwhile fail, saying so"""
        database = self._database()
        if database.name not in self.archiving:  # one interval at a time
            self.archiving.add(database.name)
            self._meanwhile(self._archive, database, self.rng.uniform(1, LONGEST))

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
            self.archiving.discard(database.name)

    def _set_active(self, database, is_active):
        with database.env() as env:
            env['res.users'].with_context(active_test=False).search([('login', '=', LEAVER)]).active = is_active
