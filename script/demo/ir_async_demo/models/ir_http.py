from odoo import models
from odoo.http import request


class IrHttp(models.AbstractModel):
    _inherit = 'ir.http'

    def color_scheme(self):
        # Community has the dark scheme, too, but only Enterprise has a switch for it.
        return 'dark' if request.httprequest.cookies.get('color_scheme') == 'dark' else super().color_scheme()
