"""Downloads of files that jobs have just made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odoo import http
from odoo.http import request

from odoo.addons.web.controllers.binary import Binary

if TYPE_CHECKING:
    from werkzeug.routing import Rule


class DownloadController(Binary):
    """Odoo's route for files. It reads a file to download from the primary: a read replica may not have it yet."""

    def _can_use_replica(self, _rule: Rule, _args: dict[str, Any]) -> bool:
        return not request.httprequest.args.get('download')

    @http.route(readonly=_can_use_replica)
    def content_common(self, *args: Any, **kwargs: Any) -> http.Response:
        """Answer with the content of a field, by default that of an attachment."""
        return super().content_common(*args, **kwargs)
