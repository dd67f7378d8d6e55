"""The cluster of the benchmark, as its superuser sees it: statements, CPU, sizes."""

import contextlib
import os
import subprocess
from pathlib import Path

import psutil
import psycopg2
from psycopg2 import sql

ROLES = (
    'bench_async',
    'bench_async_against',
    'bench_queue_job',
    'bench_cron',
    'bench_idle',
    'bench_client',
    'bench_peer',
    'bench_fleet',
    'bench_fleet_against',
)


def connect(database='postgres', user='postgres'):
    connection = psycopg2.connect(dbname=database, user=user, host=os.environ['PGHOST'])
    connection.autocommit = True
    return connection


def query(statement, params=None, database='postgres', user='postgres'):
    """Return the rows of one statement, on a connection of its own."""
    with contextlib.closing(connect(database, user)) as connection, connection.cursor() as cr:
        cr.execute(statement, params)
        return cr.fetchall() if cr.description else []


def copy_row(table, count, database, **values):
    """Insert copies of one row of a table.

    :param values: by column, the expression of its value; None for the column's default
    """
    columns = {
        name: name
        for (name,) in query(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s", [table], database
        )
    } | values
    names, values = zip(*((name, value) for name, value in columns.items() if value))
    query(
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)}"
        f" FROM (SELECT * FROM {table} LIMIT 1) job, generate_series(1, {count})",
        database=database,
    )


def prepare_roles():
    existing = {name for (name,) in query("SELECT rolname FROM pg_roles")}
    for role in ROLES:
        if role not in existing:
            query(sql.SQL("CREATE ROLE {} LOGIN CREATEDB").format(sql.Identifier(role)))
    # Each server has a role of its own, to distinguish its statements. The grants let the roles share tables.
    query("GRANT bench_async TO bench_cron, bench_idle, bench_client, bench_fleet")
    query("GRANT bench_async_against TO bench_client, bench_fleet_against")
    query("GRANT bench_queue_job TO bench_client")
    query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")


def copy_database(template, name, owner='postgres'):
    drop_database(name)
    query(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(*map(sql.Identifier, (name, owner, template))))


def drop_database(name):
    query(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def databases():
    return {name for (name,) in query("SELECT datname FROM pg_database")}


def connections(role):
    [[count]] = query("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [role])
    return count


def sessions(cr):
    """Return how many connections were ever opened. This needs PostgreSQL 14."""
    cr.execute("SELECT sum(sessions)::int8 FROM pg_stat_database")
    return cr.fetchone()[0]


def statements(role):
    """Return how many statements a role has executed."""
    [[calls]] = query(
        """
        SELECT coalesce(sum(calls), 0)::int8 FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
         WHERE rolname = %s
    """,
        [role],
    )
    return calls


def evictions():
    """Return how often pg_stat_statements has evicted statements. After an eviction, earlier counts are not reliable."""
    if version() < 140000:
        return 0
    [[dealloc]] = query("SELECT dealloc FROM pg_stat_statements_info")
    return dealloc


def statement_times(role, pattern):
    """Return calls, rows and milliseconds of the statements that match a pattern, since :func:`reset_role`."""
    [row] = query(
        """
        SELECT coalesce(sum(calls), 0)::int8, coalesce(sum(rows), 0)::int8, coalesce(sum(total_exec_time), 0)
          FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
         WHERE rolname = %s AND query ~ %s
    """,
        [role, pattern],
    )
    return row


def by_statement(role):
    """Return text, calls and milliseconds of each statement of a role since :func:`reset_role`, the longest first."""
    return query(
        r"""
        SELECT regexp_replace(trim(query), '\s+', ' ', 'g') AS text, sum(calls)::int8, sum(total_exec_time)
          FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
         WHERE rolname = %s GROUP BY text ORDER BY 3 DESC
    """,
        [role],
    )


def reset_role(*roles):
    query("SELECT pg_stat_statements_reset(oid, 0, 0) FROM pg_roles WHERE rolname = ANY(%s)", [list(roles)])


def version():
    with contextlib.closing(connect()) as connection:
        return connection.server_version


def postmaster():
    path = Path(os.environ['IR_ASYNC_CLUSTER']) / 'postmaster.pid'
    try:
        return int(path.read_text(encoding='utf-8').split()[0])
    except PermissionError:
        return int(subprocess.run(['sudo', 'head', '-1', path], check=True, capture_output=True).stdout)


def process_cpu(pid):
    """Return the CPU seconds of a process and all its descendants, including ended ones."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total
