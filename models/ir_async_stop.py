from odoo import fields, models


class IrAsyncStop(models.Model):
    """Why a running job is to be stopped, until it is. Also not in the job's row, for the same reason.

    It is written before anything is done about it: if the worker dies of being stopped, whoever finds the job
    learns from it how the job ends.
    """
    _name = 'ir.async.stop'
    _description = "Background Job to Stop"
    _log_access = False
    _rec_name = 'job_id'

    job_id = fields.Many2one('ir.async', required=True, readonly=True, ondelete='cascade')

    reason = fields.Selection(
        [('cancel', "Cancelled"), ('timeout', "Took too long")], required=True, readonly=True)

    debug = fields.Text(readonly=True, help="Where the method was")

    _job_uniq = models.UniqueIndex('(job_id)')
