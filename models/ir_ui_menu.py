"""The app, shown only to users who need it."""

from odoo import models


class IrUiMenu(models.Model):
    _inherit = 'ir.ui.menu'

    def _load_menus_blacklist(self):
        # The app is for managers of jobs who cannot open Settings. Others find the same menus there.
        blacklist = super()._load_menus_blacklist()
        menu = self.env.ref('ir_async.ir_async_menu_root', raise_if_not_found=False)
        return [*blacklist, menu.id] if menu and self.env.user.has_group('base.group_system') else blacklist
