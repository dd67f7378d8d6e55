"""Stop requests for running jobs."""

from odoo import fields, models


class IrAsyncStop(models.Model):
    """The request to stop a running job, with the reason. Like progress, it has a row of its own.

    It is written before the worker acts: if the worker dies while it stops the job, the next worker learns from the
    request how the job ends.
    """

    _name = 'ir.async.stop'
    _description = "Stop Request of a Background Job"
    _log_access = False
    _rec_name = 'job_id'

    job_id = fields.Many2one('ir.async', required=True, readonly=True, ondelete='cascade')

    reason = fields.Selection([('cancel', "Cancelled"), ('timeout', "Timed Out")], required=True, readonly=True)

    debug = fields.Text(readonly=True, help="Stack of the method")

    _job_uniq = models.UniqueIndex('(job_id)')
