"""Reads of the primary, also when the server has a read replica (``db_replica_host``)."""

from __future__ import annotations

from types import FunctionType

from odoo import models


class IrAsyncPrimary(models.AbstractModel):
    """Models whose records requests never read from a replica.

    A notification makes the web client read a job again. A replica may not know yet what it is about, and no replica knows
    which workers are alive: locks are not replicated.
    """

    _name = 'ir.async.primary'
    _description = "Background Job Read from the Primary"

    def _register_hook(self) -> None:
        super()._register_hook()
        model_class = self.env.registry[self._name]
        # An override is not marked, but Odoo finds the mark of what it overrides.
        marked = {
            name for cls in model_class.mro() for name, value in vars(cls).items() if getattr(value, '_readonly', False)
        }
        for name in marked:
            setattr(model_class, name, _on_primary(getattr(model_class, name)))


def _on_primary(method: FunctionType) -> FunctionType:
    """Return a copy of a method that is not marked by :func:`odoo.api.readonly`, so that requests for it use the primary."""
    copy = FunctionType(method.__code__, method.__globals__, method.__name__, method.__defaults__, method.__closure__)
    copy.__kwdefaults__ = method.__kwdefaults__
    copy.__dict__.update(method.__dict__, _readonly=False)
    return copy
