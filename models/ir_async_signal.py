"""Signals of changed caches and registries, sent within the transaction so that its jobs see the new values."""

from __future__ import annotations

from odoo import models

from ..tools import signals

SIGNALED = 'ir_async.signaled'  # key in the data of the postcommit hooks: the signals that the transaction sends


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _signal_changes(self) -> None:
        """Signal, in this transaction, the caches that other processes have to reload."""
        data = self.env.cr.postcommit.data
        names = [name for name in signals.changes(self.env.registry) if name not in data.get(SIGNALED, ())]
        if not names:
            return
        self.env.cr.execute(signals.send(names))
        if not data.setdefault(SIGNALED, []):
            self.env.cr.postcommit.add(self._count_signals)
        data[SIGNALED] += names

    def _count_signals(self) -> None:
        signals.count(self.env.registry, self.env.cr.postcommit.data.pop(SIGNALED, ()))
