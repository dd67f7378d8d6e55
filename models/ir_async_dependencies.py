"""The jobs that a call waits for: checked to be saved or of this transaction, then inserted as dependencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import errors

from odoo import models
from odoo.exceptions import UserError
from odoo.tools import SQL

from ..tools.options import MAX_INT
from .ir_async_savepoint import IDS_LOCK_CLASS, LAST_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..tools.pending import Pending, PendingCall

# States of a parent that another transaction has enqueued, from the view of this one.
SEEN = 'seen'  # its row is in the snapshot
LATE = 'late'  # committed since this transaction began, so not in its snapshot
GONE = 'gone'  # deleted
PARENT_PROBE = '100ms'  # how long to wait for an open transaction that has inserted the parent


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _find_parents(self, pending: Pending, ids: Iterable[int]) -> tuple[list[int], list[int]]:
        """Check the jobs that a call waits for. A missing one must be an error: workers take a missing dependency for a met one.

        :param Pending pending: the pending work of the transaction, with current marks
        :param ids: the ids of the jobs
        :return: the ids that this transaction sees, and those committed since it began
        :raises odoo.exceptions.UserError: if one of them is not saved yet, was rolled back, or never existed
        """
        ids = dict.fromkeys(ids)
        calls = {id_: pending.calls[id_] for id_ in ids if id_ in pending.calls}
        if lost := [id_ for id_, call in calls.items() if not call.counts(pending.marks)]:
            raise self._no_parents(lost)
        if unknown := [id_ for id_ in ids if id_ not in calls and id_ not in pending.parents]:
            is_current = pending.is_current(self.env.cr)
            pending.parents |= self._find_saved_parents(unknown)
            if is_current:
                pending.query = self.env.cr.query
        found = {id_: SEEN if id_ in calls else pending.parents[id_] for id_ in ids}
        seen, late = ([id_ for id_, state in found.items() if state == wanted] for wanted in (SEEN, LATE))
        return seen, late

    def _cancel_children(self) -> None:
        """Cancel the jobs that wait for any of these, unless it has ended well."""
        children = self.env.execute_query(SQL(
            """
            SELECT DISTINCT rel.job_id
              FROM ir_async_after_rel rel
              JOIN ir_async parent ON parent.id = rel.after_id
              JOIN ir_async child ON child.id = rel.job_id
             WHERE rel.unmet AND rel.after_id = ANY(%s) AND parent.state NOT IN ('succeeded', 'done') AND child.state = 'waiting'
          ORDER BY rel.job_id
            """, list(self.ids)))  # fmt: skip
        self.browse(id_ for (id_,) in children).cancel()

    def _find_saved_parents(self, ids: list[int]) -> dict[int, str]:
        """Return whether each of these jobs of other transactions is SEEN, LATE or GONE.

        :rtype: dict[int, str]
        """
        if wrong := [id_ for id_ in ids if not 0 < id_ <= MAX_INT]:
            raise self._no_parents(wrong)
        unseen = [
            id_
            for (id_,) in self.env.execute_query(
                SQL(
                    "SELECT id FROM unnest(%s) AS parent (id) WHERE NOT EXISTS (SELECT FROM ir_async WHERE id = parent.id)",
                    ids,
                )
            )
        ]
        late = []
        if unseen:
            # An open transaction has locked the last id before its own. The rows of its larger ids may not be inserted yet.
            [[last_id, open_id]] = self.env.execute_query(SQL(
                """
                SELECT %s, (
                           SELECT min(objid::int8)
                             FROM pg_locks
                            WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2 AND pid != pg_backend_pid()
                              AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
                  FROM ir_async_id_seq
                """, LAST_ID, IDS_LOCK_CLASS))  # fmt: skip
            if wrong := [id_ for id_ in unseen if id_ > last_id]:
                raise self._no_parents(wrong)
            late = self._probe_parents(unseen)
            for id_ in unseen:
                if id_ not in late and open_id is not None and id_ > open_id:
                    raise self._unsaved_parent(id_)
        return dict.fromkeys(ids, SEEN) | dict.fromkeys(unseen, GONE) | dict.fromkeys(late, LATE)

    def _probe_parents(self, ids: list[int]) -> list[int]:
        """Return the ids of rows that exist although this transaction does not see them.

        The probe inserts a row of the same id: unique violations do not depend on the snapshot.

        :raises odoo.exceptions.UserError: if an open transaction has inserted such a row
        """
        try:
            with self.env.cr.savepoint(flush=False) as savepoint:
                self.env.cr.execute(SQL(
                    """
                    SET LOCAL lock_timeout = %s;
                    INSERT INTO ir_async (
                                id, state, res_model, res_ids, method, args, kwargs, context, user_id, priority, channel, origin)
                         SELECT id, 'cancelled', '', '[]', '', '[]', '{}', '{}', %s, 0, '', ''
                           FROM unnest(%s) AS parent (id)
                    """, PARENT_PROBE, self.env.uid, ids), log_exceptions=False)  # fmt: skip
                savepoint.rollback()
        except errors.UniqueViolation:
            if len(ids) == 1:
                return ids
        except errors.LockNotAvailable:
            if len(ids) == 1:
                raise self._unsaved_parent(ids[0]) from None
        else:
            return []
        half = len(ids) // 2
        return self._probe_parents(ids[:half]) + self._probe_parents(ids[half:])

    def _unsaved_parent(self, job_id: int) -> UserError:
        return UserError(
            self.env._(
                "Job %s is not saved yet, so no other job can wait for it. Enqueue both jobs in one transaction, or commit that one first.",
                job_id,
            )
        )

    def _no_parents(self, job_ids: Iterable[int]) -> UserError:
        return UserError(
            self.env._(
                "No job can wait for jobs that do not exist or were rolled back: %s", ", ".join(map(str, job_ids))
            )
        )

    def _insert_dependencies(self, calls: Sequence[PendingCall]) -> None:
        dependencies = [(job_id, parent_id) for call in calls for job_id in call for parent_id in call.parent_ids]
        if dependencies:
            # The call has checked the parents. If one is missing now, this transaction has deleted it.
            self.env.cr.execute(
                "INSERT INTO ir_async_after_rel (job_id, after_id)"
                " SELECT job_id, after_id FROM unnest(%s, %s) AS rel (job_id, after_id)"
                " WHERE EXISTS (SELECT FROM ir_async WHERE id = after_id)",
                [list(ids) for ids in zip(*dependencies)],
            )
        for call in calls:
            if call.late_parent_ids:
                # The foreign key refuses parents outside the snapshot, so a worker inserts these dependencies.
                self.env.cr.execute(
                    SQL("UPDATE ir_async SET late_parent_ids = %s WHERE id = ANY(%s)", call.late_parent_ids, list(call))
                )
