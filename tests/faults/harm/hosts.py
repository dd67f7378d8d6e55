"""Trouble of a server's host, and of what is between it and PostgreSQL."""

from __future__ import annotations

import signal
import time

from ..injector import LONG, LONGEST

# What a process of a server does when it is hit: by the pooler's end `use_pool`, by the cut any method that is not over at once.
IN_POOL = "query LIKE '%%of the pool' AND state = 'active'"
IN_METHOD = "backend_type = 'client backend' AND xact_start < clock_timestamp() - interval '50 ms'"
STEPS = (-3600, -30, -3, 0, 3, 30, 3600)  # seconds that the clock is off


class Hosts:
    WEIGHTS = {'step_clock': 2, 'restart_pooler': 0.7, 'cut_host': 0.7, 'failover': 0.7}

    def step_clock(self):
        """the clock of a server's host is set forward or back, by seconds or an hour"""
        self.world.parts['step_clock'].set(self.rng.choice(STEPS))

    def _reset_clock(self):
        if clock := self.world.parts.get('step_clock'):
            clock.set(0)

    def restart_pooler(self):
        """kill -9 or SIGTERM of PgBouncer, half of the time while a method uses it, and restart within 3 s"""
        part = self.world.parts['restart_pooler']
        if self.rng.random() < 0.5:
            self._wait_for(IN_POOL, part.server)
        part.pooler.stop(self.rng.choice([signal.SIGKILL, signal.SIGTERM]))
        time.sleep(self.rng.choice([0, 0, 0, 0.5, 0.5, 3]))
        part.pooler.start()

    def failover(self):
        """the primary is lost, its synchronous standby is promoted, half of the time under its address already"""
        self.world.parts['failover'].fail_over(self.rng.random() < 0.5, self.rng.choice([0, 0.5, 2]))
        self._repeat(self._reset_refusal)  # the standby has a copy of `pg_hba.conf`

    def cut_host(self):
        """no packet gets through between a server's host and PostgreSQL's, for 5 to 30 s"""
        self._meanwhile_once('host', self._cut_host, self.rng.uniform(5, LONG))

    def _cut_host(self, seconds):
        part = self.world.parts['cut_host']
        self._wait_for(IN_METHOD, part.server)
        part.cut()
        try:
            time.sleep(seconds)
        finally:
            part.heal()
        time.sleep(seconds)  # TCP may try again only now: so long its last pause was

    def _wait_for(self, condition, index):
        """Wait for a connection that a server's worker has in some state, for a while."""
        query = f"SELECT true FROM pg_stat_activity WHERE {condition} AND application_name = ANY(%s)"
        names = [f'odoo-{worker.pid}' for worker in self.world.servers[index].workers()]
        end = time.monotonic() + LONGEST
        while time.monotonic() < end and not self.world.cluster.sql(query, [names]):
            time.sleep(0.05)
