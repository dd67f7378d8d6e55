import json
import logging

from odoo import api, models
from odoo.http import request

from odoo.addons.ir_async.tools.export import FORMATS, Export
from odoo.addons.ir_async.tools.request import is_extended

# Who follows in the log what is exported finds it under the same name.
_logger = logging.getLogger('odoo.addons.web.controllers.export')


class Base(models.AbstractModel):
    _inherit = 'base'

    # A model whose exports or reports need the request of the user sets them to False.
    _async_export = True
    _async_report = True

    @api.model
    def has_async_export(self, format):  # noqa: A002
        """Tell whether the web client is to export the records of this model by :meth:`async_export`.

        Not when an addon has an export of its own, in place of Odoo's.

        :param str format: ``csv`` or ``xlsx``
        :rtype: bool
        """
        return (
            self._async_export
            and not is_extended(FORMATS[format], self.env)
            and self.env['ir.async']._can_download('export')
        )

    @api.model
    def async_export(self, format, data):  # noqa: A002
        """Export records of this model in the background, as ``/web/export/<format>`` does at once.

        :param str format: ``csv`` or ``xlsx``
        :param str data: what that route takes
        :return: the job, as ``asyncRpc`` in the web client takes it
        :rtype: dict
        """
        self.browse().export_data([])  # who may not export is told so now
        description = self.env._(
            "%(model)s (%(format)s)", model=self.env['ir.model']._get(self._name).name, format=format.upper())
        address = request.httprequest.environ['REMOTE_ADDR'] if request else None
        jobs = self.env['ir.async'].with_options(channel='export')
        return {'asyncJobId': jobs.call_notify(description, self.browse()._export_file, format, data, address).id}

    def _export_file(self, format_, data, address):
        """Export records of this model: the job of :meth:`async_export`."""
        export = Export(self, format_, json.loads(data))
        result = self.env['ir.async']._download(export.filename, export.content(), export.format.content_type)
        _logger.info(
            "User %d exported %d %r records from %s. Fields: %s. %s: %s",
            self.env.uid, len(export.records), self._name, address, ','.join(export.names),
            *(('IDs sample', export.ids[:10]) if export.ids else ('Domain', export.domain)))
        return result
