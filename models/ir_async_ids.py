"""The ids of a call's jobs: taken when code first reads the returned record, or at the insertion."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from odoo import models
from odoo.tools import SQL

from ..tools.pending import PendingCall

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..tools.pending import Pending


class IrAsync(models.Model):
    _inherit = 'ir.async'

    _prefetch_ids: Any

    def _of_call(self, call: PendingCall) -> Self:
        """Return the jobs of a call, whose ids may not be taken yet."""
        if call.ids is not None:
            return self.browse(call.ids)
        jobs = object.__new__(type(self))
        jobs.env, jobs._prefetch_ids = self.env, call
        return jobs

    def __getattr__(self, name: str) -> Any:
        # Python calls this for a missing attribute, such as `_ids` of a call whose ids are not taken yet.
        if name == '_ids' and isinstance(call := self._prefetch_ids, PendingCall):
            if call.ids is None and self.env.cr._closed:
                call.ids = ()  # rolled back before the ids were taken: there is no job
            if call.ids is None:
                self._reserve_ids(self._pending(), [call])
            self._ids = self._prefetch_ids = call.ids
            return call.ids
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")  # noqa: EM102, TRY003

    def _reserve_ids(self, pending: Pending, calls: list[PendingCall]) -> None:
        """Take ids from the sequence for all open calls without ids, in the order of the calls."""
        calls = pending.without_ids() or calls
        is_current = pending.is_current(self.env.cr)
        ids = iter(
            [
                id_
                for (id_,) in self.env.execute_query(
                    SQL(
                        "SELECT nextval(%s) FROM generate_series(1, %s)",
                        f'{self._table}_id_seq',
                        sum(len(call.chunks) for call in calls),
                    )
                )
            ]
        )
        for call in calls:
            pending.set_ids(call, tuple(itertools.islice(ids, len(call.chunks))))
        if is_current:
            pending.query = self.env.cr.query
