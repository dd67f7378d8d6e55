"""Connections that end or hang."""

from __future__ import annotations

import time

from ..injector import LONG


class Connections:
    WEIGHTS = {'cut_connection': 4, 'cut_all_connections': 1, 'cut_at_message': 6, 'black_hole': 1}

    def cut_connection(self):
        """pg_terminate_backend of one connection: listening, control, job or another one"""
        kinds = {}
        for row, pid in self._backends():
            kind = 'listen' if row.datname == 'postgres' else 'control' if row.has_lock else 'job'
            kinds.setdefault(kind, []).append((row, pid))
        if kinds:
            self._cut([self.rng.choice(kinds[self.rng.choice(sorted(kinds))])])

    def cut_all_connections(self):
        """pg_terminate_backend of all connections, or of all of a worker's"""
        backends = self._backends()
        if backends and self.rng.random() < 0.7:
            victim = self.rng.choice(backends)[1]
            backends = [(row, pid) for row, pid in backends if pid == victim]
        self._cut(backends)

    def cut_at_message(self):
        """a connection cut at one of its next 12 messages: before it, before its answer, or unnoticed by PostgreSQL for up to 30 s"""
        pids = {worker.pid for worker in self.world.workers()}
        fuse = (
            self.rng.randint(1, 12),
            self.rng.choice(['before', 'before', 'after', 'after', 'vanish']),
            self.rng.uniform(1, LONG),
        )
        if links := self.world.proxy.busy_links(pids)[:6]:
            self.rng.choice(links).fuse = fuse

    def black_hole(self):
        """no message of a worker or a server gets through for up to 30 s; half of the time, PostgreSQL gives them up meanwhile"""
        pids = {process.pid for process in self.rng.choice(self.world.servers).processes()}
        if self.rng.random() < 0.5 and (worker := self._worker()):
            pids = {worker.pid}
        is_cut = self.rng.random() < 0.5

        def hole(seconds):
            with self.world.proxy.black_hole(pids):
                time.sleep(seconds / 2)
                if is_cut:
                    self._cut([(row, pid) for row, pid in self._backends() if pid in pids])
                time.sleep(seconds / 2)

        self._meanwhile(hole, self.rng.uniform(1, LONG))
