"""Locks and other trouble in a database."""

from __future__ import annotations

import contextlib
import time

from ..injector import LONGEST


class Locks:
    WEIGHTS = {
        'lock_row': 3, 'lock_table': 1, 'vacuum_full': 0.7, 'reindex': 1, 'old_snapshot': 1, 'timeouts': 1, 'touch_rows': 3,
    }  # fmt: skip

    def _hold(self, database, statements, seconds):
        with contextlib.closing(self.world.cluster.connect(database.name)) as connection, connection.cursor() as cr:
            cr.execute("BEGIN")
            for statement in statements:
                cr.execute(statement)
            time.sleep(seconds)
            cr.execute("ROLLBACK")

    def lock_row(self):
        """a row of a queued or running job locked for 1 to 6 s"""
        state = self.rng.choice(['processing', 'processing', 'created', 'waiting'])
        mode = self.rng.choice(['UPDATE', 'NO KEY UPDATE', 'SHARE', 'KEY SHARE'])
        self._meanwhile(
            self._hold,
            self._database(),
            [
                f"SELECT FROM ir_async WHERE state = '{state}' ORDER BY random() LIMIT 1 FOR {mode} SKIP LOCKED",
            ],
            self.rng.uniform(1, LONGEST),
        )

    def lock_table(self):
        """LOCK TABLE ir_async for up to 6 s"""
        mode = self.rng.choice(['ACCESS EXCLUSIVE', 'SHARE', 'EXCLUSIVE'])
        self._meanwhile(
            self._hold,
            self._database(),
            ["SET LOCAL lock_timeout = '5s'", f"LOCK TABLE ir_async IN {mode} MODE"],
            self.rng.uniform(0.5, LONGEST),
        )

    def _statement(self, database, statement):
        with contextlib.closing(self.world.cluster.connect(database.name)) as connection, connection.cursor() as cr:
            cr.execute("SET lock_timeout = '10s'")
            cr.execute(statement)

    def vacuum_full(self):
        """VACUUM FULL ir_async"""
        self._meanwhile(self._statement, self._database(), "VACUUM FULL ir_async")

    def reindex(self):
        """REINDEX TABLE ir_async, also CONCURRENTLY"""
        how = self.rng.choice(['', 'CONCURRENTLY'])
        self._meanwhile(self._statement, self._database(), f"REINDEX TABLE {how} ir_async")

    def old_snapshot(self):
        """a snapshot open for 3 to 15 s"""
        self._meanwhile(
            self._hold,
            self._database(),
            [
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                "SELECT count(*) FROM ir_async",
            ],
            self.rng.uniform(3, 15),
        )

    def touch_rows(self):
        """UPDATE of the rows of running or all live jobs"""
        which = self.rng.choice(["state = 'processing'", "state IN ('waiting', 'created', 'processing')"])
        column = self.rng.choice(['priority', 'name', 'stack', 'create_date'])
        self._meanwhile(self._statement, self._database(), f"UPDATE ir_async SET {column} = {column} WHERE {which}")

    def timeouts(self):
        """lock_timeout, statement_timeout or idle_in_transaction_session_timeout of the role or database, for up to 10 s"""
        setting, value = self.rng.choice(
            [('lock_timeout', '500ms'), ('statement_timeout', '2s'), ('idle_in_transaction_session_timeout', '300ms')]
        )
        scope = self.rng.choice(['ROLE odoo', f'DATABASE "{self._database().name}"'])
        is_cut = self.rng.random() < 0.5

        def toggle(seconds):
            self.world.cluster.sql(f"ALTER {scope} SET {setting} = '{value}'")
            if is_cut:  # connections made from now on have it
                self._cut(self._backends())
            time.sleep(seconds)
            self.world.cluster.sql(f"ALTER {scope} RESET {setting}")

        self._meanwhile(toggle, self.rng.uniform(3, 10))

    def _reset_timeouts(self):
        self.world.cluster.sql("ALTER ROLE odoo RESET ALL")
        for database in self.world.databases:
            self.world.cluster.sql(f'ALTER DATABASE "{database.name}" RESET ALL')
