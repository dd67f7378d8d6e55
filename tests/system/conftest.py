import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from chromium import chromium
from harness import STATE, Cluster, Database, Server

from odoo import sql_db
from odoo.tools import config as odoo_config

ADDONS = Path(__file__).parent / 'addons'


@pytest.fixture(scope='session')
def cluster():
    """A PostgreSQL cluster of this session, with a template database."""
    # Short: the path of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix='ir_async-'))
    folder.chmod(0o755)
    core = os.environ['ODOO_ADDONS_PATH'].split(',')[0]
    addons_path = f"{core},{STATE / 'addons'},{ADDONS}"
    (folder / 'odoo.conf').write_text(
        f"[options]\naddons_path = {addons_path}\ndata_dir = {folder / 'data'}\ndb_host = {folder}\ndb_port = 5432\n"
        "db_user = odoo\nhttp_interface = 127.0.0.1\nserver_wide_modules = base,rpc,web,ir_async\n"
    )
    (folder / 'trace').mkdir()
    os.environ.update(
        {
            'PGHOST': str(folder),
            'ODOO_RC': str(folder / 'odoo.conf'),
            'ODOO_ADDONS_PATH': addons_path,  # commands of addons are looked up before the file is read
            'ODOO_IR_ASYNC_WORKERS': '0',
            'IR_ASYNC_TEST_TRACE': str(folder / 'trace'),
        }
    )
    odoo_config.parse_config(['--load=base,web'], setup_logging=False)  # for this process, which enqueues
    cluster = Cluster(folder)
    try:
        cluster.create()
        yield cluster
    finally:
        sql_db.close_all()
        cluster.stop(signal.SIGINT)
        shutil.rmtree(folder)


@pytest.fixture
def folder():
    """A folder that PostgreSQL's user may read, with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix='ir_async-') as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope='module')
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def make_database(cluster, request):
    """A function that makes another database: ``make_database()``."""
    databases = []

    def make_database(**kwargs):
        name = re.sub(r'\W+', '_', request.node.name)[:50]
        database = Database(cluster, f'{name}_{len(databases)}', **kwargs)
        databases.append(database)
        return database

    yield make_database
    for database in databases:
        database.drop()


@pytest.fixture
def database(make_database):
    """A database of the test's own."""
    return make_database()


@pytest.fixture
def server(cluster, tmp_path_factory):
    """A function that runs a server for a ``with`` block: ``with server(database, workers=4) as odoo:``.

    Afterwards it is stopped, unless it was, and must have left neither processes nor complaints in its log.
    """

    @contextlib.contextmanager
    def run(*databases, args=Server.PREFORK, **kwargs):
        names = ','.join(database.name for database in databases)
        odoo = Server(cluster, tmp_path_factory.mktemp('server'), [*args, *(['-d', names] if names else [])], **kwargs)
        try:
            odoo.wait_until_ready()
            yield odoo
            odoo.check()
        except BaseException:
            sys.stdout.write('\n'.join(odoo.log.splitlines()[-60:]))  # shown with the failure
            raise
        finally:
            odoo.kill()

    return run


@pytest.fixture
def statements(cluster):
    """A function that returns what was executed in a database since then, and by whom: pairs of process and statement."""
    cluster.sql("ALTER SYSTEM SET log_statement = 'all'")
    cluster.sql("SELECT pg_reload_conf()")
    start = cluster.log.stat().st_size

    def statements(dbname):
        with cluster.log.open(errors='replace') as log:
            log.seek(start)
            return re.findall(rf' db={dbname} app=(odoo-\d+) LOG:  statement: (.*)', log.read())

    yield statements
    cluster.sql("ALTER SYSTEM RESET log_statement")
    cluster.sql("SELECT pg_reload_conf()")


@pytest.fixture
def measured(request):
    """A function that has a line printed at the end of the session."""
    return lambda line: request.node.user_properties.append(('measured', line))


def pytest_terminal_summary(terminalreporter):
    reports = [*terminalreporter.stats.get('passed', []), *terminalreporter.stats.get('failed', [])]
    if lines := [line for report in reports for name, line in report.user_properties if name == 'measured']:
        terminalreporter.section('measured')
        for line in lines:
            terminalreporter.line(line)
