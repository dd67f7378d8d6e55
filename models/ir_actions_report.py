from contextvars import ContextVar

from odoo import api, models
from odoo.http import request
from odoo.tools.safe_eval import safe_eval, time

from odoo.addons.ir_async.tools.request import is_extended
from odoo.addons.ir_async.tools.sessions import cookie_jar
from odoo.addons.web.controllers.report import ReportController

# The file with the cookie of the report that is being printed. Not in the context: clients set that.
_cookie_jar: ContextVar[str | None] = ContextVar('cookie_jar', default=None)


class IrActionsReport(models.Model):
    _inherit = 'ir.actions.report'

    @api.model
    def has_async_pdf(self, report_name):
        """Tell whether the web client is to print a report by :meth:`async_pdf`.

        Not when an addon has a download of its own, in place of Odoo's, or when Odoo has to tell what is wrong with
        wkhtmltopdf.

        :param str report_name: the name of the report's template
        :rtype: bool
        """
        model = self.env.get(self._get_report_from_name(report_name).model)
        return (
            model is not None
            and model._async_report
            and not is_extended(ReportController, self.env)
            and self.env['ir.async']._can_download('report')
            and self.get_wkhtmltopdf_state() == 'ok'
        )

    @api.model
    def async_pdf(self, report_name, docids, data=None):
        """Print a report in the background, as ``/report/download`` does at once.

        :param str report_name: the name of the report's template
        :param list docids: the ids of the records to print; a report that is made of ``data`` has none
        :param dict data: the options of the report, from a wizard
        :return: the job, as ``asyncRpc`` in the web client takes it
        :rtype: dict
        """
        description = self._get_report_from_name(report_name).name
        jobs = self.env['ir.async'].with_options(channel='export')
        return {'asyncJobId': jobs.call_notify(description, self.browse()._print_file, report_name, docids, data).id}

    def _print_file(self, report_name, docids, data):
        """Print a report: the job of :meth:`async_pdf`."""
        report = self._get_report_from_name(report_name)
        # The template gets the context among its data, as from the route.
        context = {key: value for key, value in self.env.context.items() if key != 'async_job_id'}
        content, _type = self._render_qweb_pdf(report_name, docids or None, data={**(data or {}), 'context': context})
        name = report.name
        if docids and report.print_report_name and len(docids) == 1:
            name = safe_eval(
                report.print_report_name, {'object': self.env[report.model].browse(docids), 'time': time})
        return self.env['ir.async']._download(f'{name}.pdf', content, 'application/pdf')

    @api.model
    def _run_wkhtmltopdf(self, *args, **kwargs):
        # It fetches style sheets and images by HTTP. In a job there is no request whose session it could have.
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
