"""Exports of any model in the background."""

from __future__ import annotations

import json
import logging
from typing import Any

from odoo import api, models
from odoo.exceptions import UserError
from odoo.http import request

from odoo.addons.ir_async.tools.export import BATCH_SIZE, FORMATS, Export
from odoo.addons.ir_async.tools.extension import find_extension

# The name under which Odoo logs its own exports, so that readers of the log find these there as well.
_logger = logging.getLogger('odoo.addons.web.controllers.export')


class Base(models.AbstractModel):
    _inherit = 'base'

    # A model sets these to False if its exports or reports need the user's request.
    _async_export = True
    _async_report = True

    @api.model
    def has_async_export(self, format: str, data: str | None = None) -> bool:  # noqa: A002
        """Return whether the web client exports the records of this model by :meth:`async_export`.

        False if an addon replaces Odoo's way to make exports of this format, or if a short export would have to wait.

        :param str format: ``csv`` or ``xlsx``
        :param str | None data: the parameter of the route ``/web/export/<format>``, if it is known
        :rtype: bool
        """
        return (
            format in FORMATS
            and self._async_export
            and self.env['ir.async']._can_download(
                'export', lambda: not data or self._is_short_export(json.loads(data))
            )
            and not self._find_export_extension(format, data)
        )

    @api.model
    def _is_short_export(self, params):
        """Return whether an export is small enough to be ready in a moment."""
        if params['ids']:
            return len(params['ids']) <= BATCH_SIZE
        records = self.with_context(**params.get('context', {}))
        return records.search_count(params['domain'], limit=BATCH_SIZE + 1) <= BATCH_SIZE

    @api.model
    def _find_export_extension(self, format_, data=None):
        data = data or json.dumps(
            {
                'model': self._name,
                'fields': [],
                'ids': False,
                'domain': [],
                'import_compat': False,
                'groupby': [],
                'context': {},
            }
        )
        extension = find_extension(
            FORMATS[format_],
            self.env,
            {f'web_export_{format_}': {'data': data}, 'base': {'data': data}},
            ('content_type', 'extension', 'filename', 'from_data', 'from_group_data'),
        )
        return self.env['ir.async']._log_extension(extension, f"{format_.upper()} exports")

    @api.model
    def async_export(self, format: str, data: str) -> dict[str, Any]:  # noqa: A002
        """Export records of this model in the background, as ``/web/export/<format>`` does at once.

        :param str format: ``csv`` or ``xlsx``
        :param str data: the parameter of that route
        :return: the answer that ``asyncRpc`` in the web client expects
        :rtype: dict[str, Any]
        :raises odoo.exceptions.AccessError: if the user is a portal or public user
        :raises odoo.exceptions.UserError: if they may not export, or the format is unknown
        """
        self.env['ir.async']._check_download()
        if format not in FORMATS:
            raise UserError(
                self.env._(
                    "Unknown export format %(format)s: use one of %(formats)s.",
                    format=format,
                    formats=", ".join(FORMATS),
                )
            )
        self.browse().export_data([])  # raises now if the user may not export
        params = json.loads(data)
        description = self.env._(
            "%(model)s (%(format)s)", model=self.env['ir.model']._get(self._name).name, format=format.upper()
        )
        address = request.httprequest.environ['REMOTE_ADDR'] if request else None
        return self.env['ir.async']._call_download(
            'export',
            description,
            self.browse()._export_file,
            format,
            data,
            address,
            is_short=self._is_short_export(params),
            identity=[format, params],
        )

    def _export_file(self, format_, data, address):
        """Export records of this model, as the job of :meth:`async_export`."""
        self.env['ir.async']._check_download()
        export = Export(self, format_, json.loads(data))
        result = self.env['ir.async']._download(export.filename, export.content(), export.format.content_type)
        _logger.info(
            "User %d exported %d %r records from %s. Fields: %s. %s: %s",
            self.env.uid,
            len(export.records),
            self._name,
            address,
            ','.join(export.names),
            *(('IDs sample', export.ids[:10]) if export.ids else ('Domain', export.domain)),
        )
        return result
