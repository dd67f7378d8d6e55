"""Files of jobs, kept out of the text index of attachments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odoo import api, models

if TYPE_CHECKING:
    from typing_extensions import Self

    from odoo.api import ValuesType


class IrAttachment(models.Model):
    _inherit = 'ir.attachment'

    @api.model_create_multi
    def create(self, vals_list: list[ValuesType]) -> Self:
        if any(vals.get('res_model') == 'ir.async' for vals in vals_list):
            self = self.with_context(ir_async_no_index=True)  # noqa: PLW0642
        return super().create(vals_list)

    @api.model
    def _index(self, bin_data, file_type, checksum=None):
        # Nobody searches in the files of jobs. The index would copy their text, such as a whole CSV file, into the database.
        if self.env.context.get('ir_async_no_index'):
            return None
        return super()._index(bin_data, file_type, checksum=checksum)
