"""Keys, between transactions."""

import contextlib
import threading

import pytest
from harness import wait_until

from odoo import SUPERUSER_ID, api
from odoo.exceptions import UserError
from odoo.modules.registry import Registry
from odoo.service.model import retrying


class Transaction:
    """A transaction in the hands of the test."""

    def __init__(self, database):
        self.cr = Registry(database.name).cursor()
        self.env = api.Environment(self.cr, SUPERUSER_ID, {})
        self.cr.execute("SELECT pg_backend_pid()")  # the snapshot is taken
        [self.pid] = self.cr.fetchone()

    def call(self, key, *args, **options):
        return (
            self.env['ir.async']
            .with_options(key=key, **options)
            .call(self.env['test.async.effect'].effect, *args or ('x',))
        )


@pytest.fixture
def begin(database):
    """A function that begins a transaction."""
    with contextlib.ExitStack() as stack:

        def begin():
            transaction = Transaction(database)
            stack.callback(transaction.cr.close)
            return transaction

        yield begin


def in_thread(function):
    """Run a function in a thread; return what waits for its result, or raises what it raised."""
    outcome = []

    def run():
        try:
            outcome.append((function(), None))
        except BaseException as exc:  # noqa: BLE001
            outcome.append((None, exc))

    thread = threading.Thread(target=run)
    thread.start()

    def result():
        thread.join(60)
        [(value, exc)] = outcome
        if exc:
            raise exc
        return value

    return result


def wait_until_blocked(database, transaction):
    wait_until(
        lambda: database.value("SELECT cardinality(pg_blocking_pids(%s)) > 0", [transaction.pid]),
        "it waits for the other one",
    )


def claimable(database, job_id):
    """Return whether a worker could claim the job now: it passes over locked rows."""
    return bool(
        database.sql(
            "SELECT id FROM ir_async WHERE id = %s AND state = 'created' FOR NO KEY UPDATE SKIP LOCKED", [job_id]
        )
    )


def test_callers_do_not_hold_up_a_job(database, begin):
    """However many transactions have called a key, its job can be begun."""
    job_id = database.enqueue('effect', 'x', options={'key': 'sync'})
    callers = [begin() for _i in range(3)]
    for caller in callers:
        assert caller.call('sync').id == job_id
        caller.cr.flush()
        assert claimable(database, job_id)
    for caller in callers:
        caller.cr.commit()
    assert database.value("SELECT count(*) FROM ir_async") == 1


def test_long_transaction_holds_up_nobody(database, begin):
    """A transaction that has called a key, and goes on for long, keeps nobody else from calling it."""
    slow, quick = begin(), begin()
    slow.call('sync', 'slow')
    quick_id = quick.call('sync', 'quick').id
    quick.cr.commit()
    with pytest.raises(Exception, match="key meanwhile: sync") as caught:
        slow.cr.commit()
    assert caught.value.pgcode == '40001'
    slow.cr.rollback()
    assert slow.call('sync', 'slow').id == quick_id


def test_lost_race_is_run_again(database, begin, caplog):
    """`retrying`, as around requests, has the loser find the winner's job; the log says nothing of bad queries."""
    winner, loser = begin(), begin()
    tries = []

    def request():
        tries.append(1)
        return loser.call('sync').id

    winner_id = winner.call('sync').id
    winner.cr.flush()
    result = in_thread(lambda: retrying(request, loser.env))
    wait_until_blocked(database, loser)
    winner.cr.commit()
    assert result() == winner_id
    assert len(tries) == 2
    assert 'bad query' not in caplog.text
    assert database.value("SELECT count(*) FROM ir_async") == 1


def test_whoever_waits_too_long_is_told(database, begin):
    """The error names the key, and its transaction can go on without."""
    holder, waiting = begin(), begin()
    holder.call('b')
    holder.cr.flush()
    waiting.call(None)
    waiting.call('a')
    waiting.call('b')
    waiting.call('c')
    with pytest.raises(UserError, match='key "b"'):
        waiting.cr.flush()
    with pytest.raises(UserError, match='key "b"'):
        waiting.cr.commit()
    waiting.cr.rollback()
    holder.cr.commit()
    waiting.call('c')
    waiting.cr.commit()
    assert {row.key for row in database.sql("SELECT key FROM ir_async")} == {'b', 'c'}


def test_lock_timeout_is_as_before(database, begin):
    transaction = begin()
    transaction.cr.execute("SET LOCAL lock_timeout = '7s'")
    transaction.call('a')
    transaction.cr.flush()
    transaction.cr.execute("SHOW lock_timeout")
    assert transaction.cr.fetchone() == ('7s',)


def test_opposite_orders(cluster, database, begin):
    """Transactions that call the same keys in opposite orders do not wait for each other in a circle."""
    holder = begin()
    holder.call('b')
    holder.env.cr.flush()  # whoever calls this key waits for the end of this transaction
    deadlocks = cluster.log.read_text().count('deadlock detected')

    def run(transaction, keys):
        return retrying(lambda: {key: transaction.call(key).id for key in keys}, transaction.env)

    results = [in_thread(lambda keys=keys, transaction=begin(): run(transaction, keys)) for keys in ('abc', 'cba')]
    wait_until(
        lambda: (
            database.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            == 2
        ),
        "both wait for a key",
    )
    holder.cr.rollback()
    first, second = (result() for result in results)
    assert first == second
    assert database.value("SELECT count(*) FROM ir_async") == 3
    assert cluster.log.read_text().count('deadlock detected') == deadlocks


def test_until_start_sees_what_was_written(database, begin):
    """A job that begins while a transaction that relies on it is still open, is followed by a second one."""
    job_id = database.enqueue('effect', 'x', options={'key': 'sync', 'key_until': 'start'})
    caller = begin()
    tries = []

    def request():
        tries.append(1)
        found_id = caller.call('sync', key_until='start').id
        if len(tries) == 1:
            assert found_id == job_id
            assert claimable(database, job_id)
            database.sql("UPDATE ir_async SET state = 'processing', claim_number = 1 WHERE id = %s", [job_id])
        return found_id

    second_id = retrying(request, caller.env)
    assert second_id != job_id
    assert len(tries) == 2
    assert database.value("SELECT state FROM ir_async WHERE id = %s", [second_id]) == 'created'


def test_until_start_is_not_begun_before_the_commit(database, begin):
    job_id = database.enqueue('effect', 'x', options={'key': 'sync', 'key_until': 'start'})
    caller = begin()
    assert caller.call('sync', key_until='start').id == job_id
    caller.cr.flush()  # as a commit does at first
    assert not claimable(database, job_id)
    caller.cr.commit()
    assert claimable(database, job_id)


def test_until_start_of_a_waiting_job(database, begin):
    """It sees what the caller has written, like a queued one."""
    parent_id = database.enqueue('effect', 'parent')
    with database.env() as env:
        queue = env['ir.async'].with_options(key='sync', key_until='start', after=env['ir.async'].browse(parent_id))
        job_id = queue.call(env['test.async.effect'].effect, 'x').id
    caller = begin()
    assert caller.call('sync', key_until='start').id == job_id
    caller.cr.flush()
    database.sql("UPDATE ir_async SET state = 'done' WHERE id = %s", [parent_id])
    from odoo.addons.ir_async.engine.session import Session  # noqa: PLC0415 -- importable once the cluster is there

    with contextlib.closing(Session.open(database.name, always=True).session) as session:
        session.maintain()
        assert database.job(job_id).state == 'waiting'
        caller.cr.commit()

        def is_queued():
            session.wake()
            session.maintain()
            return database.job(job_id).state == 'created'

        wait_until(is_queued, "it is queued")


@pytest.mark.parametrize(
    'options', [{}, {'key_until': 'start'}, {'on_duplicate': 'replace'}], ids=['plain', 'start', 'replace']
)
@pytest.mark.parametrize('is_waiting', [False, True])
@pytest.mark.parametrize('state', ['done', 'failed', 'cancelled', 'gone'])
def test_job_that_ended_since_the_snapshot(database, begin, options, is_waiting, state):
    """It will not do what the call asks for: there is a second one."""
    after = {'after': [database.enqueue('effect', 'parent')]} if is_waiting else {}
    with database.env() as env:
        if after:
            after['after'] = env['ir.async'].browse(after['after'])
        queue = env['ir.async'].with_options(key='sync', **options, **after)
        job_id = queue.call(env['test.async.effect'].effect, 'x').id
    caller = begin()
    if state == 'gone':
        database.sql("DELETE FROM ir_async WHERE id = %s", [job_id])
    else:
        database.sql("UPDATE ir_async SET state = %s, claim_number = 1 WHERE id = %s", [state, job_id])
    second_id = caller.call('sync', 'second', **options).id
    assert second_id != job_id
    caller.cr.commit()
    assert database.job(second_id).state == 'created'


def test_job_that_began_since_the_snapshot(database, begin):
    """It still has the key until its end. A call that depends on what the job sees is run again."""
    job_id = database.enqueue('effect', 'x', options={'key': 'sync'})
    callers = [begin() for _i in range(3)]
    database.sql("UPDATE ir_async SET state = 'processing', claim_number = 1 WHERE id = %s", [job_id])
    assert callers[0].call('sync').id == job_id
    callers[0].cr.commit()
    for caller, options in zip(callers[1:], ({'key_until': 'start'}, {'on_duplicate': 'replace'}), strict=True):
        with pytest.raises(Exception, match="key meanwhile: sync") as caught:
            caller.call('sync', **options)
        assert caught.value.pgcode == '40001'
    assert database.value("SELECT count(*) FROM ir_async") == 1


def test_until_start_and_a_change_of_ones_own(database, begin):
    """What the transaction has changed itself cannot begin before its commit."""
    options = {'key': 'sync', 'key_until': 'start'}
    for change, state, is_first in (
        (lambda job: job.cancel(), 'cancelled', False),
        (lambda job: job.cancel() and job.retry(), 'created', True),
    ):
        job_id = database.enqueue('effect', 'x', options=options)
        caller = begin()
        job = caller.call('sync', key_until='start')
        assert job.id == job_id
        change(job)
        assert (caller.call('sync', key_until='start') == job) == is_first
        caller.cr.commit()
        assert database.job(job_id).state == state
        database.sql("UPDATE ir_async SET state = 'done'")


def test_until_start_and_a_change_that_was_rolled_back(database, begin):
    options = {'key': 'sync', 'key_until': 'start'}
    job_id = database.enqueue('effect', 'x', options=options)
    caller = begin()
    job = caller.call('sync', key_until='start')
    savepoint = caller.cr.savepoint(flush=False)
    job.cancel()
    savepoint.close(rollback=True)
    caller.cr.flush()
    assert not claimable(database, job_id)
    caller.cr.commit()
    assert claimable(database, job_id)


def test_until_start_goes_back_into_the_queue(database, begin):
    """A job that had begun goes back beside the one that took its key."""
    options = {'key': 'sync', 'key_until': 'start'}
    first_id = database.enqueue('effect', 'first', options=options)
    database.sql("UPDATE ir_async SET state = 'processing', claim_number = 1 WHERE id = %s", [first_id])
    second_id = database.enqueue('effect', 'second', options=options)
    database.sql("UPDATE ir_async SET state = 'created' WHERE id = %s", [first_id])
    assert database.enqueue('effect', 'third', options=options) == second_id


def test_replace_loses_against_the_claim(database, begin):
    """A job that begins is not given other arguments any more."""
    job_id = database.enqueue('effect', 'old', options={'key': 'sync'})
    caller = begin()
    tries = []

    def request():
        tries.append(1)
        found = caller.call('sync', 'new', on_duplicate='replace').id
        if len(tries) == 1:
            database.sql("UPDATE ir_async SET state = 'processing', claim_number = 1 WHERE id = %s", [job_id])
        return found

    assert retrying(request, caller.env) == job_id
    assert len(tries) == 2
    assert database.job(job_id).args == '["old"]'


def test_replaced_by_two(database, begin):
    """The last one to commit has the last word, and a third one is told after a while."""
    job_id = database.enqueue('effect', 'old', options={'key': 'sync'})
    first, second, third = begin(), begin(), begin()
    first.call('sync', 'first', on_duplicate='replace')
    first.cr.flush()
    third.call('sync', 'third', on_duplicate='replace')
    with pytest.raises(UserError, match='key "sync"'):
        third.cr.flush()
    result = in_thread(lambda: retrying(lambda: second.call('sync', 'second', on_duplicate='replace').id, second.env))
    wait_until_blocked(database, second)
    first.cr.commit()
    assert result() == job_id
    assert database.job(job_id).args == '["second"]'
    assert database.job(job_id).revision == 3


def test_retry_against_another_transaction(database, begin):
    """A job is enqueued while another one of its key is retried."""
    job_id = database.enqueue('effect', 'x', options={'key': 'sync'})
    database.sql("UPDATE ir_async SET state = 'failed' WHERE id = %s", [job_id])
    caller, manager = begin(), begin()
    other_id = caller.call('sync').id
    caller.cr.flush()
    job = manager.env['ir.async'].browse(job_id)
    with pytest.raises(UserError, match='sync'):
        job.retry()
    manager.cr.rollback()
    result = in_thread(lambda: retrying(job.retry, manager.env))
    wait_until_blocked(database, manager)
    caller.cr.commit()
    with pytest.raises(UserError, match=f'job {other_id}'):
        result()


def create_scheduled_action(database, code):
    """Return the ids of a scheduled action and of its server action."""
    with database.env() as env:
        cron = env['ir.cron'].create(
            {
                'name': "Sync",
                'model_id': env['ir.model']._get_id('test.async.effect'),
                'state': 'code',
                'interval_type': 'days',
                'code': code,
            }
        )
        return cron.id, cron.ir_actions_server_id.id


def test_scheduled_actions(database, begin, caplog):
    """Two that call the same key: the one that loses the race is run again, and does not fail."""
    cron_id, action_id = create_scheduled_action(
        database, "env['ir.async'].with_options(key='sync').call(model.nothing)"
    )
    caplog.clear()
    winner, loser = begin(), begin()
    winner_id = winner.call('sync').id
    winner.cr.flush()
    result = in_thread(lambda: loser.env['ir.cron'].browse(cron_id)._callback("Sync", action_id))
    wait_until_blocked(database, loser)
    winner.cr.commit()
    result()
    assert [row.id for row in database.sql("SELECT id FROM ir_async")] == [winner_id]
    assert not [record for record in caplog.records if record.levelname in ('WARNING', 'ERROR')]


def test_scheduled_action_that_committed(database, begin):
    """What it did is not done twice."""
    cron_id, action_id = create_scheduled_action(
        database,
        "model.create({'name': 'once'})\nenv.cr.commit()\nenv['ir.async'].with_options(key='sync').call(model.nothing)",
    )
    winner, loser = begin(), begin()
    winner.call('sync')
    winner.cr.flush()
    result = in_thread(lambda: loser.env['ir.cron'].browse(cron_id)._callback("Sync", action_id))
    wait_until_blocked(database, loser)
    winner.cr.commit()
    with pytest.raises(Exception, match="key meanwhile"):
        result()
    assert database.effects() == {'once': 1}


def test_ids_between_transactions(database):
    """Each transaction takes as many ids as it has jobs."""

    def last():
        return database.value("SELECT last_value FROM ir_async_id_seq")

    database.enqueue('effect', 'x', options={'key': 'sync'})
    first = last()
    for _i in range(10):
        database.enqueue_all('effect', 'abcdef')
        database.enqueue('effect', 'x', options={'key': 'sync'})
    assert last() == first + 60
