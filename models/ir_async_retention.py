"""Delete jobs that ended long ago, with their files."""
from datetime import timedelta

from odoo import api, fields, models
from odoo.tools import SQL
from odoo.tools.constants import GC_UNLINK_LIMIT
from odoo.tools.misc import split_every

from .ir_async import ENDED


class IrAsync(models.Model):
    _inherit = 'ir.async'

    @api.autovacuum
    def _gc_jobs(self):
        days = int(self.env['ir.config_parameter'].sudo().get_param('ir_async.retention_days', 7))
        now = fields.Datetime.now()
        ended = [state for state in ENDED if state != 'failed']
        domain = fields.Domain.OR([
            [('state', 'in', ended), ('date_done', '<', now - timedelta(days=days))],
            [('state', '=', 'failed'), ('date_done', '<', now - timedelta(days=max(days, 30)))],
        ])
        # a parent stays while children wait for it
        domain &= fields.Domain.custom(to_sql=lambda model, alias, query: SQL(
            "NOT EXISTS (SELECT FROM ir_async_after_rel WHERE after_id = %s AND unmet)", SQL.identifier(alias, 'id')))
        jobs = self.sudo().search(domain, order='id', limit=GC_UNLINK_LIMIT)
        jobs._delete()
        return len(jobs), len(jobs) == GC_UNLINK_LIMIT  # done, remaining

    def _delete(self):
        """Delete jobs and the files that belong to them."""
        for ids in split_every(self.env.cr.IN_MAX, self._ids):
            self.env['ir.attachment'].sudo().search([('res_model', '=', self._name), ('res_id', 'in', ids)]).unlink()
            self.env.cr.execute(SQL("DELETE FROM ir_async WHERE id IN %s", ids))
        self.env.invalidate_all()
