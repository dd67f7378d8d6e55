"""What is enqueued exists if and only if its transaction, and each savepoint around the call, is kept."""

import contextlib
import json

import pytest
from psycopg2.errors import SerializationFailure

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
    return [json.loads(args)[0] for (args,) in database.sql("SELECT args FROM ir_async ORDER BY id")]


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
    with pytest.raises(UserError, match="RESET ALL"), database.env() as env:
        with rolled_back(env):
            call(env, 'in')
        call(env, 'after')
        env.cr.execute("RESET ALL")
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
    # Beside Odoo's own.
    assert job in [signal for (signal,) in database.sql("SELECT xmin::text FROM orm_signaling_default")]


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


def test_a_look_after_a_flush_that_was_rolled_back(database):
    """What the look inserted again is there at the commit, and is not inserted once more."""
    with database.env() as env:
        job = call(env, 'before')
        with rolled_back(env):
            env.cr.flush()
        assert job.exists()
        assert job.state == 'created'
    assert names(database) == ['before']


def test_a_replacement_and_a_search_within_a_savepoint(database):
    with database.env() as env:
        call(env, 'old', key='K')
    with database.env() as env:
        call(env, 'new', key='K', on_duplicate='replace')
        with rolled_back(env):
            env['ir.async'].search([])
    assert names(database) == ['new']


def notified(database):
    messages = [json.loads(message) for (message,) in database.sql("SELECT message FROM bus_bus")]
    return [message['payload']['name'] for message in messages if message['type'] == 'ir.async']


def test_a_flush_within_a_savepoint_and_keys(database):
    """What a flush did for a call before the savepoint is done again: replacements, messages, the key itself."""
    with database.env() as env:
        call(env, 'old', key='K')
    with database.env() as env:
        call(env, 'new', key='K', on_duplicate='replace')
        call(env, 'named', notify="N")
        first = call(env, 'first', key='L')
        with rolled_back(env):
            env.cr.flush()
            call(env, 'in', key='K', on_duplicate='replace')
        assert call(env, 'second', key='L').id == first.id
    assert sorted(names(database)) == ['first', 'named', 'new']
    assert notified(database) == ["N"]


def test_a_flush_within_a_savepoint_and_a_job_that_begins(database):
    """A call that relies on a queued job does not commit when that has begun, whatever was rolled back meanwhile."""
    with database.env() as env:
        job_id = call(env, 'old', key='K', key_until='start').id
    with pytest.raises(SerializationFailure, match="same key"), database.env() as env:
        assert call(env, 'second', key='K', key_until='start').id == job_id
        with rolled_back(env):
            env.cr.flush()
        database.sql("UPDATE ir_async SET state = 'processing', claim_number = 1 WHERE id = %s", [job_id])


@pytest.mark.parametrize(
    'statements', [['COMMIT', 'BEGIN'], ['ROLLBACK', 'BEGIN'], None], ids=['commit', 'rollback', 'autocommit']
)
def test_another_transaction(database, statements):
    """What would be lost is an error."""
    with pytest.raises(UserError, match="COMMIT or ROLLBACK in SQL"), database.env() as env:
        if not statements:
            env.cr.rollback()
            env.cr._cnx.autocommit = True
        call(env, 'job')
        for statement in statements or []:
            env.cr.execute(statement)


def test_a_commit_below_the_cursor(database):
    """What was inserted before is there; the transaction that follows goes on."""
    with database.env() as env:
        call(env, 'before')
        env.cr.flush()
        env.cr._cnx.commit()
        call(env, 'after')
    assert names(database) == ['before', 'after']


def test_many_insertions(database):
    """Marks are few, however many flushes there are, and savepoints count for each of them."""
    with database.env() as env:
        for i in range(220):
            call(env, f'kept {i}', notify="N" if i == 7 else None)
            env.cr.flush()
        with rolled_back(env):
            for i in range(220):
                call(env, f'lost {i}')
                env.cr.flush()
        call(env, 'before')
        with rolled_back(env):
            for _i in range(220):
                call(env, 'lost')
                env.cr.flush()
        env.cr.execute("SELECT length(current_setting('ir_async.marks'))")
        assert env.cr.fetchone()[0] < 10_000
    assert sorted(names(database)) == sorted([*(f'kept {i}' for i in range(220)), 'before'])
    assert notified(database) == ["N"]


def test_nobody_is_notified_of_a_job_that_never_was(database):
    with database.env() as env, rolled_back(env):
        call(env, 'phantom', notify="Phantom").exists()
    with database.env() as env, rolled_back(env):
        call(env, 'phantom', notify="Phantom")
    with database.env() as env:
        call(env, 'real', notify="Real").exists()
    assert notified(database) == ["Real"]


def test_nobody_is_notified_of_a_change_that_never_was(database):
    """Neither of what was rolled back, nor too little: a flush within a savepoint is not the commit."""
    with database.env() as env:
        job_id = call(env, 'job', notify="N", delay=9999).id
    with database.env() as env:
        job = env['ir.async'].browse(job_id)
        job.cancel()
        with rolled_back(env):
            env.cr.flush()
            job.dismiss()
            job.retry()
    with database.env() as env, rolled_back(env):
        env['ir.async'].browse(job_id).retry()
    messages = [
        json.loads(message)['payload'] for (message,) in database.sql("SELECT message FROM bus_bus ORDER BY id")
    ]
    assert [(message['state'], message['revision']) for message in messages if message.get('id') == job_id] == [
        ('created', 1),
        ('cancelled', 2),
    ]


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
