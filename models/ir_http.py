"""The jobs and settings that the web client gets with the page."""

from __future__ import annotations

from typing import Any

from odoo import api, models


class IrHttp(models.AbstractModel):
    _inherit = 'ir.http'

    def session_info(self) -> dict[str, Any]:
        info = super().session_info()
        if self.env.user._is_internal():
            info['async_downloads'] = self.env['ir.async']._get_download_settings()
        return info

    @api.model
    def lazy_session_info(self) -> dict[str, Any]:
        info = super().lazy_session_info()
        if self.env.user._is_internal():
            info['async_jobs'] = self.env['ir.async'].get_user_jobs()
        return info
