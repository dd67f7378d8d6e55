"""Wait for the end of the jobs."""

import contextlib
import time

import psycopg2

# Jobs that came with a copy of another database do not go on.
IS_LIVE = """
    WITH live AS (
        SELECT * FROM ir_async
         WHERE state IN ('waiting', 'created', 'processing')
           AND origin = (SELECT system_identifier FROM pg_control_system())
               || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())
    )
    SELECT EXISTS (SELECT FROM live WHERE state IN ('created', 'processing'))
        OR EXISTS (SELECT FROM live job WHERE state = 'waiting' AND NOT EXISTS (
            SELECT FROM ir_async_after_rel JOIN ir_async parent ON parent.id = after_id
             WHERE job_id = job.id AND parent.state IN ('failed', 'waiting')))
"""
ENDED = "SELECT count(*) FROM ir_async WHERE state NOT IN ('waiting', 'created', 'processing')"


def drained(world, seconds, databases=None):
    """Wait until no job is left that could go on, in some databases or in all. Return False if no job ended for so many seconds."""
    databases = databases or world.databases
    ended, deadline = None, time.monotonic() + seconds
    while True:
        with contextlib.suppress(psycopg2.Error):
            if not any(database.value(IS_LIVE) for database in databases):
                return True
            before, ended = ended, [database.value(ENDED) for database in databases]
            if ended != before:
                deadline = time.monotonic() + seconds
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
