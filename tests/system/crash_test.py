"""Workers die."""

import random
import re
import signal
import time

import pytest
from harness import DEATH, wait_until
from pressure import seconds

pytestmark = pytest.mark.alone


def test_kills_and_recycling(database, server, measured):
    """However many workers are killed in the midst of their jobs, every effect is there exactly once."""
    names = {f'job {i}' for i in range(2000)}
    args = ('--workers=1', '--no-http', '--max-cron-threads=0', '--limit-request=60')
    with server(database, args=args, workers=4, expected=[DEATH]) as odoo:
        with database.env() as env:
            for name in names:
                env['ir.async'].call(env['test.async.effect'].effect, name, random.uniform(0.02, 0.05))
        kills = 0
        for done in range(80, 2000, 80):
            wait_until(lambda done=done: len(database.runs()) >= done, f"{done} jobs began")
            worker = random.choice(wait_until(odoo.workers, "a worker is alive"))
            worker.kill()
            kills += 1
        states = database.wait_for_all()
        recycled = odoo.log.count('max request (60) reached')
        assert len(odoo.workers()) == 4
    assert kills >= 20
    assert recycled >= 4
    assert states == {'done': 2000}
    assert database.effects() == dict.fromkeys(names, 1)
    deaths = database.value("SELECT sum(deaths) FROM ir_async")
    assert 0 < deaths <= kills
    measured(f"2000 jobs, {kills} workers killed, {recycled} recycled: {deaths} jobs had to begin again")


@pytest.mark.parametrize('workers', [1, 2])
def test_worker_killed(database, server, tmp_path, measured, workers):
    """The job of a dead worker begins again within two seconds."""
    gate = tmp_path / 'gate'
    with server(database, workers=workers, expected=[DEATH]) as odoo:
        job_id = database.enqueue('effect_then_wait', 'job', str(gate))
        [first] = database.wait_for_run('job')
        killed = kill(odoo, first)
        _first, second = database.wait_for_run('job', 2)
        gate.touch()
        job = database.wait_for(job_id)
    assert (job.state, job.deaths, job.attempts, job.starts) == ('done', 1, 1, 2)
    assert database.effects() == {'job before': 1, 'job after': 1}
    assert seconds(killed, second.time) < 2
    measured(f"kill -9 of one of {workers} workers to the next attempt: {second.time - killed:.2f} s")


def test_worker_killed_in_sql(database, server):
    """PostgreSQL does not go on with what the dead worker asked for."""
    with server(database, expected=[DEATH]) as odoo:
        job_id = database.enqueue('effect_then_sleep_in_sql', 'job', 600)
        sleeping = wait_until(lambda: database.backends("query LIKE 'SELECT pg_sleep%%' AND state = 'active'"))
        [first] = database.runs('job')
        killed = kill(odoo, first)
        _first, second = database.wait_for_run('job', 2)
        assert database.wait_for(job_id).state == 'done'
        wait_until(lambda: not database.backends(f"pid = {sleeping[0].pid}"), "the backend is gone")
        gone = time.time()
    assert database.effects() == {'job': 1}
    assert seconds(killed, max(second.time, gone)) < 2


@pytest.mark.parametrize(('where', 'deaths'), [('text', 3), ('_on_failed', 4)])
def test_job_that_is_lethal_while_it_fails(database, server, where, deaths):
    """Its worker dies after the method has raised. The hook gets one more chance, as it does for other lethal jobs."""
    with server(database, workers=1, expected=[DEATH, 'ERROR .* Job .* failed']):
        job = database.wait_for(database.enqueue('die_while_failing', 'lethal', where))
        database.wait_for(database.enqueue('effect', 'next'))
    assert (job.state, job.deaths, job.attempts) == ('failed', deaths, 0)
    assert 'died' in job.payload['error']['data']['message']
    assert len(database.runs('lethal')) == 3
    assert database.effects() == {'next': 1}


@pytest.mark.parametrize('status', [0, 3])
def test_job_that_ends_its_process(database, server, status):
    """Odoo takes the status 3 of a worker for a broken server, but not that of a job."""
    with server(database, workers=2, expected=[DEATH, 'ERROR .* Job .* failed']) as odoo:
        job = database.wait_for(database.enqueue('exit_with', 'lethal', status))
        database.wait_for(database.enqueue('effect', 'next'))
        assert odoo.process.poll() is None
    assert (job.state, job.deaths) == ('failed', 3)
    assert database.effects() == {'next': 1}


def test_lethal_job(database, server):
    """A job that kills three workers has failed; those that its worker had claimed with it have not."""
    names, lethal = [], []

    def had_neighbours():
        return database.value("SELECT count(*) FROM ir_async WHERE claim_number > 1 AND id != ALL(%s)", [lethal])

    with server(database, expected=[DEATH, 'ERROR .* Job .*effect_then_kill.* failed']) as odoo:
        # It may be the last one of those that were claimed together: then it had none.
        while not had_neighbours() and len(lethal) < 6:
            with database.env() as env:
                effect = env['test.async.effect']
                for i in range(600):
                    if i == 300:
                        lethal.append(env['ir.async'].call(effect.effect_then_kill, 'lethal').id)
                    names.append(f'neighbour {len(names)}')
                    env['ir.async'].call(effect.effect, names[-1])
            states = database.wait_for_all()
            wait_until(lambda: len(odoo.workers()) == 2)
    assert had_neighbours()
    for job in map(database.job, lethal):
        assert (job.state, job.deaths) == ('failed', 3)
        assert 'died' in job.payload['error']['data']['message']
    assert len(database.runs('lethal')) == 3 * len(lethal)
    assert states == {'done': len(names), 'failed': len(lethal)}
    assert database.effects() == dict.fromkeys(names, 1)
    assert database.value("SELECT sum(deaths) FROM ir_async") == 3 * len(lethal)


@pytest.mark.parametrize('commits', [[], ['before'], ['before', 'after']], ids=['no-commits', 'a-commit', 'commits'])
@pytest.mark.parametrize('second_ends', [False, True], ids=['before-the-other-ends', 'after-the-other-ended'])
def test_claim_lost(cluster, database, server, tmp_path, commits, second_ends):
    """A worker that could not be reached for a while, whose session is over, commits nothing of its job any more."""
    gate = tmp_path / 'gate'
    expected = ['WARNING .* lost the claim', 'WARNING .* taken away', 'ERROR .* odoo.sql_db: bad query']
    with server(database, expected=expected) as odoo:
        job_id = database.enqueue('effect_then_wait', 'job', str(gate), commits=commits)
        [first] = database.wait_for_run('job waits')
        late = odoo.worker(first.pid)
        late.suspend()
        [control] = [
            backend.pid for backend in database.control_backends() if backend.application_name == f'odoo-{late.pid}'
        ]
        cluster.sql("SELECT pg_terminate_backend(%s)", [control])
        _first, second = database.wait_for_run('job waits', 2)
        assert second.pid != late.pid
        if second_ends:
            gate.touch()
            database.wait_for(job_id)
            late.resume()
        else:
            other = odoo.worker(second.pid)
            other.suspend()
            gate.touch()
            late.resume()
        gave_up = rf' {late.pid} .* [Jj]ob {job_id} .* (taken away|interrupted|with its connection)'
        wait_until(lambda: re.search(gave_up, odoo.log), "the late worker gives up")
        if not second_ends:
            assert 'job after' not in database.effects()
            other.resume()
        job = database.wait_for(job_id)
        assert (job.state, job.attempts, job.deaths) == ('done', 1, 0)
    assert len(database.runs('job')) == 2
    # What was committed when the claim was not lost yet, stays.
    assert database.effects() == {'job before': 2 if commits else 1, 'job after': 1}


def kill(odoo, run):
    """Kill the worker of a run and return when that was."""
    worker = odoo.worker(run.pid)
    now = time.time()
    worker.send_signal(signal.SIGKILL)
    return now
