"""What takes long, all at once: jobs of more than a minute, and servers that have nothing to do."""

import time

import pytest
from harness import Database, Server, wait_until

LONG, CPU = 90, 70  # seconds
LIMITS = ('--limit-time-real=30', '--limit-time-real-cron=30', '--limit-time-cpu=60')  # which are for requests
QUIET = 60


@pytest.fixture(scope='module')
def long_jobs(cluster, tmp_path_factory):
    """A server whose jobs began before the other tests of this file."""
    database = Database(cluster, 'long_jobs')
    args = [*Server.PREFORK, '-d', database.name, *LIMITS]
    odoo = Server(cluster, tmp_path_factory.mktemp('server'), args, workers=3)
    try:
        odoo.wait_until_ready()
        jobs = [database.enqueue('effect', 'long', LONG), database.enqueue('burn_cpu', 'cpu', CPU)]
        database.wait_for_run('long')
        database.wait_for_run('cpu')
        yield database, jobs
        odoo.check()
    finally:
        odoo.kill()
        database.drop()


@pytest.mark.usefixtures('long_jobs')
def test_idle(make_database, server, statements, measured):
    """Workers that have nothing to do, do nothing, and are in nobody's way."""
    idle, unwanted = make_database(), make_database()
    with server(idle, unwanted) as odoo:
        for database in (idle, unwanted):
            database.wait_for(database.enqueue('effect', 'job'))
            database.leave()
        for database in (idle, unwanted):
            wait_until(lambda database=database: not database.backends(), f"all workers have left {database.name}")
        copy = make_database(template=unwanted.name)
        unwanted.drop(force=False)
        assert copy.effects() == {'job': 1}

        workers = {f'odoo-{worker.pid}': [] for worker in odoo.workers()}
        before = {name: len(statements(name)) for name in ('postgres', idle.name)}
        time.sleep(QUIET)  # this is what is measured
        for name, count in before.items():
            for worker, statement in statements(name)[count:]:
                workers.get(worker, []).append(f'{name}: {statement}')
    assert len(workers) == 2
    measured(f"statements of idle workers in {QUIET} s: {', '.join(str(len(done)) for done in workers.values())}")
    everything = [statement for done in workers.values() for statement in done]
    assert len(everything) <= 3 + len(workers), '\n'.join(everything)  # one of them looks, each lists the databases


def test_long_jobs(long_jobs):
    """A healthy job is never taken away, however long it is, and whatever Odoo's limits for requests are."""
    database, jobs = long_jobs
    for job_id in jobs:
        job = database.wait_for(job_id, timeout=300)
        assert (job.state, job.deaths, job.attempts, job.starts) == ('done', 0, 1, 1)
        assert (job.date_done - job.date_start).total_seconds() > CPU - 1
    assert database.effects() == {'long': 1, 'cpu': 1}
    assert len(database.runs()) == 2
