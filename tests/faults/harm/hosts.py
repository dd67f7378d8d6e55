"""Trouble of a server's host, and of what is between it and PostgreSQL."""

from __future__ import annotations

import signal
import time

from ..injector import LONG

STEPS = (-3600, -30, -3, 0, 3, 30, 3600)  # seconds that the clock is off


class Hosts:
    WEIGHTS = {'step_clock': 2, 'restart_pooler': 0.7, 'cut_host': 0.7, 'failover': 0.7}

    def step_clock(self):
        """the clock of a server's host is set forward or back, by seconds or an hour"""
        self.world.parts['step_clock'].set(self.rng.choice(STEPS))

    def restart_pooler(self):
        """kill -9 or SIGTERM of PgBouncer, restart within 3 s"""
        pooler = self.world.parts['restart_pooler'].pooler
        pooler.stop(self.rng.choice([signal.SIGKILL, signal.SIGTERM]))
        time.sleep(self.rng.choice([0, 0, 0, 0.5, 0.5, 3]))
        pooler.start()

    def failover(self):
        """the primary is lost, its synchronous standby is promoted, half of the time under its address already"""
        self.world.parts['failover'].fail_over(self.rng.random() < 0.5, self.rng.choice([0, 0.5, 2]))
        self._repeat(self._reset_refusal)  # the standby has a copy of `pg_hba.conf`

    def cut_host(self):
        """no packet gets through between a server's host and PostgreSQL's, for 5 to 30 s"""
        self._meanwhile(self._cut_host, self.rng.uniform(5, LONG))

    def _cut_host(self, seconds):
        part = self.world.parts['cut_host']
        if not part.is_cut:
            part.cut()
            try:
                time.sleep(seconds)
            finally:
                part.heal()
