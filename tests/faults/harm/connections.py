"""Connections that end or hang."""

from __future__ import annotations


class Connections:
    WEIGHTS = {'cut_connection': 4, 'cut_all_connections': 1}

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
