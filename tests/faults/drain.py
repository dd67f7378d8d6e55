"""Wait for the end of the jobs."""

import contextlib

import psycopg2
from harness import wait_until

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


def drained(world, seconds, databases=None):
    """Wait until no job is left that could go on, in some databases or in all; return whether that was within so many seconds."""

    def idle():
        with contextlib.suppress(psycopg2.Error):
            return not any(database.value(IS_LIVE) for database in databases or world.databases)
        return False

    try:
        wait_until(idle, "the queue drains", seconds)
    except AssertionError:
        return False
    return True
