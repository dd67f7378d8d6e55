"""From ``call`` to the first line of the method."""
import contextlib
import statistics
import time

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
    measured(f"commit to first line of the method: p50 {percentile(50):.1f} ms, p95 {percentile(95):.1f} ms, "
             f"p99 {percentile(99):.1f} ms")


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


def test_notification_lost(cluster, database, server):
    with server(database) as odoo:
        cluster.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [odoo.listening()])
        job_id = database.enqueue('effect', 'nobody listens')
        assert database.wait_for(job_id).state == 'done'
        odoo.wait_until_ready()
        assert odoo.log.count("Cannot listen for jobs") == 2


def test_notification_not_sent(database, server, monkeypatch):
    with server(database, settings={'poll_interval': 2}):
        # not even by this process
        monkeypatch.setattr('odoo.addons.ir_async.engine.notifier.notifier.notify', lambda dbname: None)
        job_id = database.enqueue('effect', 'nobody is told')
        assert database.wait_for(job_id).state == 'done'
