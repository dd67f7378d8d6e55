"""Which worker processes serve a database.

A process is alive while it holds its lock on ``postgres``, which is shared by all databases. That it serves this one is
said by its row in ``ir_async_worker``. But a row is copied with its database, follows it to another name, and stays where
the worker leaves the database alone since an upgrade. So the row says which database the worker found, under which name,
and for which versions the worker is: it counts only while all of that is true.
"""
from __future__ import annotations

from .connection import LIVE_PROCESSES
from .origin import VERSIONS

_INSTALLED = """(
    SELECT string_agg(name || ' ' || latest_version, ', ' ORDER BY name) FROM ir_module_module WHERE name IN ('base', 'ir_async'))"""
_OURS = "'%s'" % ', '.join(f'{name} {version}' for name, version in sorted(VERSIONS.items()))


def database(origin, versions=_INSTALLED):
    """Return the SQL expression of what a row must say to count.

    :param str origin: the expression of the identity of the database
    :param str versions: the expression of the versions there
    :rtype: str
    """
    return f"{origin} || '/' || current_database() || ', ' || {versions}"


def served_database(origin):
    """Return the SQL expression of what a worker of this process writes.

    :param str origin: the expression of the identity of the database
    :rtype: str
    """
    return database(origin, _OURS)


def serving(origin):
    """Return the query of the rows that count: the worker processes that serve the database.

    :param str origin: the expression of the identity of the database
    :rtype: str
    """
    return f"""
        SELECT id, process_key, channels
          FROM ir_async_worker
         WHERE process_key IN ({LIVE_PROCESSES}) AND database = {database(origin)}
    """
