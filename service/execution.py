"""What this thread runs."""
import time
from contextvars import ContextVar

from .session import CLAIM_TIME


class Execution:
    """The job that this thread runs, and what it reported last.

    Not the context's ``async_job_id``: a client could forge that one.
    """
    current = ContextVar('ir_async.running', default=None)

    def __init__(self, job):
        self.job = job
        self.fresh_until = time.monotonic() + CLAIM_TIME  # when its claim has to be looked at again
        self.dbname = None
        self.progress = None
        self.deadline = None  # when its time is over, if it is limited

    @classmethod
    def get(cls, cr):
        """Return the job that this thread runs, if it is one of the database of the cursor.

        :rtype: Execution | None
        """
        running = cls.current.get()
        return running if running and running.dbname in (None, cr.dbname) else None
