"""Faults of workers and servers."""

from __future__ import annotations

import signal

from harness import TIMEOUT

from ..injector import LONG


class Processes:
    WEIGHTS = {
        'kill_worker': 4, 'stop_worker': 2, 'freeze_worker': 3, 'hang_up_worker': 1,
        'kill_server': 0.7, 'kill_master': 0.7, 'restart_server': 0.7, 'hang_up_server': 0.5,
    }  # fmt: skip

    def kill_worker(self):
        """kill -9 of a worker"""
        if worker := self._worker():
            self.world.kill_worker(worker)

    def stop_worker(self):
        """SIGTERM to a worker"""
        if worker := self._worker():
            worker.terminate()

    def hang_up_worker(self):
        """SIGHUP to a worker"""
        if worker := self._worker():
            worker.send_signal(signal.SIGHUP)

    def freeze_worker(self):
        """SIGSTOP of a worker, SIGCONT after up to 30 s"""
        if worker := self._worker():
            self._meanwhile(self._freeze, worker, self.rng.uniform(0.3, LONG))

    def kill_server(self):
        """kill -9 of a server with its workers, restart"""
        index = self.rng.randrange(len(self.world.servers))
        self.world.kill_server(index)
        self.world.start_server(index)

    def kill_master(self):
        """kill -9 of the main process of a server, whose workers end by themselves; restart"""
        self._end_server(signal.SIGKILL)

    def restart_server(self):
        """SIGTERM of a server, restart"""
        self._end_server(signal.SIGTERM)

    def _end_server(self, number):
        """Send a signal to the main process of a server, and start it again when all its processes have ended."""
        index = self.rng.randrange(len(self.world.servers))
        server = self.world.servers[index]
        server.send_signal(number)
        try:
            server.process.wait(TIMEOUT)
            server.wait_until_gone()
        finally:
            self.world.kill_server(index)
            self.world.start_server(index)

    def hang_up_server(self):
        """SIGHUP to a server"""
        server = self.rng.choice(self.world.servers)
        # While it starts, it has no handler for it yet, and would end.
        if server.listening():
            server.send_signal(signal.SIGHUP)
