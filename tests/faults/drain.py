"""Wait for the end of the jobs."""

import contextlib

import psycopg2
from harness import wait_until


def drained(world, seconds):
    """Wait until no job is left that could go on; return whether that was within so many seconds."""

    def idle():
        with contextlib.suppress(psycopg2.Error):
            return not any(
                database.value("""
                SELECT EXISTS (SELECT FROM ir_async WHERE state IN ('created', 'processing'))
                    OR EXISTS (SELECT FROM ir_async job WHERE state = 'waiting' AND NOT EXISTS (
                        SELECT FROM ir_async_after_rel JOIN ir_async parent ON parent.id = after_id
                         WHERE job_id = job.id AND parent.state IN ('failed', 'waiting')))
            """)
                for database in world.databases
            )
        return False

    try:
        wait_until(idle, "the queue drains", seconds)
    except AssertionError:
        return False
    return True
