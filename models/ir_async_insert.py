"""The bulk insert of a transaction's jobs: at its commit, or earlier when code looks for them."""

from __future__ import annotations

import contextlib
import functools
import io
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from odoo import models
from odoo.tools import SQL, ormcache

from ..tools.pending import COLUMNS, PENDING, Insertion, PendingCall, PendingKey
from .ir_async_savepoint import MARKS, add_mark, insertion_mark
from .ir_async_signal import SIGNALED

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from typing_extensions import Self

    from ..tools.options import Options
    from ..tools.pending import Pending, PendingItem

COPY_MIN = 50  # from so many rows on, COPY is faster: it takes two round trips, but half of the work
COPY_ESCAPES = str.maketrans({'\\': r'\\', '\t': r'\t', '\n': r'\n', '\r': r'\r'})


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _add_call(self, values: dict[str, Any], chunks: list[str], options: Options) -> Self:
        """Add the jobs of one call to the pending work of the transaction.

        :param dict[str, Any] values: the columns that all jobs of the call have in common
        :param list[str] chunks: the record ids of each job, JSON
        :param Options options: the options of the call
        :return: the jobs, or the live job of the same key
        """
        pending = self._pending()
        if values['key'] and (found := self._find_keyed(pending, values, chunks, options)):
            return found
        ids = self._mark(pending, len(chunks))
        if options.delay is not None:
            values['date_scheduled'] = pending.now() + timedelta(seconds=options.delay)
        values['origin'] = pending.origin
        call = PendingCall(values, chunks, pending.mark)
        if options.after:
            call.parent_ids, call.late_parent_ids = self._find_parents(pending, options.after._ids)
        if ids:
            pending.set_ids(call, ids)
        pending.add_call(call)
        if self._is_referenced():
            self._insert_pending()
        return self._of_call(call)

    @ormcache()
    def _is_referenced(self) -> bool:
        """Return whether other models have references to jobs. If so, rows must be inserted at once."""
        return any(
            field.store and field.comodel_name == self._name and not field.model_name.startswith(self._name)
            for model in self.env.registry.values()
            for field in model._fields.values()
            if field.type in ('many2one', 'many2many')
        )

    def _insert_pending(self, is_flush: bool = False) -> None:
        """Insert the pending rows. Insert rows again that were rolled back while their calls were not.

        :param bool is_flush: whether the commit may come next, so that all its work must be done
        """
        cr = self.env.cr
        pending: Pending | None = vars(cr).get(PENDING)
        if (
            not pending
            or not pending.began
            or pending.is_inserting
            or not (is_flush or pending.open or (pending.insertions and cr.query is not pending.checked))
        ):
            return
        is_current = pending.is_current(cr)
        pending.is_inserting = True
        try:
            mark = insertion_mark()
            is_due = pending.is_due(is_flush)
            [[marks, began, lock_timeout, _set]] = self.env.execute_query(
                SQL(
                    "SELECT %s, now(), current_setting('lock_timeout'), %s",
                    MARKS,
                    add_mark(mark) if is_due else SQL("NULL"),
                )
            )
            if began != pending.began:
                self._leave_transaction(pending)
                return
            self._check_marks(pending, marks := set(marks.split(',')))
            if pending.reopen(marks):
                cr.postcommit.data.pop(SIGNALED, None)  # the signals were rolled back, too
            if pending.is_due(is_flush):
                if not is_due:
                    self.env.execute_query(SQL("SELECT %s", add_mark(mark)))
                self._insert(pending, is_flush, mark, marks, lock_timeout)
        finally:
            pending.is_inserting = False
        pending.checked = cr.query
        if is_current:
            pending.query = cr.query

    def _insert(self, pending: Pending, is_flush: bool, mark: str, marks: set[str], lock_timeout: str) -> None:
        # Sort in the order of the calls: some are inserted again.
        items: list[PendingItem] = sorted(pending.open, key=lambda item: int(item.mark or 0))
        insertion = Insertion(mark, items)
        calls = [item for item in items if isinstance(item, PendingCall)]
        if any(call.ids is None for call in calls):
            self._reserve_ids(pending, calls)
        keyed = [call for call in calls if call.values['key']]
        relied = pending.relied[:] if is_flush else []
        held = {item.job_id: item for item in (*relied, *items) if isinstance(item, PendingKey)}
        # A savepoint makes this all or nothing: keys can fail, and the transaction may go on.
        with self.env.cr.savepoint(flush=False) if keyed or held else contextlib.nullcontext():
            self._insert_rows([row for call in calls if not call.values['key'] for row in call.rows()])
            # As late as possible: other transactions wait for the one that inserts a key, and workers pass over locked jobs.
            if keyed:
                self._insert_keyed(keyed, lock_timeout)
            self._insert_dependencies(calls)
            self._hold_keyed(pending, held, lock_timeout)
        notices = pending.notices[:] if is_flush else []
        items += [*relied, *notices]
        for item in items:
            item.insertion = insertion
        pending.insertions.append(insertion)
        pending.open = []
        if is_flush:
            pending.relied, pending.notices = [], []
        if held:
            self._wake_workers(is_certain=False)  # they passed over the locked rows
        if notices:
            self._announce(notices, insertion, {mark, *marks})
        self._merge_marks(pending, marks)

    def _insert_rows(self, rows: Sequence[tuple[Any, ...]]) -> None:
        columns = ', '.join(COLUMNS)
        if len(rows) >= COPY_MIN:
            # Jobs enqueued together often differ in little more than their ids, so their texts are cached.
            text = functools.lru_cache(typed=True)(_copy_text)
            rest = functools.lru_cache(lambda values: '\t'.join(map(text, values)))
            lines = '\n'.join(f'{row[0]}\t{row[1]}\t{rest(row[2:])}' for row in rows)
            self.env.cr.copy_expert(f'COPY ir_async ({columns}) FROM STDIN', io.StringIO(lines))
        elif rows:
            self.env.cr.execute_values(f'INSERT INTO ir_async ({columns}) VALUES %s', rows)

    # Readers find the pending rows as well.

    def _search(self, *args: Any, **kwargs: Any) -> Any:
        self._insert_pending()
        return super()._search(*args, **kwargs)

    def exists(self) -> Self:
        self._insert_pending()
        return super().exists()

    def flush_model(self, fnames: Collection[str] | None = None) -> None:
        self._insert_pending()
        return super().flush_model(fnames)

    def flush_recordset(self, fnames: Collection[str] | None = None) -> None:
        self._insert_pending()
        return super().flush_recordset(fnames)


def _copy_text(value: Any) -> str:
    return r'\N' if value is None else str(value).translate(COPY_ESCAPES)
