"""Files of jobs, kept out of the text index of attachments."""
from odoo import api, models


class IrAttachment(models.Model):
    _inherit = 'ir.attachment'

    @api.model_create_multi
    def create(self, vals_list):
        if any(vals.get('res_model') == 'ir.async' for vals in vals_list):
            self = self.with_context(ir_async_no_index=True)  # noqa: PLW0642
        return super().create(vals_list)

    @api.model
    def _index(self, bin_data, file_type, checksum=None):
        # Nobody searches in the files of jobs. The index would copy their text, such as a whole CSV file, into the database.
        if self.env.context.get('ir_async_no_index'):
            return None
        return super()._index(bin_data, file_type, checksum=checksum)
