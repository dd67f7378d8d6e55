"""The one address by which clients know PostgreSQL, wherever that is: a proxy."""

import asyncio
import contextlib
import threading

SOCKET = '.s.PGSQL.5432'
CHUNK = 1 << 16


class Relay:
    """A proxy with a socket in its folder, under the name that clients of PostgreSQL look for.

    :param Path folder: its folder
    :param Path target: the folder with PostgreSQL's socket
    """

    def __init__(self, folder, target):
        self.folder = folder
        self._target = target
        self._writers = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def start(self):
        self.folder.mkdir()
        self._thread.start()
        self._run(asyncio.start_unix_server(self._serve, self.folder / SOCKET))

    def stop(self):
        self._run(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def move(self, target):
        """Lead to another server from now on, and cut all connections."""
        self._target = target
        self._run(self._cut())

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _cut(self):
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        # Without a server, the client finds its connection closed.
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_unix_connection(self._target / SOCKET)
            self._writers.add(server_writer)
            await asyncio.gather(self._copy(reader, server_writer), self._copy(server_reader, writer))
        self._writers.discard(writer)
        writer.close()

    async def _copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
        writer.close()
        self._writers.discard(writer)
