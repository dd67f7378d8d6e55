"""Rename columns. Replace ``database``, the name of the database where a job was enqueued, by ``origin``, its identity."""

import logging

from odoo.tools import SQL, sql

_logger = logging.getLogger(__name__)

ALIVE = """
    SELECT objid::int8
      FROM pg_locks
     WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2 AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

RENAMED = [
    ('ir_async', 'session', 'worker_id'),
    ('ir_async', 'claims', 'claim_number'),
    ('ir_async_worker', 'process_key', 'process_number'),
]


def migrate(cr, version):
    for table, old, new in RENAMED:
        if sql.column_exists(cr, table, old):
            sql.rename_column(cr, table, old, new)
            rename_in_favorites(cr, table.replace('_', '.'), old, new)
    if sql.column_exists(cr, 'ir_async', 'database'):
        replace_database(cr)


def rename_in_favorites(cr, model, old, new):
    """Rename a field in the saved filters and export templates of users."""
    cr.execute(SQL(
        """
        UPDATE ir_filters
           SET domain = regexp_replace(domain, %(condition)s, %(replacement)s, 'g'),
               context = regexp_replace(context, %(name)s, %(replacement)s, 'g'),
               sort = regexp_replace(sort, %(name)s, %(replacement)s, 'g')
         WHERE model_id = %(model)s
        """,
        # In a domain, the word may also be a value.
        condition=rf"""(['"]){old}(?=['"]\s*,\s*['"]([=!<>]+|in|not in)['"]\s*,)""",
        name=rf"""(['"]){old}\M""", replacement=rf'\1{new}', model=model))  # fmt: skip
    cr.execute(SQL(
        """
        UPDATE ir_exports_line line
           SET name = %s
          FROM ir_exports
         WHERE ir_exports.id = line.export_id AND ir_exports.resource = %s AND line.name = %s
        """, new, model, old))  # fmt: skip


def replace_database(cr):
    # A default fills the column without writing rows. That matters for running jobs, whose rows belong to their workers.
    add_column(cr, 'origin', 'varchar', read_origin(cr))
    add_column(cr, 'starts', 'int4', 0)
    # A job whose worker is alive runs in this database, whatever name its row has.
    cr.execute(SQL(
        """
        UPDATE ir_async
           SET origin = NULL
         WHERE database IS DISTINCT FROM current_database()
           AND (state IN ('waiting', 'created') OR state = 'processing' AND worker_id NOT IN (%s))
        """, SQL(ALIVE, int.from_bytes(b'iras', 'big'))))  # fmt: skip
    if cr.rowcount:
        _logger.warning(
            "%s queued jobs came with a copy of another database, they do not run until they are adopted", cr.rowcount
        )
    # The type of this column has changed, and its old values are of no use.
    cr.execute("ALTER TABLE ir_async_worker DROP COLUMN IF EXISTS server_start")
    # New indexes replace them.
    cr.execute("DROP INDEX IF EXISTS ir_async_after_rel_unmet_idx, ir_async_after_rel_after_idx")
    cr.execute("ALTER TABLE ir_async DROP COLUMN database, DROP CONSTRAINT IF EXISTS ir_async_parent_id_fkey")
    cr.execute("""
        WITH gone AS (DELETE FROM ir_model_constraint WHERE name = 'ir_async_parent_id_fkey' RETURNING id)
        DELETE FROM ir_model_data WHERE model = 'ir.model.constraint' AND res_id IN (SELECT id FROM gone)
    """)
    # These records belong to the users now, so updates of the module must not touch them.
    cr.execute("""
        DELETE FROM ir_model_data
         WHERE module = 'ir_async'
           AND name IN ('ir_async_channel_export', 'ir_config_parameter_export', 'ir_config_parameter_report')
    """)


def add_column(cr, name, column_type, value):
    if not sql.column_exists(cr, 'ir_async', name):
        cr.execute(
            SQL("ALTER TABLE ir_async ADD COLUMN %s %s DEFAULT %s", SQL.identifier(name), SQL(column_type), value)
        )
        cr.execute(SQL("ALTER TABLE ir_async ALTER %s DROP DEFAULT", SQL.identifier(name)))


def read_origin(cr):
    database = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    [[is_permitted]] = execute_query(cr, "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')")
    [[origin]] = execute_query(
        cr,
        f"SELECT system_identifier || '/' || {database} FROM pg_control_system()"
        if is_permitted
        else f"SELECT 'unknown/' || {database} || '/' || current_database()",
    )
    return origin


def execute_query(cr, query):
    cr.execute(query)
    return cr.fetchall()
