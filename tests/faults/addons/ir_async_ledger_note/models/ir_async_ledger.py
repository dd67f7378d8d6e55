from odoo import fields, models


class IrAsyncLedger(models.Model):
    _inherit = 'ir.async.ledger'

    note = fields.Char(default="noted")
