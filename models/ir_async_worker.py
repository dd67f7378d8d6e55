from odoo import fields, models
from odoo.tools import SQL


class IrAsyncWorker(models.Model):
    """The workers that serve this database: one row a session, written by the workers themselves.

    A session is alive while its key is locked in this database, a process while its key is locked on ``postgres``. The row
    of a session that was closed stays as long as its process lives: it says who serves this database. See
    :mod:`~odoo.addons.ir_async.engine.serving`.
    """
    _name = 'ir.async.worker'
    _description = "Background Job Worker"
    _log_access = False
    _rec_name = 'host'

    host = fields.Char(readonly=True)
    pid = fields.Integer(string="Process", readonly=True, aggregator=None)
    process_key = fields.Integer(readonly=True, aggregator=None, help="The lock that its process holds")
    channels = fields.Char(readonly=True, help="Only jobs of these channels, all if empty")
    database = fields.Char(
        readonly=True, help="The database that it found, its name, and the versions of the worker. It counts while they are the same.")
    running_job_id = fields.Integer(readonly=True, aggregator=None, help="The job that a cron worker runs")
    # Noted with the job: should the process have ended, and its server not, then the job is charged with a death.
    process_start = fields.Float(readonly=True, aggregator=None)
    server_pid = fields.Integer("Server Process", readonly=True, aggregator=None)
    server_start = fields.Float(readonly=True, aggregator=None)
    closed = fields.Boolean(readonly=True, help="It keeps no connection while there is nothing to do")

    def init(self):
        # Only what differs: each ALTER waits for the workers, and holds them up until the upgrade has ended.
        cr = self.env.cr
        sequence = SQL.identifier(f'{self._table}_id_seq')
        cr.execute(SQL(
            """
            SELECT (SELECT relpersistence FROM pg_class WHERE oid = %(table)s::regclass),
                   (SELECT relpersistence FROM pg_class WHERE oid = %(sequence)s::regclass),
                   (SELECT seqcycle AND seqtypid = 'int4'::regtype FROM pg_sequence WHERE seqrelid = %(sequence)s::regclass)
            """, table=self._table, sequence=f'{self._table}_id_seq'))
        table_persistence, sequence_persistence, is_cycle = cr.fetchone()
        if table_persistence != 'u':
            cr.execute(SQL("ALTER TABLE %s SET UNLOGGED", SQL.identifier(self._table)))
        # The key of a session is that of an advisory lock, 32 bits: it starts over, where no row is left.
        if not is_cycle:
            cr.execute(SQL("ALTER SEQUENCE %s AS integer CYCLE", sequence))
        if cr._cnx.server_version >= 150000 and (table_persistence, sequence_persistence) != ('u', 'p'):
            # There it follows the table. But after a crash, new sessions must not have the keys of the old ones.
            cr.execute(SQL("ALTER SEQUENCE %s SET LOGGED", sequence))
