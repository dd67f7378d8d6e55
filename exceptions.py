from psycopg2 import errorcodes, errors

from .tools.options import to_seconds


class RetryJob(Exception):
    """Raise it in a job that is to be tried again later. What it did is rolled back; it costs no attempt.

    :param str reason: shown as the job's error meanwhile
    :param delay: seconds from now, a number or a ``timedelta``; by default, as after a failure: the option ``retry_delay``
    :raises TypeError: when the delay is no such thing: then the job fails with this error
    """

    def __init__(self, reason, delay=None):
        super().__init__(reason)
        try:
            self.delay = None if delay is None else to_seconds(delay)
        except (TypeError, ValueError, OverflowError):
            msg = f"RetryJob takes a delay in seconds or a timedelta, not negative, not {delay!r}"
            raise TypeError(msg) from None


class ClaimLost(BaseException):
    """The job belongs to another worker now: whatever this one did for it must not be committed.

    Not an :class:`Exception`, so that ``except Exception`` in a job's method does not swallow it.
    """


class JobInterrupted(BaseException):
    """Raised inside the method of a job that was stopped, so that its ``finally`` blocks run."""


class WorkerDied(RuntimeError):
    """The error of a job that killed its worker too many times."""


class JobTimeout(RuntimeError):
    """The error of a job whose method took too long."""


class PoolerFound(RuntimeError):
    """A connection pooler is between a worker and PostgreSQL."""

    def __init__(self, dbname):
        super().__init__(
            f"A connection pooler such as PgBouncer is between this job worker and the database {dbname}: advisory locks and"
            " LISTEN prove nothing there, so no job is run. Set db_host and db_port in the section [ir_async] of Odoo's"
            " configuration file to PostgreSQL itself; on web servers, too.")


class KeyTaken(errors.SerializationFailure):
    """Another transaction enqueued a job of the same key, or began it, while this one was about to do so.

    Odoo runs the transaction again, as after every serialization failure: then it finds that job.
    """

    pgcode = errorcodes.SERIALIZATION_FAILURE

    def __init__(self, *keys):
        super().__init__(f"Another transaction has enqueued or begun a job of the same key meanwhile: {', '.join(keys)}")
