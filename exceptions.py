"""The exceptions of the module. Methods of jobs may raise :class:`RetryJob`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import errorcodes, errors

from .tools.options import to_seconds

if TYPE_CHECKING:
    from datetime import timedelta


class RetryJob(Exception):
    """Raise this in a job to have it tried again later. Its changes are rolled back, and it costs no attempt.

    :param str reason: the text that the job shows as its error until then
    :param delay: time until the next try, in seconds or as a ``timedelta``; by default the option ``retry_delay``, as after
        a failure
    :param bool pause_channel: whether the other jobs of its channel start no earlier either, if that channel has limits
    :raises TypeError: when the delay is no duration; the job then fails with this error
    """

    # also of a subclass that does not call `__init__`
    delay: float | None = None
    pause_channel = False

    def __init__(self, reason: str, delay: float | timedelta | None = None, pause_channel: bool = False) -> None:
        super().__init__(reason)
        self.pause_channel = pause_channel
        try:
            self.delay = None if delay is None else to_seconds(delay)
        except (TypeError, ValueError, OverflowError):
            msg = f"the delay of RetryJob takes a number of seconds or a timedelta of at least 0, not {delay!r}"
            raise TypeError(msg) from None


class ClaimLost(BaseException):
    """The job belongs to another worker now, so this worker must not commit anything of it.

    This is not an :class:`Exception`, so that ``except Exception`` in the method of a job does not swallow it.
    """


class JobInterrupted(BaseException):
    """The job was stopped. This is raised inside its method, so that ``finally`` blocks run."""


class WorkerDied(RuntimeError):
    """The error of a job that killed its worker too many times."""


class JobTimeout(RuntimeError):
    """The error of a job whose method took too long."""


class PoolerFound(RuntimeError):
    """A connection pooler is between a worker and PostgreSQL."""

    def __init__(self, dbname: str) -> None:
        super().__init__(
            f"A connection pooler such as PgBouncer is between this worker and database {dbname}, so no job of it runs: advisory"
            " locks and LISTEN prove nothing there. Set db_host and db_port in the section [ir_async] of Odoo's configuration file"
            " to those of PostgreSQL itself, also on web servers."
        )


class ModulesMissing(RuntimeError):
    """This server does not have the code of all modules of a database."""


class KeyTaken(errors.SerializationFailure):
    """Another transaction has enqueued or begun a job with the same key in the meantime.

    Odoo runs the transaction again, as after every serialization failure. The second run finds that job.
    """

    pgcode = errorcodes.SERIALIZATION_FAILURE

    def __init__(self, *keys: str) -> None:
        super().__init__(
            f"Another transaction has enqueued or begun a job with the same key meanwhile: {', '.join(keys)}"
        )
