"""The workers and the client of pgqueuer, with its defaults on asyncpg and without Odoo. See systems/pgqueuer.py for the package."""

import asyncio
import json
import os
import random
import sys
import time

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.domain.types import QueueExecutionMode
from pgqueuer.queries import Queries


async def install():
    connection = await asyncpg.connect()
    await Queries(AsyncpgDriver(connection)).install()


async def enqueue(count):
    connection = await asyncpg.connect()
    queries = Queries(AsyncpgDriver(connection))
    start = time.perf_counter()
    async with connection.transaction():
        for first in range(0, count, 1000):
            size = min(1000, count - first)
            await queries.enqueue(['noop'] * size, [None] * size, [0] * size)
    print(json.dumps(time.perf_counter() - start))


async def work(batch, mode):
    connection = await asyncpg.connect()
    pgq = PgQueuer(AsyncpgDriver(connection))

    @pgq.entrypoint('noop')
    async def noop(job):  # noqa: RUF029 -- pgqueuer requires a coroutine
        pass

    @pgq.entrypoint('stamp')
    async def stamp(job):  # noqa: RUF029
        now = time.time()
        path, label = job.payload.decode().split()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(file, f'{label} {now:.6f}\n'.encode())
        os.close(file)

    print('ready', flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await pgq.qm.run(batch_size=batch, mode=QueueExecutionMode(mode))


async def latency(path, count, pause):
    connection = await asyncpg.connect()
    queries = Queries(AsyncpgDriver(connection))
    latencies = []
    for i in range(count):
        await queries.enqueue('stamp', f'{path} {i}'.encode())
        committed = time.time()
        while True:
            await asyncio.sleep(0.002)
            if os.path.exists(path):
                with open(path, encoding='utf-8') as file:
                    lines = file.read().splitlines()
                if len(lines) > i:
                    latencies.append((float(lines[i].split()[1]) - committed) * 1000)
                    break
        await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
    print(json.dumps(latencies))


if __name__ == '__main__':
    os.nice(10)  # as for the workers of ir_async
    match sys.argv[1:]:
        case ['install']:
            asyncio.run(install())
        case ['enqueue', count]:
            asyncio.run(enqueue(int(count)))
        case ['work', batch, mode]:
            asyncio.run(work(int(batch), mode))
        case ['latency', path, count, pause]:
            asyncio.run(latency(path, int(count), float(pause)))
