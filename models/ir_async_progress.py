"""Progress of running jobs."""

from odoo import fields, models


class IrAsyncProgress(models.Model):
    """The progress of a job. It has a row of its own: if others wrote the job's row while the job runs, its end would fail."""

    _name = 'ir.async.progress'
    _description = "Background Job Progress"
    _log_access = False
    _rec_name = 'job_id'

    revision = fields.Integer(
        readonly=True, aggregator=None, help="Revision of the job during the run that reported this progress"
    )
    job_id = fields.Many2one('ir.async', required=True, readonly=True, ondelete='cascade')
    done = fields.Float(digits=0, readonly=True, aggregator=None)
    total = fields.Float(digits=0, readonly=True, aggregator=None)
    message = fields.Char(readonly=True)

    _job_uniq = models.UniqueIndex('(job_id)')
