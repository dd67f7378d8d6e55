"""Progress of a job, seen from outside while its transaction is open."""

import time

import pytest
from client import Client
from harness import wait_until
from pressure import seconds

pytestmark = pytest.mark.alone

THREADED = ('--workers=0', '--max-cron-threads=0')


def notify(database, method, *args):
    with database.env() as env:
        effect = env['test.async.effect'].with_user(env.ref('base.user_admin'))
        return env['ir.async'].call_notify("Work", getattr(effect, method), *args).id


def test_progress(database, server, measured):
    """It is told a few times a second, however often it is reported, and is there at once."""
    with server(database, args=THREADED, expected=['Job .* failed']) as odoo, Client(odoo, database) as client:
        for fail in (False, True):
            job_id = notify(database, 'report', f'job {fail}', 2, fail)
            job = wait_until(
                lambda job_id=job_id: database.sql(
                    "SELECT job.state, progress.done, (SELECT count(*) FROM test_async_effect) AS effects FROM ir_async job"
                    " JOIN ir_async_progress progress ON progress.job_id = job.id WHERE job.id = %s AND progress.done > 1000",
                    [job_id],
                )
            )[0]
            assert (job.state, job.effects) == ('processing', int(fail)), "its transaction is open"
            told = client.notifications(lambda told: told['state'] in ('succeeded', 'done', 'failed'))
            assert {told_['id'] for _time, told_ in told} == {job_id}
            *_others, (_time, last) = told
            assert last['state'] == ('failed' if fail else 'succeeded')
            progress = [(when, told_['progress']) for when, told_ in told if told_.get('progress')]
            [run] = database.wait_for_run(f'job {fail}')
            assert 4 <= len(progress) <= 15, "two seconds, in which 20,000 were reported"
            assert seconds(run.time, progress[0][0]) < 1, "at once"
            done = [report['done'] for _time, report in progress]
            assert done == sorted(done)
            assert all(report['total'] == 20_000 and report['message'] for _time, report in progress)
            revisions = [told_['revision'] for _time, told_ in told]
            assert revisions == sorted(revisions)
            # what was reported last is kept, even if the job was rolled back
            [kept] = database.sql("SELECT done, total, message FROM ir_async_progress WHERE job_id = %s", [job_id])
            assert kept == (20_000, 20_000, "all of it")
            [row] = client.call('ir.async', 'read', [job_id], ['progress', 'state'])
            assert row['progress'] == {'done': 20_000, 'total': 20_000, 'message': "all of it"}
            if not fail:
                reported = database.job(job_id).payload['result']
                assert reported >= 10_000
                measured(
                    f"progress: {reported} reported, {len(progress)} told, the first after "
                    f"{(progress[0][0] - run.time) * 1000:.0f} ms"
                )
        assert 'tries left' not in odoo.log, "it never conflicts with the job"
    assert database.effects() == {'job False': 1, f'failed {job_id}': 1}
    assert all(job.starts == 1 for job in map(database.job, (1, 2)))


def test_cancel_by_the_user(database, server):
    """The user cancels what runs, in the browser, and is told."""
    with server(database, args=THREADED) as odoo, Client(odoo, database) as client:
        job_id = notify(database, 'report', 'job', 600)
        client.notifications(lambda told: told.get('progress'))
        begin = time.time()
        client.rpc(
            '/web/dataset/call_button/ir.async/cancel', model='ir.async', method='cancel', args=[[job_id]], kwargs={}
        )
        told = client.notifications(lambda told: told['state'] == 'cancelled')
        assert seconds(begin, told[-1][0]) < 2
        assert database.job(job_id).state == 'cancelled'
    assert not database.effects()
