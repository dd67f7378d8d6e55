"""A disk that is full."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time

from ..injector import LONGEST

SIZE = 1 << 30
SPACE = 'ir_async_faults'
ROOM = 1 << 17  # bytes that are left
TABLES = ('ir_async', 'ir_async_ledger')


@contextlib.contextmanager
def mounted(folder):
    """Mount a file system in memory for the tables of jobs; give its folder, or None for users that may not."""
    folder.mkdir()
    if (
        os.getuid()
        or subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={SIZE}', 'tmpfs', folder], check=False).returncode
    ):
        yield None
        return
    try:
        shutil.chown(folder, 'postgres', 'postgres')
        yield folder
    finally:
        subprocess.run(['umount', folder], check=False)


def prepare(world):
    """Move the tables of jobs there."""
    if world.disk:
        world.cluster.sql(f"CREATE TABLESPACE {SPACE} LOCATION '{world.disk}'")
        for database in world.databases:
            for table in TABLES:
                database.sql(f"ALTER TABLE {table} SET TABLESPACE {SPACE}")


class Disk:
    WEIGHTS = {'disk_full': 0.5}

    def disk_full(self):
        """the disk of the tables of jobs is full for up to 6 s"""
        # No restart of PostgreSQL meanwhile: it could not recover.
        while not self._resize(self._used() + ROOM):
            pass  # more is in use meanwhile
        time.sleep(self.rng.uniform(1, LONGEST))
        assert self._resize(SIZE)

    def _used(self):
        usage = os.statvfs(self.world.disk)
        return (usage.f_blocks - usage.f_bfree) * usage.f_frsize

    def _resize(self, size):
        command = ['mount', '-o', f'remount,size={size}', self.world.disk]
        return not subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode
