"""Channels: how many jobs of a kind run at once."""

import contextlib
import random
import threading
import time
from datetime import timezone
from itertools import pairwise

import pytest
from harness import DEATH, wait_until
from pressure import seconds

from odoo.service.model import retrying

pytestmark = pytest.mark.alone


@contextlib.contextmanager
def sampled(database, channel):
    """Count the running jobs of a channel all the time, as (time, count)."""
    samples, stop = [], threading.Event()

    def sample():
        with contextlib.closing(database.cluster.connect(database.name)) as connection, connection.cursor() as cr:
            while not stop.wait(0.002):
                before = time.time()
                cr.execute("SELECT count(*) FROM ir_async WHERE state = 'processing' AND channel = %s", [channel])
                samples.append((before, cr.fetchone()[0]))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def edit(database, name, **values):
    """Change a channel, as a request does; return when that began and when it was committed."""
    begin = time.time()
    with database.env() as env:

        def write():
            channel = env['ir.async.channel'].search([('name', '=', name)])
            channel.write(values) if channel else channel.create({'name': name, **values})

        retrying(write, env)
    return begin, time.time()


def epoch(date):
    """Return a date of the database as seconds since 1970."""
    return date.replace(tzinfo=timezone.utc).timestamp()


def done(database, channel):
    return database.value("SELECT count(*) FROM ir_async WHERE channel = %s AND state = 'done'", [channel])


def test_capacity(database, server, measured):
    """300 jobs of a channel, two servers of four workers each: never more than its capacity at once, which changes."""
    phases = []  # ((begin, end) of the change, capacity from then on)

    def change(capacity, **values):
        phases.append((edit(database, 'c', capacity=capacity, **values), 0 if values.get('paused') else capacity))

    change(3)
    with server(database, workers=4), server(database, workers=4), sampled(database, 'c') as samples:
        with database.env() as env:
            for i in range(300):
                env['ir.async'].with_options(channel='c').call(env['test.async.effect'].timed, f'job {i}', 0.06)
        wait_until(lambda: done(database, 'c') >= 90)
        # the channel is full: others go on
        other = [database.enqueue('effect', 'other', options={'priority': 20}) for _i in range(5)]
        waits = [database.wait_for(job_id) for job_id in other]
        assert max(seconds(epoch(job.create_date), epoch(job.date_done)) for job in waits) < 3
        change(1)
        wait_until(lambda: done(database, 'c') >= 120)
        change(5)
        wait_until(lambda: done(database, 'c') >= 180)
        change(5, paused=True)
        wait_until(lambda: not database.value("SELECT count(*) FROM ir_async WHERE state = 'processing'"))
        count = done(database, 'c')
        time.sleep(1.5)
        assert done(database, 'c') == count < 300
        change(3, paused=False)
        states = database.wait_for_all()
        end = time.time()
    assert states == {'done': 305}
    assert len([run for run in database.runs() if run.name.startswith('job') and 'end' not in run.name]) == 300

    ends = [*(change_begin for (change_begin, _end), _capacity in phases[1:]), end]
    idle = []
    for ((_begin, begin), capacity), until in zip(phases, ends):
        counts = [(when, count) for when, count in samples if begin <= when < until]
        # Never exceeded. What began before the change goes on.
        settled = next(i for i, (_when, count) in enumerate(counts) if count <= capacity)
        assert max(count for _when, count in counts[settled:]) <= capacity
        assert sorted(counts[:settled], key=lambda sample: -sample[1]) == counts[:settled], "none began meanwhile"
        # Never idle: for how long did less of them run than might?
        if capacity and (busy := [(when, count) for when, count in counts if begin + 0.5 < when < until - 0.2]):
            full = busy[0][0]
            for when, count in busy:
                if count >= capacity:
                    full = when
                idle.append(seconds(full, when))
            steps = [(seconds(when, following), count) for (when, count), (following, _count) in pairwise(busy)]
            slots = capacity * sum(length for length, _count in steps)
            used = sum(length * min(count, capacity) for length, count in steps)
            measured(f"capacity {capacity}: {used:.1f} of {slots:.1f} seconds in use, {len(busy)} samples")
            assert used > 0.7 * slots - 0.1, (capacity, used, slots)
    assert max(idle) < 0.5, "a slot stood empty"
    assert len(samples) > 1000


def test_one_at_a_time_per_record(database, server):
    """The channels partner/1, partner/2… have the limits of partner, each for itself."""
    edit(database, 'partner', capacity=1)
    with server(database, workers=4):
        with database.env() as env:
            for i in range(80):
                env['ir.async'].with_options(channel=f'partner/{i % 8}').call(
                    env['test.async.effect'].timed, f'job {i}', 0.02
                )
        assert database.wait_for_all() == {'done': 80}
    jobs = database.sql("SELECT channel, date_start, date_done FROM ir_async ORDER BY channel, date_start")
    for job, following in pairwise(jobs):
        assert job.channel != following.channel or job.date_done <= following.date_start
    by_start = sorted(jobs, key=lambda job: job.date_start)
    assert any(later.date_start < earlier.date_done for earlier, later in pairwise(by_start)), "side by side"


def test_interval(database, server):
    """Seconds between two starts, over all workers."""
    edit(database, 'slow', interval=0.3)
    with server(database, workers=2), server(database, workers=2):
        database.enqueue('effect', 'warm up')
        database.wait_for_run('warm up')
        with database.env() as env:
            for i in range(10):
                env['ir.async'].with_options(channel='slow').call(env['test.async.effect'].effect, f'job {i}')
        assert database.wait_for_all() == {'done': 11}
    starts = [
        start for [start] in database.sql("SELECT date_start FROM ir_async WHERE channel = 'slow' ORDER BY date_start")
    ]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(starts)]
    assert min(gaps) >= 0.3, gaps
    assert sorted(seconds(epoch(earlier), epoch(later)) for earlier, later in pairwise(starts))[4] < 0.5, gaps


def test_starts_in_an_interval(database, server):
    """Four starts in any second, over all workers, while jobs are tried again and workers are killed: no more, and no fewer."""
    edit(database, 'api', interval=1, starts_per_interval=4)
    database.sql("CREATE TABLE all_starts AS SELECT * FROM ir_async_start")
    database.sql("GRANT ALL ON all_starts TO public")
    # A claim forgets a start that has four newer ones. Any other is deleted when its job goes back before it has begun.
    database.sql("""
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF TG_OP = 'INSERT' THEN
                    INSERT INTO all_starts SELECT NEW.*;
                ELSIF (SELECT count(*) FROM ir_async_start WHERE date > OLD.date) < 4 THEN
                    DELETE FROM all_starts WHERE date = OLD.date;
                END IF;
                RETURN NULL;
            END
        $$
    """)
    database.sql("CREATE TRIGGER note AFTER INSERT OR DELETE ON ir_async_start FOR EACH ROW EXECUTE FUNCTION note()")
    expected = [DEATH, 'ERROR .* Job .*effect_then_kill.* failed']
    with server(database, workers=2, expected=expected) as odoo, server(database, workers=2, expected=expected):
        with database.env() as env:
            queue = env['ir.async'].with_options(channel='api')
            for i in range(10):
                queue.call(env['test.async.effect'].effect, f'job {i}')
            queue.call(env['test.async.effect'].postpone_first, 'again')
            queue.call(env['test.async.effect'].effect_then_kill, 'kill')
        wait_until(lambda: len(database.runs('kill')) >= 2)
        random.choice(wait_until(odoo.workers)).kill()
        states = database.wait_for_all()
    assert states == {'done': 11, 'failed': 1}
    starts = [epoch(start) for [start] in database.sql("SELECT date FROM all_starts ORDER BY date")]
    assert len(starts) >= 10 + 2 + 3
    assert min(later - earlier for earlier, later in zip(starts, starts[4:])) >= 1, starts
    assert sorted(seconds(earlier, later) for earlier, later in zip(starts, starts[4:8]))[0] < 1.5, "without delay"


def test_users_take_turns(database, server):
    """A long queue of one user does not hold up the few jobs of another."""
    edit(database, 'fair', fair=True)
    edit(database, '*', paused=True)
    with database.env() as env:
        other = env['res.users'].create({'name': 'Other', 'login': 'other'})
        for user, count in ((env.user, 200), (other, 10)):
            queue = env['ir.async'].with_user(user).with_options(channel='fair')
            for i in range(count):
                queue.call(env['test.async.effect'].with_user(user).sudo().effect, f'{user.id} {i}')
    with server(database, workers=2), server(database, workers=2):
        edit(database, '*', paused=False)
        assert database.wait_for_all() == {'done': 210}
    users = [user for [user] in database.sql("SELECT user_id FROM ir_async ORDER BY date_start")]
    # A worker gives a job back that it cannot begin soon, as on a busy machine. Then the turn of its user is over.
    given_back = database.value("SELECT sum(claim_number - 1) FROM ir_async")
    assert users[:20].count(other.id) >= 10 - given_back, users
    ids = [id_ for [id_] in database.sql("SELECT id FROM ir_async WHERE claim_number = 1 ORDER BY user_id, date_start")]
    assert ids == sorted(ids), "the order of each user's jobs"


def test_turns_past_locked_jobs(database, server):
    """The users take turns also while somebody has locked the job that comes first, and the first one of a user."""
    edit(database, 'fair', fair=True)
    with database.env() as env:
        other = env['res.users'].create({'name': 'Other', 'login': 'other'})
        queue = env['ir.async'].with_options(channel='fair')
        locked = [queue.with_options(priority=1).call(env['test.async.effect'].effect, 'urgent').id]
        for user, count in ((env.user, 20), (other, 4)):
            effect = env['test.async.effect'].with_user(user).sudo().effect
            ids = [queue.call(effect, f'{user.id} {i}').id for i in range(count)]
        locked.append(ids[0])
    with database.locked(*locked):
        with server(database, workers=1):
            wait_until(lambda: done(database, 'fair') == 23, "the others are done")
    starts = database.sql("SELECT user_id FROM ir_async WHERE state = 'done' ORDER BY date_start")
    assert [user for [user] in starts[:6]].count(other.id) == 3, starts


def test_pause_by_a_job(database, server):
    """A job has the others of its channel wait, whichever worker would run them; then all of them run."""
    edit(database, 'api', capacity=1)
    with server(database, workers=2), server(database, workers=2):
        with database.env() as env:
            queue, effect = env['ir.async'].with_options(channel='api'), env['test.async.effect']
            queue.call(effect.pause_first, 'slow down', 2)
            for i in range(5):
                queue.call(effect.effect, f'job {i}')
            env['ir.async'].with_options(channel='api/other').call(effect.effect, 'other')
        assert database.wait_for_all() == {'done': 7}
    first, _second = database.runs('slow down')
    [other] = database.runs('other')
    others = [run.time for run in database.runs() if run.name.startswith('job')]
    assert seconds(first.time, other.time) < 2 <= min(others) - first.time
    assert seconds(first.time + 2, max(others)) < 3


def test_pause_of_everything(database, server):
    edit(database, '*', paused=True)
    with server(database):
        job_ids = [database.enqueue('effect', f'job {i}') for i in range(5)]
        database.enqueue('effect', 'dated', options={'delay': 0.1})
        time.sleep(2)
        assert database.states() == {'created': 6}
        before, resumed = edit(database, '*', paused=False)
        for job_id in job_ids:
            assert database.wait_for(job_id).state == 'done'
        assert database.wait_for_all() == {'done': 6}
        assert seconds(resumed, max(run.time for run in database.runs())) < 3
    assert database.runs()[0].time > before


def test_limits_for_a_channel_that_is_being_worked_off(database, server):
    """A manager gives limits to a channel with thousands of jobs, that workers take all the time; then takes them back."""
    with server(database, workers=3), sampled(database, 'c') as samples:
        with database.env() as env:
            for i in range(3000):
                env['ir.async'].with_options(channel='c').call(env['test.async.effect'].timed, f'job {i}', 0.005)
        wait_until(lambda: done(database, 'c') >= 50)
        begin, limited = edit(database, 'c', capacity=1)
        time.sleep(1.5)
        before, after = edit(database, 'c', capacity=0)
        count = done(database, 'c')
        assert count < 2000, "the changes came in time to mean something"
        wait_until(lambda: done(database, 'c') > count + 500, "it goes on")
        with database.env() as env:
            env['ir.async.channel'].search([('name', '=', 'c')]).paused = True
    assert max(seconds(begin, limited), seconds(before, after)) < 1.5, "at the first try"
    counts = [(when, count) for when, count in samples if limited < when < before]
    settled = next(when for when, count in counts if count <= 1)
    assert seconds(limited, settled) < 0.7, "what was claimed before goes on"
    assert {count for when, count in counts if when > settled} == {0, 1}
    assert max(count for when, count in samples if when > after) > 1
