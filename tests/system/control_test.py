"""Dates, keys and priorities; see also channel_test.py, after_test.py, stop_job_test.py and progress_test.py."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from itertools import pairwise

import pytest
import requests
from harness import wait_until
from pressure import seconds

pytestmark = pytest.mark.alone

HTTP = ('--workers=0', '--max-cron-threads=0')


def utc(timestamp):
    return datetime.fromtimestamp(timestamp, timezone.utc).replace(tzinfo=None)


def test_dates(cluster, database, server, measured):
    """Workers start a dated job on time, and do not ask for it in between: they sleep until then."""

    def statements(begin, end):
        """Return what servers had PostgreSQL do in that time."""
        found = []
        for line in cluster.log.read_text().splitlines():
            if match := re.match(
                r'(\S+ \S+) UTC \[\d+\] db=(\S+) app=(\S*) LOG:  (?:statement|execute .*?):(.*)', line
            ):
                stamp, db, app, query = match.groups()
                now = datetime.fromisoformat(stamp).replace(tzinfo=timezone.utc).timestamp()
                if db in (database.name, 'postgres') and app.startswith('odoo-') and begin < now < end:
                    found.append(query)
        return found

    def lateness():
        at = time.time() + 12
        database.enqueue('effect', 'dated', options={'at': utc(at)})
        time.sleep(0.5)
        # one that is enqueued later, but whose date is earlier, wakes them
        earlier = time.time() + 0.5
        database.enqueue('effect', 'earlier', options={'delay': earlier - time.time()})
        [run] = database.wait_for_run('earlier')
        assert run.time > earlier - 0.01
        early_lateness = seconds(earlier, run.time)
        database.leave()
        [run] = database.wait_for_run('dated')
        assert run.time > at - 0.01, "not before its date"
        # the job that came earlier is over, and everybody asleep
        polls = statements(at - 1.5, at - 0.2)
        assert not polls, polls
        assert statements(at - 0.2, run.time + 1), "the log has what they do"
        return max(seconds(at, run.time), early_lateness)

    for name in (database.name, 'postgres'):
        cluster.sql(f"ALTER DATABASE {name} SET log_statement = 'all'")
    try:
        with server(database):
            assert database.wait_for(database.enqueue('effect', 'warm up')).state == 'done'
            worst = lateness()
    finally:
        cluster.sql("ALTER DATABASE postgres RESET log_statement")
    measured(f"dated jobs start {worst * 1000:.0f} ms after their date")
    assert worst < 0.1


def test_many_dates(database, server):
    """Each of many dates is met, by whoever is free."""
    with server(database):
        with database.env() as env:
            start = time.time() + 3
            dates = {f'job {i}': start + (i * 37 % 100) / 50 for i in range(100)}
            for name, date in dates.items():
                env['ir.async'].with_options(at=utc(date)).call(env['test.async.effect'].effect, name)
        assert database.wait_for_all() == {'done': 100}
    runs = database.runs()
    assert min(run.time - dates[run.name] for run in runs) > -0.01
    late = [seconds(dates[run.name], run.time) for run in runs]
    assert sorted(late)[50] < 0.1, "half of them at least"
    assert max(late) < 2


def test_date_of_a_busy_server(database, server):
    """A dated, urgent job does not wait for the backlog to end."""
    with server(database, workers=2):
        database.enqueue_all('effect', [f'backlog {i}' for i in range(1500)], seconds=0.01)
        at = time.time() + 2
        job_id = database.enqueue('effect', 'urgent', options={'at': utc(at), 'priority': 0})
        job = database.wait_for(job_id)
        left = database.states()['created']
        [run] = database.runs('urgent')
        with database.env() as env:
            env['ir.async.channel'].create({'name': '*', 'paused': True})
    assert job.state == 'done'
    assert left > 100, "there was a backlog all the time"
    assert run.time >= at
    assert seconds(at, run.time) < 2


def test_key(database, server, measured):
    """Whoever calls at the same time gets the same job: neither an error, nor a second one."""
    gate = database.cluster.folder / 'gate'
    # A serialization failure, that Odoo logs in spite of answering it with another try.
    with server(database, args=HTTP, expected=['bad query', 'could not serialize']) as odoo:
        url = f'http://127.0.0.1:{odoo.port}'
        session = requests.Session()
        session.post(
            f'{url}/web/session/authenticate',
            json={'params': {'db': database.name, 'login': 'admin', 'password': 'admin'}},
            timeout=60,
        ).raise_for_status()

        def request(i):
            answer = requests.post(
                f'{url}/web/dataset/call_kw/test.async.effect/enqueue_keyed',
                timeout=60,
                cookies={'session_id': session.cookies['session_id']},
                json={
                    'params': {
                        'model': 'test.async.effect',
                        'method': 'enqueue_keyed',
                        'args': ['the key', str(gate)],
                        'kwargs': {},
                    }
                },
            ).json()
            assert 'error' not in answer, answer['error']['data']['debug']
            return answer['result']

        start = time.monotonic()
        with ThreadPoolExecutor(50) as executor:
            ids = set(executor.map(request, range(50)))
        duration = time.monotonic() - start
        [job] = database.sql("SELECT id, state FROM ir_async WHERE key IS NOT NULL")
        assert ids == {job.id}
        conflicts = odoo.log.count('could not serialize')
        gate.touch()
        assert database.wait_for(job.id).state == 'done'
        # now that it ended, the next call enqueues another one
        other = request(0)
        assert other != job.id
        assert database.wait_for(other).state == 'done'
    assert database.effects() == {'the key': 2}
    assert len(database.runs('the key')) == 2
    measured(f"50 requests for one key: {duration:.1f} s, {conflicts} log lines about serialization")


def test_urgent(database, server, measured):
    """20,000 jobs do not delay one that is urgent."""

    def delay(attempt):
        database.enqueue('effect', f'urgent {attempt}', options={'priority': 0})
        committed = time.time()
        [run] = database.wait_for_run(f'urgent {attempt}')
        overtaken = sum(committed < other.time < run.time for other in database.runs())
        assert overtaken < 400, "jobs that were claimed before it"
        return seconds(committed, run.time)

    with server(database, workers=2):
        database.enqueue_all('effect', [f'backlog {i}' for i in range(20_000)])
        wait_until(database.runs, "the backlog begins")
        delays = [delay(attempt) for attempt in range(5)]
        assert database.states()['created'] > 5000, "there was a backlog all the time"
    measured(f"urgent jobs behind 20,000: {', '.join(f'{delay * 1000:.0f}' for delay in delays)} ms")
    assert sorted(delays)[2] < 0.5


def test_retries(database, server, tmp_path):
    """Attempts, their delays, and `RetryJob`, by the clock."""
    with server(database, expected=['failed after', 'Job .* failed']):
        flaky = database.enqueue('fail_first', 'flaky', 3, options={'max_attempts': 4, 'retry_delay': [0.2, 0.4, 0.8]})
        dead = database.enqueue(
            'fail_unless', 'dead', str(tmp_path / 'gate'), options={'max_attempts': 2, 'retry_delay': 0}
        )
        postponed = database.enqueue('postpone_first', 'postponed')
        states = [
            (database.wait_for(job_id).state, database.job(job_id).attempts) for job_id in (flaky, dead, postponed)
        ]
        assert states == [('done', 4), ('failed', 2), ('done', 1)]
        times = [run.time for run in database.runs('flaky')]
        delays = [later - earlier for earlier, later in pairwise(times)]
        assert all(delay >= least for delay, least in zip(delays, (0.2, 0.4, 0.8))), delays
        assert database.effects() == {'flaky': 1, 'postponed': 1, f'failed {dead}': 1}
        # failed, so it may be tried again
        (tmp_path / 'gate').touch()
        with database.env() as env:
            env['ir.async'].browse(dead).retry()
        assert database.wait_for(dead).state == 'done'
    assert database.effects()['dead'] == 1


def test_channels_of_a_worker(database, server):
    """A server may serve some channels alone."""
    with database.env() as env:
        for channel in ('a', 'a/1', 'b', 'default'):
            for i in range(5):
                env['ir.async'].with_options(channel=channel).call(env['test.async.effect'].effect, f'{channel} {i}')
    with server(database, settings={'channels': 'a, c'}) as first:
        wait_until(lambda: database.states() == {'done': 10, 'created': 10}, "the channels a and a/1 are done")
        database.enqueue('effect', 'a later', options={'channel': 'a/2'})
        database.wait_for_run('a later')
        assert database.states() == {'done': 11, 'created': 10}
        with server(database, settings={'channels': 'b,default'}) as second:
            assert database.wait_for_all() == {'done': 21}
            pids = {server_: {worker.pid for worker in server_.workers()} for server_ in (first, second)}
        for run in database.runs():
            assert run.pid in pids[first if run.name[:2] in ('a ', 'a/') else second]
