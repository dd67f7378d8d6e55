"""PDF reports in the background."""

from __future__ import annotations

import contextlib
import json
from contextvars import ContextVar
from typing import Any

from odoo import api, models
from odoo.exceptions import AccessError, MissingError, UserError
from odoo.http import request
from odoo.tools.safe_eval import safe_eval, time

from odoo.addons.ir_async.tools.extension import find_extension
from odoo.addons.ir_async.tools.sessions import cookie_jar
from odoo.addons.web.controllers.report import ReportController

# The cookie file of the report that is being printed. Not in Odoo's context, which clients can set.
_cookie_jar: ContextVar[str | None] = ContextVar('cookie_jar', default=None)

SHORT_COUNT = 10  # so many documents are printed in a moment


class IrActionsReport(models.Model):
    _inherit = 'ir.actions.report'

    @api.model
    def has_async_pdf(self, report_name: str, docids: list[int] | None = None) -> bool:
        """Return whether the web client prints a report by :meth:`async_pdf`.

        False if an addon replaces Odoo's way to make the PDF files of this report, if Odoo has a message about wkhtmltopdf,
        or if a short report would have to wait.

        :param str report_name: the name of the report's template
        :param list[int] | None docids: the ids of the records to print, if they are known
        :rtype: bool
        """
        model = self.env.get(self._get_report_from_name(report_name).model)
        return (
            model is not None
            and model._async_report
            and self.env['ir.async']._can_download('report', lambda: len(docids or ()) <= SHORT_COUNT)
            and self.get_wkhtmltopdf_state() == 'ok'
            and not self._find_pdf_extension(report_name, docids)
        )

    @api.model
    def _find_pdf_extension(self, report_name, docids=None):
        ids = ','.join(str(id_) for id_ in docids or [1])
        extension = find_extension(
            ReportController,
            self.env,
            {
                'report_download': {
                    'data': json.dumps([f'/report/pdf/{report_name}/{ids}', 'qweb-pdf']),
                    'context': '{}',
                },
                'report_routes': {'reportname': report_name, 'docids': ids, 'converter': 'pdf', 'context': '{}'},
            },
        )
        return self.env['ir.async']._log_extension(extension, "PDF reports")

    @api.model
    def async_pdf(
        self,
        report_name: str,
        docids: list[int] | None,
        data: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Print a report in the background, as ``/report/download`` does at once.

        :param str report_name: the name of the report's template
        :param list[int] | None docids: the ids of the records to print; none for a report made from ``data`` alone
        :param dict[str, Any] | None data: the options of the report, from a wizard
        :return: the answer that ``asyncRpc`` in the web client expects
        :rtype: dict[str, Any]
        :raises odoo.exceptions.AccessError: if the user is a portal or public user
        :raises odoo.exceptions.UserError: if there is no such report
        """
        self.env['ir.async']._check_download()
        report = self._get_report_from_name(report_name)
        if not report:
            raise UserError(self.env._("There is no report %(name)s. Reload the page.", name=report_name))
        return self.env['ir.async']._call_download(
            'report',
            self._describe_print(report, docids),
            self.browse()._print_file,
            report_name,
            docids,
            data,
            is_short=0 < len(docids or ()) <= SHORT_COUNT,
            identity=[report_name, docids, data or {}],
        )

    def _describe_print(self, report, docids):
        """Return the job's name in the list of the user: the report, with its record or the number of records."""
        if not docids:
            return report.name
        name = None
        if len(docids) == 1 and report.model in self.env:
            with contextlib.suppress(AccessError, MissingError):  # printing reports them
                name = self.env[report.model].browse(docids).display_name
        if name:
            return self.env._("%(report)s: %(record)s", report=report.name, record=name)
        return self.env._("%(report)s (%(count)s)", report=report.name, count=len(docids))

    def _print_file(self, report_name, docids, data):
        """Print a report, as the job of :meth:`async_pdf`."""
        self.env['ir.async']._check_download()
        report = self._get_report_from_name(report_name)
        # As the route does, pass the context to the template among its data.
        context = {key: value for key, value in self.env.context.items() if key != 'async_job_id'}
        content, _type = self._render_qweb_pdf(report_name, docids or None, data={**(data or {}), 'context': context})
        name = report.name
        if docids and report.print_report_name and len(docids) == 1:
            name = safe_eval(report.print_report_name, {'object': self.env[report.model].browse(docids), 'time': time})
        return self.env['ir.async']._download(f'{name}.pdf', content, 'application/pdf')

    @api.model
    def _run_wkhtmltopdf(self, *args, **kwargs):
        # wkhtmltopdf fetches style sheets and images by HTTP. A job has no request whose session it could use.
        if request or not self.env['ir.async'].current():
            return super()._run_wkhtmltopdf(*args, **kwargs)
        with cookie_jar(self.env, self._get_report_url()) as path:
            token = _cookie_jar.set(path)
            try:
                return super()._run_wkhtmltopdf(*args, **kwargs)
            finally:
                _cookie_jar.reset(token)

    @api.model
    def _build_wkhtmltopdf_args(self, *args, **kwargs):
        command_args = super()._build_wkhtmltopdf_args(*args, **kwargs)
        if path := _cookie_jar.get():
            command_args += ['--cookie-jar', path]
        return command_args
