"""Faults of PostgreSQL as a whole."""

from __future__ import annotations

import contextlib
import signal
import threading
import time

import psutil
import psycopg2

from ..injector import LONG

HBA_LOCK = threading.Lock()  # else one thread reads what another has half written
REJECT = 'local all odoo reject\nhost all odoo all reject\n'


class Postgres:
    WEIGHTS = {
        'postgres_fast': 0.5, 'postgres_immediate': 0.5, 'postgres_down': 0.2,
        'refuse_connections': 0.3, 'fill_connections': 0.5, 'freeze_backend': 2,
    }  # fmt: skip

    def _restart_postgres(self, how, seconds):
        self.world.note_all_cut()
        self.world.cluster.stop(how)
        self.world.note_all_cut()
        time.sleep(seconds)
        self.world.cluster.start()

    def postgres_fast(self):
        """fast restart of PostgreSQL"""
        self._restart_postgres(signal.SIGINT, self.rng.choice([0, 0.5, 2]))

    def postgres_immediate(self):
        """immediate restart of PostgreSQL"""
        self._restart_postgres(signal.SIGQUIT, self.rng.choice([0, 0.5, 2]))

    def postgres_down(self):
        """PostgreSQL stopped for 5 to 30 s"""
        self._restart_postgres(self.rng.choice([signal.SIGINT, signal.SIGQUIT]), self.rng.uniform(5, LONG))

    def refuse_connections(self):
        """new connections refused for up to 30 s, by pg_hba.conf or ALLOW_CONNECTIONS; half of the time, the others are cut"""
        name = self._database().name
        refuse = self.rng.choice([self._reject, lambda: self._allow(name, False)])
        is_cut = self.rng.random() < 0.5

        def toggle(seconds):
            refuse()
            if is_cut:
                self._cut(self._backends())
            time.sleep(seconds)
            self._repeat(self._reset_refusal)

        self._meanwhile(toggle, self.rng.uniform(1, LONG))

    def _reject(self, is_rejected=True):
        path = self.world.cluster.data / 'pg_hba.conf'
        staged = path.with_suffix('.new')
        with HBA_LOCK:
            staged.write_text(REJECT * is_rejected + path.read_text().replace(REJECT, ''))
            staged.chmod(0o644)  # PostgreSQL is another user's
            staged.rename(path)
        self.world.cluster.sql("SELECT pg_reload_conf()")

    def _allow(self, name, is_allowed):
        self.world.cluster.sql(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS {is_allowed}')

    def _reset_refusal(self):
        self._reject(False)
        for database in self.world.databases:
            self._allow(database.name, True)

    def fill_connections(self):
        """max_connections reached for up to 15 s; half of the time, the others are cut"""
        is_cut = self.rng.random() < 0.5

        def fill(seconds):
            end = time.monotonic() + seconds
            with contextlib.ExitStack() as stack:
                while time.monotonic() < end:
                    try:
                        stack.enter_context(contextlib.closing(self._filler()))
                    except psycopg2.OperationalError:
                        if is_cut and time.monotonic() < end - seconds / 2:
                            self._cut(self._backends())
                        time.sleep(0.1)

        self._meanwhile(fill, self.rng.uniform(3, LONG / 2))

    def _filler(self):
        return psycopg2.connect(host=str(self.world.cluster.folder), user='odoo', dbname='postgres')

    def freeze_backend(self):
        """SIGSTOP of the backend of a worker's connection, SIGCONT after 5 to 30 s"""
        if backends := self._backends():
            backend = psutil.Process(self.rng.choice(backends)[0].pid)
            self._meanwhile(self._freeze, backend, self.rng.uniform(5, LONG))
