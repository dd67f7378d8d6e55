from odoo import api, models
from odoo.modules import module
from odoo.tools import str2bool
from odoo.tools.misc import clean_context


class IrAsync(models.Model):
    _inherit = 'ir.async'

    @api.model
    def _get_download_settings(self):
        """Return which kinds of files jobs are to make, if they can.

        :rtype: dict[str, bool]
        """
        # sudo - ir.config_parameter: all users may profit by what the administrator has set
        get_param = self.env['ir.config_parameter'].sudo().get_param
        return {kind: str2bool(get_param(f'ir_async.{kind}', ''), False) for kind in ('export', 'report')}

    @api.model
    def _can_download(self, kind):
        """Tell whether a job is to make a file: if that is set so, and there are workers to do it soon.

        :param str kind: ``export`` or ``report``
        :rtype: bool
        """
        return (
            self.env.user._is_internal()
            and self._get_download_settings()[kind]
            and not module.current_test  # jobs do not run by themselves then
            and self._why_unserved('export') is None
        )

    @api.model
    def _download(self, name, content, mimetype):
        """Return the result of a job that makes a file: an action that downloads it.

        The file is the user's, nobody else can read it. It is deleted together with the job.

        :param str name: the file's name, as the user gets it
        :param bytes content: what is in it
        :param str mimetype: what it is
        :rtype: dict
        """
        # sudo - ir.attachment: users may not write on jobs, nor attach anything to them
        attachment = self.env['ir.attachment'].sudo().with_context(clean_context(self.env.context)).create({
            'name': name,
            'raw': content,
            'mimetype': mimetype,
            'res_model': self._name,
            'res_id': self.current().id,
        })
        return {
            'type': 'ir.actions.act_url',
            'url': f'/web/content/{attachment.id}?download=true',
            'target': 'download',
        }
