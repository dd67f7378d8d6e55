"""Jobs use connections of Odoo's pools beside their own, as many as they may, and leave none to the next ones."""

import contextlib
import socket

import pytest
from harness import Server, wait_until

LOCK = 1234


@contextlib.contextmanager
def held(cluster, dbname='postgres'):
    """Hold an advisory lock."""
    with contextlib.closing(cluster.connect(dbname)) as connection, connection.cursor() as cr:
        cr.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        yield


def notified(database, method, *args):
    with database.env() as env:
        effect = env['test.async.effect'].with_user(env.ref('base.user_admin'))
        return env['ir.async'].call_notify("Job", getattr(effect, method), *args).id


@pytest.mark.parametrize('settings', [{}, {'db_maxconn': 2}], ids=['default', 'limited'])
def test_limit_of_connections(database, server, settings):
    """A job has as many connections of Odoo's pool as the setting says, and its own besides."""
    limit = settings.get('db_maxconn', 3)
    args = (*Server.PREFORK, '--db_maxconn=3')
    with server(database, args=args, workers=1, settings=settings, expected=['Job .* failed']):
        for count, state in ((limit, 'done'), (limit + 1, 'failed'), (limit, 'done')):
            job = database.wait_for(database.enqueue('open_cursors', 'job', count))
            assert job.state == state
            if state == 'failed':
                assert f"the job has {limit} cursors open" in job.payload['error']['data']['message']


@pytest.mark.parametrize('settings', [{'db_maxconn': 2}, {}], ids=['setting', 'Odoo'])
def test_what_the_worker_opens_itself(cluster, database, server, monkeypatch, tmp_path, settings):
    """The message about a progress takes a connection. It neither counts for the job nor is closed with it."""
    cluster.sql(f"""
        CREATE OR REPLACE FUNCTION slow_notify(channel text, payload text) RETURNS void AS $$
            BEGIN
                IF channel = 'imbus' THEN
                    PERFORM pg_advisory_lock_shared({LOCK}), pg_advisory_unlock_shared({LOCK});
                END IF;
                PERFORM pg_notify(channel, payload);
            END
        $$ LANGUAGE plpgsql""")
    monkeypatch.setenv('ODOO_NOTIFY_FUNCTION', 'slow_notify')
    args = (*Server.PREFORK, '--db_maxconn=2')
    with server(database, args=args, workers=1, settings=settings) as odoo:
        job_id = notified(database, 'open_cursors_while_notifying', 'job', 2, str(tmp_path / 'gate'))
        database.wait_for_run('job')
        with held(cluster):
            (tmp_path / 'gate').touch()
            assert database.wait_for(job_id).state == 'done'
        assert "could not be saved" not in odoo.log


@pytest.mark.parametrize(
    ('args', 'workers'), [(Server.PREFORK, 1), (Server.CRONS['prefork'], 0)], ids=['worker', 'cron']
)
def test_left_cursors(database, server, args, workers):
    """Cursors that a job left open neither keep their locks nor take the next jobs' connections away."""
    database.sql("INSERT INTO test_async_effect (name) VALUES ('locked')")
    args = (*args, '--db_maxconn=5')
    with server(database, args=args, workers=workers, expected=[r'left \d cursors open']) as odoo:
        if not workers:
            odoo.wait_for_crons()
        leaving = database.enqueue('leave_cursors', 'leaving')
        assert database.wait_for(leaving).state == 'done'
        assert database.wait_for(database.enqueue('open_cursors', 'next', 5)).state == 'done'
        database.sql("SELECT FROM test_async_effect WHERE name = 'locked' FOR UPDATE NOWAIT")
        assert not database.backends("query = 'SELECT 1' AND state LIKE 'idle in transaction%%'")
        assert f"Job {leaving} (test.async.effect.leave_cursors) left" in odoo.log
    assert len({run.pid for run in database.runs()}) == 1


@pytest.mark.parametrize('way', ['open transaction', 'cursor factory'])
def test_spoiled_connections(database, server, way):
    """What a job did to a connection of Odoo's pool neither outlives it nor meets the next job or the worker's messages."""
    database.sql("INSERT INTO test_async_effect (name) VALUES ('locked')")
    with server(database, workers=1) as odoo:
        assert database.wait_for(database.enqueue('spoil_connection', 'spoiling', way)).state == 'done'
        database.wait_for(database.enqueue('nothing'))
        database.sql("SELECT FROM test_async_effect WHERE name = 'locked' FOR UPDATE NOWAIT")
        assert database.wait_for(notified(database, 'open_cursors', 'next', 1)).state == 'done'
        database.wait_for(database.enqueue('nothing'))
        assert "could not be notified" not in odoo.log


def test_forked_processes(database, server):
    """They have connections of their own, though the method has left one in the pool."""
    with server(database, workers=1):
        assert database.wait_for(notified(database, 'fork_children', 'job', 0)).payload['result'] == 3
        assert database.wait_for(notified(database, 'fork_children', 'leaving', 600)).state == 'done'
        assert database.wait_for(notified(database, 'effect', 'next')).state == 'done'


def test_cancel_while_a_pool_connects(database, server):
    """The worker's messages do not wait for it."""
    with socket.create_server(('127.0.0.1', 0)) as silent, server(database, workers=1, expected=['is replaced']):
        uri = f'postgresql://user@127.0.0.1:{silent.getsockname()[1]}/postgres'
        job_id = notified(database, 'connect_to', 'job', uri)
        connection, _address = silent.accept()
        with connection:
            database.act('cancel', job_id)
            assert database.wait_for(job_id).state == 'cancelled'


@pytest.mark.parametrize('way', ['thread', 'cursors', 'retry'])
def test_full_pool_and_changed_registry(database, server, way):
    """To load the registry anew takes a cursor, and the job must end as it would with an empty pool."""
    expected = ['cursors open', 'Job .* failed', 'left threads behind', 'is replaced']
    with server(database, workers=1, settings={'db_maxconn': 2}, expected=expected) as odoo:
        job = database.wait_for(database.enqueue('change_registry', 'job', way))
        assert job.state == ('done' if way == 'retry' else 'failed')
        if way != 'retry':
            assert (job.starts, job.payload['error']['data']['message']) == (1, way)
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
        assert ("is replaced" in odoo.log) == (way == 'thread')


def test_cron_worker_that_lost_its_session(database, server):
    """It is replaced if the job has left a thread."""
    expected = [
        'left threads behind',
        'is replaced',
        'was taken away',
        'the connection to PostgreSQL was lost',
        'again in',
    ]
    with server(database, args=Server.CRONS['prefork'], workers=0, expected=expected) as odoo:
        odoo.wait_for_crons()
        job_id = database.enqueue('lose_session', 'job')
        odoo.wait_for_log("again in")  # by its date, of which a cron worker hears once a minute
        odoo.wait_for_log("exiting")
        wait_until(lambda: odoo.log.count("WorkerCron") == 2, "the next worker is there")
        odoo.wait_for_crons()
        wait_until(lambda: database.enqueue('nothing') and len(database.runs('job')) == 2, "it runs again")
        assert database.wait_for(job_id).payload['result'] is False
    first, second = database.runs('job')
    assert first.pid != second.pid


@pytest.mark.parametrize('way', ['close', 'forget'])
def test_locks_of_closed_cursors(database, server, way):
    """Their sessions end with the job, and so do the locks of the session."""
    with server(database, workers=1, expected=['Cursor not closed explicitly'] if way == 'forget' else []):
        assert database.wait_for(database.enqueue('lock_on_another_cursor', 'job', LOCK, way)).state == 'done'
        database.wait_for(database.enqueue('nothing'))
        assert database.value("SELECT pg_try_advisory_lock(%s)", [LOCK])


@pytest.mark.parametrize('ending', ['set_parameter', 'leave_cursors'])
def test_the_end_of_a_job_that_filled_the_pool(cluster, database, server, ending):
    """Its user is notified of the end as of any other."""
    with server(database, workers=1, settings={'db_maxconn': 3}, expected=['cursors open']):
        with contextlib.closing(cluster.connect()) as connection, connection.cursor() as cr:
            cr.execute("LISTEN imbus")
            counts = []
            for method, *args in (
                ('effect', 'plain'),
                (ending, 'full', *(['full pool'] if ending == 'set_parameter' else [])),
            ):
                assert database.wait_for(notified(database, method, *args)).state == 'done'
                database.wait_for(database.enqueue('nothing'))  # the hooks of the job before are over
                connection.poll()
                counts.append(len(connection.notifies))
                connection.notifies.clear()
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize('way', ['plain', 'full pool', 'failing hook', 'failing after a commit', 'refused connections'])
def test_signals(cluster, database, server, tmp_path, way):
    """What a job has changed is known to the other processes, whatever happens after its commit."""
    expected = {
        'full pool': ['cursors open'],
        'failing hook': ['a hook after it failed', 'add more hooks, and fail'],
        'failing after a commit': ['Job .* failed'],
        'refused connections': ['too many connections for role'],
    }
    expected = expected.get(way, [])
    with server(database, workers=2, settings={'db_maxconn': 3}, expected=expected) as odoo:

        def read():
            gate = tmp_path / str(len(list(tmp_path.iterdir())))
            ids = [database.enqueue('read_parameter', str(gate)) for _worker in range(2)]
            wait_until(
                lambda: database.value("SELECT count(*) FROM ir_async WHERE state = 'processing'") == 2, "both run"
            )
            gate.touch()
            return dict(database.wait_for(job_id).payload['result'] for job_id in ids)

        # A worker that still loads its registry leaves its job to the other one.
        before = wait_until(lambda: len(result := read()) == 2 and result, "both processes run jobs")
        assert set(before.values()) == {False}
        gate = tmp_path / 'gate'
        job_id = database.enqueue('set_parameter', 'job', way, str(gate))
        with contextlib.ExitStack() as stack:
            if way == 'refused connections':
                database.wait_for_run('job')
                cluster.sql("ALTER ROLE odoo CONNECTION LIMIT 0")
                stack.callback(cluster.sql, "ALTER ROLE odoo CONNECTION LIMIT -1")
                gate.touch()
                wait_until(lambda: "done in" in odoo.log.split(f'Job {job_id} ')[-1], "the job is done")
        assert database.wait_for(job_id).state == ('failed' if way == 'failing after a commit' else 'done')
        assert wait_until(lambda: len(result := read()) == 2 and result, "both ran") == dict.fromkeys(before, way)
    assert len(database.runs('job: next hook')) == (way == 'failing hook')


def test_a_hook_that_hangs(database, server, tmp_path):
    """The other processes are signaled before it."""
    with server(database, workers=2):
        (tmp_path / 'open').touch()
        for _job in range(4):
            database.wait_for(database.enqueue('read_parameter', str(tmp_path / 'open')))
        job_id = database.enqueue('set_parameter', 'job', 'hanging hook', str(tmp_path / 'gate'))
        assert database.wait_for(job_id).state == 'done'
        wait_until(
            lambda: database.wait_for(database.enqueue('read_parameter', str(tmp_path / 'open'))).payload['result'][1],
            "the other worker knows the new value",
        )
        (tmp_path / 'gate').touch()


def test_lost_races(database, server, tmp_path):
    """What a try left open is closed before the next one."""
    record_id = database.value("INSERT INTO test_async_effect (name, value) VALUES ('sum', 1) RETURNING id")
    with server(database, workers=1, settings={'db_maxconn': 2}, expected=['cursors open', 'bad query']):
        with database.env() as env:
            record = env['test.async.effect'].browse(record_id)
            job_id = env['ir.async'].call(record.leave_cursor_and_add, 'add', str(tmp_path / 'gate')).id
        for tryno in (1, 2, 3):
            wait_until(lambda number=tryno: len(database.runs('add')) == number, "the next try runs")
            if tryno < 3:
                database.sql("UPDATE test_async_effect SET value = value + 100 WHERE id = %s", [record_id])
            (tmp_path / f'gate{tryno}').touch()
        job = database.wait_for(job_id)
    assert (job.state, job.attempts) == ('done', 1)
    assert database.value("SELECT value FROM test_async_effect") == 202


def test_a_thread_that_executes_a_statement(cluster, database, server):
    """A job that leaves it has its worker replaced at once. Nobody waits for the thread."""
    with server(database, workers=1, expected=['left threads behind', 'is replaced']), held(cluster, database.name):
        leaving = database.enqueue('leave_querying_thread', 'leaving', LOCK)
        assert database.wait_for(leaving).state == 'done'
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'


def test_a_job_that_triggers_the_crons(database, server):
    """It runs no other job inside of itself: the end of that one would set the process back to its own begin."""
    with server(database, workers=1, settings={'channels': 'default'}):
        with database.env() as env:
            other_id = env['ir.async'].with_options(channel='other').call(env['test.async.effect'].nothing).id
        assert database.wait_for(database.enqueue('trigger_crons', 'job')).state == 'done'
        [[state]] = database.sql("SELECT state FROM ir_async WHERE id = %s", [other_id])
        assert state == 'created'
