"""Nothing of a job reaches the next one, however it was made."""

import contextlib

import psutil
import pytest
from harness import Server, wait_until

ENDINGS = [
    'ok',
    'commit',
    'rollback',
    'fail',
    'commit, fail',
    'rollback, fail',
    'hook',
    'committing hook',
    'retry',
    'commit, retry',
]
FEW_ENDINGS = ['ok', 'fail', 'hook', 'retry']
GROUPS = {
    'ways_to_make_a_setting': [
        'text', 'lower', 'session', 'composed', 'odoo_sql', 'bytes', 'comment', 'line_comment', 'second_statement',
        'empty_statement', 'set_config', 'quoted_function', 'where', 'callproc', 'executemany', 'execute_values',
        'execute_batch', 'copy', 'do', 'do_execute', 'sql_function', 'plpgsql_function', 'procedure', 'trigger', 'prepared',
        'cursor_of_psycopg', 'other_cursor', 'named_cursor', 'savepoint', 'log_exceptions',
    ],
    'settings': [
        'search_path', 'date_style', 'time_zone', 'interval_style', 'names', 'client_encoding', 'statement_timeout',
        'lock_timeout', 'idle_timeout', 'synchronous_commit', 'planner', 'application_name', 'strings', 'row_security',
        'replication_role', 'seed',
    ],
    'roles': [
        'role', 'role_by_function', 'role_in_function', 'authorization', 'authorization_by_function', 'authorization_in_function',
    ],
    'characteristics': [
        'characteristics', 'default_isolation', 'default_deferrable', 'transaction_isolation', 'transaction_serializable',
        'transaction_deferrable', 'isolation_of_client', 'isolation_attribute', 'deferrable_of_client',
    ],
    'read_only': ['read_only', 'transaction_read_only', 'read_only_of_client'],
    'autocommit': ['autocommit', 'isolation_autocommit'],
    'temporary': [
        'temporary', 'temporary_unlogged', 'temporary_schema', 'temporary_into', 'temporary_by_function',
        'temporary_sequence', 'temporary_view', 'temporary_function', 'temporary_held', 'temporary_of_our_name',
        'temporary_of_our_table',
    ],
    'objects': [
        'prepare', 'prepare_by_function', 'prepare_of_our_name', 'deallocate', 'cursor', 'cursor_of_client', 'listen',
        'listen_by_function', 'notified', 'lock', 'lock_shared', 'lock_try', 'lock_twice', 'lock_of_ours', 'sequence', 'discard',
    ],
    'client': [
        'attributes', 'types', 'factory', 'encoding_of_client', 'notice', 'arraysize', 'cache', 'hooks', 'parameter',
    ],
    'process': [
        'environment', 'missing_environment', 'working_directory', 'umask', 'locale', 'time_zone_of_process', 'signal_mask',
        'signal_handler', 'timers', 'context_variable', 'thread', 'thread_user', 'request', 'decimal', 'decimal_context', 'socket_timeout',
        'temporary_folder',
    ],
}  # fmt: skip
SCHEMA = """
    CREATE SCHEMA leak_schema;
    CREATE TABLE leak_table (tag text);
    CREATE SEQUENCE leak_seq START 2000000000000;
    CREATE FUNCTION leak_sql(tag text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('leak.' || tag, '1', false) $$;
    CREATE FUNCTION leak_plpgsql(tag text) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN PERFORM set_config('leak.' || tag, '1', false); END $$;
    CREATE PROCEDURE leak_procedure(tag text) LANGUAGE plpgsql AS $$
        BEGIN PERFORM set_config('leak.' || tag, '1', false); END $$;
    CREATE FUNCTION leak_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM set_config('leak.' || NEW.tag, '1', false); RETURN NEW; END $$;
    CREATE TRIGGER leak BEFORE INSERT ON leak_table FOR EACH ROW EXECUTE FUNCTION leak_trigger();
    CREATE FUNCTION leak_temporary(name text) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN EXECUTE format('CREATE TEMP TABLE %I (id int, state text)', name); END $$;
    CREATE FUNCTION leak_execute(statement text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE statement; END $$;
    CREATE FUNCTION leak_lock(key int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(key); END $$;
    CREATE FUNCTION leak_write(name text) RETURNS void LANGUAGE sql AS $$ INSERT INTO test_async_effect (name) VALUES (name) $$;
    GRANT ALL ON SCHEMA public, leak_schema TO PUBLIC;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC;
"""
ANYTHING = ['']  # what the log says of such jobs is not the point here


@pytest.fixture
def leaky(cluster, database):
    """A database with functions that leave something behind, and a role that may do everything."""
    database.sql(SCHEMA)
    cluster.sql("CREATE ROLE leaked")
    cluster.sql("ALTER ROLE odoo SUPERUSER")
    yield database
    cluster.sql("ALTER ROLE odoo NOSUPERUSER")
    database.drop()
    cluster.sql("DROP ROLE leaked")


def other_user(env):
    """Return somebody who may do no more than any employee."""
    user = env['res.users'].search([('login', '=', 'other')])
    return user or env['res.users'].create(
        {'name': "Other", 'login': 'other', 'group_ids': [(6, 0, env.ref('base.group_user').ids)]}
    )


def tag_of(way, ending):
    return f'{way}_{ENDINGS.index(ending)}'


def enqueue_pairs(database, pairs):
    """Enqueue a leaking job of one user, and one of another user that looks, for each; the first one looks beforehand."""
    with database.env() as env:
        user = other_user(env)
        admin = env.ref('base.user_admin')
        leaking, looking = env['test.async.effect'].with_user(admin), env['test.async.effect'].with_user(user)
        call = env['ir.async'].call
        before = call(looking.seen, 'none')
        jobs = [
            (way, ending, call(leaking.leak, way, ending, tag_of(way, ending)), call(looking.seen, tag_of(way, ending)))
            for way, ending in pairs
        ]
        return before.id, [(way, ending, leak.id, look.id) for way, ending, leak, look in jobs]


def differences(before, earlier, now):
    """Return what is not as before; but for what the one who looked earlier saw already."""
    return [f'{key} = {value}' for key, value in now.items() if value != before.get(key) and value != earlier.get(key)]


def leaks(database, before_id, jobs):
    """Return a line for each thing that somebody saw of an earlier job."""
    before = earlier = database.job(before_id).payload['result']
    lines = []
    for way, ending, leak_id, look_id in jobs:
        leak, look = database.job(leak_id), database.job(look_id)
        expected = {
            'fail': ['failed'],
            'retry': ['created'],
        }.get(ending.split(', ')[-1], ['done'])
        if leak.state not in [*expected, 'failed']:
            lines.append(f'{way}, {ending}: its own job is {leak.state}')
        if look.state != 'succeeded':
            error = (look.payload or {}).get('error', {}).get('data', {}).get('message')
            lines.append(f'{way}, {ending}: the next job is {look.state}: {error}')
            continue
        now = look.payload['result']
        lines += [f'{way}, {ending}: {difference}' for difference in differences(before, earlier, now)]
        earlier = now
    return lines


@pytest.mark.parametrize('group', list(GROUPS))
def test_after(group, leaky, server):
    """Jobs of another user, claimed together with others or not, are run as if these had never been."""
    endings = FEW_ENDINGS if group == 'process' else ENDINGS
    pairs = [(way, ending) for way in GROUPS[group] for ending in endings]
    with server(leaky, workers=1, expected=ANYTHING):
        before_id, jobs = enqueue_pairs(leaky, pairs)
        with contextlib.suppress(AssertionError):  # jobs that never end are counted below
            for _way, _ending, _leak, look_id in reversed(jobs):
                leaky.wait_for(look_id)
        found = leaks(leaky, before_id, jobs)
        assert not found, '\n'.join([f'{len(found)} leaks', *found])


def test_one_by_one(leaky, server):
    """The same where each job is claimed alone, as on a server that is idle."""
    ways = [
        'text',
        'sql_function',
        'other_cursor',
        'temporary_by_function',
        'lock_shared',
        'prepare_by_function',
        'date_style',
    ]
    found = []
    with server(leaky, workers=1, expected=ANYTHING):
        for way in ways:
            before_id, jobs = enqueue_pairs(leaky, [(way, 'ok')])
            leaky.wait_for(jobs[-1][-1])
            found += leaks(leaky, before_id, jobs)
            with leaky.env() as env:
                look_id = (
                    env['ir.async'].call(env['test.async.effect'].with_user(other_user(env)).seen, tag_of(way, 'ok')).id
                )
            leaky.wait_for(look_id)
            found += leaks(leaky, before_id, [(way, 'ok', jobs[0][2], look_id)])
    assert not found, '\n'.join(found)


@pytest.mark.parametrize('kind', list(Server.CRONS))
def test_threads_without_workers(leaky, server, kind):
    """What a job leaves on the thread of a cron worker is gone, though a threaded server shares its process with requests."""
    with server(leaky, args=Server.CRONS[kind], workers=0, expected=ANYTHING) as odoo:
        odoo.wait_for_crons()
        before_id, jobs = enqueue_pairs(
            leaky, [(way, ending) for way in ('thread', 'thread_user') for ending in ('ok', 'fail')]
        )
        leaky.wait_for(jobs[-1][-1])
        found = leaks(leaky, before_id, jobs)
    assert not found, '\n'.join(found)


def test_children_can_be_terminated(database, server):
    """Programs that a job starts get the signals that they are sent."""
    with server(database, workers=1):
        job = database.wait_for(database.enqueue('terminate_child'))
    assert job.payload == {'result': -15}


def test_forked_children_can_be_terminated(database, server):
    """The same for processes that a job forks, such as those of a multiprocessing.Pool."""
    with server(database, workers=1):
        job = database.wait_for(database.enqueue('terminate_forked_child'))
    assert job.payload == {'result': -15}


def test_forked_children_do_not_go_on_with_the_job(database, server):
    """A child that leaves the method neither ends the job nor touches its transaction, and runs no other job."""
    codes = {'exit': 3, 'raise': 1, 'return': 0, 'hook': None}
    with server(database, workers=1, expected=ANYTHING):
        for way, code in codes.items():
            job = database.wait_for(database.enqueue('fork', way, way))
            assert (job.state, job.starts) == ('done' if code is None else 'succeeded', 1), way
            assert (job.payload or {}).get('result') == code, way
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
    assert len({run.pid for run in database.runs()}) == 1
    assert database.effects() == dict.fromkeys(
        ['exit', 'exit after', 'raise', 'raise after', 'return', 'return after', 'hook', 'next'], 1
    )


def test_forked_children_keep_no_session(database, server):
    """The session of a dead worker ends, with the locks of its job, although a child in another process group lives on."""
    with server(database, workers=1, expected=ANYTHING):
        job = database.wait_for(database.enqueue('fork_and_die', 'job'))
        [child] = database.runs('child')
        psutil.Process(child.pid).kill()
    assert (job.state, job.deaths) == ('done', 1)


@pytest.mark.parametrize('fails', [False, True], ids=['done', 'failed'])
@pytest.mark.parametrize('way', ['rollback', 'commit', 'close', 'context', 'low', 'new'])
def test_kept_cursor(database, server, way, fails):
    """A finalizer that an earlier job left does nothing to the running one."""
    with server(database, workers=1, expected=ANYTHING):
        keeping = database.enqueue('keep_cursor', 'keeping', way)
        assert database.wait_for(keeping).state == 'done'
        job = database.wait_for(database.enqueue('finalize_kept', 'job', fails))
        assert job.state == ('failed' if fails else 'done')
        assert database.wait_for(database.enqueue('effect', 'next')).state == 'done'
    assert len({run.pid for run in database.runs()}) == 1
    assert database.effects() == ({'next': 1} if fails else {'job': 1, 'next': 1})


@pytest.mark.parametrize('daemon', [False, True], ids=['joined', 'daemon'])
def test_left_thread(database, server, tmp_path, daemon):
    """A job that leaves threads is the last one of its process; one whose threads have ended is not."""
    with server(database, workers=1, expected=['left threads behind', 'is replaced']) as odoo:
        assert database.wait_for(database.enqueue('leave_thread', 'before', None, daemon)).state == 'done'
        with database.env() as env:
            effect, call = env['test.async.effect'], env['ir.async'].call
            leaving = call(effect.leave_thread, 'leaving', str(tmp_path / 'gate'), daemon)
            next_id = call(effect.effect, 'next').id
        assert database.wait_for(next_id).state == 'done'
        assert database.job(leaving.id).state == 'done'
        assert f'Job {leaving.id} (test.async.effect.leave_thread) left threads behind: left' in odoo.log
        [pid] = {run.pid for run in database.runs() if run.name in ('before', 'leaving')}
        [next_run] = database.runs('next')
        assert next_run.pid != pid
        wait_until(lambda: not psutil.pid_exists(pid), "the process of the thread has ended")
    assert database.effects() == {'next': 1}


@pytest.mark.parametrize('way', ['savepoint', 'rollback', 'fail', 'exit', 'commit'])
def test_fields(database, server, way):
    """The registry knows the fields that are committed, and no others."""
    with server(database, workers=1, expected=ANYTHING):
        assert database.wait_for(database.enqueue('read_all', 'before')).payload['result'] == []
        job = database.wait_for(database.enqueue('create_field', 'job', way))
        assert job.state == ('failed' if way in ('fail', 'exit') else 'done')
        job = database.wait_for(database.enqueue('read_all', 'next'))
        assert (job.payload or {}).get('result') == (['x_commit'] if way == 'commit' else []), job.payload
    assert len({run.pid for run in database.runs()}) == 1


WRITES = [
    'copy_expert',
    'copy_from',
    'executemany',
    'callproc',
    'cursor_of_psycopg',
    'other_cursor',
    'execute_values',
    'execute',
    'orm',
    'hidden',
]


def test_hooks_below_the_cursor(leaky, server):
    """What a hook writes after the commit is rolled back, as Odoo does; not committed with the next job."""
    variants = [(way, commits, fails) for way in WRITES for commits in (False, True) for fails in (False, True)]
    with server(leaky, workers=1, expected=ANYTHING):
        with leaky.env() as env:
            effect, call = env['test.async.effect'], env['ir.async'].call
            jobs = []
            for i, (way, commits, fails) in enumerate(variants):
                jobs.append(call(effect.write_in_hook, way, f'{i}', commits, fails).id)
                jobs.append(call(effect.effect, f'next {i}').id)
        leaky.wait_for_all()
        states = [leaky.job(job_id).state for job_id in jobs]
    ran = {run.name for run in leaky.runs()}
    assert ran >= {str(i) for i in range(len(variants))}, "the hooks ran"
    written = {f'{variants[int(name[5:])]}' for name in leaky.effects() if name.startswith('hook ')}
    assert not written, f"committed with the next job: {sorted(written)}"
    assert leaky.effects() == {
        **dict.fromkeys(map(str, range(len(variants))), 1),
        **{f'next {i}': 1 for i in range(len(variants))},
    }
    assert set(states) == {'done'}


def test_jobs_stay_in_their_database(make_database, server):
    """Jobs that were claimed together are not run in another database when the connections break."""
    one, other = make_database(), make_database()
    with server(one, other, workers=1, expected=ANYTHING):
        for database in (one, other):
            database.wait_for(database.enqueue('nothing'))
        for attempt in range(6):  # whether they are claimed together, and the process goes on, is a matter of chance
            one.enqueue_all('effect', [f'warm up {attempt} {i}' for i in range(100)])
            with one.env() as env:
                effect = env['test.async.effect']
                breaking = env['ir.async'].call(effect.break_connections, f'breaking {attempt}').id
                for i in range(30):
                    env['ir.async'].call_notify("A secret", effect.effect, f'one {attempt} {i}')
            [run] = one.wait_for_run(f'breaking {attempt}')[:1]
            with other.env() as env:
                effect, call = env['test.async.effect'], env['ir.async'].call
                for i in range(30):
                    call(effect.effect, f'other {attempt} {i}')
                call(effect.release_locks, f'released {attempt}')
            other.wait_for_all()
            one.wait_for_all()
            assert one.job(breaking).state == 'done'
            if one.runs(f'locked {attempt}') and other.runs(f'other {attempt} 0')[0].pid == run.pid:
                break
        wait_until(lambda: one.states()['processing'] == 0)
    strangers = {run.name for run in other.runs() if not run.name.startswith(('other', 'released'))}
    assert not strangers, "jobs of one database were run in the other one"
    assert not {run.name for run in one.runs() if run.name.startswith(('other', 'released'))}
    assert not other.value("SELECT count(*) FROM bus_bus WHERE message LIKE '%secret%'"), (
        "users of the other one were notified"
    )
    assert any(run.name.startswith('locked') for run in one.runs()), "jobs were claimed together"
    assert set(one.effects().values()) == {1}
    assert set(other.effects().values()) == {1}
