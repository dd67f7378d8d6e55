import time

from odoo import fields, models


class IrAsyncLedgerAccount(models.Model):
    """Records that jobs write, alone or all at once."""

    _name = 'ir.async.ledger.account'
    _description = "Account of a ledger of jobs"

    value = fields.Integer()

    def add(self, token):
        """Add one to the value. Somebody else may write it between the reading and the writing."""
        ledger = self.env['ir.async.ledger']
        with ledger._run(token):
            value = self.value
            time.sleep(0.02)
            self.value = value + 1
            ledger._book(token)

    def touch(self, token):
        """Leave one effect for each record."""
        ledger = self.env['ir.async.ledger']
        with ledger._run(token):
            for account in self:
                ledger._book(token, str(account.id))
                time.sleep(0.01)
