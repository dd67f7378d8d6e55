"""What the engine passes around: a claimed job, how it ended, and a change of state to publish."""
from __future__ import annotations

from typing import NamedTuple


class Job(NamedTuple):
    """A claimed job. What its method is called with is read when it begins, together with its claim."""

    # read by the claim
    id: int
    priority: int
    name: str | None
    notify: bool
    res_model: str
    method: str
    user_id: int
    timeout: float | None
    revision: int
    session: int  # (session, claims) is the fencing token: new with every claim, compared by every later statement
    claims: int
    has_children: bool
    signals: str | None  # Odoo's signaling sequences: whether modules and caches are up to date
    # read when it begins
    res_ids: str | None = None
    args: str | None = None
    kwargs: str | None = None
    context: str | None = None
    su: bool | None = None
    max_attempts: int | None = None
    retry_delay: str | None = None
    attempts: int | None = None
    deaths: int | None = None
    starts: int | None = None
    user_active: bool | None = None
    stop: str | None = None  # why it is not run any more: `cancel` or `timeout`
    stop_debug: str | None = None  # where the method stood

    def __str__(self):
        return f"{self.id} ({self.res_model}.{self.method})"


class Outcome(NamedTuple):
    """How a job ended, or that it goes back into the queue."""

    state: str
    payload: str | None = None  # JSON
    delay: float | None = None  # seconds from now until it is tried again
    attempts: int = 1  # how many attempts that was


class StateChange(NamedTuple):
    """A change of state that its user is notified of."""

    id: int
    user_id: int
    name: str | None
    state: str
    revision: int


# Each is the predicate of one of the two indexes of dependencies. Were it the same for both, PostgreSQL would choose by its
# statistics, and take both for empty when these are of a time when nothing was unmet: it would read all of one index to find
# what it could look up in the other.
UNMET_OF_CHILD = "unmet AND job_id > 0"
UNMET_OF_PARENT = "unmet AND after_id > 0"

PUBLISHED = ', '.join(f'job.{field}' for field in StateChange._fields) + ', job.notify'

CLAIMED = {field: f'job.{field}' for field in Job._fields[:Job._fields.index('res_ids')]} | {
    # not EXISTS: PostgreSQL might hash all that is unmet, for each claim
    'has_children': f"(SELECT true FROM ir_async_after_rel WHERE after_id = job.id AND {UNMET_OF_PARENT} LIMIT 1) IS NOT NULL",
}
BEGUN = {field: f'job.{field}' for field in Job._fields[Job._fields.index('res_ids'):]} | {
    'user_active': "(SELECT active FROM res_users WHERE id = job.user_id)",
    'stop': "(SELECT reason FROM ir_async_stop WHERE job_id = job.id)",
    'stop_debug': "(SELECT debug FROM ir_async_stop WHERE job_id = job.id)",
}
