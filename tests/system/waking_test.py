"""No job waits without a reason, and where it has one, somebody says so."""

import contextlib
import re
import subprocess
import time

import pytest
from harness import ODOO, Server, wait_until

CRON_TIME = 100  # seconds: Odoo's cron workers look once a minute, a NOTIFY may come before they listen
CRONS = Server.CRONS['prefork']
KNOWN = 11  # seconds after which whoever enqueues looks for workers again, and finds them
SOON = 20  # seconds for what takes less than one


def test_a_locked_job_does_not_hold_up_channels(database, server):
    """A plain job that somebody has locked comes first, and cannot begin: those of limited channels do."""
    with database.env() as env:
        env['ir.async.channel'].create([{'name': 'single', 'capacity': 1}, {'name': 'wide', 'capacity': 5}])
    locked_id = database.enqueue('effect', 'locked', options={'priority': 1})
    with database.locked(locked_id), server(database, workers=2):
        others = {
            channel: database.enqueue('effect', channel, options={'channel': channel, 'priority': 5})
            for channel in ('single', 'wide', 'wide/part', 'plain')
        }
        waiting = [channel for channel, job_id in others.items() if not is_done(database, job_id)]
        assert not waiting, f"on idle workers, these wait: {waiting}"
        assert database.job(locked_id).state == 'created'
    with server(database):
        assert database.wait_for(locked_id).state == 'done'


def is_done(database, job_id, timeout=SOON):
    """Return whether a job is done before long."""
    try:
        return database.wait_for(job_id, timeout=timeout).state == 'done'
    except AssertionError:
        return False


def test_children_are_unblocked_soon(database, server, tmp_path):
    """A child whose parent ended just when it was enqueued begins, though others wait for a parent that has failed."""
    with server(database, workers=1, expected=['Job .* failed']):
        with database.env() as env:
            failing = env['ir.async'].call(env['test.async.effect'].fail_unless, 'failing', str(tmp_path / 'never'))
            env['ir.async'].with_options(after=failing).call(env['test.async.effect'].effect, 'stuck')
            failing_id = failing.id
        assert database.wait_for(failing_id).state == 'failed'
        late = []
        for i in range(5):
            gate = tmp_path / f'gate {i}'
            parent_id = database.enqueue('wait_for_gate', f'parent {i}', str(gate))
            database.wait_for_run(f'parent {i}')
            with database.env() as env:
                parent = env['ir.async'].browse(parent_id)
                child_id = (
                    env['ir.async'].with_options(after=parent).call(env['test.async.effect'].effect, f'child {i}').id
                )
                env.flush_all()
                gate.touch()
                database.wait_for(parent_id)  # before the child is committed
            if not is_done(database, child_id, 10):
                late.append(i)
        assert not late, "on an idle server"


def test_children_of_cancelled_jobs(database, server):
    """A chain behind a job that is cancelled while the server is idle is cancelled at once."""
    with server(database, workers=1):
        with database.env() as env:
            effect, queue = env['test.async.effect'], env['ir.async']
            job = parent = queue.with_options(delay=3600).call(effect.effect, 'parent')
            chain = []
            for i in range(20):
                job = queue.with_options(after=job).call(effect.effect, f'child {i}')
                chain.append(job.id)
            parent_id = parent.id
        with database.env() as env:
            env['ir.async'].browse(parent_id).cancel()
        for job_id in chain:
            assert database.wait_for(job_id, timeout=SOON).state == 'cancelled'


def test_modules_left_to_upgrade_are_said(database, server):
    """Nothing runs while modules are to be upgraded, and the log says so, once in a while."""
    with server(database, workers=2, expected=['pgrade']) as odoo:
        database.wait_for(database.enqueue('effect', 'before'))
        database.sql("UPDATE ir_module_module SET state = 'to upgrade' WHERE name = 'web'")
        begin = len(odoo.log)
        job_id = database.enqueue('effect', 'job')
        said = wait_until(
            lambda: [line for line in odoo.log[begin:].splitlines() if re.search(r'(?i)ir_async.*upgrade', line)],
            "the log says why",
            SOON,
        )
        assert any(database.name in line for line in said)
        database.enqueue_all('effect', [f'job {i}' for i in range(20)])
        time.sleep(5)  # during which it is not said for each look at the queue
        assert len([line for line in odoo.log[begin:].splitlines() if re.search(r'(?i)ir_async.*upgrade', line)]) <= 4
        assert database.job(job_id).state == 'created'
        database.sql("UPDATE ir_module_module SET state = 'installed' WHERE name = 'web'")
        assert database.wait_for(job_id).state == 'done'


# ------------------------------------------------------------
# Where no worker would run it, the cron workers do
# ------------------------------------------------------------


def test_without_workers(database, server):
    """The cron workers run what is queued, and what it waits for, if nobody else does."""
    queued = database.enqueue('effect', 'queued')
    with server(database, args=CRONS, workers=0):
        assert database.wait_for(queued, timeout=CRON_TIME).state == 'done'
        job_id = database.enqueue('effect', 'job')
        dated = database.enqueue('effect', 'dated', options={'delay': 2})
        assert database.wait_for(job_id).state == 'done'
        assert database.wait_for(dated).state == 'done'
    assert database.effects() == {'queued': 1, 'job': 1, 'dated': 1}


def test_dated_jobs_beside_a_backlog_without_workers(database, server):
    """A cron worker that always has a job to run still looks for jobs whose time has come."""
    dated = database.enqueue('effect', 'dated', options={'delay': 1, 'priority': 1})
    backlog = database.enqueue_all('effect', [f'backlog {i}' for i in range(60)], seconds=0.1)
    with server(database, args=CRONS, workers=0):
        database.wait_for(dated, timeout=CRON_TIME)
        database.wait_for(backlog[-1], timeout=CRON_TIME)
    assert database.runs()[-1].name != 'dated'


def test_neutralized_without_workers(database, server):
    """What is enqueued in a neutralized copy runs there, though all scheduled actions were switched off."""
    database.leave()
    subprocess.run([*ODOO, 'neutralize', '-d', database.name], check=True, capture_output=True)
    database.sql("UPDATE ir_cron SET active = false")  # the order of the modules is that of the table
    with server(database, args=CRONS, workers=0):
        assert database.wait_for(database.enqueue('effect', 'job'), timeout=CRON_TIME).state == 'done'


def test_no_connection_for_the_notification(cluster, database):
    """Whoever has enqueued a job is done, though nobody can be notified."""
    cluster.sql("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    try:
        assert database.job(database.enqueue('effect', 'job')).state == 'created'
    finally:
        cluster.sql("GRANT CONNECT ON DATABASE postgres TO PUBLIC")


def test_timeout_without_workers(database, server):
    """A job that takes too long on a cron worker fails, and the others do not wait for it until tomorrow."""
    long = database.enqueue('effect', 'long', 1200, options={'timeout': 2})
    quick = database.enqueue_all('effect', [f'quick {i}' for i in range(5)])
    with server(
        database, args=CRONS, workers=0, expected=['WARNING .* does not stop', 'ERROR .* Job .* failed: .* 2 seconds']
    ):
        for job_id in (*quick, long):
            database.wait_for(job_id, timeout=2 * CRON_TIME)
    job = database.job(long)
    assert (job.state, job.attempts, job.deaths) == ('failed', 1, 0)
    assert set(database.states()) == {'done', 'failed'}


@pytest.mark.parametrize('kind', list(Server.CRONS))
@pytest.mark.parametrize('how', ['cancel', 'timeout'])
def test_stopped_without_workers(database, server, kind, how):
    """The cron worker that runs a job stops it, too, and goes on with the next one."""
    state = {'cancel': 'cancelled', 'timeout': 'failed'}[how]
    options = {'timeout': 1} if how == 'timeout' else {}
    expected = [*Server.CRON_NOISE, 'was taken away', 'ERROR .* Job .* failed: .* 1 second']
    with server(database, args=Server.CRONS[kind], workers=0, expected=expected) as odoo:
        odoo.wait_for_crons()
        for method in ('hang_in_loop', 'hang_in_sql', 'hang_in_loop'):
            name = f'{method} {len(database.runs())}'
            job_id = database.enqueue(method, name, options=options)
            next_ids = database.enqueue_all('effect', [f'{i} after {name}' for i in range(3)], seconds=0.1)
            [run] = database.wait_for_run(name)
            if how == 'cancel':
                database.act('cancel', job_id)
            job = database.wait_for(job_id, timeout=SOON)
            assert (job.state, job.deaths, job.worker_id) == (state, 0, None)
            for next_id in next_ids:
                assert database.wait_for(next_id).state == 'done'
            assert {run.pid for run in database.runs()} == {run.pid}, "the process goes on"
    assert database.job(job_id).starts == 1
    effects = database.effects()
    assert all('after' in name or name.startswith('failed') for name in effects), "the rest was rolled back"


@pytest.mark.parametrize('kind', list(Server.CRONS))
@pytest.mark.parametrize('method', ['hang_in_sleep', 'hang_and_swallow'])
def test_cancel_of_what_does_not_stop(database, server, kind, method):
    """What cannot be interrupted on a cron worker is cancelled all the same; where the process is its own, it ends."""
    with server(
        database, args=Server.CRONS[kind], workers=0, expected=[*Server.CRON_NOISE, 'WARNING .* does not stop']
    ) as odoo:
        odoo.wait_for_crons()
        job_id = database.enqueue(method, 'job')
        [run] = database.wait_for_run('job')
        database.act('cancel', job_id)
        job = database.wait_for(job_id, timeout=SOON)
        assert (job.state, job.deaths, job.attempts, job.worker_id) == ('cancelled', 0, 0, None)
        if kind == 'prefork':
            wait_until(lambda: run.pid not in {process.pid for process in odoo.processes()}, "its process ends", SOON)
            odoo.wait_for_crons()
            assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
        else:
            odoo.kill()
    assert 'job' not in database.effects()


def test_workers_of_another_database(make_database, server):
    """Workers of a database do not keep the cron workers of another one from running its jobs."""
    one, other = make_database(), make_database()
    with server(one, workers=1), server(other, args=CRONS, workers=0):
        assert one.wait_for(one.enqueue('effect', 'job')).state == 'done'
        assert is_done(other, other.enqueue('effect', 'job'), CRON_TIME), "nobody runs it"
        with other.env() as env:
            assert env['ir.async']._why_unserved('default') == 'no_worker'
        with one.env() as env:
            assert env['ir.async']._why_unserved('default') is None


def test_workers_of_other_channels(database, server):
    """Nor do workers that serve other channels alone."""
    with server(database, workers=1, settings={'channels': 'mail'}), server(database, args=CRONS, workers=0):
        assert database.wait_for(database.enqueue('effect', 'mail', options={'channel': 'mail'})).state == 'done'
        assert is_done(database, database.enqueue('effect', 'job'), CRON_TIME), "nobody runs it"
        with database.env() as env:
            reasons = {
                channel: env['ir.async']._why_unserved(channel)
                for channel in ('default', 'mail', 'mail/part', 'export')
            }
    assert reasons == {'default': 'no_worker', 'mail': None, 'mail/part': None, 'export': 'no_worker'}


@pytest.mark.parametrize('killed', [False, True], ids=['stopped', 'killed'])
def test_workers_that_have_gone(database, server, tmp_path, killed):
    """The cron workers take over what was queued when the workers went, and what is enqueued just after."""
    gate = tmp_path / 'gate'
    with server(database, args=CRONS, workers=0) as crons:
        crons.wait_for_log('alive')
        with server(database, workers=1, settings={'stop_timeout': 0.5}, expected=['has to stop']) as odoo:
            running = database.enqueue('wait_for_gate', 'running', str(gate))
            database.wait_for_run('running')
            time.sleep(KNOWN)
            queued = database.enqueue('effect', 'queued')
            if killed:
                odoo.kill()
                odoo.wait_until_gone()
            else:
                odoo.stop()
        gate.touch()
        after = database.enqueue('effect', 'after')
        unrun = [
            name
            for name, job_id in (('after', after), ('queued', queued), ('running', running))
            if not is_done(database, job_id, CRON_TIME)
        ]
        assert not unrun, f"nobody runs these: {unrun}"
    assert database.effects() == {'running': 1, 'queued': 1, 'after': 1}


def test_without_workers_and_cron(database):
    """Enqueuing never fails after the commit, were the scheduled action deleted."""
    with database.env() as env:
        env.ref('ir_async.ir_cron_run_jobs').unlink()
    job_id = database.enqueue('effect', 'job')
    assert database.job(job_id).state == 'created'


# ------------------------------------------------------------
# Others' signals
# ------------------------------------------------------------


def test_signals_for_others(cluster, database, server):
    """What others NOTIFY makes workers connect to no database, and run no statement there."""

    def sessions():
        """Return how many connections to the database there ever were."""
        with contextlib.closing(cluster.connect()) as connection, connection.cursor() as cr:
            cr.execute("SELECT pg_stat_clear_snapshot()")
            cr.execute("SELECT coalesce(sum(sessions), 0) FROM pg_stat_database WHERE datname = %s", [database.name])
            return cr.fetchone()[0]

    [[version]] = cluster.sql("SELECT current_setting('server_version_num')::int")
    if version < 140000:
        pytest.skip("PostgreSQL counts sessions since 14")
    with server(args=Server.PREFORK, workers=2):
        assert database.wait_for(database.enqueue('effect', 'job')).state == 'done'
        database.leave()
        wait_until(lambda: not database.backends(), "the workers have left the database", 90)
        before = sessions()
        with contextlib.closing(cluster.connect()) as connection, connection.cursor() as cr:
            for i in range(60):
                cr.execute("SELECT pg_notify('odoo_async', %s)", [f'stranger_{i % 3}' if i % 2 else 'postgres'])
                time.sleep(0.1)
        time.sleep(2)
        after = sessions()
        # a listing of the databases may come in between
        assert after - before <= 4, f"{after - before} connections in 8 seconds"
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
