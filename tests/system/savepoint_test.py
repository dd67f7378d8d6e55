"""What is enqueued exists if and only if its transaction, and each savepoint around the call, is kept."""
import contextlib
import json

import pytest

from odoo.exceptions import UserError


@contextlib.contextmanager
def rolled_back(env, flush=False):
    """A block in a savepoint that is rolled back."""
    savepoint = env.cr.savepoint(flush=flush)
    try:
        yield
    finally:
        savepoint.close(rollback=True)


def call(env, name, notify=None, **options):
    jobs = env['ir.async'].with_options(**options)
    target = env['test.async.effect'].effect
    return jobs.call_notify(notify, target, name) if notify else jobs.call(target, name)


def names(database):
    return [json.loads(args)[0] for args, in database.sql("SELECT args FROM ir_async ORDER BY id")]


def test_a_savepoint_below_the_cursor(database):
    with database.env() as env:
        call(env, 'before')
        env.cr._obj.execute("SAVEPOINT own")
        call(env, 'in')
        env.cr._obj.execute("ROLLBACK TO own")
        call(env, 'after')
    assert sorted(names(database)) == ['after', 'before']


def test_a_reset_of_all_settings(database):
    """What would be lost is an error."""
    with pytest.raises(UserError, match="RESET ALL"), database.env() as env:
        call(env, 'before')
        env.cr.execute("RESET ALL")
    with pytest.raises(UserError, match="RESET ALL"), database.env() as env:
        call(env, 'before')
        env.cr.execute("RESET ALL")
        call(env, 'after')
    with database.env() as env, rolled_back(env):
        call(env, 'in')
    with database.env() as env:
        env.cr.execute("RESET ALL")
        call(env, 'job')
    assert names(database) == ['job']


def test_a_child_of_a_job_with_a_key(database):
    """A child waits for its parent, whichever row is inserted first."""
    with database.env() as env:
        parent = call(env, 'parent', key='K')
        child = call(env, 'child', after=parent)
        ids = parent.id, child.id
    assert [tuple(row) for row in database.sql("SELECT after_id, job_id FROM ir_async_after_rel WHERE unmet")] == [ids]


def test_a_child_of_a_job_that_was_rolled_back(database):
    """It would wait for nothing, and begin at once."""
    with database.env() as env:
        for flush in (False, True):
            with rolled_back(env):
                parent = call(env, 'parent')
                if flush:
                    parent.exists()
            with pytest.raises(UserError, match=r'rolled back.*test\.async\.effect\.effect'):
                call(env, 'child', after=parent)
        call(env, 'other')
    assert names(database) == ['other']


def test_a_child_of_a_job_that_is_inserted_again(database):
    with database.env() as env:
        parent = call(env, 'parent')
        with rolled_back(env):
            env.cr.flush()
        child = call(env, 'child', after=parent)
        ids = parent.id, child.id
    assert names(database) == ['parent', 'child']
    assert [tuple(row) for row in database.sql("SELECT after_id, job_id FROM ir_async_after_rel WHERE unmet")] == [ids]


def test_a_signal_after_a_savepoint(database):
    """What is cached is out of date for a job as soon as it can begin: both come with one commit."""
    with database.env() as env:
        call(env, 'job')
        with env.cr.savepoint():
            pass
        env.registry.clear_cache()
    [[job]] = database.sql("SELECT xmin::text FROM ir_async")
    [[signal]] = database.sql("SELECT xmin::text FROM orm_signaling_default ORDER BY id DESC LIMIT 1")
    assert job == signal


def test_a_key_of_a_call_that_was_rolled_back(database):
    with database.env() as env:
        with rolled_back(env):
            call(env, 'in', key='K')
        call(env, 'other')
        job_id = call(env, 'after', key='K').id
    assert sorted(names(database)) == ['after', 'other']
    assert json.loads(database.job(job_id).args) == ['after']


def test_a_flush_within_a_savepoint(database):
    """A flush is not the end: what it inserted goes with the savepoint, the call before does not."""
    with database.env() as env:
        call(env, 'before')
        with rolled_back(env):
            with env.cr.savepoint():
                call(env, 'in')
            call(env, 'in, later')
        call(env, 'after')
    assert sorted(names(database)) == ['after', 'before']


def test_a_flush_within_a_savepoint_alone(database):
    with database.env() as env:
        call(env, 'before')
        with rolled_back(env):
            env.cr.flush()
    with database.env() as env:
        call(env, 'of the next transaction')
    assert sorted(names(database)) == ['before', 'of the next transaction']


def test_a_replacement_and_a_search_within_a_savepoint(database):
    with database.env() as env:
        call(env, 'old', key='K')
    with database.env() as env:
        call(env, 'new', key='K', on_duplicate='replace')
        with rolled_back(env):
            env['ir.async'].search([])
    assert names(database) == ['new']


def test_nobody_is_notified_of_a_job_that_never_was(database):
    with database.env() as env, rolled_back(env):
        call(env, 'phantom', notify="Phantom").exists()
    with database.env() as env, rolled_back(env):
        call(env, 'phantom', notify="Phantom")
    with database.env() as env:
        call(env, 'real', notify="Real").exists()
    messages = [json.loads(message) for message, in database.sql("SELECT message FROM bus_bus")]
    assert [message['payload']['name'] for message in messages if message['type'] == 'ir.async'] == ["Real"]


def test_calls_with_statements_in_between(database):
    """Many calls, each after a statement: few insertions, and savepoints count for each of them."""
    with database.env() as env:
        for i in range(450):
            env.cr.execute("SELECT 1")
            call(env, f'kept {i}')
        with rolled_back(env):
            for i in range(250):
                env.cr.execute("SELECT 1")
                call(env, f'lost {i}')
        env.cr.execute("SELECT 1")
        call(env, 'last')
    assert sorted(names(database)) == sorted([*(f'kept {i}' for i in range(450)), 'last'])
