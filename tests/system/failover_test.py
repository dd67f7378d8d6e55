"""PostgreSQL fails over to its synchronous standby, under load."""

import itertools
import re
import signal
import sys
import threading
import time
from collections import Counter

import psycopg2
import pytest
from harness import Cluster, Server, wait_until
from pressure import seconds
from relay import Relay

from odoo.sql_db import PoolError
from odoo.tools import config

pytestmark = pytest.mark.alone

WORKERS = 4
BACK = 5  # seconds from the promotion until all is as before


@pytest.fixture
def standby(cluster, database, folder):
    """A copy of the primary, for which each commit waits. Afterwards the primary is as before."""
    standby = Cluster(folder)
    standby.copy(cluster)
    (folder / 'trace').symlink_to(cluster.folder / 'trace')
    try:
        standby.start()
        cluster.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        cluster.sql("SELECT pg_reload_conf()")
        wait_until(
            lambda: cluster.sql("SELECT true FROM pg_stat_replication WHERE sync_state = 'sync'"),
            "commits wait for the standby",
        )
        yield standby
    finally:
        database.leave()
        standby.stop()
        cluster.stop(signal.SIGINT)
        cluster.start()
        cluster.sql("ALTER SYSTEM RESET synchronous_standby_names")
        cluster.sql("SELECT pg_reload_conf()")
        database.cluster = cluster


class Callers:
    """Two threads that enqueue one job after the other.

    :param Database database: where
    """

    def __init__(self, database):
        self.committed = {}  # the time at which the commit of each job returned
        self.refusals = set()  # the types of the exceptions that callers got
        self._database = database
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._call_all, args=(index,)) for index in range(2)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception):
        self.stop()

    def stop(self):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def call(self, name, method='effect', *args):
        """Enqueue a method and note when it was committed."""
        with self._database.env() as env:
            env.cr.postcommit.add(lambda: self.committed.update({name: time.time()}))
            env['ir.async'].call(getattr(env['test.async.effect'], method), name, *args)

    def _call_all(self, index):
        for number in itertools.count():
            if self._end.wait(0.07):
                return
            try:
                self.call(f'job {index}-{number}', 'effect', 0.02)
            except (psycopg2.Error, PoolError) as exc:
                self.refusals.add(type(exc))


@pytest.mark.parametrize(
    ('address', 'how', 'refusal'),
    [
        ('hosts', signal.SIGQUIT, psycopg2.OperationalError),
        ('hosts', signal.SIGINT, psycopg2.OperationalError),
        ('proxy', signal.SIGQUIT, psycopg2.errors.FeatureNotSupported),  # a transaction that may write
    ],
    ids=['unplanned', 'planned', 'proxy'],
)
def test_failover(cluster, database, standby, tmp_path_factory, monkeypatch, measured, address, how, refusal):
    """Each job whose commit returned is done once, at no charge. Within five seconds, new jobs begin at once again."""
    relay = Relay(standby.folder / 'relay', cluster.folder)
    relay.start()
    hosts = {'hosts': f'{cluster.folder},{standby.folder}', 'proxy': str(relay.folder)}[address]
    if address == 'hosts':
        monkeypatch.setenv('PGTARGETSESSIONATTRS', 'read-write')
    database.leave()
    monkeypatch.setitem(config.options, 'db_host', hosts)
    odoo = Server(
        cluster,
        tmp_path_factory.mktemp('server'),
        [*Server.PREFORK, f'--db_host={hosts}'],
        workers=WORKERS,
        settings={'poll_interval': 3600},
        expected=['bad query', 'Listing databases failed', '(taken away|lost the claim|lost its connection)'],
    )

    def all_have_tried():
        """Return whether all workers have lost their connection for LISTEN, and could not connect again."""
        tries = Counter(map(int, re.findall(r' (\d+) INFO .*Cannot listen for jobs', odoo.log)))
        return len(workers := odoo.workers()) == WORKERS and all(tries[worker.pid] > 1 for worker in workers)

    try:
        odoo.wait_until_ready()
        with Callers(database) as callers:
            gate = standby.folder / 'gate'
            callers.call('long', 'wait_for_gate', str(gate))
            database.wait_for_run('long')
            wait_until(lambda: len(database.runs()) > 30, "jobs run")
            if address == 'proxy':
                relay.move(standby.folder)  # the old primary is still there
            else:
                cluster.stop(how)
            wait_until(all_have_tried, "all workers try in vain")
            wait_until(lambda: refusal in callers.refusals, "callers try in vain")
            cluster.stop(how)
            promoted = time.time()
            standby.sql("SELECT pg_promote()")
            database.cluster = odoo.cluster = standby
            odoo.wait_until_ready()
            database.wait_for_run('long', 2)
            count = len(callers.committed) + 20
            wait_until(lambda: len(callers.committed) > count, "callers go on")
        gate.touch()  # not before its death could have been reported
        database.wait_for_all()
        delay = seconds(promoted, time.time())
        assert delay < BACK
        probes = [f'probe {number}' for number in range(10)]
        for name in probes:
            callers.call(name)
            database.wait_for_run(name)
        delays = [seconds(callers.committed[run.name], run.time) for run in database.runs() if run.name in probes]
        database.wait_for_all()
        odoo.check()
        if address == 'proxy':
            assert odoo.log.count("PostgreSQL is in recovery") >= WORKERS
            assert database.backends(f'backend_start < to_timestamp({promoted})'), "these are used again"
        measured(f"{address}: back in {delay:.1f} s, then jobs begin within {max(delays) * 1000:.0f} ms")
        assert max(delays) < 0.1
        outcomes = database.sql("SELECT DISTINCT state, attempts, deaths FROM ir_async")
        assert [tuple(outcome) for outcome in outcomes] == [('done', 1, 0)]
        effects = database.effects()
        assert not callers.committed.keys() - effects, "these are lost"
        assert set(effects.values()) == {1}
    except BaseException:
        sys.stdout.write(odoo.log)  # shown with the failure
        raise
    finally:
        odoo.kill()
        database.leave()
        relay.stop()
