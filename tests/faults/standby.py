"""A synchronous standby, which takes over when the primary is lost."""

from __future__ import annotations

import shutil
import time

import psycopg2
from harness import Cluster, wait_until

from .parts import Part
from .proxy import SOCKET


class Standby(Part):
    """PostgreSQL's address is the socket in the folder of the world: after a failover, a link to the socket of the new primary."""

    _standby = None

    def enter(self):
        self._number = 0
        self._build()

    def leave(self):
        if self._standby:
            self._standby.stop()

    def _build(self):
        """Copy the primary. Then each commit waits for the copy."""
        primary = self.world.cluster
        self._number += 1
        folder = self.world.folder / f'standby-{self._number}'
        folder.mkdir()
        shutil.copy(self.world.folder / 'odoo.conf', folder)
        self._standby = Cluster(folder)
        self._standby.PARAMETERS = Cluster.PARAMETERS | {'wal_retrieve_retry_interval': '500ms'}
        self._standby.copy(primary)
        self._standby.start()
        self._wait_for(primary, "state = 'streaming'")
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.sql("SELECT pg_reload_conf()")
        self._wait_for(primary, "sync_state = 'sync'")

    def _wait_for(self, primary, condition):
        def is_so():
            try:
                return primary.sql(f"SELECT true FROM pg_stat_replication WHERE {condition}")
            except psycopg2.Error:
                return False

        wait_until(is_so, f"the standby has {condition}")

    def _catch_up(self):
        """Wait for what was committed without the standby: a commit that is cancelled no longer waits for it."""
        primary = self.world.cluster
        [[position]] = primary.sql("SELECT pg_current_wal_lsn()")
        self._wait_for(primary, f"flush_lsn >= '{position}'")

    def fail_over(self, is_moved_early, seconds):
        """Lose the primary with all it has, and promote the standby.

        :param bool is_moved_early: whether clients reach the standby before it is promoted
        :param float seconds: how long that takes
        """
        self._catch_up()
        lost = self.world.cluster
        self.world.note_all_cut()
        lost.kill()
        self.world.note_all_cut()
        shutil.rmtree(lost.data)
        if is_moved_early:
            self._move()
        time.sleep(seconds)
        self._standby.sql("SELECT pg_promote()")
        self._move()
        self._build()

    def _move(self):
        self.world.use_cluster(self._standby)
        staged = self.world.folder / 'moved'
        staged.symlink_to(self._standby.folder / SOCKET)
        staged.rename(self.world.folder / SOCKET)
