class ClaimLost(BaseException):
    """The job belongs to another worker now: whatever this one did for it must not be committed.

    Not an :class:`Exception`, so that ``except Exception`` in a job's method does not swallow it.
    """


class JobInterrupted(BaseException):
    """Raised inside the method of a job that was stopped, so that its ``finally`` blocks run."""


class WorkerDied(RuntimeError):
    """The error of a job that killed its worker too many times."""
