"""What some faults need around the servers. A run without these faults does without them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from network import OtherHost
from pooler import Pooler

from odoo.tools import config as odoo_config


class Part:
    """Something around the servers.

    ``server`` is the index of the server that uses it. That server is started with a prefix, arguments and settings.

    :param World world: the place
    """

    server = None
    prefix = ()
    arguments = ()
    settings = {}

    def __init__(self, world):
        self.world = world

    @staticmethod
    def missing():
        """Return what is missing here for the fault, if anything is."""

    def make(self):
        """Make it, before PostgreSQL starts."""

    def enter(self):
        """Begin to use it. PostgreSQL runs, with all databases."""

    def leave(self):
        """Remove it, also when only a part of it was made."""


class Clock(Part):
    """The clock of a server's host. The monotonic clock, which nobody can set, stays as it is."""

    server = 1

    def make(self):
        self._path = self.world.folder / 'clock'
        self.set(0)
        self.prefix = [
            'env',
            f'LD_PRELOAD={_libfaketime()}',
            f'FAKETIME_TIMESTAMP_FILE={self._path}',
            'FAKETIME_NO_CACHE=1',
            'FAKETIME_DONT_FAKE_MONOTONIC=1',
            f'PYTHONPATH={Path(__file__).parent / "clock"}:{os.environ["PYTHONPATH"]}',
        ]

    def set(self, seconds):
        """Set the clock, in seconds from ours."""
        staged = self._path.with_suffix('.new')
        staged.write_text(f'{seconds:+}\n')
        staged.rename(self._path)

    def leave(self):
        # Of processes that were killed.
        for process in self.world.server_pids:
            for path in Path('/dev/shm').glob(f'*faketime_*_{process}'):
                path.unlink(missing_ok=True)

    @staticmethod
    def missing():
        return None if _libfaketime() else "there is no libfaketime"


def _libfaketime():
    found = [
        path
        for folder in ('lib', 'lib64', 'lib/*')
        for path in Path('/usr').glob(f'{folder}/faketime/libfaketime.so.1')
    ]
    return found[0] if found else None


class PoolerPart(Part):
    """PgBouncer between PostgreSQL and one server, and between PostgreSQL and the callers. Workers connect directly.

    One of the databases is in session mode, the others are in transaction mode.
    """

    server = 0
    pooler = None

    def enter(self):
        self.pooler = Pooler(
            self.world.folder / 'pooler', self.world.folder, 'transaction', {self.world.names[0]: 'session'}
        )
        self.pooler.start()
        self.arguments = [f'--db_host={self.pooler.folder}']
        self.settings = {'db_host': self.world.proxy.folder, 'db_port': 5432}
        odoo_config['db_host'] = str(self.pooler.folder)  # from now on, for this process

    def leave(self):
        if self.pooler:
            self.pooler.stop()

    @staticmethod
    def missing():
        return None if shutil.which('pgbouncer') else "there is no PgBouncer"


class HostPart(Part):
    """A host for one server, which reaches PostgreSQL over TCP, without the relay."""

    server = 1

    def make(self):
        self.host = OtherHost()
        if not self.host.make():
            self.host.delete()
            msg = "no network namespace could be made"
            raise RuntimeError(msg)
        self.prefix = self.host.prefix
        self.arguments = [f'--db_host={self.host.address}']
        self.world.cluster.PARAMETERS = self.world.cluster.PARAMETERS | {'listen_addresses': self.host.address}

    def enter(self):
        path = self.world.cluster.data / 'pg_hba.conf'
        path.write_text(path.read_text() + self.host.trust)
        self.world.cluster.sql("SELECT pg_reload_conf()")

    def cut(self):
        self.host.set_link('down')
        self._note_cut()  # PostgreSQL gives the connections up some time from now

    def heal(self):
        self._note_cut()
        self.host.set_link('up')

    def _note_cut(self):
        for worker in self.world.servers[self.server].workers():
            self.world.note('cut', worker.pid)

    def leave(self):
        self.host.delete()

    @staticmethod
    def missing():
        if os.getuid() or not shutil.which('ip'):
            return "only root, with `ip`, can make another host"
        return None
