"""Deletion of users: their jobs go with them."""

from odoo import api, models


class ResUsers(models.Model):
    _inherit = 'res.users'

    @api.ondelete(at_uninstall=True)
    def _unlink_async_jobs(self):
        # ON DELETE CASCADE deletes the rows, but not the files.
        jobs = self.env['ir.async'].sudo().search([('user_id', 'in', self.ids)])
        if jobs:
            jobs._cancel_children()  # otherwise they would run, as those of jobs that were vacuumed
            jobs._delete()
            jobs._wake_workers()  # jobs of other users may wait for the deleted ones
