"""The job that a thread runs."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from odoo.modules.registry import Registry

from ..tools.config import settings

if TYPE_CHECKING:
    from odoo.sql_db import BaseCursor

    from ..engine.job import Job, Outcome

_logger = logging.getLogger(__name__)


class Report(NamedTuple):
    """The progress that a job reported last."""

    done: float
    total: float | None
    message: str | None


class Execution:
    """The job that this thread runs, with its progress, deadline and end.

    Code that needs the running job asks :meth:`get`, not the context for ``async_job_id``, since a client could forge that.

    :param Job job: the claimed job
    """

    current: ContextVar[Execution | None] = ContextVar('ir_async.execution', default=None)

    def __init__(self, job: Job) -> None:
        self.job = job
        self._pid = os.getpid()
        self.dbname: str | None = None
        self.starts = 0  # how often its method was begun since it was claimed
        self.claim_count: int | None = None  # how often the job was claimed, if `claim_number` was raised since
        self.given_time: float | None = None  # seconds that it had until it was stopped, if that is not its own limit
        self.outcome: Outcome | None = None  # its outcome, perhaps not committed
        self.ended = False  # its outcome is committed, and only hooks still run
        self.was_lost = False  # the server had ended its connection when it raised
        self.invalidated: set[str] = set()  # the caches of the registry that it invalidated
        self.registry_invalidated = False  # it changed models or fields
        self.signaled: set[str] = set()  # the signals that it sent with its commits
        self.interrupted = False  # its next statement raises
        # From fencing off until its outcome is written: the job with its new claim number, and the reason.
        self.fenced: tuple[Job, str] | None = None
        self.progress: Report | None = None
        self.progress_lock = threading.Lock()
        self.deadline: float | None = None  # the end of its time, if it has a limit

    def on_begin(self) -> None:
        """Called when the method begins."""

    def on_failure(self) -> None:
        """Called when what follows a failure is decided, before it is committed."""

    def on_end(self) -> None:
        """Called when the outcome is committed."""

    def end_forked_child(self) -> None:
        """End this process if the job has forked it. Only the process that began the job goes on with it."""
        if os.getpid() == self._pid:
            return
        exc = sys.exc_info()[1]
        code = exc.code if type(exc) is SystemExit else exc is not None
        if code:
            _logger.warning("A process that job %s forked ends with an error", self.job, exc_info=exc)
        logging.shutdown()
        os._exit(code if isinstance(code, int) else bool(code))

    def note_invalidated(self, registry: Registry) -> None:
        """Remember which caches the job invalidated. After a rollback, the registry may have values that were never committed.

        :param odoo.modules.registry.Registry registry: the registry of its database
        """
        self.invalidated |= registry.cache_invalidated
        self.registry_invalidated |= registry.registry_invalidated

    def signal_again(self, registry: Registry) -> None:
        """Have Odoo send the signals after the commit, too: see :func:`~odoo.addons.ir_async.tools.signals.send`.

        :param odoo.modules.registry.Registry registry: the registry of its database
        """
        registry.registry_invalidated |= 'registry' in self.signaled
        registry.cache_invalidated.update(self.signaled - {'registry'})

    def reset_registry(self, dbname: str) -> None:
        """Reset the parts of the registry that the job invalidated.

        :param str dbname: its database
        """
        registry = Registry.registries.get(dbname)
        if registry:
            # `retrying` only does this after an Exception. It also does not know what was invalidated before a rollback.
            registry.cache_invalidated.update(self.invalidated)
            registry.registry_invalidated |= self.registry_invalidated
            registry.reset_changes()
            self.invalidated.clear()
            self.registry_invalidated = False

    @classmethod
    def get(cls, cr: BaseCursor) -> Execution | None:
        """Return the job that this thread runs, if it belongs to the database of the cursor.

        :rtype: Execution | None
        """
        execution = cls.current.get()
        return execution if execution and execution.dbname in (None, cr.dbname) else None


def time_limit(job: Job) -> float:
    """Return how many seconds the method of a job may run; 0: no limit.

    :rtype: float
    """
    return min(filter(None, [job.timeout, settings().limit_time_real]), default=0)
