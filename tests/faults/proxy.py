"""A relay between the servers and PostgreSQL. It cuts connections at any message, and can be a black hole."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import threading
import time

SOCKET = '.s.PGSQL.5432'
CHUNK = 1 << 16


class Link:
    """One connection: two threads that copy, one for each direction.

    :param Proxy proxy: the relay
    :param socket.socket client: the side of the worker
    :param socket.socket server: the side of PostgreSQL
    :param int pid: the process of the client
    """

    def __init__(self, proxy, client, server, pid):
        self.proxy = proxy
        self.client, self.server, self.pid = client, server, pid
        self.last = time.monotonic()  # the time of the last request
        self.flowing = threading.Event()
        self.fuse = None  # how many requests it has left, and what then happens
        self._is_answer_lost = False

    def start(self):
        for function in (self._ask, self._answer):
            threading.Thread(target=self._pump, args=(function,), daemon=True).start()

    def close(self):
        self.proxy.links.discard(self)
        self._shut(self.client)
        self._shut(self.server)

    def _shut(self, side):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)  # it wakes the thread that reads

    def _pump(self, function):
        with contextlib.suppress(OSError):
            function()
        self.close()
        (self.server if function == self._ask else self.client).close()

    def _ask(self):
        while data := self.client.recv(CHUNK):
            self.flowing.wait()
            self.last = time.monotonic()
            how = self._burn()
            if how == 'before':
                return
            self._is_answer_lost = how == 'after'
            self.server.sendall(data)
            if how == 'vanish':  # PostgreSQL does not notice for a while
                self._shut(self.client)
                time.sleep(self.seconds)
                return

    def _answer(self):
        while data := self.server.recv(CHUNK):
            self.flowing.wait()
            if self._is_answer_lost:
                return
            self.client.sendall(data)

    def _burn(self):
        if not self.fuse:
            return None
        count, how, self.seconds = self.fuse
        if count > 1:
            self.fuse = count - 1, how, self.seconds
            return None
        self.fuse = None
        self.proxy.world.note('cut', self.pid)
        return how


class Proxy:
    """Listens in a folder of its own, under the name that clients of PostgreSQL look for.

    :param World world: it is told which process loses a connection
    """

    def __init__(self, world):
        self.world = world
        self.folder = world.folder / 'proxy'
        self.links = set()
        self.held = set()  # processes whose messages do not get through
        self._socket = socket.socket(socket.AF_UNIX)

    def start(self):
        self.folder.mkdir()
        self._socket.bind(str(self.folder / SOCKET))
        self._socket.listen(100)
        threading.Thread(target=self._listen, daemon=True).start()

    def stop(self):
        self._socket.close()
        for link in list(self.links):
            link.close()
        shutil.rmtree(self.folder)

    def _listen(self):
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._socket.accept()
                pid, _uid, _gid = struct.unpack('3i', client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(str(self.world.folder / SOCKET))
                except OSError:  # PostgreSQL is down
                    client.close()
                    server.close()
                    continue
                link = Link(self, client, server, pid)
                self.links.add(link)
                if pid not in self.held:
                    link.flowing.set()
                link.start()

    def busy_links(self, pids):
        """Return the links of these processes, those at first that were used last."""
        return sorted((link for link in list(self.links) if link.pid in pids), key=lambda link: -link.last)

    @contextlib.contextmanager
    def black_hole(self, pids):
        """Let no message of these processes through, in no direction, and no new connection."""
        self.held |= pids
        try:
            for link in self.busy_links(pids):
                link.flowing.clear()
            yield
        finally:
            self.held -= pids
            for link in self.busy_links(pids):
                link.flowing.set()
