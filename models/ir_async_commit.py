"""The commit of a transaction inserts its jobs, in its last moment."""

from __future__ import annotations

from odoo import models

from ..tools.pending import PENDING, Pending


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _pending(self) -> Pending:
        """Return the pending work of this transaction, which its commit and each flush before carry out."""
        cr = self.env.cr
        pending: Pending | None = vars(cr).get(PENDING)
        if not pending:
            pending = vars(cr)[PENDING] = Pending()
            self._wrap_commit(pending)
        if PENDING not in cr.precommit.data:
            # After a flush, plain SQL must find the jobs. Each flush drops the hooks that it has run.
            cr.precommit.data[PENDING] = True
            cr.precommit.add(self.sudo(False)._on_flush)
        return pending

    def _on_flush(self) -> None:
        hooks = self.env.cr.precommit
        if hooks.data.pop(PENDING, False) and hooks:
            hooks.add(self._on_flush)  # the other hooks may enqueue more, or change cached values
            return
        pending = vars(self.env.cr).get(PENDING)
        if pending and not pending.is_committing:
            self._prepare_commit()

    def _prepare_commit(self) -> None:
        self._insert_pending(is_flush=True)
        self._signal_changes()

    def _wrap_commit(self, pending: Pending) -> None:
        """Make the commit of this transaction insert the pending rows and signal changed caches, in its last moment.

        A hook does the same at each flush, where Odoo's ``retrying`` catches errors. But a flush drops its hooks.
        """
        cr = self.env.cr
        model, commit = self.sudo(False), cr.commit
        before = {'commit': commit} if 'commit' in vars(cr) else {}  # tests patch it

        def forget() -> None:
            if vars(cr).get(PENDING) is pending:
                del vars(cr)[PENDING]
                if vars(cr).get('commit') is insert_and_commit:
                    del vars(cr)['commit']
                    vars(cr).update(before)

        def insert_and_commit() -> None:
            pending.is_committing = True
            try:
                cr.flush()  # its hooks may enqueue more, or change cached values
                model._prepare_commit()
                model._wake_nobody(pending)
            finally:
                pending.is_committing = False
            forget()
            commit()

        cr.commit = insert_and_commit
        cr.postcommit.add(forget)
        cr.prerollback.add(forget)  # hooks after the rollback may enqueue jobs of the next transaction
