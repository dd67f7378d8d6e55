"""The least that a queue on PostgreSQL can do from Python, without Odoo: claim 50 jobs, then one transaction per job.

One such process is one worker. It is the ceiling of the comparison and not fit for use: the jobs of a process that dies
are lost. With `fresh`, each job first has the session forget the one before, and reads its claim, as in ir_async.
"""

import json
import os
import sys
import time

import psycopg2
from psycopg2.extensions import (
    ISOLATION_LEVEL_AUTOCOMMIT,
    ISOLATION_LEVEL_REPEATABLE_READ,
)

# In one round trip, as in service/cursor.py.
FORGET = """
    RESET ALL; SET SESSION AUTHORIZATION DEFAULT; CLOSE ALL; DEALLOCATE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES;
    SELECT pg_advisory_unlock_all(); COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ;
    SELECT args FROM bare_job WHERE id = %s AND worker = %s
"""


def work(batch, is_fresh):
    claims, jobs = (psycopg2.connect('') for _i in range(2))
    claims.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
    jobs.set_isolation_level(ISOLATION_LEVEL_REPEATABLE_READ)
    with claims.cursor() as claim, jobs.cursor() as job:
        print('ready', flush=True)
        sys.stdin.readline()
        while True:
            claim.execute(
                """
                WITH next AS (
                    SELECT id FROM bare_job WHERE state = 'created' ORDER BY priority, id LIMIT %s
                       FOR NO KEY UPDATE SKIP LOCKED
                )
                UPDATE bare_job job SET state = 'processing', worker = %s, date_start = clock_timestamp() FROM next
                 WHERE job.id = next.id RETURNING job.id, model, method, args, context
            """,
                [batch, os.getpid()],
            )
            rows = claim.fetchall()
            if not rows:
                return
            for row in rows:
                if is_fresh:
                    job.execute(FORGET, [row[0], os.getpid()])
                if row[2] == 'sleep':
                    time.sleep(*json.loads(row[3]))
                job.execute(
                    "UPDATE bare_job SET state = 'done', date_done = clock_timestamp() WHERE id = %s AND worker = %s",
                    [row[0], os.getpid()],
                )
                jobs.commit()


if __name__ == '__main__':
    os.nice(10)  # as for the workers of ir_async
    work(int(sys.argv[1]), 'fresh' in sys.argv)
