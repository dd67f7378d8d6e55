"""The origin of a job: the identity of its database, which a copy of the database does not share.

The name of a database is no identity: a restored dump may have the same name. PostgreSQL gives each cluster an identifier,
and each database in it a number. Both stay when the database is renamed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from odoo.modules.module import Manifest, adapt_version, get_manifest

from .job import QUEUED_PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg2.extensions import cursor as Cursor

    from odoo.sql_db import BaseCursor

_logger = logging.getLogger(__name__)

VERSIONS = {name: adapt_version(get_manifest(name)['version']) for name in ('base', 'ir_async')}
COUNT_MAX = 10_000  # foreign jobs to count; counting more is not worth the time

_DATABASE = "(SELECT oid FROM pg_database WHERE datname = current_database())"
# Every role may call `pg_control_system()`, unless the administrator of the cluster has revoked that right.
IS_PERMITTED = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"
EXPRESSIONS = {
    True: f"(SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || {_DATABASE})",
    # Two clusters often number their databases alike. The name makes a match unlikely, but then a rename changes the origin.
    False: f"(SELECT 'unknown/' || {_DATABASE} || '/' || current_database())",
}

# Modules that were imported as data, such as those of Studio, have no code. The subquery takes `imported` from `without` where the
# table lacks this column, which comes with `base_import_module`.
INSTALLED = """
    SELECT array_agg(name::text ORDER BY name)
      FROM (SELECT false AS imported) AS without
CROSS JOIN LATERAL (
        SELECT name, imported FROM ir_module_module WHERE state IN ('installed', 'to upgrade', 'to remove')
    ) AS module
     WHERE module.imported IS NOT TRUE AND module.name != 'studio_customization'  -- as Odoo does
"""

_skipped: set[str] = set()  # databases of another version that are already in the log
incomplete: dict[str, list[str]] = {}  # databases of which this server lacks modules, and these
_reported: set[tuple[str, str]] = set()  # databases with foreign jobs that are already in the log


def origin_expression(cr: Cursor | BaseCursor) -> str:
    """Return the SQL expression of the identity of a database.

    :param cr: a cursor on the database
    :rtype: str
    """
    cr.execute(IS_PERMITTED)
    [[is_permitted]] = cr.fetchall()
    return EXPRESSIONS[is_permitted]


def read_origin(cr: Cursor | BaseCursor) -> str:
    """Return the identity of a database.

    :param cr: a cursor on the database
    :rtype: str
    """
    cr.execute(f"SELECT {origin_expression(cr)}")
    [[origin]] = cr.fetchall()
    return origin


def is_same_version(dbname: str, versions: dict[str, str]) -> bool:
    """Return whether a database was installed or upgraded by the code of this server. Log it once if it was not.

    :param str dbname: the database
    :param dict versions: ``latest_version`` of the modules ``base`` and ``ir_async`` there
    :rtype: bool
    """
    if versions == VERSIONS:
        _skipped.discard(dbname)
        return True
    if versions.get('ir_async') and dbname not in _skipped:
        _skipped.add(dbname)
        _logger.info(
            "Skipping database %s until its modules and this server have the same version: it has %s, this server has %s",
            dbname,
            *(', '.join(f'{name} {found.get(name)}' for name in VERSIONS) for found in (versions, VERSIONS)),
        )
    return False


def has_modules(dbname: str, names: Iterable[str]) -> bool:
    """Return whether this server has the code of all modules of a database. Log it once if it has not.

    Odoo would load the others. Then methods would be missing, or would be executed without what a module adds to them.

    :param str dbname: the database
    :param Iterable[str] names: its installed modules
    :rtype: bool
    """
    missing = [name for name in names if not _can_load(name)]
    known = incomplete.pop(dbname, None)
    if missing:
        incomplete[dbname] = missing
    if missing and missing != known:
        _logger.error(
            "Jobs of database %s do not run on this server, since its addons path lacks installed modules: %s. Add their"
            " folders to addons_path and restart, or uninstall them",
            dbname,
            ', '.join(missing),
        )
    return not missing


def _can_load(name: str) -> bool:
    """Return whether Odoo loads a module here. It skips those that are not installable."""
    manifest = Manifest.for_addon(name, display_warning=False)
    return bool(manifest and manifest['installable'])


# Each condition has a partial index: the table may have millions of jobs that ended.
_LIVE = [
    "state = 'waiting'",
    "state = 'processing'",
    *(f"state = 'created' AND {part}" for part in QUEUED_PARTS),
]
_COPIES = ' UNION ALL '.join(
    f"SELECT 1 FROM ir_async WHERE {live} AND origin IS DISTINCT FROM %(origin)s" for live in _LIVE
)
COUNT_COPIES = f"SELECT count(*) FROM (SELECT 1 FROM ({_COPIES}) AS live LIMIT %(max)s) AS job"


def warn_of_copies(cr: Cursor, dbname: str, origin: str) -> None:
    """Warn that queued jobs came with a copy of another database and do not run. Each process warns once.

    :param cr: a cursor on the database
    :param str dbname: its name
    :param str origin: its identity
    """
    if (dbname, origin) in _reported:
        return
    cr.execute(COUNT_COPIES, {'origin': origin, 'max': COUNT_MAX})
    [[count]] = cr.fetchall()
    if count:
        _reported.add((dbname, origin))
        _logger.warning(
            "Database %s: %s%s queued jobs came with a copy of another database and do not run here. To run them, select them in"
            " the list of background jobs and choose \"Run in This Database\", or call env['ir.async'].search("
            "[('is_elsewhere', '=', True)]).adopt() and env.cr.commit() in odoo-bin shell.",
            dbname,
            "at least " if count == COUNT_MAX else "",
            count,
        )
