"""The pending calls, replacements and notices of a transaction. They stay on its cursor until the commit."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from odoo.sql_db import BaseCursor

PENDING = '_ir_async_pending'  # attribute of the cursor
COLUMNS = (
    'id', 'res_ids', 'state', 'name', 'notify', 'res_model', 'method', 'args', 'kwargs', 'user_id', 'su', 'context',
    'parent_id', 'stack', 'priority', 'date_scheduled', 'max_attempts', 'retry_delay', 'timeout', 'channel', 'limited',
    'key', 'key_until', 'origin',
)  # fmt: skip


class Insertion:
    """Rows that were inserted or changed at one time. They count as long as their mark exists.

    :param str mark: the mark
    :param list items: the calls and replacements
    :param list parts: insertions that this one stands for, since they had too many marks
    """

    __slots__ = ('items', 'mark', 'parts', 'whole')

    def __init__(self, mark: str, items: Sequence[PendingItem] = (), parts: Sequence[Insertion] = ()) -> None:
        self.mark = mark
        self.items = items
        self.parts = parts
        self.whole: Insertion | None = None
        for part in parts:
            part.whole = self

    def counts(self, marks: Collection[str]) -> bool:
        insertion: Insertion | None = self
        while insertion and insertion.mark not in marks:
            insertion = insertion.whole
        return insertion is not None

    def all_items(self) -> list[PendingItem]:
        items: list[PendingItem] = []
        insertions = [self]
        while insertions:  # a long transaction nests them too deeply for a recursion
            insertion = insertions.pop()
            items += insertion.items
            insertions += insertion.parts
        return items


class PendingItem:
    """One task of a transaction for its jobs. A rollback to a savepoint drops the items made after that savepoint."""

    __slots__ = ('insertion', 'mark')

    def __init__(self, mark: str | None) -> None:
        self.mark = mark
        self.insertion: Insertion | None = None  # the last insertion that did this task

    def is_done(self, marks: Collection[str]) -> bool:
        return self.insertion is not None and self.insertion.counts(marks)

    def is_called(self, marks: Collection[str]) -> bool:
        """Return whether its call still counts, as far as marks show."""
        return self.mark in marks

    def counts(self, marks: Collection[str]) -> bool:
        return self.is_called(marks) or self.is_done(marks)  # the mark of the call may have been merged with others

    def queue_of(self, pending: Pending) -> list[Any]:
        """Return the list in which the item waits until it is done."""
        return pending.open


class PendingCall(PendingItem):
    """The jobs of one call. They get their ids when code reads these, or when the rows are inserted.

    It stands in for the ids of the record that ``call`` returned: see ``ir.async.__getattr__``.
    """

    __slots__ = ('chunks', 'ids', 'late_parent_ids', 'parent_ids', 'values')

    def __init__(self, values: dict[str, Any], chunks: Sequence[str], mark: str | None) -> None:
        super().__init__(mark)
        self.values = values
        self.chunks = chunks
        self.parent_ids: Sequence[int] = ()
        self.late_parent_ids: Sequence[int] = ()
        self.ids: Sequence[int] | None = None

    def rows(self) -> list[tuple[Any, ...]]:
        values = self.values
        rest = tuple(values[column] for column in COLUMNS[2:])
        return [(id_, res_ids, *rest) for id_, res_ids in zip(self.ids or (), self.chunks, strict=True)]

    # The ORM's prefetching reads the ids once they are known.

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids or ())

    def __reversed__(self) -> Iterator[int]:
        return reversed(self.ids or ())

    def __len__(self) -> int:
        return len(self.ids or ())


class PendingNotice(PendingItem):
    """The notice of a call to its user, and to job workers or cron workers."""

    __slots__ = ('call',)

    def __init__(self, call: PendingCall) -> None:
        super().__init__(None)  # it counts as long as its call does
        self.call = call

    def is_called(self, marks: Collection[str]) -> bool:
        return self.call.counts(marks)

    def queue_of(self, pending: Pending) -> list[Any]:
        return pending.notices


class PendingChange(PendingItem):
    """The notice of a job that this transaction changed. The revision of the job shows whether the change counts."""

    __slots__ = ('job_id', 'revision', 'wakes')

    def __init__(self, job_id: int, revision: int, wakes: bool) -> None:
        super().__init__(None)
        self.job_id = job_id
        self.revision = revision  # before the change
        self.wakes = wakes

    def is_called(self, marks: Collection[str]) -> bool:
        return True

    def queue_of(self, pending: Pending) -> list[Any]:
        return pending.notices


class PendingKey(PendingItem):
    """A queued job that a keyed call has found. It gets new values, or must not begin before the commit."""

    __slots__ = ('claim_number', 'job_id', 'values')

    def __init__(self, mark: str | None, job_id: int, claim_number: int, values: dict[str, Any] | None = None) -> None:
        super().__init__(mark)
        self.job_id = job_id
        self.claim_number = (
            claim_number  # its claim number when it was found; another number shows that it has begun since
        )
        self.values = values

    def queue_of(self, pending: Pending) -> list[Any]:
        return pending.relied if self.values is None else pending.open


class Pending:
    """The pending work of a transaction for its jobs, until the transaction is over."""

    __slots__ = (
        'began', 'calls', 'checked', 'clock', 'fallback', 'first', 'insertions', 'is_committing', 'is_inserting', 'keyed', 'mark',
        'marks', 'notices', 'open', 'origin', 'parents', 'query', 'relied')  # fmt: skip

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Drop everything, for the next transaction."""
        # Calls and replacements that are not done, or whose work was rolled back.
        self.open: list[PendingCall | PendingKey] = []
        self.notices: list[PendingNotice | PendingChange] = []  # notices that are not given yet
        self.relied: list[PendingKey] = []  # queued jobs that must not begin before the commit, and are not locked yet
        self.insertions: list[Insertion] = []
        self.fallback: Insertion | None = None  # with which the cron workers were triggered
        self.keyed: dict[tuple[str, int], list[PendingCall]] = {}  # the calls of each key, by ``key_identity``
        self.calls: dict[int, PendingCall] = {}  # the calls, by the ids of their jobs
        # Jobs of other transactions that calls wait for: whether each is SEEN, LATE or GONE.
        self.parents: dict[int, str] = {}
        self.mark: str | None = None
        self.marks: set[str] = set()  # all marks that existed when `mark` was set
        self.first: str | None = None  # a mark that also has a lock
        self.query: bytes | None = None  # the last statement of the cursor when the mark was set
        self.checked: bytes | None = None  # the last statement of the cursor at the last check of the marks
        self.clock: tuple[datetime, float] | None = None  # (time of the database, clock of this process) at one moment
        self.began: datetime | None = None  # when the transaction began
        self.origin: str | None = None  # the identity of the database, read in this transaction
        self.is_committing = False
        self.is_inserting = False

    def now(self) -> datetime:
        assert self.clock, "the clock is read before"
        date, reading = self.clock
        return date + timedelta(seconds=time.monotonic() - reading)

    def is_current(self, cr: BaseCursor) -> bool:
        """Return whether nothing was executed since the mark was set, so that no savepoint began or ended."""
        return cr.query is self.query

    def reopen(self, marks: Collection[str]) -> bool:
        """Reopen items whose work was rolled back while their calls were not.

        :param set[str] marks: the marks that exist
        :return: whether anything was rolled back
        :rtype: bool
        """
        is_rolled_back = False
        insertions, self.insertions = self.insertions, []
        while insertions:
            insertion = insertions.pop()
            if insertion.mark in marks:
                self.insertions.append(insertion)
                continue
            is_rolled_back = True
            insertions += insertion.parts
            for part in insertion.parts:
                part.whole = None
            for item in insertion.items:
                item.insertion = None
                item.queue_of(self).append(item)
        queues: tuple[list[Any], ...] = (self.open, self.notices, self.relied)
        for queue in queues:
            queue[:] = [item for item in queue if item.is_called(marks)]
        return is_rolled_back

    def without_ids(self) -> list[PendingCall]:
        """Return the open calls whose ids are not taken yet, in the order of the calls."""
        return [item for item in self.open if isinstance(item, PendingCall) and item.ids is None]

    def set_ids(self, call: PendingCall, ids: Sequence[int]) -> None:
        call.ids = ids
        self.calls.update(dict.fromkeys(ids, call))

    def add_call(self, call: PendingCall) -> None:
        """Schedule the insertion of the jobs of a call, and their notice, for the commit."""
        self.open.append(call)
        self.notices.append(PendingNotice(call))
        if call.values['key']:
            self.keyed.setdefault(key_identity(call.values), []).append(call)

    def add_change(self, job_id: int, revision: int, began: datetime | None, wakes: bool) -> None:
        """Schedule the notice of a change for the commit.

        :param int job_id: the job
        :param int revision: the revision of its row before the change
        :param datetime.datetime began: when the transaction began
        :param bool wakes: whether to wake the workers, too
        """
        self.began = self.began or began
        self.notices.append(PendingChange(job_id, revision, wakes))

    def is_due(self, is_flush: bool) -> bool:
        """Return whether there is anything to do.

        :param bool is_flush: True: all work is due now. False: only the rows are due, since statements may look for them
        :rtype: bool
        """
        return bool(self.open or (is_flush and (self.relied or self.notices)))

    def items(self) -> list[PendingItem]:
        """Return the items whose work is done and still counts.

        :rtype: list[PendingItem]
        """
        return [item for insertion in self.insertions for item in insertion.all_items()]


def key_identity(values: dict[str, Any]) -> tuple[str, int]:
    """Return the key of a job and its owner. No other live job has the same pair.

    :param dict values: the columns of the job
    :rtype: tuple[str, int]
    """
    return values['key'], values['user_id'] if values['notify'] else 0
