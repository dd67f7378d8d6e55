"""Signals of changed caches and registries, sent within the transaction so that its jobs see the new values."""

from __future__ import annotations

from odoo import models
from odoo.tools import SQL

SIGNALED = 'ir_async.signaled'  # key in the data of the postcommit hooks: the signals that the transaction sends


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _signal_changes(self) -> None:
        """Signal, in this transaction, the caches that other processes have to reload.

        Odoo signals after the commit. By then, a worker may have begun a job with old values.
        """
        registry = self.env.registry
        if not registry.ready or registry.registry_invalidated:
            names = ['registry']  # a reloaded registry begins with empty caches
        else:
            names = sorted(registry.cache_invalidated)
        data = self.env.cr.postcommit.data
        names = [name for name in names if name not in data.get(SIGNALED, ())]
        if not names:
            return
        self.env.cr.execute(
            SQL("; ").join(
                SQL("INSERT INTO %s DEFAULT VALUES", SQL.identifier(f'orm_signaling_{name}')) for name in names
            )
        )
        if not data.setdefault(SIGNALED, []):
            self.env.cr.postcommit.add(self._count_signals)
        data[SIGNALED] += names

    def _count_signals(self) -> None:
        """Count the signals as seen by this process: its own caches are up to date."""
        registry = self.env.registry
        for name in self.env.cr.postcommit.data.pop(SIGNALED, ()):
            if name == 'registry':
                registry.registry_sequence += 1
            else:
                registry.cache_sequences[name] += 1
