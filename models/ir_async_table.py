"""The table of jobs: defaults, storage, functions, and columns and indexes that fields cannot declare."""

from __future__ import annotations

from odoo import models
from odoo.tools import SQL, sql

from ..engine.fence import create_functions
from ..engine.job import UNMET_OF_CHILD, UNMET_OF_PARENT

# An insertion leaves these columns to the database.
DEFAULTS = {
    'revision': "int4 DEFAULT 1",
    'starts': "int4 DEFAULT 0",
    'attempts': "int4 DEFAULT 0",
    'deaths': "int4 DEFAULT 0",
    'claim_number': "int4 DEFAULT 0",
    'create_date': "timestamp DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')",
}
# Each job leaves two dead rows. By default, autovacuum would wait until they are a fifth of the table.
STORAGE = {'autovacuum_vacuum_scale_factor': '0.02', 'autovacuum_vacuum_threshold': '1000'}


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def init(self) -> None:
        # Alter only what differs: ALTER waits for the jobs that use the table, and all others wait behind it.
        cr = self.env.cr
        changes = [
            SQL("ALTER %s SET %s", SQL.identifier(column), SQL(DEFAULTS[column][DEFAULTS[column].index('DEFAULT') :]))
            for column in self._changed_defaults()
        ]
        cr.execute("SELECT unnest(reloptions) FROM pg_class WHERE oid = %s::regclass", [self._table])
        if missing := {f'{name}={value}' for name, value in STORAGE.items()} - {option for (option,) in cr.fetchall()}:
            changes.append(SQL("SET (%s)", SQL(', '.join(sorted(missing)))))
        if changes:
            cr.execute(SQL("ALTER TABLE %s %s", SQL.identifier(self._table), SQL(', ').join(changes)))
        create_functions(cr)
        self._create_channel_tables()
        # A dependency that is met stays, for information. These indexes hold only the unmet ones.
        if not sql.column_exists(cr, 'ir_async_after_rel', 'unmet'):
            cr.execute("ALTER TABLE ir_async_after_rel ADD COLUMN unmet boolean NOT NULL DEFAULT true")
        for index, column, predicate in (
            ('ir_async_after_rel_child_idx', 'job_id', UNMET_OF_CHILD),
            ('ir_async_after_rel_parent_idx', 'after_id', UNMET_OF_PARENT),
        ):
            if not sql.index_exists(cr, index):
                cr.execute(
                    SQL(
                        "CREATE INDEX %s ON ir_async_after_rel (%s) WHERE %s",
                        SQL.identifier(index),
                        SQL.identifier(column),
                        SQL(predicate),
                    )
                )
        # The parents that were committed after the enqueuing transaction had begun: it cannot refer to them by a foreign key.
        if not sql.column_exists(cr, 'ir_async', 'late_parent_ids'):
            cr.execute("ALTER TABLE ir_async ADD COLUMN late_parent_ids int4[]")
        if not sql.index_exists(cr, 'ir_async_late_parents_idx'):
            cr.execute("CREATE INDEX ir_async_late_parents_idx ON ir_async (id) WHERE late_parent_ids IS NOT NULL")

    def _create_channel_tables(self) -> None:
        """Create the tables of the starts in an interval, and of the pauses that jobs asked for: see ``engine/channels.py``.

        They are no models, since a model's ids would be used up by and by.
        """
        cr = self.env.cr
        if not sql.table_exists(cr, 'ir_async_start'):
            cr.execute("""
                CREATE TABLE ir_async_start (channel varchar NOT NULL, date timestamp NOT NULL, job_id int4 NOT NULL);
                CREATE INDEX ir_async_start_idx ON ir_async_start (channel, date);
                INSERT INTO ir_async_start
                     SELECT DISTINCT ON (channel) channel, date_start, id
                       FROM ir_async
                      WHERE limited AND date_start IS NOT NULL
                   ORDER BY channel, date_start DESC
            """)
        if not sql.table_exists(cr, 'ir_async_pause'):
            cr.execute("""
                CREATE TABLE ir_async_pause (channel varchar NOT NULL, until timestamp NOT NULL);
                CREATE INDEX ir_async_pause_idx ON ir_async_pause (channel, until);
            """)

    def _changed_defaults(self) -> list[str]:
        """Return the columns whose default in the database differs from ``DEFAULTS``, once PostgreSQL has parsed both."""
        cr = self.env.cr
        cr.execute(
            SQL("CREATE TEMPORARY TABLE ir_async_defaults (%s)", SQL(', '.join(map(' '.join, DEFAULTS.items()))))
        )
        cr.execute(
            """
            SELECT attname, pg_get_expr(adbin, adrelid)
              FROM pg_attribute
         LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
             WHERE attrelid = %s::regclass AND attname = ANY(%s)
            EXCEPT
            SELECT attname, pg_get_expr(adbin, adrelid)
              FROM pg_attribute
              JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
             WHERE attrelid = 'pg_temp.ir_async_defaults'::regclass
            """,
            [self._table, list(DEFAULTS)],
        )
        changed = [column for column, _default in cr.fetchall()]
        cr.execute("DROP TABLE pg_temp.ir_async_defaults")
        return changed
