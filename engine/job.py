"""The values of the engine: a claimed job, its outcome, and a change of state to publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

PORTION = 1000  # jobs that one statement of the maintenance changes at most


class Job(NamedTuple):
    """A claimed job. The arguments of its method are read when it begins, by the statement that checks its claim."""

    # columns read by the claim
    id: int
    priority: int
    name: str | None
    notify: bool
    res_model: str
    method: str
    user_id: int
    timeout: float | None
    revision: int
    worker_id: int  # the session that claimed it; this and the number of the claim are its token, see `fence.py`
    claim_number: int
    has_children: bool
    signals: str | None  # Odoo's signaling sequences, which say whether modules and caches are up to date
    # columns read when the job begins
    res_ids: str = ''
    args: str = ''
    kwargs: str = ''
    context: str = ''
    su: bool = False
    max_attempts: int = 0
    retry_delay: str | None = None
    attempts: int = 0
    deaths: int = 0
    starts: int = 0
    user_active: bool | None = None  # None: the user was deleted
    stop: str | None = None  # `cancel` or `timeout` if the job was stopped: its method must not run
    stop_debug: str | None = None  # the stack of the method when it was stopped

    def __str__(self) -> str:
        return f"{self.id} ({self.res_model}.{self.method})"


class Outcome(NamedTuple):
    """The decision on how a job ended, or on its return into the queue."""

    state: str
    payload: str | None = None  # JSON
    delay: float | None = None  # seconds from now until it is tried again
    attempts: int = 1  # the number of attempts to charge
    pauses_channel: bool = False  # until it is tried again


class StateChange(NamedTuple):
    """A change of state of which the job's user is notified."""

    id: int
    user_id: int
    name: str | None
    state: str
    revision: int


class Swept(NamedTuple):
    """The jobs that a sweep changed, and when to sweep again."""

    changed: AbstractSet[int] = frozenset()  # the ids of the jobs
    delay: float | None = None  # seconds; None: not before something changes


# Each is the predicate of one of the two indexes of dependencies. With one predicate for both, PostgreSQL would choose an
# index by its statistics. If these are from a time when nothing was unmet, both indexes seem empty. It could then read one
# index in full to find a row that it could look up in the other.
UNMET_OF_CHILD = "unmet AND job_id > 0"
UNMET_OF_PARENT = "unmet AND after_id > 0"

# The conditions that divide queued jobs: each part has an index of its own.
QUEUED_PARTS = (
    "date_scheduled IS NULL AND NOT limited",
    "date_scheduled IS NULL AND limited",
    "date_scheduled IS NOT NULL",
)

PUBLISHED = ', '.join(f'job.{field}' for field in StateChange._fields) + ', job.notify'

CLAIMED = {field: f'job.{field}' for field in Job._fields[: Job._fields.index('res_ids')]} | {
    # Not `EXISTS`: PostgreSQL might hash all unmet dependencies at each claim.
    'has_children': f"(SELECT true FROM ir_async_after_rel WHERE after_id = job.id AND {UNMET_OF_PARENT} LIMIT 1) IS NOT NULL",
}
BEGUN = {field: f'job.{field}' for field in Job._fields[Job._fields.index('res_ids') :]} | {
    'user_active': "(SELECT active FROM res_users WHERE id = job.user_id)",
    'stop': "(SELECT reason FROM ir_async_stop WHERE job_id = job.id)",
    'stop_debug': "(SELECT debug FROM ir_async_stop WHERE job_id = job.id)",
}
