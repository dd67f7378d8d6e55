"""The worker processes that serve a database.

A process is alive while it holds its lock in ``postgres``, the same place for all databases. Its row in ``ir_async_worker``
says that it serves this database. The row alone proves little: it is copied and renamed with its database, and it stays when
the worker leaves the database alone after an upgrade. So the row also has the origin and name of the database that the
worker found, and the versions that the worker serves. It counts only while all of these match.
"""

from __future__ import annotations

from .connection import LIVE_PROCESSES
from .origin import VERSIONS

_INSTALLED = """(
    SELECT string_agg(name || ' ' || latest_version, ', ' ORDER BY name) FROM ir_module_module WHERE name IN ('base', 'ir_async'))"""
_OURS = "'%s'" % ', '.join(f'{name} {version}' for name, version in sorted(VERSIONS.items()))


def database(origin: str, versions: str = _INSTALLED) -> str:
    """Return the SQL expression of the value that a row must have to count.

    :param str origin: the expression of the identity of the database
    :param str versions: the expression of the versions to compare
    :rtype: str
    """
    return f"{origin} || '/' || current_database() || ', ' || {versions}"


def served_database(origin: str) -> str:
    """Return the SQL expression of the value that a worker with this code writes into its row.

    :param str origin: the expression of the identity of the database
    :rtype: str
    """
    return database(origin, _OURS)


def serving(origin: str) -> str:
    """Return the query of the worker processes that serve the database.

    :param str origin: the expression of the identity of the database
    :rtype: str
    """
    return f"""
        SELECT id, process_number, channels
          FROM ir_async_worker
         WHERE process_number IN ({LIVE_PROCESSES}) AND database = {database(origin)}
    """
