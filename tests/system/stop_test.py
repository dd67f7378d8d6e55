"""Servers stop: on request, on a reload, or because somebody kills them."""

import contextlib
import os
import signal

import psutil
import pytest
from harness import Server, wait_until

PREFORK = ('--workers=1', '--max-cron-threads=0')
THREADED = ('--max-cron-threads=0',)
COMMAND = ('ir_async', '--workers=2')
ANYTHING = ['']


@pytest.mark.parametrize(
    ('args', 'sig'),
    [
        pytest.param(PREFORK, signal.SIGTERM, id='prefork-term'),
        pytest.param(PREFORK, signal.SIGINT, id='prefork-int'),
        pytest.param(THREADED, signal.SIGTERM, id='threaded-term'),
        pytest.param(COMMAND, signal.SIGINT, id='command-int'),
    ],
)
def test_stop(database, server, tmp_path, args, sig):
    """As service managers and terminals do, signal all processes: what is short ends, what is long is interrupted."""
    gate = tmp_path / 'gate'
    with server(database, args=args, settings={'stop_timeout': 2}, expected=['has to stop: job']) as odoo:
        short = database.enqueue('effect', 'short', 1)
        long = database.enqueue('effect_then_wait', 'long', str(gate))
        database.wait_for_run('short')
        database.wait_for_run('long')
        queued = database.enqueue('effect', 'queued')
        assert odoo.stop(sig, group=True) == 0
        assert database.job(short).state == 'done'
        job = database.job(long)
        assert (job.state, job.deaths, job.attempts, job.worker_id) == ('created', 0, 0, None)
        assert database.job(queued).state == 'created'
        assert database.effects() == {'short': 1}
    gate.touch()
    with server(database, args=args):
        assert database.wait_for_all() == {'done': 3}
    assert database.effects() == {'short': 1, 'long before': 1, 'long after': 1, 'queued': 1}
    assert database.job(long).deaths == 0


def test_stop_in_a_call_that_blocks(database, server, tmp_path):
    """The job cannot be left in time. Its start counts all the same."""
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    job_id = database.enqueue('wait_for_writer', 'job', str(fifo))
    with server(database, workers=1, settings={'stop_timeout': 0.5}) as odoo:
        database.wait_for_run('job')
        odoo.stop()
        assert database.job(job_id).starts == 1
    with server(database, workers=1):
        database.wait_for_run('job', 2)
        with open(fifo, 'w', encoding='utf-8'):
            job = database.wait_for(job_id)
    assert (job.state, job.starts, job.attempts, job.deaths) == ('done', 2, 1, 0)
    assert database.effects() == {'job': 1}


def test_stop_before_a_job_has_begun(database, server):
    """A worker that waits to load its registry, whose tables are locked, ends in time. Its job is run later."""
    with server(database, workers=1, settings={'stop_timeout': 1}, expected=ANYTHING) as odoo:
        job_id = database.enqueue('effect', 'job', options={'delay': 2})
        database.leave()
        with contextlib.closing(database.cluster.connect(database.name)) as other, other.cursor() as cr:
            cr.execute(
                "BEGIN; INSERT INTO orm_signaling_registry DEFAULT VALUES; COMMIT; BEGIN; LOCK TABLE ir_model_fields"
            )
            wait_until(lambda: database.backends("wait_event_type = 'Lock'"), "the worker waits")
            odoo.stop()
            assert 'lock timeout' not in odoo.log, "it does not wait until Odoo gives up"
            cr.execute("ROLLBACK")
    with server(database, workers=1):
        job = database.wait_for(job_id)
    assert (job.state, job.deaths, job.starts) == ('done', 0, 1)


@pytest.mark.parametrize('kind', list(Server.CRONS))
@pytest.mark.parametrize('group', [False, True], ids=['server', 'group'])
def test_stop_of_cron_workers(database, server, tmp_path, kind, group):
    """Where jobs run on the cron workers, a stop charges nobody either, however often, and no further job begins."""
    gate = tmp_path / 'gate'
    expected = [*Server.CRON_NOISE, 'was taken away']
    long = database.enqueue('effect_then_wait', 'long', str(gate), options={'priority': 1})
    queued = database.enqueue_all('effect', [f'queued {i}' for i in range(3)])
    for i in range(1, 5):
        with server(
            database, args=Server.CRONS[kind], workers=0, settings={'stop_timeout': 1}, expected=expected
        ) as odoo:
            odoo.wait_for_crons()
            database.enqueue('nothing')
            database.wait_for_run('long waits', i)
            odoo.stop(group=group)
        job = database.job(long)
        assert (job.state in ('created', 'processing'), job.deaths, job.attempts) == (True, 0, 0), f"stop {i}"
        if not (group and kind == 'prefork'):  # there, SIGTERM ends the cron worker before it can do anything
            assert (job.state, job.worker_id) == ('created', None), f"stop {i}"
            assert {database.job(job_id).state for job_id in queued} == {'created'}
    gate.touch()
    with server(database, args=Server.CRONS[kind], workers=0, expected=Server.CRON_NOISE) as odoo:
        odoo.wait_for_crons()
        database.enqueue('nothing')
        assert set(database.wait_for_all()) == {'done'}
    assert database.value("SELECT sum(deaths) FROM ir_async") == 0
    assert database.effects() == {'long before': 1, 'long after': 1, 'queued 0': 1, 'queued 1': 1, 'queued 2': 1}


@pytest.mark.parametrize('kind', list(Server.CRONS))
def test_short_jobs_of_cron_workers_end(database, server, kind):
    """What runs on a cron worker when the server stops gets its time, and the next one waits for another server."""
    with server(database, args=Server.CRONS[kind], workers=0, expected=Server.CRON_NOISE) as odoo:
        odoo.wait_for_crons()
        database.enqueue_all('effect', [f'job {i}' for i in range(10)], seconds=2)
        database.wait_for_run('job 0')
        odoo.stop()
    assert database.states() == {'done': 1, 'created': 9}
    assert database.effects() == {'job 0': 1}


@pytest.mark.parametrize('args', [PREFORK, COMMAND], ids=['prefork', 'command'])
def test_reload(database, server, args):
    """On SIGHUP the running job ends in the old process; the new ones take over."""
    with server(database, args=args) as odoo:
        before = {worker.pid for worker in odoo.workers()}
        running = database.enqueue('effect', 'running', 2)
        database.wait_for_run('running')
        odoo.send_signal(signal.SIGHUP)
        assert database.wait_for(running).state == 'done'
        wait_until(
            lambda: len(workers := {worker.pid for worker in odoo.workers()}) == 2 and not workers & before,
            "the workers are new ones",
        )
        odoo.wait_until_ready()
        assert database.wait_for(database.enqueue('effect', 'after')).state == 'done'
    assert database.job(running).starts == 1
    assert database.effects() == {'running': 1, 'after': 1}


@pytest.mark.parametrize('args', [Server.PREFORK, THREADED, COMMAND], ids=['prefork', 'threaded', 'command'])
def test_server_killed(database, server, args):
    """Nobody works for a server that is no more."""
    with server(database, args=args) as odoo:
        running = database.enqueue('effect', 'running', 2)
        database.wait_for_run('running')
        workers = odoo.workers()
        assert len(workers) == 2
        odoo.process.kill()
        psutil.wait_procs(workers, 60)
        odoo.wait_until_gone()
    assert database.job(running).state == 'done', "it was let to its end"


@pytest.mark.parametrize('args', [Server.PREFORK, THREADED], ids=['prefork', 'threaded'])
def test_parent_killed(database, server, tmp_path, args):
    """A worker without a parent stops as on request: what is long is interrupted."""
    with server(database, args=args, workers=1, settings={'stop_timeout': 0.5}, expected=ANYTHING) as odoo:
        long = database.enqueue('effect_then_wait', 'long', str(tmp_path / 'gate'))
        database.wait_for_run('long waits')
        [worker] = odoo.workers()
        if args is THREADED:
            worker.parent().kill()
            [running] = {run.pid for run in database.wait_for_run('long', 2)} - {worker.pid}
            assert running
        odoo.process.kill()
        odoo.wait_until_gone()
        job = database.job(long)
    assert (job.state, job.deaths, job.attempts, job.worker_id) == ('created', 0, 0, None)
    assert not database.effects()


def test_child_is_replaced(database, server):
    """The workers of a threaded server come back, should they ever end."""
    with server(database, args=THREADED, expected=['The job workers ended']) as odoo:
        assert database.wait_for(database.enqueue('effect', 'before')).state == 'done'
        [child] = odoo.workers()[0].parents()[:1]
        assert child.ppid() == odoo.pid
        child.kill()
        child.wait()
        assert database.wait_for(database.enqueue('effect', 'after')).state == 'done'
