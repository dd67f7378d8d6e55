"""Modules: workers load the registry again as soon as an installation, upgrade or removal is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odoo import models

if TYPE_CHECKING:
    from odoo.api import ValuesType


class IrModuleModule(models.Model):
    _inherit = 'ir.module.module'

    def write(self, vals: ValuesType) -> bool:
        """Signal the change of the registry in the transaction that ends the flux of modules.

        Odoo signals it only at the end, seconds after that commit. Until then, a worker would run jobs with the old registry.
        Signals while modules are still in flux would have all servers load the registry once for each module.
        """
        result = super().write(vals)
        if 'state' in vals:
            self.flush_model(['state'])
            jobs = self.env['ir.async']
            if not jobs._modules_in_flux():
                jobs._signal_changes()
        return result
