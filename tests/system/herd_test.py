"""Idle workers do not all look at the queue for one job, but some do, whoever is lost."""

import contextlib
import signal
import time
from collections import Counter

import pytest
from harness import Server, wait_until

SOON = 20  # seconds for what takes one or two
JOBS = 20
CLAIM = 'EXECUTE claim'


@pytest.fixture
def claims(statements):
    """A function that returns how many claims each worker made in a database since the test began."""
    return lambda dbname: Counter(worker for worker, statement in statements(dbname) if statement.startswith(CLAIM))


def settle(database, claims):
    """Wait until nobody looks at the database any more."""
    wait_until(lambda: not database.value("SELECT count(*) FROM ir_async WHERE state = 'processing'"), "no job runs")
    before = None
    while before != (before := claims(database.name)):
        time.sleep(1.5)  # those who are not on duty look after one second


@pytest.mark.parametrize('workers', [4, 32])
def test_a_single_job(database, server, claims, measured, workers):
    """A job on idle workers causes three claims: its own, that of another worker on duty, and one that finds nothing more."""
    with server(database, workers=workers):
        database.wait_for(database.enqueue('effect', 'first'))
        settle(database, claims)
        before = claims(database.name).total()
        for i in range(JOBS):
            job_id = database.enqueue('effect', f'job {i}')
            wait_until(lambda job_id=job_id: database.job(job_id).state == 'done', "it is done")
            settle(database, claims) if i % 5 == 4 else time.sleep(0.3)
        count = claims(database.name).total() - before
    measured(f"{workers} workers: {count / JOBS:.2f} claims per single job")
    assert count <= 4 * JOBS, "on a busy machine, a third worker may take the first two for lost"


def test_a_burst(database, server, tmp_path, claims, measured):
    """Jobs that come at once and take long run on as many workers as there are jobs."""
    gate, names = tmp_path / 'gate', [f'job {i}' for i in range(16)]
    with server(database, workers=16):
        database.wait_for(database.enqueue('effect', 'first'))
        settle(database, claims)
        begin = time.monotonic()
        with database.env() as env:
            for name in names:
                env['ir.async'].call(env['test.async.effect'].wait_for_gate, name, str(gate))
        for name in names:
            database.wait_for_run(name)
        measured(f"16 jobs begin on 16 workers in {time.monotonic() - begin:.3f} s")
        assert len({run.pid for run in database.runs() if run.name in names}) == len(names)
        gate.touch()
        database.wait_for_all()


def test_limited_jobs(database, server, tmp_path):
    """Jobs of a limited channel run on as many workers as it allows."""
    gate = tmp_path / 'gate'
    with database.env() as env:
        env['ir.async.channel'].create({'name': 'limited', 'capacity': 3})
    with server(database, workers=8):
        database.wait_for(database.enqueue('effect', 'first'))
        with database.env() as env:
            for i in range(5):
                env['ir.async'].with_options(channel='limited').call(
                    env['test.async.effect'].wait_for_gate, f'job {i}', str(gate)
                )
        wait_until(lambda: len(database.runs()) == 4, "three of them run", SOON)
        gate.touch()
        database.wait_for_all()


def test_children(database, server, tmp_path):
    """The children of one job run on as many workers, once it has ended."""
    gate, names = tmp_path / 'gate', [f'child {i}' for i in range(6)]
    with server(database, workers=8):
        with database.env() as env:
            parent = env['ir.async'].call(env['test.async.effect'].effect, 'parent')
            for name in names:
                env['ir.async'].with_options(after=parent).call(env['test.async.effect'].wait_for_gate, name, str(gate))
        for name in names:
            database.wait_for_run(name)
        gate.touch()
        database.wait_for_all()


def on_duty(database, claims):
    """Run a job, and return the process ids of those workers that looked for it."""
    settle(database, claims)
    before = claims(database.name)
    database.wait_for(database.enqueue('effect', 'probe'))
    settle(database, claims)
    return [int(worker.removeprefix('odoo-')) for worker in claims(database.name) - before]


@pytest.mark.parametrize('how', ['killed', 'stopped', 'cut'])
def test_lost_workers(cluster, database, server, claims, how):
    """Where those on duty are lost, others run the next job before long, and the one after it at once."""
    expected = {'killed': ['killed', 'exited', 'died']}.get(how, [])
    with server(database, workers=6, expected=expected) as odoo:
        database.wait_for(database.enqueue('effect', 'first'))
        lost = [odoo.worker(pid) for pid in on_duty(database, claims)]
        assert 2 <= len(lost) <= 4
        for worker in lost:
            if how == 'killed':
                worker.kill()
            elif how == 'stopped':
                worker.suspend()
            else:
                cluster.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND datname = 'postgres'",
                    [f'odoo-{worker.pid}'],
                )
        for name in ('next', 'after'):
            job_id = database.enqueue('effect', name)
            assert database.wait_for(job_id, timeout=SOON).state == 'done'
        runners = {run.pid for run in database.runs() if run.name in ('next', 'after')}
        if how == 'stopped':
            assert not runners & {worker.pid for worker in lost}
            for worker in lost:
                worker.send_signal(signal.SIGCONT)
    assert database.effects() == {'first': 1, 'probe': 1, 'next': 1, 'after': 1}


def test_one_watcher(database, server, tmp_path, claims, measured):
    """While a job runs, one of the idle workers looks for dead ones each second. Another does when it is lost."""
    gate = tmp_path / 'gate'
    with server(database, workers=8, expected=['killed', 'exited', 'died']) as odoo:
        database.wait_for(database.enqueue('effect', 'first'))
        settle(database, claims)
        job_id = database.enqueue('wait_for_gate', 'long', str(gate))
        [run] = database.wait_for_run('long')
        time.sleep(2)
        before = claims(database.name)
        time.sleep(10)  # this is what is measured
        looks = claims(database.name) - before
        measured(f"looks in 10 s while a job runs: {sorted(looks.values())}")
        assert looks.total() <= 14
        watchers = {int(worker.removeprefix('odoo-')) for worker in looks}
        for pid in watchers:
            odoo.worker(pid).kill()
        odoo.worker(run.pid).kill()
        database.wait_for_run('long', 2)
        gate.touch()
        assert database.wait_for(job_id).state == 'done'


def test_workers_say_that_they_end(cluster, database, server):
    """Otherwise the next job would wait for workers that were stopped with their server."""
    heard = set()

    def workers(verb):
        connection.poll()
        heard.update(tuple(sent.payload.split()[1:3]) for sent in connection.notifies)
        connection.notifies.clear()
        return {number for said, number in heard if said == verb}

    with contextlib.closing(cluster.connect()) as connection:
        with connection.cursor() as cr:
            cr.execute("LISTEN ir_async_workers")
        with server(database, workers=2) as odoo:
            wait_until(lambda: len(workers('on')) == 2, "both are idle")
            odoo.stop()
        wait_until(lambda: workers('gone') == workers('on'), "they said that they end", SOON)


def test_the_last_job_of_a_worker(cluster, database, server, tmp_path):
    """A worker that ends after a job has others look, since it does not: a child may be in the queue, or a slot free."""
    gate = tmp_path / 'gate'
    with server(database, workers=1, args=[*Server.PREFORK, '--limit-request=1']) as odoo:
        job_id = database.enqueue('wait_for_gate', 'last', str(gate))
        database.wait_for_run('last')
        with contextlib.closing(cluster.connect()) as connection:
            with connection.cursor() as cr:
                cr.execute("LISTEN odoo_async")
            gate.touch()
            database.wait_for(job_id)

            def is_named():
                connection.poll()
                return database.name in [sent.payload for sent in connection.notifies]

            wait_until(is_named, "the worker names the database", SOON)
        odoo.stop()
