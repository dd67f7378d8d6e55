"""Cancel and time-out, whatever the method is doing."""

import contextlib
import random
import signal
import threading
import time
from functools import partial

import pytest
from harness import DEATH, wait_until
from pressure import seconds

from odoo.exceptions import UserError
from odoo.service.model import retrying

pytestmark = pytest.mark.alone

METHODS = [
    'hang_in_sql',
    'hang_in_loop',
    'hang_in_sleep',
    'hang_in_http',
    'hang_in_c',
    'hang_and_swallow',
]
FAILURES = ['Job .* failed']  # a time-out is an ERROR in the log


def cancel(database, *job_ids):
    """Cancel jobs, as a request does; return when that was committed."""
    with database.env() as env:
        retrying(env['ir.async'].browse(job_ids).cancel, env)
    return time.time()


def seconds_from_stop_to(database, job_id, state, since):
    """Return after how many seconds the job is in the state."""
    with contextlib.closing(database.cluster.connect(database.name)) as connection, connection.cursor() as cr:
        while True:
            cr.execute("SELECT state FROM ir_async WHERE id = %s", [job_id])
            if (now_in := cr.fetchone()[0]) == state:
                return seconds(since, time.time())
            assert now_in == 'processing'
            assert time.time() < since + 30, f"still {now_in}"
            time.sleep(0.01)


def test_cancel(database, server, measured):
    """Within a second it is cancelled, within three the next one runs, with a single worker."""
    with server(database, workers=1):
        for method in METHODS:
            job_id = database.enqueue(method, method)
            [run] = database.wait_for_run(method)
            next_id = database.enqueue('effect', f'after {method}')
            begin = time.time()
            cancel(database, job_id)
            until_cancelled = seconds_from_stop_to(database, job_id, 'cancelled', begin)
            database.wait_for(next_id)
            [next_run] = database.runs(f'after {method}')
            until_next = seconds(begin, next_run.time)
            job = database.job(job_id)
            assert (job.attempts, job.deaths, job.starts, job.payload, job.worker_id) == (0, 0, 1, None, None)
            assert job.claim_number == 1, "the number was raised to stop it"
            assert job.date_done
            assert next_run.pid != run.pid, "a process in which an exception came out of nowhere does nothing more"
            measured(f"cancel in {method}: {until_cancelled:.2f} s, next job after {until_next:.2f} s")
            assert until_cancelled < 1
            assert until_next < 3
        assert not [name for name in database.effects() if not name.startswith('after')], "rolled back"
        assert not database.sql("SELECT FROM ir_async_stop")


def test_timeout(database, server, measured):
    """It fails, and says where it stood."""
    with server(database, workers=1, expected=FAILURES):
        for method in METHODS:
            job_id = database.enqueue(method, method, options={'timeout': 0.5})
            next_id = database.enqueue('effect', f'after {method}')
            [run] = database.wait_for_run(method)
            end = run.time + 0.5
            until_failed = seconds_from_stop_to(database, job_id, 'failed', end)
            database.wait_for(next_id)
            [next_run] = database.runs(f'after {method}')
            until_next = seconds(end, next_run.time)
            job = database.job(job_id)
            error = job.payload['error']['data']
            assert error['name'].endswith('JobTimeout')
            assert '0.5 seconds' in error['message']
            assert f'in {method}' in error['debug'], error['debug']
            assert (job.attempts, job.deaths, job.starts, job.claim_number) == (1, 0, 1, 1)
            assert database.effects()[f'failed {job_id}'] == 1, "_on_failed"
            assert database.effects()[method] == 0, "rolled back"
            measured(f"time-out in {method}: {until_failed:.2f} s late, next job after {until_next:.2f} s")
            assert until_failed < 1
            assert until_next < 3


def test_gil(database, server, measured):
    """Code that keeps the GIL is ended by the kernel, at the hard limit; nobody is charged with a death."""
    with server(database, workers=1, expected=FAILURES):
        for reason, state in (('cancel', 'cancelled'), ('timeout', 'failed')):
            job_id = database.enqueue('hang_in_c_with_gil', reason, options={'timeout': 1, 'max_attempts': 1})
            [run] = database.wait_for_run(reason)
            next_id = database.enqueue('effect', f'after {reason}')
            if reason == 'cancel':
                cancel(database, job_id)
            job = database.wait_for(job_id)
            ended = time.time()
            database.wait_for(next_id)
            [next_run] = database.runs(f'after {reason}')
            assert (job.state, job.deaths) == (state, 0)
            assert len(database.runs(reason)) == 1, "not run again"
            assert next_run.pid != run.pid
            measured(
                f"{reason} while the GIL is kept: {ended - run.time - 1:.2f} s after the limit, "
                f"next job {next_run.time - run.time - 1:.2f} s after it"
            )
            assert seconds(run.time, next_run.time) < 1 + 1 + 3, "the limit, a second of grace, three seconds"
        assert 'JobTimeout' in job.payload['error']['data']['name']
        assert f'failed {job_id}' in database.effects()
    assert set(database.effects()) == {'after cancel', 'after timeout', f'failed {job_id}'}


def test_limit_of_the_server(database, server):
    """No job runs for longer than `limit_time_real`, whatever it asks for."""
    with server(database, workers=1, settings={'limit_time_real': 1}, expected=FAILURES):
        job_id = database.enqueue('hang_in_sleep', 'job', options={'timeout': 1000})
        assert database.wait_for(job_id).state == 'failed'
        assert '1 seconds' in database.job(job_id).payload['error']['data']['message']
        # limits are those of the method, not of the worker
        for i in range(4):
            assert database.wait_for(database.enqueue('effect', f'job {i}', 0.5)).state == 'done'


def test_timeout_is_an_attempt(database, server):
    """It is tried again like any other failure."""
    with server(database, expected=FAILURES):
        job_id = database.enqueue(
            'hang_in_sleep', 'job', options={'timeout': 0.3, 'max_attempts': 2, 'retry_delay': 0.1}
        )
        job = database.wait_for(job_id)
    assert (job.state, job.attempts, job.starts) == ('failed', 2, 2)
    assert len(database.runs('job')) == 2
    assert database.effects() == {f'failed {job_id}': 1}


def test_finally_blocks_run(database, server, tmp_path):
    with server(database):
        path = tmp_path / 'cleaned'
        job_id = database.enqueue('hang_then_clean_up', 'job', str(path))
        database.wait_for_run('job')
        cancel(database, job_id)
        assert database.wait_for(job_id).state == 'cancelled'
        wait_until(lambda: path.exists() and path.read_text(), "the method cleaned up")


def test_a_stopped_job_commits_nothing(database, server):
    """Not even in a `finally` block."""
    with server(database, expected=['taken away']):
        job_id = database.enqueue('hang_then_commit', 'job')
        database.wait_for_run('job')
        cancel(database, job_id)
        assert database.wait_for(job_id).state == 'cancelled'
    assert not database.effects()


def test_others_are_unharmed(database, server, tmp_path):
    """Whoever runs beside the cancelled job, or was claimed with it, runs once."""
    gate = tmp_path / 'gate'
    with server(database, workers=3):
        beside = database.enqueue('wait_for_gate', 'beside', str(gate))
        database.wait_for_run('beside')
        # short ones first, so that several are claimed at once, then one that hangs
        names = [f'job {i}' for i in range(300)]
        with database.env() as env:
            effect = env['test.async.effect']
            jobs = {name: env['ir.async'].call(effect.effect, name).id for name in names[:200]}
            hanging = [env['ir.async'].call(effect.hang_in_sleep, f'hang {i}').id for i in range(2)]
            jobs |= {name: env['ir.async'].call(effect.effect, name).id for name in names[200:]}
        for i, job_id in enumerate(hanging):
            database.wait_for_run(f'hang {i}')
            cancel(database, job_id)
        wait_until(lambda: database.states() == {'cancelled': 2, 'done': 300, 'processing': 1})
        gate.touch()
        assert database.wait_for(beside).state == 'done'
        assert database.job(beside).starts == 1
    assert database.effects() == dict.fromkeys([*names, 'beside'], 1)
    assert all(len(database.runs(name)) == 1 for name in names[::20])


def test_queued_and_waiting(database, server):
    """They are cancelled at once, and their children with them."""
    with server(database):
        parent = database.enqueue('effect', 'parent', options={'delay': 1000})
        with database.env() as env:
            after = env['ir.async'].browse(parent)
            child = env['ir.async'].with_options(after=after).call(env['test.async.effect'].effect, 'child')
            grandchild = env['ir.async'].with_options(after=child).call(env['test.async.effect'].effect, 'grandchild')
            child_id, grandchild_id = child.id, grandchild.id
        cancel(database, parent)
        assert database.job(parent).state == 'cancelled'
        assert database.wait_for(child_id, timeout=10).state == 'cancelled'
        assert database.wait_for(grandchild_id, timeout=10).state == 'cancelled'
    assert not database.runs()


def test_children_of_a_running_job(database, server):
    with server(database, workers=1):
        parent = database.enqueue('hang_in_sleep', 'parent')
        with database.env() as env:
            child = (
                env['ir.async']
                .with_options(after=env['ir.async'].browse(parent))
                .call(env['test.async.effect'].effect, 'child')
                .id
            )
        database.wait_for_run('parent')
        cancel(database, parent)
        assert database.wait_for(parent).state == 'cancelled'
        assert database.wait_for(child).state == 'cancelled'
        # both are tried again
        with database.env() as env:
            env['ir.async'].browse([parent, child]).retry()
        database.wait_for_run('parent', 2)
        assert database.job(child).state == 'waiting'
        cancel(database, parent, child)
        assert database.wait_for(parent).state == 'cancelled'
        assert database.job(child).state == 'cancelled'


@pytest.mark.parametrize('how', ['cancel', 'nothing'])
def test_worker_dies_before_it_can_stop_the_job(database, server, how):
    """Who finds the job learns what was to be done; a death is charged to nobody then."""
    with server(database, workers=2, expected=[DEATH]) as odoo:
        job_id = database.enqueue('hang_in_sleep', 'job')
        [run] = database.wait_for_run('job')
        worker = odoo.worker(run.pid)
        worker.send_signal(signal.SIGSTOP)
        if how == 'cancel':
            cancel(database, job_id)
            assert database.job(job_id).state == 'processing', "its worker is asleep"
        worker.kill()
        if how == 'cancel':
            job = database.wait_for(job_id)
            assert (job.state, job.deaths) == ('cancelled', 0)
            assert len(database.runs('job')) == 1
        else:
            database.wait_for_run('job', 2)
            assert database.job(job_id).deaths == 1
            cancel(database, job_id)
            assert database.wait_for(job_id).state == 'cancelled'
    assert not database.effects()


def test_frozen_worker_that_comes_back(database, server):
    """The job was cancelled meanwhile, by who found it; the one that comes back commits nothing."""
    with server(database, workers=2) as odoo:
        job_id = database.enqueue('effect', 'job', 1)
        [run] = database.wait_for_run('job')
        worker = odoo.worker(run.pid)
        worker.send_signal(signal.SIGSTOP)
        cancel(database, job_id)
        time.sleep(1.5)  # it would have ended by now
        worker.send_signal(signal.SIGCONT)
        job = database.wait_for(job_id)
        effects = database.effects()
    # Which of the two was first is a matter of chance; not that it is one of them.
    assert (job.state, effects) in [('cancelled', {}), ('done', {'job': 1})]


def test_race_with_the_end(database, server, measured):
    """Jobs that are cancelled about when they end: each ends in one way, and what it did tells the same."""
    count, names = 80, []

    def worker(ids):
        longest = 0.14
        for name, job_id in ids:
            wait_until(partial(database.runs, name))
            time.sleep(random.uniform(0, longest))
            with database.env() as env:
                try:
                    retrying(env['ir.async'].browse(job_id).cancel, env)
                    requested.append(name)
                    longest *= 1.1  # too early, as on a slow machine
                except UserError:
                    longest /= 1.3

    requested = []
    with server(database, workers=4, expected=['bad query', 'could not serialize', 'taken away']):
        with database.env() as env:
            jobs = {
                f'job {i}': env['ir.async'].call(env['test.async.effect'].effect, f'job {i}', 0.12)
                for i in range(count)
            }
            ids = [(name, job.id) for name, job in jobs.items()]
        names = dict(ids)
        threads = [threading.Thread(target=worker, args=(ids[i::4],)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        states = database.wait_for_all()
        assert database.wait_for(database.enqueue('effect', 'afterwards')).state == 'done'
    effects = database.effects()
    for name, job_id in names.items():
        job = database.job(job_id)
        assert job.state in ('done', 'cancelled'), job
        assert effects[name] == (1 if job.state == 'done' else 0), (name, job)
        assert job.deaths == 0
        assert job.worker_id is None
        assert job.state != 'cancelled' or name in requested
    assert states['done'] + states['cancelled'] == count
    assert states['done'] >= 5, states
    assert states['cancelled'] >= 5, states
    measured(f"{count} jobs cancelled about when they end: {dict(states)}, {len(requested)} requests were accepted")


def test_a_lock_on_a_job_stalls_nobody(database, server):
    """Somebody has changed jobs in a transaction that goes on for a while."""
    with server(database, workers=2) as odoo:
        with database.env() as env:
            effect = env['test.async.effect']
            parent = env['ir.async'].call(effect.effect, 'parent')
            children = [
                env['ir.async'].with_options(after=parent, delay=delay).call(effect.effect, f'child {i}')
                for i, delay in enumerate((0, 0, 1000))
            ]
            queued = env['ir.async'].with_options(delay=1).call(effect.effect, 'queued')
            locked = (children[0].id, queued.id)
            with contextlib.closing(database.cluster.connect(database.name)) as other:
                env.cr.commit()
                other.autocommit = False
                with other.cursor() as cr:
                    cr.execute("SELECT FROM ir_async WHERE id IN %s FOR NO KEY UPDATE", [locked])
                    start = time.time()
                    for i in range(10):
                        job_id = database.enqueue('effect', f'job {i}')
                        assert database.wait_for(job_id, timeout=5).state == 'done'
                        time.sleep(0.3)
                    database.wait_for_run('child 1')
                    assert time.time() - start < 20
                    assert {database.job(job_id).state for job_id in locked} <= {'waiting', 'created'}
                other.rollback()
        for job_id in locked:
            assert database.wait_for(job_id).state == 'done'
        assert 'backs off from' not in odoo.log
