"""Nothing is stopped, charged or failed that should not be, and what is stopped leaves nothing behind."""

import contextlib
import json
import signal
import time
from pathlib import Path

import psutil
import pytest
from harness import DEATH, Server, complaints, wait_until

ANYTHING = ['']  # what the log says of such troubles is not the point
RACES = ['bad query', 'could not serialize']


def begin_batch(database, count=100):
    """Enqueue short jobs: workers claim several at a time then."""
    database.enqueue_all('effect', [f'warm up {i}' for i in range(count)])


@contextlib.contextmanager
def role_settings(cluster, **settings):
    """Give Odoo's role settings of its own; sessions that begin now have them."""
    for name, value in settings.items():
        cluster.sql(f"ALTER ROLE odoo SET {name} = '{value}'")
    try:
        yield
    finally:
        cluster.sql("ALTER ROLE odoo RESET ALL")


def terminate(database, odoo, which='all'):
    """End connections of the workers: all, those that prove that they are alive, or all others in the database."""
    names = tuple(f'odoo-{worker.pid}' for worker in odoo.workers())
    control = tuple(backend.pid for backend in database.control_backends()) or (0,)
    condition = {
        'all': 'true',
        'control': f'pid IN {(*control, 0)}',
        'job': f"pid NOT IN {(*control, 0)} AND datname = '{database.name}'",
    }[which]
    return database.cluster.sql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN %s AND {condition}", [names]
    )


# ------------------------------------------------------------
# Cancel
# ------------------------------------------------------------


def test_retry_after_cancel(database, server):
    """What was cancelled once and is retried is not cancelled by an old signal."""
    with server(database, workers=2):
        for i in range(10):
            name = f'job {i}'
            job_id = database.enqueue('hang_at_first', name)
            database.wait_for_run(name)
            database.act('cancel', job_id)
            assert database.wait_for(job_id).state == 'cancelled'
            database.act('retry', job_id)
            job = database.wait_for(job_id)
            assert (job.state, job.deaths) == ('done', 0), f"round {i}"
            assert len(database.runs(name)) == 2
    assert database.effects() == {f'job {i}': 1 for i in range(10)}


def test_garbage_in_signals(cluster, database, server, tmp_path):
    """Anybody may NOTIFY anything: the rows say what to do."""
    gate = tmp_path / 'gate'
    with server(database, workers=1) as odoo:
        job_id = database.enqueue('wait_for_gate', 'job', str(gate))
        [run] = database.wait_for_run('job')
        other_id = database.enqueue('effect', 'other', options={'delay': 3600})
        for payload in (
            'x',
            '',
            '-1',
            '0',
            '1.5',
            'NaN',
            '9' * 30,
            '١',
            'ü' * 1000,
            ' 1',
            str(job_id),
            f'{job_id} ',
            str(other_id),
        ):
            database.sql("SELECT pg_notify('ir_async_stop', %s)", [payload])
        for payload in ('x', '', 'ü' * 1000, f'{database.name} ', '"', "'; SELECT 1"):
            cluster.sql("SELECT pg_notify('odoo_async', %s)", [payload])
        second = database.enqueue('hang_in_sleep', 'second')
        gate.touch()
        job = database.wait_for(job_id)
        assert (job.state, job.starts, job.deaths) == ('done', 1, 0)
        [second_run] = database.wait_for_run('second')
        assert second_run.pid == run.pid, "the worker goes on"
        database.act('cancel', second)
        assert database.wait_for(second).state == 'cancelled'
        assert 'Exception' not in odoo.log
    assert database.job(other_id).state == 'created'


@pytest.mark.parametrize('how', ['cancel', 'timeout'])
def test_capacity_while_a_stopped_job_goes_on(database, server, how):
    """The next job of a channel of capacity 1 begins when the method of the one before has ended, stopped or not."""
    with database.env() as env:
        env['ir.async.channel'].create({'name': 'single', 'capacity': 1})
    with server(database, workers=2, expected=['Job .* failed']):
        for i in range(3):
            options = {'channel': 'single', **({'timeout': 0.5} if how == 'timeout' else {})}
            job_id = database.enqueue('swallow', f'job {i}', 30, options=options)
            next_id = database.enqueue('trace_job', f'next {i}', options={'channel': 'single'})
            database.wait_for_run(f'job {i}')
            if how == 'cancel':
                database.act('cancel', job_id)
            assert database.wait_for(next_id).state == 'done'
            [began] = database.runs(f'began {next_id}')
            assert database.job(job_id).state == {'cancel': 'cancelled', 'timeout': 'failed'}[how]
            last = database.runs(f'job {i} goes on')[-1]
            assert last.time < began.time, f"they overlap by {last.time - began.time:.2f} s"


def test_cancelled_before_it_began(database, server):
    """A job that was claimed with others and is cancelled before its turn does not begin."""
    with server(database, workers=1, expected=RACES):
        for i in range(10):  # whether they are claimed together is a matter of chance
            begin_batch(database)
            with database.env() as env:
                effect, call = env['test.async.effect'], env['ir.async'].call
                call(effect.cancel_neighbours, f'cancelling {i}')
                for _j in range(5):
                    call(effect.trace_job, 'neighbour')
            database.wait_for_all()
            if any(run.name.startswith('cancelled') for run in database.runs()):
                break
    names = [run.name for run in database.runs()]
    cancelled = [int(name.split()[1]) for name in names if name.startswith('cancelled')]
    assert cancelled, "jobs were claimed together"
    assert {database.job(job_id).state for job_id in cancelled} == {'cancelled'}
    assert not [name for name in names if name in {f'began {job_id}' for job_id in cancelled}], "they began"
    assert database.value("SELECT max(deaths) FROM ir_async") == 0


# ------------------------------------------------------------
# Deaths
# ------------------------------------------------------------


@pytest.mark.parametrize('which', ['all', 'job', 'control'])
def test_lost_connections_are_no_deaths(database, server, tmp_path, which):
    """However often connections break, the job is run again and charged with nothing."""
    gate = tmp_path / 'gate'
    with server(database, workers=2, expected=ANYTHING) as odoo:
        job_id = database.enqueue('poll_sql', 'job', str(gate))
        for i in range(1, 5):
            database.wait_for_run('job', i)
            assert terminate(database, odoo, which)
            job = database.job(job_id)
            assert (job.state in ('created', 'processing'), job.deaths) == (True, 0), f"after {i}"
        database.wait_for_run('job', 5)
        gate.touch()
        job = database.wait_for(job_id)
    assert (job.state, job.deaths, job.attempts) == ('done', 0, 1)
    assert database.effects() == {'job': 1}


def test_deaths_are_counted(database, server, tmp_path):
    """A job whose worker is killed three times has failed; it has begun three times."""
    with server(database, workers=2, expected=[DEATH, 'Job .* failed']) as odoo:
        job_id = database.enqueue('poll_sql', 'job', str(tmp_path / 'gate'))
        for i in range(1, 4):
            run = database.wait_for_run('job', i)[-1]
            odoo.worker(run.pid).kill()
        job = database.wait_for(job_id)
        assert (job.state, job.deaths, job.starts, job.attempts) == ('failed', 3, 3, 0)
        assert 'died' in job.payload['error']['data']['message']
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
    assert len(database.runs('job')) == 3


@pytest.mark.parametrize('which', ['all', 'own', 'sockets'])
def test_closed_descriptors_are_deaths(database, server, tmp_path, which):
    """A job that closes what its process needs cannot say that the server was gone."""
    with server(database, workers=1, expected=ANYTHING) as odoo:
        job_id = database.enqueue('close_descriptors', 'job', which, str(tmp_path / 'gate'))
        job = database.wait_for(job_id)
        assert (job.state, job.deaths) == ('failed', 3)
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
        assert odoo.log.count('Traceback') <= 1, "that of its failure"
    assert len(database.runs('job')) == 3
    assert database.effects() == {'next': 1}


@pytest.mark.parametrize('kind', list(Server.CRONS))
def test_lost_connections_of_cron_workers(database, server, tmp_path, kind):
    """Nor are those of a cron worker, which lives: the job is run again."""
    gate = tmp_path / 'gate'
    with server(database, args=Server.CRONS[kind], workers=0, expected=ANYTHING) as odoo:
        odoo.wait_for_crons()
        job_id = database.enqueue('poll_sql', 'job', str(gate))
        for i in range(1, 5):
            [run] = database.wait_for_run('job', i)[-1:]
            assert database.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name = %s",
                [database.name, f'odoo-{run.pid}'],
            )
            database.enqueue('nothing')
            database.wait_for_run('job', i + 1)
            assert database.job(job_id).deaths == 0
        gate.touch()
        job = database.wait_for(job_id)
    assert (job.state, job.deaths, job.attempts) == ('done', 0, 1)
    assert database.effects() == {'job': 1}


def test_deaths_of_cron_workers_are_counted(database, server, tmp_path):
    """Where its server goes on, the end of a cron worker is a death of the job that it ran, of no other one."""
    with server(database, args=Server.CRONS['prefork'], workers=0, expected=['Job .* failed']) as odoo:
        job_id = database.enqueue('poll_sql', 'job', str(tmp_path / 'gate'))
        for i in range(1, 4):
            odoo.wait_for_crons()
            next_id = database.enqueue('effect', f'next {i}')
            [run] = database.wait_for_run('job', i)[-1:]
            assert database.job(job_id).deaths == i - 1
            [process] = [process for process in odoo.processes() if process.pid == run.pid]
            process.kill()
            process.wait()
        odoo.wait_for_crons()
        database.enqueue('nothing')
        job = database.wait_for(job_id)
        assert (job.state, job.deaths) == ('failed', 3)
        job = database.wait_for(next_id)
        assert (job.state, job.deaths) == ('done', 0)
    assert len(database.runs('job')) == 3


def test_stopped_workers_are_no_deaths(database, server):
    """Nor is a job charged whose worker alone is stopped, though its method cannot be interrupted."""
    with server(database, workers=1, settings={'stop_timeout': 0.5}) as odoo:
        job_id = database.enqueue('hang_in_sleep', 'job')
        for i in range(1, 5):
            run = database.wait_for_run('job', i)[-1]
            odoo.worker(run.pid).terminate()
            database.wait_for_run('job', i + 1)
            assert database.job(job_id).deaths == 0, f"stop {i}"
        database.act('cancel', job_id)
        assert database.wait_for(job_id).state == 'cancelled'


def test_stop_of_a_locked_job_is_no_death(database, server, tmp_path):
    """Servers that stop charge nobody, though the job's row is locked meanwhile, however often."""
    gate = tmp_path / 'gate'
    job_id = database.enqueue('poll_sql', 'job', str(gate))
    for i in range(1, 5):
        with server(database, workers=1, settings={'stop_timeout': 0.5}, expected=ANYTHING) as odoo:
            database.wait_for_run('job', i)
            with database.locked(job_id):
                odoo.stop()
            job = database.job(job_id)
            assert (job.state in ('created', 'processing'), job.deaths) == (True, 0), f"stop {i}"
    gate.touch()
    with server(database, workers=1):
        job = database.wait_for(job_id)
    assert (job.state, job.deaths) == ('done', 0)
    assert database.effects() == {'job': 1}


def test_stop_while_neighbours_are_locked_is_no_death(database, server, tmp_path):
    """Nor are jobs charged that were claimed with it and that it has locked itself."""
    gate = tmp_path / 'gate'
    begin_batch(database)
    with database.env() as env:
        effect, call = env['test.async.effect'], env['ir.async'].call
        locking = call(effect.lock_neighbours, 'locking', str(gate)).id
        for i in range(20):
            call(effect.effect, f'neighbour {i}')
    for i in range(1, 4):
        with server(database, workers=1, settings={'stop_timeout': 0.5}, expected=ANYTHING) as odoo:
            database.wait_for_run('locking', i)
            odoo.stop()
    assert database.job(locking).state in ('created', 'processing')
    gate.touch()
    with server(database, workers=1, expected=ANYTHING):
        assert set(database.wait_for_all()) == {'done'}
    assert database.value("SELECT sum(deaths) FROM ir_async") == 0
    assert set(database.effects().values()) == {1}


def test_death_in_a_hook(database, server):
    """A worker that dies after the commit harms neither the job, which is done, nor those that were claimed with it."""
    names = [f'neighbour {i}' for i in range(60)]
    with server(database, workers=1, expected=ANYTHING):
        for i in range(4):
            with database.env() as env:
                effect, call = env['test.async.effect'], env['ir.async'].call
                for name in names[:30]:
                    call(effect.effect, f'{name} {i}')
                call(effect.die_in_hook, f'dying {i}')
                for name in names[30:]:
                    call(effect.effect, f'{name} {i}')
            assert set(database.wait_for_all()) == {'done'}
    assert len(database.effects()) == 4 * 61
    assert set(database.effects().values()) == {1}
    assert {run.name: 1 for run in database.runs() if run.name.startswith('dying')} == {
        f'dying {i}': 1 for i in range(4)
    }
    assert database.value("SELECT sum(deaths) FROM ir_async") == 0, "nobody's method was running"


# ------------------------------------------------------------
# What PostgreSQL limits, and races
# ------------------------------------------------------------


def test_timeouts_of_the_role(cluster, database, server):
    """A job that waits outside of SQL succeeds, whatever time-outs the role has; so does one after a pause."""
    timeouts = {
        'idle_in_transaction_session_timeout': '700ms',
        'statement_timeout': '700ms',
        'lock_timeout': '300ms',
    }
    [[version]] = cluster.sql("SELECT current_setting('server_version_num')::int")
    if version >= 140000:
        timeouts['idle_session_timeout'] = '700ms'
    if version >= 170000:
        timeouts['transaction_timeout'] = '700ms'
    with database.env():
        pass  # the connection of this process has none of them
    with role_settings(cluster, **timeouts):
        with server(database, workers=1) as odoo:
            for name in ('first', 'second'):
                job_id = database.enqueue('effect', name, 4)
                job = database.wait_for(job_id)
                assert (job.state, job.deaths, job.starts) == ('done', 0, 1)
                assert len(database.runs(name)) == 1
                listening = odoo.listening()
                time.sleep(1.5)  # the idle worker, and its connections, outlive the time-outs
                assert odoo.listening() == listening != []
            job = database.wait_for(database.enqueue('effect_then_sleep_in_sql', 'third', 2))
            assert (job.state, job.starts) == ('done', 1)
    database.leave()
    assert database.effects() == {'first': 1, 'second': 1, 'third': 1}


def test_lock_on_the_row_at_the_end(cluster, database, server, tmp_path):
    """A job whose row somebody has locked when it ends is not failed by a lock time-out."""
    gate = tmp_path / 'gate'
    database.leave()
    with role_settings(cluster, lock_timeout='300ms'):
        with server(database, workers=1, expected=ANYTHING):
            job_id = database.enqueue('wait_for_gate', 'job', str(gate))
            database.wait_for_run('job')
            with database.locked(job_id):
                gate.touch()
                wait_until(lambda: database.backends("wait_event_type = 'Lock'"), "the worker waits for the lock")
                time.sleep(2)  # for as long as somebody works on it
            job = database.wait_for(job_id)
            assert (job.state, job.attempts, job.deaths) == ('done', 1, 0)
            assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
    database.leave()
    assert database.effects() == {'job': 1, 'next': 1}


@pytest.mark.parametrize(('how', 'count'), [('raised', 30), ('swallowed', 10), ('wrapped', 10)])
def test_lost_races_fail_nobody(database, server, how, count):
    """Many jobs that read and write the same record: all of them are done, one after the other, whatever they make of a lost race."""
    with database.env() as env:
        record_id = env['test.async.effect'].create({'name': 'sum'}).id
    with server(database, workers=8, expected=RACES):
        with database.env() as env:
            record = env['test.async.effect'].browse(record_id)
            for i in range(count):
                if how == 'raised':
                    env['ir.async'].call(record.increment, f'add {i}', 0.5)
                else:
                    env['ir.async'].call(record.increment_badly, f'add {i}', how)
        assert database.wait_for_all(timeout=180) == {'done': count}
    assert database.value("SELECT value FROM test_async_effect WHERE id = %s", [record_id]) == count
    assert database.value("SELECT max(attempts) FROM ir_async") <= 1
    assert database.value("SELECT max(deaths) FROM ir_async") == 0


def test_on_failed_is_not_lost(database, server):
    """The hook for failures meets with concurrent updates, too."""
    count = 8
    with database.env() as env:
        record_id = env['test.async.effect'].create({'name': 'count'}).id
    with server(database, workers=4, expected=['Job .* failed', *RACES]):
        with database.env() as env:
            record = env['test.async.effect'].browse(record_id)
            for i in range(count):
                env['ir.async'].call(record.fail_and_count, f'job {i}')
        assert database.wait_for_all(timeout=180) == {'failed': count}
    assert database.value("SELECT value FROM test_async_effect WHERE id = %s", [record_id]) == count
    assert database.value("SELECT max(attempts) FROM ir_async") <= 1


# ------------------------------------------------------------
# Hooks
# ------------------------------------------------------------


def test_long_hook(database, server):
    """What a job does after its commit has no time-out of the job's, and is no failure."""
    with server(database, workers=1) as odoo:
        for commits in (False, True):
            name = f'commits {commits}'
            job_id = database.enqueue(
                'sleep_in_hook', name, 2, commits=commits, options={'timeout': 60 if commits else 1}
            )
            database.wait_for_run(f'{name} hook end')
            job = database.wait_for(job_id)
            assert (job.state, job.attempts, job.deaths) == ('done', 1, 0)
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
        assert not complaints(odoo.log)
    assert len({run.pid for run in database.runs()}) == 1, "the worker goes on"


def test_hanging_hook(database, server):
    """It is ended at the hard limit. The job is done."""
    with server(database, workers=1, settings={'limit_time_real': 2}, expected=ANYTHING) as odoo:
        job_id = database.enqueue('sleep_in_hook', 'job', 600)
        next_id = database.enqueue('effect', 'next')
        assert database.wait_for(next_id).state == 'done'
        job = database.job(job_id)
        assert (job.state, job.attempts, job.deaths) == ('done', 1, 0)
        assert odoo.log.count('ERROR') <= 2, "it is not said again and again"
    assert database.effects() == {'job': 1, 'next': 1}
    assert len(database.runs('job hook')) == 1


# ------------------------------------------------------------
# What a stopped job leaves behind
# ------------------------------------------------------------


@pytest.mark.parametrize('how', ['cancel', 'timeout', 'kill', 'stop', 'end'])
def test_children_and_files(database, server, tmp_path, how):
    """Programs and temporary files of a job are gone when it was ended by force; files also when it has ended well.

    A program in a session of its own is found as a descendant of the worker, so not after a kill.
    """
    report = tmp_path / 'report'
    options = {'timeout': 0.5} if how == 'timeout' else {}
    with server(database, workers=1, settings={'stop_timeout': 0.5}, expected=ANYTHING) as odoo:
        job_id = database.enqueue('leave_child', 'job', str(report), how != 'end', how != 'kill', options=options)
        [run] = database.wait_for_run('job')
        children, files = json.loads(report.read_text())
        report.unlink()
        try:
            if how == 'cancel':
                database.act('cancel', job_id)
            elif how == 'kill':
                database.sql("UPDATE ir_async_channel SET paused = true WHERE name = '*'")
                database.sql(
                    "INSERT INTO ir_async_channel (name, paused) SELECT '*', true"
                    " WHERE NOT EXISTS (SELECT FROM ir_async_channel WHERE name = '*')"
                )
                odoo.worker(run.pid).kill()
            elif how == 'stop':
                odoo.send_signal(signal.SIGTERM)
                odoo.process.wait(60)
            if how in ('cancel', 'timeout', 'end'):
                database.wait_for(job_id)
            wait_until(lambda: not [pid for pid in children if runs(pid)], "the programs have ended", 10)
            wait_until(lambda: not [file for file in files if Path(file).exists()], "the files are gone", 10)
        finally:
            for pid in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()


def runs(pid):
    """Return whether a process of that id does anything."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_interval_is_not_used_up(database, server, tmp_path):
    """A job that was claimed but not begun has not used up its channel's interval."""
    gate = tmp_path / 'gate'
    with database.env() as env:
        env['ir.async.channel'].create([{'name': 'wide', 'capacity': 9}, {'name': 'slow', 'interval': 3600}])
    with server(database, workers=1):
        with database.env() as env:
            effect, queue = env['test.async.effect'], env['ir.async']
            for i in range(200):
                queue.with_options(priority=0).call(effect.effect, f'warm up {i}')
            long = queue.with_options(channel='wide', priority=5).call(effect.wait_for_gate, 'long', str(gate)).id
            slow = queue.with_options(channel='slow', priority=6).call(effect.effect, 'slow').id
        database.wait_for_run('long')
        with contextlib.suppress(AssertionError):  # it may never be claimed so early
            wait_until(lambda: (job := database.job(slow)).claim_number and job.state == 'created', timeout=3)
        gate.touch()
        assert database.wait_for(long).state == 'done'
        assert database.wait_for(slow).state == 'done'
        late = database.enqueue('effect', 'late', options={'channel': 'slow'})
        database.wait_for(database.enqueue('effect', 'other'))
        assert database.job(late).state == 'created', "the interval is kept"
