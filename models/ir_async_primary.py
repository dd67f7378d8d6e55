"""Reads of the primary, also when the server has a read replica (``db_replica_host``)."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from odoo import models

if TYPE_CHECKING:
    from collections.abc import Callable


class IrAsyncPrimary(models.AbstractModel):
    """Models whose records requests never read from a replica.

    A notification makes the web client read a job again. A replica may not know yet what it is about, and no replica knows
    which workers are alive: locks are not replicated.
    """

    _name = 'ir.async.primary'
    _description = "Model that is Read from the Primary"

    def _register_hook(self) -> None:
        super()._register_hook()
        model_class = self.env.registry[self._name]
        for name, method in inspect.getmembers(model_class, lambda value: getattr(value, '_readonly', False)):
            setattr(model_class, name, _on_primary(method))


def _on_primary(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that is not marked by :func:`odoo.api.readonly`, so that requests for it use the primary."""

    @functools.wraps(method)
    def call(self: models.BaseModel, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs)

    call._readonly = False  # type: ignore[attr-defined]
    return call
