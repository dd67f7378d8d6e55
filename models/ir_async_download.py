from odoo import api, models
from odoo.modules import module
from odoo.tools import str2bool
from odoo.tools.misc import clean_context

from odoo.addons.ir_async.service.pg import workers_alive


class IrAsync(models.Model):
    _inherit = 'ir.async'

    @api.model
    def _is_worth_downloading(self, setting):
        """Tell whether a file is to be made by a job: if so it is set, and there are workers to do it soon.

        :param str setting: the name of the system parameter
        :rtype: bool
        """
        return (
            self.env.user._is_internal()
            # sudo - ir.config_parameter: all users may profit by what the administrator has set
            and str2bool(self.env['ir.config_parameter'].sudo().get_param(setting, ''), False)
            and not module.current_test  # jobs do not run by themselves then
            and workers_alive(self.env.cr)
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
