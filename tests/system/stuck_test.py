"""Whatever a method does or raises, and whoever writes its row: the job ends, and the queue goes on."""

import contextlib
import signal
import threading
import time

import pytest
from harness import LIVE, Server, wait_until

ANYTHING = ['']
SOON = 25  # seconds: before an idle worker leaves the database, and is taken for gone
LOCK_TIME = 8  # seconds for which a table stays locked

RETRIES = [  # they are put off to a date, or have failed; a date in the past is now
    'retry_timedelta', 'retry_huge', 'retry_huge_float', 'retry_beyond_dates', 'retry_huge_timedelta', 'retry_negative',
    'retry_very_negative', 'retry_nan', 'retry_inf', 'retry_text', 'retry_number_as_text', 'retry_decimal', 'retry_list',
    'retry_object', 'retry_changed', 'retry_reason', 'retry_without_reason',
]  # fmt: skip
FAILURES = [  # they have failed and say so
    'broken_str', 'broken_repr', 'broken_args', 'broken_attributes', 'broken_base', 'broken_hash', 'broken_argument',
    'broken_cause', 'cause_of_itself', 'no_module', 'str_of_other_type', 'str_that_exits', 'arguments', 'recursive_argument',
    'deep_argument', 'characters', 'long_message', 'user_error', 'access_error', 'exit', 'exit_text', 'generator_exit',
    'keyboard', 'memory', 'memory_really', 'recursion', 'stop_iteration', 'cancelled', 'base', 'nothing_to_raise',
    'operational', 'interface', 'database_error', 'of_ours_claim', 'of_ours_interrupted', 'of_ours_timeout', 'of_ours_died',
    'decimal_overflow', 'sql', 'sql_swallowed', 'precommit', 'precommit_broken', 'hook_of_rollback', 'hook_before_rollback',
    'class_that_exits', 'name_that_exits', 'base_without_name', 'cause_without_name', 'rollback_hook_without_name',
    'commit_replaced', 'commit_of_connection_replaced', 'sql_swallowed_late',
    'result_generator',  # its code is that of the method
]  # fmt: skip
MAY_BE_REPEATED = ['operational', 'interface', 'database_error']  # they look like trouble of the server
BROKEN_CONNECTIONS = ['closes_cursor', 'closes_connection', 'ends_backend']
HOOKS = [  # what raises after the commit; the job is done
    'hook_value',
    'hook_retry',
    'hook_broken',
    'hook_broken_base',
    'hook_exit',
    'hook_keyboard',
    'hook_serialization',
    'hook_claim',
    'hook_sql',
    'hook_closes',
]
RESULTS = [  # work is not thrown away for its result
    'result_decimal',
    'result_nan',
    'result_int',
    'result_object',
    'result_deep',
    'result_recursive',
    'result_keys',
    'result_characters',
    'result_coroutine',
]
KINDS = {
    'retries': (RETRIES, ['created', 'failed', 'done']),
    'failures': (FAILURES, ['failed']),
    'broken_connections': (BROKEN_CONNECTIONS, ['created', 'failed']),
    'hooks': (HOOKS, ['done']),
    'results': (RESULTS, ['succeeded', 'done']),
}


def is_settled(job):
    """Return whether a job has ended, or has a date that is not now."""
    return job.state not in LIVE or (job.state == 'created' and job.date_scheduled is not None)


@pytest.mark.parametrize('group', list(KINDS))
def test_whatever_is_raised(database, server, group):
    """Each job ends in a state that says so, and the next one is run."""
    kinds, states = KINDS[group]
    with server(database, workers=1, expected=ANYTHING):
        with database.env() as env:
            effect, call = env['test.async.effect'], env['ir.async'].call
            jobs = {
                kind: (call(effect.misbehave, kind, kind).id, call(effect.effect, f'next {kind}').id) for kind in kinds
            }
        with contextlib.suppress(AssertionError):  # those that are not are named below
            wait_until(
                lambda: all(
                    is_settled(database.job(job_id)) and database.job(next_id).state == 'done'
                    for job_id, next_id in jobs.values()
                ),
                timeout=120,
            )
        effects, wrong = database.effects(), []
        for kind, (job_id, next_id) in jobs.items():
            job, following = database.job(job_id), database.job(next_id)
            begun = len(database.runs(kind))
            if job.state not in states or not is_settled(job):
                wrong.append(f'{kind}: {job.state}, begun {begun} times, attempts {job.attempts}, deaths {job.deaths}')
            elif job.state in ('created', 'failed') and not (job.payload or {}).get('error', {}).get('data', {}).get(
                'name'
            ):
                wrong.append(f'{kind}: {job.state}, and does not say why: {str(job.payload)[:100]}')
            if effects[kind] != (job.state in ('done', 'succeeded')):
                wrong.append(f'{kind}: {job.state}, but its effect is there {effects[kind]} times')
            if begun > (5 if group in ('retries', 'broken_connections') or kind in MAY_BE_REPEATED else 1):
                wrong.append(f'{kind}: begun {begun} times')
            if job.deaths and group != 'broken_connections':
                wrong.append(f'{kind}: charged with {job.deaths} deaths')
            if following.state != 'done':
                wrong.append(f'{kind}: the next job is {following.state}')
        assert not wrong, '\n'.join([f'{len(wrong)} wrong', *wrong])
        assert database.wait_for(database.enqueue('effect', 'last')).state == 'done'


def test_error_swallowed_when_a_failure_is_recorded(database, server):
    """What `_on_failed()` breaks cannot keep the job from failing."""
    with server(database, workers=1, expected=ANYTHING):
        job = database.wait_for(database.enqueue('fail_and_swallow', 'job'), timeout=SOON)
        assert (job.state, job.attempts, job.deaths) == ('failed', 1, 0)
        assert job.payload['error']['data']['name'] == 'ValueError'
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
    assert len(database.runs('job')) == 1


def test_a_method_that_ends_its_session_each_time(database, server):
    """It does not run for ever: after fifty setbacks, it fails."""
    with server(database, workers=1, expected=ANYTHING):
        job_id = database.enqueue('end_its_session', 'job', options={'delay': 3600})
        database.sql("UPDATE ir_async SET starts = 49, date_scheduled = NULL WHERE id = %s", [job_id])
        database.enqueue('nothing')
        job = database.wait_for(job_id)
    assert (job.state, job.starts, job.attempts, job.deaths) == ('failed', 50, 1, 0)
    assert len(database.runs()) == 1


def test_second_connection_lost(database, server):
    """A connection of Odoo's pool that breaks, while that of the job holds, is trouble that passes."""
    with server(database, workers=1, expected=ANYTHING):
        job = database.wait_for(database.enqueue('lose_second_cursor', 'job'))
    assert (job.state, job.starts, job.attempts) == ('done', 2, 1)
    assert database.effects() == {'job': 1}


def test_the_log_stays_locked(database, server):
    """A worker that has to end does so, whatever the interrupted job has left locked in its process."""
    with server(database, workers=1, expected=ANYTHING):
        job = database.wait_for(database.enqueue('lock_log', 'job'), timeout=SOON)
        assert (job.state, job.attempts, job.deaths) == ('done', 1, 0)
        first, second = database.runs('job')
        assert first.pid != second.pid
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
    assert database.effects() == {'job': 1, 'next': 1}


def test_a_hook_has_the_log_locked(database, server):
    """A worker that has to stop does so while a hook hangs inside of the log."""
    with server(database, workers=1, settings={'stop_timeout': 1}, expected=ANYTHING) as odoo:
        job_id = database.enqueue('lock_log_in_hook', 'job')
        database.wait_for_run('job hook')
        odoo.send_signal(signal.SIGTERM)
        wait_until(lambda: not odoo.workers(), "the worker ends", timeout=SOON)
    assert database.job(job_id).state == 'done'


@pytest.mark.parametrize('kind', ['prefork', 'threaded'])
def test_a_job_of_a_cron_worker_has_the_log_locked(database, server, kind):
    """It can be cancelled all the same."""
    with server(database, args=Server.CRONS[kind], workers=0, expected=ANYTHING) as odoo:
        odoo.wait_for_crons()
        job_id = database.enqueue('hold_log', 'job')
        database.wait_for_run('job')
        database.act('cancel', job_id)
        assert database.wait_for(job_id, timeout=10).state == 'cancelled'


def test_retry_with_a_timedelta(database, server):
    """`RetryJob` takes what `with_options` takes."""
    with server(database, workers=1):
        job_id = database.enqueue('misbehave', 'retry_timedelta', 'job')
        job = wait_until(lambda: (job := database.job(job_id)).state == 'created' and job.payload and job)
        now = database.value("SELECT now() AT TIME ZONE 'UTC'")
    assert 500 < (job.date_scheduled - now).total_seconds() < 700
    assert (job.attempts, job.deaths) == (0, 0)


# ------------------------------------------------------------
# Others write the row of a running job
# ------------------------------------------------------------


@pytest.mark.parametrize(
    'how', ['update', 'update_all', 'parent_deleted', 'parent_deleted_serializable', 'many_updates']
)
def test_others_write_the_row(database, server, tmp_path, how):
    """The work is not thrown away, and the job not left in `processing`."""
    gate = tmp_path / 'gate'
    with server(database, workers=1, expected=ANYTHING):
        parent = database.enqueue('enqueue_child', 'job', str(gate))
        job_id = database.wait_for(parent).payload['result']
        database.wait_for_run('job waits')  # the snapshot of its transaction is taken
        if how == 'update':
            database.sql("UPDATE ir_async SET name = 'changed' WHERE id = %s", [job_id])
        elif how == 'update_all':
            database.sql("UPDATE ir_async SET dismissed = dismissed")
        elif how == 'many_updates':
            for _i in range(20):
                database.sql("UPDATE ir_async SET retry_delay = retry_delay WHERE id = %s", [job_id])
        elif how == 'parent_deleted':
            database.sql("DELETE FROM ir_async WHERE id = %s", [parent])
        else:
            database.sql("BEGIN ISOLATION LEVEL SERIALIZABLE; DELETE FROM ir_async WHERE id = %s; COMMIT", [parent])
        gate.touch()
        job = database.wait_for(job_id, timeout=SOON)
        assert (job.state, job.attempts, job.deaths) == ('done', 1, 0)
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
    assert database.effects() == {'job before': 1, 'job after': 1, 'next': 1}


def test_a_running_job_whose_row_was_written_can_be_cancelled(database, server):
    with server(database, workers=2, expected=ANYTHING):
        job_id = database.enqueue('hang_in_sleep', 'job')
        database.wait_for_run('job')
        database.sql("UPDATE ir_async SET name = 'changed' WHERE id = %s", [job_id])
        database.act('cancel', job_id)
        assert database.wait_for(job_id).state == 'cancelled'
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'


@contextlib.contextmanager
def table_locked_later(database, mode):
    """Lock the jobs' table as soon as nobody uses it, for a while; begin to wait for that at once."""

    def lock():
        with contextlib.closing(database.cluster.connect(database.name)) as connection, connection.cursor() as cr:
            if mode == 'VACUUM FULL':
                cr.execute("VACUUM FULL ir_async")
            cr.execute("BEGIN")
            cr.execute("LOCK TABLE ir_async IN ACCESS EXCLUSIVE MODE")
            opened.wait()
            time.sleep(LOCK_TIME)  # the upgrade of a large table
            cr.execute("COMMIT")

    opened = threading.Event()
    thread = threading.Thread(target=lock)
    thread.start()
    wait_until(
        lambda: database.value("""
        SELECT count(*) FROM pg_locks
         WHERE relation = 'ir_async'::regclass AND mode = 'AccessExclusiveLock'"""),
        "somebody locks the table",
    )
    try:
        yield
    finally:
        opened.set()
        thread.join()


@pytest.mark.parametrize('mode', ['LOCK', 'VACUUM FULL'])
@pytest.mark.parametrize('method', ['fail_at_gate', 'wait_for_gate'])
def test_the_table_is_locked_when_a_job_ends(database, server, tmp_path, method, mode):
    """A job that raises or ends while the table is locked for long ends all the same."""
    gate = tmp_path / 'gate'
    with server(database, workers=1, expected=ANYTHING):
        job_id = database.enqueue(method, 'job', str(gate))
        database.wait_for_run('job')
        with table_locked_later(database, mode):
            gate.touch()
        job = database.wait_for(job_id, timeout=SOON)
        assert job.state == ('failed' if method == 'fail_at_gate' else 'done')
        assert (job.deaths, job.attempts) == (0, 1)
        if job.state == 'failed':
            assert job.payload['error']['data']['name'] == 'builtins.ValueError'
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
    assert database.effects()['job'] == (method == 'wait_for_gate')


def test_serializable_jobs(database, server):
    """Jobs at the highest isolation level that meet each other are done, one after the other."""
    names = [f'job {i}' for i in range(8)]
    with server(database, workers=4, expected=ANYTHING):
        with database.env() as env:
            for name in names:
                env['ir.async'].call(env['test.async.effect'].serializable, name, 0.2)
        assert database.wait_for_all(timeout=120) == {'done': len(names)}
    assert database.effects() == dict.fromkeys(names, 1)
    assert database.value("SELECT max(attempts) FROM ir_async") == 1
    assert database.value("SELECT sum(deaths) FROM ir_async") == 0


def test_jobs_that_touch_the_table(database, server, tmp_path):
    """A method may write and lock the rows of jobs, its own, too."""
    gate = tmp_path / 'gate'
    with server(database, workers=2, expected=ANYTHING):
        reading = database.enqueue('read_jobs', 'reading', str(gate))
        database.wait_for_run('reading')
        database.sql("UPDATE ir_async SET name = 'changed' WHERE id = %s", [reading])
        gate.touch()
        touching = database.enqueue('touch_all_jobs', 'touching')
        for job_id in (reading, touching):
            job = database.wait_for(job_id)
            assert (job.state, job.deaths) == ('done', 0)
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
    assert database.effects() == {'reading': 1, 'touching': 1, 'next': 1}
