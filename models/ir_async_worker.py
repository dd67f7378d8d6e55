from odoo import fields, models
from odoo.tools import SQL


class IrAsyncWorker(models.Model):
    """The workers that have business with this database: one row a session, written by the workers themselves.

    The table is UNLOGGED: PostgreSQL empties it when it recovers from a crash. So a row that is still there says
    that its worker died alone, and the job that it was running may be to blame.
    """
    _name = 'ir.async.worker'
    _description = "Background Job Worker"
    _log_access = False
    _rec_name = 'host'

    host = fields.Char(readonly=True)
    pid = fields.Integer(string="Process", readonly=True, aggregator=None)
    process_key = fields.Integer(readonly=True, aggregator=None, help="The lock that its process holds")
    server_start = fields.Datetime(readonly=True, help="When PostgreSQL had been started")
    limit_time_real = fields.Float(digits=0, readonly=True, aggregator=None, help="Seconds that it gives a job; 0: no limit")
    date_ready = fields.Datetime(
        readonly=True, help="When it had loaded all it needs: if it dies later on, the job that it runs is to blame")

    def init(self):
        sequence = SQL.identifier(f'{self._table}_id_seq')
        self.env.cr.execute(SQL("ALTER TABLE %s SET UNLOGGED", SQL.identifier(self._table)))
        # The key of a session is that of an advisory lock, 32 bits: it starts over, where no row is left.
        self.env.cr.execute(SQL("ALTER SEQUENCE %s AS integer CYCLE", sequence))
        if self.env.cr._cnx.server_version >= 150000:
            # There it follows the table. But after a crash, new sessions must not have the keys of the old ones.
            self.env.cr.execute(SQL("ALTER SEQUENCE %s SET LOGGED", sequence))
