from odoo import api, fields, models


class TestAsyncEffect(models.Model):
    _inherit = 'test.async.effect'

    note = fields.Char(default="none")

    @api.model
    def effect_with_note(self, name, note):
        self.create({'name': name, 'note': note})
