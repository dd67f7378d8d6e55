"""What this thread runs."""
from __future__ import annotations

import threading
from contextvars import ContextVar


class Execution:
    """The job that this thread runs, and what it reported last.

    Not the context's ``async_job_id``: a client could forge that one.

    :param Job job: the claimed job
    """
    current = ContextVar('ir_async.execution', default=None)

    def __init__(self, job):
        self.job = job
        self.dbname = None
        self.starts = 0  # how often its method was begun since it was claimed
        self.shown_claims = None  # how often the job was claimed, if its token is not that count any more
        self.outcome = None  # how it ended, or was about to
        self.ended = False  # its outcome is committed; only hooks run
        self.invalidated = set()  # the caches of the registry that it invalidated
        self.registry_invalidated = False  # it changed models or fields
        self.interrupted = False  # its next statement raises
        self.fenced = None  # it with its new claim, and why, once it was taken from its method and until its outcome is written
        self.progress = None
        self.progress_lock = threading.Lock()
        self.deadline = None  # when its time is over, if it is limited

    def on_begin(self):
        """Called when the method begins."""

    def on_failure(self):
        """Called when the method has raised."""

    def on_end(self):
        """Called when the outcome is committed."""

    def note_invalidated(self, registry):
        """Remember what the job invalidated: after a rollback the registry may know of what was never committed.

        :param odoo.modules.registry.Registry registry: the registry of its database
        """
        self.invalidated |= registry.cache_invalidated
        self.registry_invalidated |= registry.registry_invalidated

    @classmethod
    def get(cls, cr):
        """Return the job that this thread runs, if it is one of the database of the cursor.

        :rtype: Execution | None
        """
        execution = cls.current.get()
        return execution if execution and execution.dbname in (None, cr.dbname) else None
