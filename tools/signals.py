"""Odoo's signals that caches or the registry have changed, sent within a transaction.

Odoo sends them in a transaction of its own after the commit and its hooks. By then a worker may have begun a job with old values,
and when a hook hangs, or the process or PostgreSQL ends in between, other processes keep the old values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from odoo.tools import SQL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from odoo.modules.registry import Registry


def changes(registry: Registry) -> list[str]:
    """Return the names of the signals that a registry owes.

    :param odoo.modules.registry.Registry registry: the registry
    :rtype: list[str]
    """
    if not registry.ready or registry.registry_invalidated:
        return ['registry']  # a reloaded registry begins with empty caches
    return sorted(registry.cache_invalidated)


def send(names: Iterable[str]) -> SQL:
    """Return the statements that send signals with the current transaction.

    Other processes look at the greatest id alone. So a signal whose transaction takes longer than another one may be missed, and
    Odoo's own signal has to follow the commit. A lock that keeps the order would make everybody wait for the transaction.

    :param names: their names
    :rtype: odoo.tools.SQL
    """
    return SQL(" ").join(
        SQL("INSERT INTO %s DEFAULT VALUES;", SQL.identifier(f'orm_signaling_{name}')) for name in names
    )


def count(registry: Registry, names: Iterable[str]) -> None:
    """Count committed signals as seen by this process: its own caches are up to date.

    :param odoo.modules.registry.Registry registry: its registry
    :param names: the names of the signals
    """
    for name in names:
        if name == 'registry':
            registry.registry_sequence += 1
        else:
            registry.cache_sequences[name] += 1
