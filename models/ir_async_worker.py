"""The table of workers."""

from __future__ import annotations

from odoo import fields, models
from odoo.tools import SQL


class IrAsyncWorker(models.Model):
    """The workers that serve this database: one row per session, written by the workers themselves.

    A session is alive while its id is locked in this database, and a process while its number is locked on ``postgres``. The
    row of a closed session stays while its process lives, as the process still serves this database. See
    :mod:`~odoo.addons.ir_async.engine.serving`.
    """

    _name = 'ir.async.worker'
    _inherit = ['ir.async.primary']
    _description = "Background Job Worker"
    _log_access = False
    _rec_name = 'host'

    host = fields.Char(readonly=True)
    pid = fields.Integer(string="Process", readonly=True, aggregator=None)
    process_number = fields.Integer(readonly=True, aggregator=None, help="Number that the process has locked")
    channels = fields.Char(readonly=True, help="Channels whose jobs the worker runs. Empty: all")
    database = fields.Char(
        readonly=True,
        help="Identity and name of the database, and versions of the worker. The worker counts while they are the same",
    )
    running_job_id = fields.Integer(readonly=True, aggregator=None, help="Job that a cron worker is running")
    # Noted with the job. If the process has ended but its server has not, the job is charged with a death.
    process_start = fields.Float(readonly=True, aggregator=None)
    server_pid = fields.Integer("Server Process", readonly=True, aggregator=None)
    server_start = fields.Float(readonly=True, aggregator=None)
    closed = fields.Boolean(readonly=True, help="The worker has no connection while there is nothing to do")

    def init(self) -> None:
        # Alter only what differs: ALTER waits for the workers, then holds them up until the upgrade has ended.
        cr = self.env.cr
        sequence = SQL.identifier(f'{self._table}_id_seq')
        cr.execute(SQL(
            """
            SELECT (SELECT relpersistence FROM pg_class WHERE oid = %(table)s::regclass),
                   (SELECT relpersistence FROM pg_class WHERE oid = %(sequence)s::regclass),
                   (SELECT seqcycle AND seqtypid = 'int4'::regtype FROM pg_sequence WHERE seqrelid = %(sequence)s::regclass)
            """, table=self._table, sequence=f'{self._table}_id_seq'))  # fmt: skip
        table_persistence, sequence_persistence, is_cycle = cr.fetchone()
        if table_persistence != 'u':
            cr.execute(SQL("ALTER TABLE %s SET UNLOGGED", SQL.identifier(self._table)))
        # An advisory lock on the id has 32 bits for it. So the sequence starts over at its end, where rows are long gone.
        if not is_cycle:
            cr.execute(SQL("ALTER SEQUENCE %s AS integer CYCLE", sequence))
        if cr._cnx.server_version >= 150000 and (table_persistence, sequence_persistence) != ('u', 'p'):
            # From PostgreSQL 15 on, the sequence follows the table. But new sessions must not get old ids after a crash.
            cr.execute(SQL("ALTER SEQUENCE %s SET LOGGED", sequence))
