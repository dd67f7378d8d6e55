"""Notifications with the commit: wake the workers, and send users their new and changed jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odoo import models
from odoo.modules import module
from odoo.tools import SQL

from ..engine.notifier import notifier
from ..tools.pending import PendingChange, PendingNotice
from .ir_async_channel import root_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ..tools.pending import Insertion, Pending, PendingItem

# The key in the data of the postcommit hooks: whether the workers certainly have something to do.
WOKEN = 'ir_async.notified'


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _announce(self, notices: Sequence[PendingItem], insertion: Insertion, marks: Collection[str]) -> None:
        """Wake workers or cron workers once the jobs are committed. Notify users of their new and changed jobs.

        :param notices: the notices
        :param Insertion insertion: the insertion that they belong to
        :param marks: the marks that exist
        """
        calls = [notice.call for notice in notices if isinstance(notice, PendingNotice)]
        if calls:
            self._wake_workers(is_certain=False)
            pending = self._pending()
            if not (pending.fallback and pending.fallback.counts(marks)) and self._ensure_served(
                {root_of(call.values['channel']) for call in calls}
            ):
                pending.fallback = insertion
        for call in calls:
            if call.values['notify']:
                for job_id in call:
                    self._send(job_id, call.values['user_id'], call.values['name'], call.values['state'], 1)
        self._announce_changes(notices)

    def _announce_changes(self, notices: Sequence[PendingItem]) -> None:
        """Do the same for changed jobs. Read their current rows, as a savepoint may have taken a change back."""
        changes = [notice for notice in notices if isinstance(notice, PendingChange)]
        if not changes:
            return
        before: dict[int, int] = {}
        for change in changes:
            before[change.job_id] = min(change.revision, before.get(change.job_id, change.revision))
        rows = [
            row
            for row in self.env.execute_query_dict(
                SQL(
                    "SELECT id, user_id, name, state, revision, notify, dismissed FROM ir_async WHERE id = ANY(%s) ORDER BY id",
                    list(before),
                )
            )
            if row['revision'] > before[row['id']]
        ]
        changed_ids = {row['id'] for row in rows}
        if any(change.wakes and change.job_id in changed_ids for change in changes):
            self._wake_workers(is_certain=False)
        for row in rows:
            if row['notify']:
                more = {'dismissed': True} if row['dismissed'] else {}
                self._send(row['id'], row['user_id'], row['name'], row['state'], row['revision'], **more)

    def _wake_workers(self, is_certain: bool = True) -> None:
        """Wake the workers after the commit, once.

        :param bool is_certain: whether they have something to do even if savepoints are rolled back
        """
        self._pending()  # its commit also sends signals: jobs must not begin with old cached values
        data = self.env.cr.postcommit.data
        if WOKEN not in data:
            self.env.cr.postcommit.add(self._notify_workers)
        data[WOKEN] = is_certain or data.get(WOKEN, False)

    def _wake_nobody(self, pending: Pending) -> None:
        """Do not wake the workers if all their jobs were rolled back."""
        data = self.env.cr.postcommit.data
        if data.get(WOKEN) is False and not pending.items():
            data[WOKEN] = None

    def _ensure_served(self, channels: Iterable[str]) -> bool:
        """Trigger the cron workers, with this transaction, if no live worker serves one of the channels."""
        if module.current_test or not any(self._why_unserved(channel) == 'no_worker' for channel in channels):
            return False
        self._trigger_fallback()
        return True

    def _notify_workers(self) -> None:
        """Wake the workers now."""
        # Another postcommit hook may have committed more jobs and woken the workers. It may also have changed cached values.
        if self.env.cr.postcommit.data.pop(WOKEN, None) is None:
            return
        if self.env.registry.ready:
            self.env.registry.signal_changes()
        notifier.notify(self.env.cr.dbname)
