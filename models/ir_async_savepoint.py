"""Marks of calls and insertions, which PostgreSQL takes back when it rolls a savepoint back."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from psycopg2.extensions import TRANSACTION_STATUS_INTRANS

from odoo import models
from odoo.exceptions import UserError
from odoo.tools import SQL

from ..tools.pending import Insertion, PendingCall

if TYPE_CHECKING:
    from ..tools.pending import Pending

# The rollback of a savepoint takes back LOCAL settings, no matter which code made the savepoint. So a mark that is still
# there proves that its calls and insertions count.
MARKS = SQL("coalesce(current_setting('ir_async.marks', true), '')")
MAX_MARKS = 200  # each new mark sends the whole list: from so many on, rows are inserted before the commit
MARK_LOCK_CLASS = int.from_bytes(b'iram', 'big')  # of the advisory lock taken with the first mark
# Of the advisory lock on the last id before the first mark. It shows others that this transaction's ids are larger.
IDS_LOCK_CLASS = int.from_bytes(b'irai', 'big')
LAST_ID = SQL("last_value - (NOT is_called)::int")  # of the sequence
_marks = itertools.count(1)


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _mark(self, pending: Pending, count: int) -> tuple[int, ...] | None:
        """Give the next call a mark that is taken back if the call is rolled back.

        :param int count: the number of jobs of the call
        :return: the ids of the jobs, if a statement was needed; else None
        """
        cr = self.env.cr
        if pending.mark and pending.is_current(cr) and cr._cnx.get_transaction_status() == TRANSACTION_STATUS_INTRANS:
            return None
        if len(pending.open) >= MAX_MARKS and pending.mark:
            self._insert_pending()
        mark = str(next(_marks))
        is_locked = not pending.first
        late = pending.without_ids()  # they come before this call, so their ids do, too
        reading = time.monotonic()  # before the clock of the database, so that a delay is never too short
        # Lock before taking ids: others conclude from the lock which ids are this transaction's.
        [[marks, began, now, origin, last_id, _locked, ids]] = self.env.execute_query(SQL(
            """
            SELECT %s, now(), clock_timestamp() AT TIME ZONE 'UTC', %s, %s, %s,
                   ARRAY(SELECT nextval('ir_async_id_seq') FROM generate_series(1, %s))
              FROM ir_async_id_seq
            """, add_mark(mark), self._origin_sql(), LAST_ID, _locks(mark, LAST_ID) if is_locked else SQL("NULL"),
            sum(len(call.chunks) for call in late) + count))  # fmt: skip
        if pending.began not in (None, began):
            self._leave_transaction(pending)
        pending.began, pending.origin, marks = began, origin, set(marks.split(','))
        if pending.first:
            self._check_marks(pending, marks)
        if pending.first not in marks:
            pending.first = mark
            if not is_locked:
                self.env.execute_query(SQL("SELECT %s", _locks(mark, SQL("%s", last_id))))
        pending.mark, pending.marks, pending.clock = mark, marks, (now, reading)
        pending.query = cr.query
        ids = iter(ids)
        for call in late:
            pending.set_ids(call, tuple(itertools.islice(ids, len(call.chunks))))
        return tuple(ids)

    def _merge_marks(self, pending: Pending, marks: set[str]) -> None:
        """Replace the marks of all insertions by one, if there are too many marks.

        The rollback of a savepoint brings the replaced marks back.
        """
        if len(marks) <= MAX_MARKS:
            return
        whole = Insertion(insertion_mark(), parts=pending.insertions)
        kept = {whole.mark, pending.first, *(item.mark for item in pending.relied)} & {whole.mark, *marks}
        self.env.execute_query(
            SQL("SELECT set_config('ir_async.marks', %s, true)", ''.join(f'{mark},' for mark in kept))
        )
        pending.insertions = [whole]
        pending.mark = None

    def _check_marks(self, pending: Pending, marks: set[str]) -> None:
        """Raise if marks have gone for another reason than the rollback of a savepoint: their jobs would be lost.

        :raises odoo.exceptions.UserError: if the lock of the first mark is held but the mark is gone
        """
        if pending.first and pending.first not in marks and self.env.execute_query(SQL(
            """
            SELECT FROM pg_locks
             WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2 AND pid = pg_backend_pid()
            """, MARK_LOCK_CLASS, _lock_key(pending.first))):  # fmt: skip
            raise UserError(
                self.env._("RESET ALL would lose the jobs of this transaction. Reset single settings instead.")
            )

    def _leave_transaction(self, pending: Pending) -> None:
        """Begin anew after the transaction was ended below the cursor.

        :raises odoo.exceptions.UserError: if jobs were lost
        """
        job_ids = {id_ for item in pending.items() if isinstance(item, PendingCall) for id_ in item}
        [[count]] = self.env.execute_query(SQL("SELECT count(*) FROM ir_async WHERE id = ANY(%s)", list(job_ids)))
        if pending.open or count < len(job_ids):
            raise UserError(
                self.env._(
                    "COMMIT or ROLLBACK in SQL, or a connection in autocommit, would lose the jobs of this transaction."
                    " Call commit() or rollback() of the cursor instead."
                )
            )
        self._wake_workers()
        self._announce_changes(pending.notices)
        pending.reset()


def insertion_mark() -> str:
    return f'i{next(_marks)}'


def add_mark(mark: str) -> SQL:
    """Return SQL that adds a mark, and evaluates to all marks."""
    return SQL("set_config('ir_async.marks', %s || %s, true)", MARKS, f'{mark},')


def _lock_key(mark: str) -> int:
    return int(mark) % 2**31


def _locks(mark: str, last_id: SQL) -> SQL:
    return SQL(
        "ROW(pg_advisory_xact_lock_shared(%s, %s), pg_advisory_xact_lock_shared(%s, (%s)::int))",
        MARK_LOCK_CLASS,
        _lock_key(mark),
        IDS_LOCK_CLASS,
        last_id,
    )
