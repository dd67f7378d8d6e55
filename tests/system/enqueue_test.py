"""From ``call`` to the first line of the method."""

import contextlib
import statistics
import time

import pytest
from harness import wait_until


def test_latency(database, server, measured):
    def percentile(percent):
        return statistics.quantiles(latencies, n=100)[percent - 1] * 1000

    committed = {}
    with server(database):
        for name in [f'warm up {i}' for i in range(4)] + [f'job {i}' for i in range(50)]:
            with database.env() as env:
                env.cr.postcommit.add(lambda name=name: committed.update({name: time.time()}))  # before ours
                env['ir.async'].call(env['test.async.effect'].effect, name)
            wait_until(lambda name=name: database.runs(name), name)
        states = database.wait_for_all()
        latencies = [run.time - committed[run.name] for run in database.runs() if run.name.startswith('job')]
    assert states == {'done': 54}
    assert len(latencies) == 50
    measured(
        f"commit to first line of the method: p50 {percentile(50):.1f} ms, p95 {percentile(95):.1f} ms, "
        f"p99 {percentile(99):.1f} ms"
    )


def test_one_notification(cluster, database):
    """However many jobs a transaction enqueues, it notifies once, and not at all if it is rolled back."""
    with contextlib.closing(cluster.connect()) as listener:
        listener.cursor().execute("LISTEN odoo_async")
        database.enqueue_all('effect', [f'job {i}' for i in range(1000)])
        with contextlib.suppress(ZeroDivisionError), database.env() as env:
            env['ir.async'].call(env['test.async.effect'].effect, 'rolled back')
            env.cr.flush()
            raise ZeroDivisionError
        with database.env() as env:
            with contextlib.suppress(ZeroDivisionError), env.cr.savepoint():
                env['ir.async'].call(env['test.async.effect'].effect, 'rolled back')
                raise ZeroDivisionError
        cluster.sql("SELECT pg_notify('odoo_async', 'the end')")

        def payloads():
            listener.poll()
            return [notification.payload for notification in listener.notifies]

        wait_until(lambda: 'the end' in payloads(), "the last notification arrives")
        assert payloads() == [database.name, 'the end']
    assert database.states() == {'created': 1000}


def test_order_of_one_transaction(database, server):
    """Jobs run in the order of their calls."""
    names = [f'{number}{name}' for number in range(6) for name in 'ab']
    with database.env() as env:
        for name in names:
            if name.endswith('a'):
                env['res.partner'].create({'name': name})
            env['ir.async'].call(env['test.async.effect'].effect, name)
    with server(database, workers=1):
        database.wait_for_all()
    assert [run.name for run in database.runs()] == names


def test_call_after_a_rollback(database):
    """A call in a hook after the rollback belongs to the next transaction."""
    for rounds in range(2):
        with database.env() as env:
            if rounds:
                env['ir.async'].call(env['test.async.effect'].effect, 'rolled back')
            env.cr.postrollback.add(lambda env=env: env['ir.async'].call(env['test.async.effect'].effect, 'x'))
            env.cr.rollback()
        assert database.states() == {'created': rounds + 1}


def test_one_trigger_of_the_crons(database):
    """Without workers, however many savepoints there are."""
    database.sql("DELETE FROM ir_cron_trigger")
    with database.env() as env:
        for _i in range(5):
            with env.cr.savepoint():
                env['ir.async'].call(env['test.async.effect'].effect, 'x')
        with contextlib.suppress(ZeroDivisionError), env.cr.savepoint():
            env['ir.async'].call(env['test.async.effect'].effect, 'x')
            env.cr.flush()
            raise ZeroDivisionError
    assert database.value("SELECT count(*) FROM ir_cron_trigger") == 1
    with database.env() as env:
        with contextlib.suppress(ZeroDivisionError), env.cr.savepoint():
            env['ir.async'].call(env['test.async.effect'].effect, 'x')
            env.cr.flush()
            raise ZeroDivisionError
        env['ir.async'].call(env['test.async.effect'].effect, 'x')
    assert database.value("SELECT count(*) FROM ir_cron_trigger") == 2, "one that was rolled back does not count"


def test_notification_lost(cluster, database, server, monkeypatch):
    """Whoever listens again looks at all databases, long before the next look without a NOTIFY."""
    with server(database, settings={'poll_interval': 3600}) as odoo:
        with monkeypatch.context() as patch:
            patch.setattr('odoo.addons.ir_async.engine.notifier.notifier.notify', lambda dbname: None)
            job_id = database.enqueue('effect', 'nobody is notified')
        cluster.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [odoo.listening()])
        assert database.wait_for(job_id).state == 'done'
        odoo.wait_until_ready()
        assert odoo.log.count("Cannot listen for jobs") == 2


def test_notification_not_sent(database, server, monkeypatch):
    with server(database, settings={'poll_interval': 2}):
        # not even by this process
        monkeypatch.setattr('odoo.addons.ir_async.engine.notifier.notifier.notify', lambda dbname: None)
        job_id = database.enqueue('effect', 'nobody is told')
        assert database.wait_for(job_id).state == 'done'


def signals(database, env, table='orm_signaling_stable'):
    """Return how many signals there are: for everybody, and in a transaction."""
    env.cr.execute(f"SELECT count(*) FROM {table}")
    return database.value(f"SELECT count(*) FROM {table}"), env.cr.fetchone()[0]


def test_signal_in_the_same_transaction(database):
    """Whoever can see a job can see that caches are to be cleared."""
    with database.env() as env:
        set_param = env['ir.config_parameter'].set_param
        for name, enqueue in {
            'before': lambda: env['ir.async'].call(env['test.async.effect'].nothing),
            'keyed': lambda: env['ir.async'].with_options(key='k').call(env['test.async.effect'].nothing),
            'found': lambda: env['ir.async'].with_options(key='k').call(env['test.async.effect'].nothing),
            'retried': lambda: env['ir.async'].search([], limit=1).retry(),
        }.items():
            for is_late in (False, True):
                if name == 'retried':
                    env['ir.async'].search([], limit=1).cancel()
                env.cr.commit()
                env.registry.signal_changes()
                before = signals(database, env)
                if not is_late:
                    set_param('key', f'{name} {is_late}')
                enqueue()
                if is_late:
                    env.cr.precommit.add(lambda name=name, set_param=set_param: set_param('key', f'{name} in a hook'))
                env.cr.flush()
                assert signals(database, env) == (before[0], before[1] + 1), (name, is_late)
                env.cr.commit()
                env.registry.signal_changes()
                assert signals(database, env)[0] == before[0] + 2, "one with the jobs, one of Odoo's after the commit"
                # This process knows both.
                assert env.registry.check_signaling() is env.registry
                assert env.registry.cache_sequences['stable'] == database.value(
                    "SELECT max(id) FROM orm_signaling_stable"
                )


def test_no_signal_without_need(database):
    with database.env() as env:
        env.cr.commit()
        env.registry.signal_changes()
        before = signals(database, env)
        env['ir.async'].call(env['test.async.effect'].nothing)
        env.cr.commit()
        assert signals(database, env) == before


def test_signal_of_the_registry(database):
    """So it is while modules are being installed: their jobs need them."""
    with database.env() as env:
        registry = env.registry
        env.cr.commit()
        registry.signal_changes()
        before = signals(database, env, 'orm_signaling_registry')
        registry.ready = False
        try:
            env['ir.async'].call(env['test.async.effect'].nothing)
            env.cr.commit()
        finally:
            registry.ready = True
        assert signals(database, env, 'orm_signaling_registry') == (before[0] + 1, before[1] + 1)
        assert registry.check_signaling() is registry


def test_records_of_another_database(make_database):
    """Their ids would mean other records here."""
    database, other = make_database(), make_database()
    with database.env() as env, other.env() as other_env:
        target = env['test.async.effect'].nothing
        job = other_env['ir.async'].call(other_env['test.async.effect'].nothing)
        partner = other_env['res.partner'].browse(1)
        with pytest.raises(TypeError, match=r"args\[0\]\['of'\]\[0\] cannot be stored: .* of another database"):
            env['ir.async'].call(env['test.async.effect'].effect, {'of': [partner]})
        with pytest.raises(TypeError, match="option after takes jobs of the database of the target"):
            env['ir.async'].with_options(after=job).call(target)
        job_id = env['ir.async'].call(target.__self__.with_context(kept=1, partner=partner).nothing).id
    assert [tuple(row) for row in database.sql("SELECT id, context FROM ir_async")] == [(job_id, '{"kept":1}')]
