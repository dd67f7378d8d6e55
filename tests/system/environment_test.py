"""What is around the workers: a pooler, another host, a memory limit."""

import shutil
import sys

import pytest
from harness import Cluster, Server, wait_until
from network import other_host
from pooler import Pooler

COMMAND = ('ir_async',)


@pytest.mark.skipif(not shutil.which('pgbouncer'), reason="there is no PgBouncer")
@pytest.mark.parametrize(
    ('args', 'mode'), [(Server.PREFORK, 'transaction'), (COMMAND, 'session')], ids=['prefork', 'command']
)
def test_pooler(cluster, database, folder, args, mode):
    """Locks and LISTEN prove nothing behind a pooler: the workers say so, once, and run nothing, until they are let past it."""
    pooler = Pooler(folder / 'pooler', cluster.folder, mode)
    pooler.start()
    try:
        args = [*args, '-d', database.name, f'--db_host={pooler.folder}']
        odoo = Server(cluster, folder, args, workers=1, expected=['ERROR .* connection pooler .* db_host and db_port'])
        try:
            odoo.wait_for_log("connection pooler")
            job_id = database.enqueue('effect', 'job')
            assert not database.runs()
            odoo.check()
            assert odoo.log.count("connection pooler") == 1
        finally:
            odoo.kill()
        direct = {'db_host': cluster.folder, 'db_port': 5432}
        odoo = Server(cluster, folder, args, workers=1, settings=direct)
        try:
            odoo.wait_until_ready()
            assert database.wait_for(job_id).state == 'done'
            odoo.check()
        finally:
            odoo.kill()
    finally:
        pooler.stop()


@pytest.mark.parametrize(
    'setting',
    [
        "client_encoding = 'LATIN1'",
        "DateStyle = 'German, DMY'",
        'default_transaction_read_only = on',
        "default_transaction_isolation = 'serializable'",
    ],
)
def test_settings_of_the_database(cluster, database, server, setting):
    """Jobs run as plain Odoo does, whatever a database or role has."""
    cluster.sql(f'ALTER DATABASE "{database.name}" SET {setting}')
    with server(database, workers=1):
        for name in ('café', 'thé'):
            assert database.wait_for(database.enqueue('read_back', name)).payload['result'][0] == name
    assert database.effects() == {'café': 1, 'thé': 1}


def test_server_that_does_not_check_its_clients(cluster, database, server):
    """PostgreSQL on Windows refuses the setting, here by a function of that name. Jobs run without it."""
    database.sql("""
        CREATE FUNCTION set_config(name text, value text, is_local boolean) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            IF name = 'client_connection_check_interval' THEN
                RAISE EXCEPTION 'must be 0 on this platform' USING ERRCODE = 'invalid_parameter_value';
            END IF;
            RETURN pg_catalog.set_config(name, value, is_local);
        END
        $$
    """)
    cluster.sql(f'ALTER DATABASE "{database.name}" SET search_path = public, pg_catalog')
    with server(database, workers=1):
        job = database.wait_for(database.enqueue('setting', 'client_connection_check_interval'))
    assert job.payload == ({'result': '0'} if cluster.version >= 14 else None)


def test_host_that_vanishes(cluster, database, folder):
    """Another host runs its job. The worker that is cut off notices, though it reports progress, and serves again later."""
    gate = folder / 'gate'
    job_id = database.enqueue('report_until', 'job', str(gate))
    database.leave()
    with other_host() as host:
        if not host:
            pytest.skip("only root can cut a host off, if there are network namespaces")
        ours = Cluster(folder)
        ours.copy(cluster)
        ours.PARAMETERS = Cluster.PARAMETERS | {'listen_addresses': host.address}
        with (ours.data / 'pg_hba.conf').open('a') as file:
            file.write(host.trust)
        shutil.copy(cluster.folder / 'odoo.conf', folder)
        ours.start()
        ours.sql("SELECT pg_promote()")
        servers = []
        try:
            (folder / 'there').mkdir()
            there = Server(
                ours,
                folder / 'there',
                [*COMMAND, '-d', database.name, f'--db_host={host.address}'],
                workers=1,
                expected=["taken away", "lost the claim", "Listing databases failed"],
                prefix=host.prefix,
            )
            servers.append(there)
            there.wait_until_ready()
            [run] = database.wait_for_run('job')
            (folder / 'here').mkdir()
            here = Server(ours, folder / 'here', [*COMMAND, '-d', database.name, f'--db_host={folder}'], workers=1)
            servers.append(here)
            here.wait_until_ready()

            host.set_link('down')
            runs = database.wait_for_run('job', 2)
            assert len({run.pid for run in runs}) == 2
            wait_until(
                lambda: run.pid not in [worker.pid for worker in there.workers()], "the worker that was cut off ends"
            )
            gate.touch()
            job = wait_until(
                lambda: ours.sql("SELECT * FROM ir_async WHERE state = 'done'", dbname=database.name), "it is done"
            )[0]
            assert (job.id, job.attempts, job.deaths) == (job_id, 1, 0)

            host.set_link('up')
            there.wait_until_ready()
            [[count]] = ours.sql("SELECT count(*) FROM test_async_effect", dbname=database.name)
            assert count == 1
            for odoo in servers:
                odoo.check()
        finally:
            for odoo in servers:
                sys.stdout.write(odoo.log)  # shown with a failure
                odoo.kill()
            ours.stop()


def test_memory_limit_below_what_a_worker_needs(database, server):
    """Workers say so, and run jobs all the same."""
    args = (*Server.PREFORK, '--limit-memory-soft=1000000')
    with server(database, args=args, workers=1, expected=['WARNING .* raise limit_memory_soft']) as odoo:
        for name in ('first', 'second'):
            assert database.wait_for(database.enqueue('effect', name)).state == 'done'
        odoo.wait_for_log("raise limit_memory_soft")
    assert database.effects() == {'first': 1, 'second': 1}
