"""The order of the queue, over channels with and without limits: priority, then the order of creation."""

import contextlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import wait_until


@pytest.fixture
def channels(database):
    with database.env() as env:
        env['ir.async.channel'].create(
            [
                *({'name': name, 'capacity': 10} for name in ('a', 'b', 'c')),
                {'name': 'one', 'capacity': 1},
                {'name': 'paused', 'paused': True},
            ]
        )


def enqueue(database, *jobs):
    """Enqueue no-ops in one transaction, given by their channel, priority and number; return their ids in this order."""
    with database.env() as env:
        target, ids = env['test.async.effect'].nothing, []
        for channel, priority, count in jobs:
            queue = env['ir.async'].with_options(channel=channel, priority=priority)
            ids.append([queue.call(target).id for _i in range(count)])
        return ids


def started(database):
    """Return the ids of jobs in the order in which a worker began them."""
    return [
        id_ for [id_] in database.sql("SELECT id FROM ir_async WHERE date_start IS NOT NULL ORDER BY date_done, id")
    ]


def wait_for_ends(database, count):
    wait_until(lambda: database.value("SELECT count(*) FROM ir_async WHERE state = 'done'") == count, "they are done")


@pytest.mark.parametrize('priorities', [(1, 20), (10, 10)], ids=['priority', 'creation'])
def test_between_limited_channels(database, server, channels, priorities):
    """Channels with free slots do not take turns."""
    first, second = enqueue(database, ('a', priorities[0], 20), ('b', priorities[1], 20))
    with server(database, workers=1):
        wait_for_ends(database, 40)
    assert started(database) == first + second


def test_limited_job_among_plain_ones(database, server, channels):
    """A batch of plain jobs ends where the limited job comes."""
    second, third, first = enqueue(database, ('a', 5, 1), ('default', 10, 60), ('default', 1, 20))
    with server(database, workers=1):
        wait_for_ends(database, 81)
    assert started(database) == first + second + third


def test_limited_job_after_a_locked_plain_one(database, server, channels):
    """It keeps its place among the others, which would otherwise hold it up as long as they keep coming."""
    [locked], first, third, second = enqueue(database, ('default', 1, 1), ('a', 2, 2), ('b', 9, 20), ('default', 3, 20))
    with database.locked(locked), server(database, workers=1):
        wait_for_ends(database, 42)
    assert [id_ for id_ in started(database) if id_ != locked] == first + second + third


def test_plain_jobs_after_a_locked_limited_one(database, server, channels):
    """They pass this one, and none of the limited jobs behind it."""
    turns = [turn for number in range(10) for turn in (('default', 2 * number + 5, 7), ('b', 2 * number + 6, 1))]
    [locked], *jobs = enqueue(database, ('a', 1, 1), *turns)
    with database.locked(locked), server(database, workers=1):
        wait_for_ends(database, 80)
    assert [id_ for id_ in started(database) if id_ != locked] == [id_ for ids in jobs for id_ in ids]


@pytest.mark.parametrize('channel', ['default', 'b'])
def test_limited_jobs_after_a_locked_one(database, server, channels, channel):
    """That one does not lend them its place."""
    [locked], second, first = enqueue(database, ('a', 2, 1), ('a', 20, 20), (channel, 3, 60))
    with database.locked(locked), server(database, workers=1):
        wait_for_ends(database, 80)
    assert [id_ for id_ in started(database) if id_ != locked] == first + second


def test_limited_jobs_after_several_locked_ones(database, server, channels):
    """Though others have the first jobs of all channels locked."""
    ahead, among, first, behind, second, third = enqueue(
        database, ('a', 1, 2), ('b/y', 3, 2), ('b/z', 5, 3), ('b', 6, 1), ('a', 9, 3), ('b', 12, 30)
    )
    with database.locked(*ahead, *among, *behind), server(database, workers=1):
        wait_for_ends(database, 36)
        assert started(database) == first + second + third


@pytest.mark.parametrize('locked', [1, 2])
def test_limited_jobs_behind_a_full_channel(database, server, channels, locked):
    """So many that a worker does not see at first which channels come behind them."""
    _paused, ids, first, second = enqueue(database, ('paused', 1, 199), ('b', 2, locked), ('c', 5, 10), ('b', 9, 30))
    with database.locked(*ids), server(database, workers=1):
        wait_for_ends(database, 40)
        assert started(database) == first + second


def test_each_channel_has_locked_jobs(database, server, channels):
    """The first jobs that nobody has locked come in their order, whatever that of the locked ones."""
    *ids, last, third, first, second = enqueue(
        database, ('a', 1, 2), ('b', 2, 3), ('c', 3, 2), ('a', 50, 5), ('b', 20, 5), ('c', 10, 5), ('default', 15, 5)
    )
    with database.locked(*(id_ for group in ids for id_ in group)), server(database, workers=1):
        wait_for_ends(database, 20)
        assert started(database) == first + second + third + last


@pytest.fixture
def sessions(database):
    """The sessions of two workers."""
    from odoo.addons.ir_async.engine.session import Session  # noqa: PLC0415 -- importable once the cluster is there

    with contextlib.ExitStack() as stack:
        sessions = [Session.open(database.name, always=True).session for _i in range(2)]
        for session in sessions:
            stack.enter_context(contextlib.closing(session))
        yield sessions


@pytest.fixture
def claimed(database, sessions):
    """Return the next claimed jobs: their ids, in order. They end at once."""
    [session, _other] = sessions

    def claimed(limit):
        jobs = session.claim(limit)
        if not jobs:  # as a worker does before it waits
            session.maintain()
            jobs = session.claim(limit)
        ids = [job.id for job in jobs]
        database.sql("UPDATE ir_async SET state = 'done', worker_id = NULL WHERE id = ANY(%s)", [ids])
        return ids

    return claimed


@pytest.mark.parametrize('locked', ['none', 'first', 'any'])
@pytest.mark.parametrize('seed', range(6))
def test_any_queue(database, channels, claimed, seed, locked):
    """Claims give exactly the jobs that can run, in their order, whatever channels there are, which jobs are locked, and which arrive."""
    rng = random.Random(f'{seed} {locked}')
    names = rng.sample(['default', 'a', 'b', 'one/x', 'one/y', 'paused'], rng.randint(2, 6))
    queue = []

    def arrive(*jobs):
        for job, [id_] in zip(jobs, enqueue(database, *jobs), strict=True):
            if job[0] != 'paused':
                queue.append((job[1], id_, job[0]))
        queue.sort()

    jobs = [(rng.choice(names), rng.randrange(9), 1) for _i in range(rng.choice([10, 40, 80]))]
    jobs += seed % 2 * 210 * [('paused', rng.choice([0, 4]), 1)]  # more than a claim looks at first
    rng.shuffle(jobs)
    arrive(*jobs)
    others = {id_ for _priority, id_, _channel in queue if rng.random() < 0.3}
    if locked == 'first':
        firsts = {channel: id_ for _priority, id_, channel in reversed(queue)}
        others = {id_ for channel, id_ in firsts.items() if rng.random() < 0.7}
    elif locked == 'none':
        others = set()
    queue = [job for job in queue if job[1] not in others]
    with database.locked(0, *others):
        while queue:
            ids = claimed(rng.randint(1, 9))
            assert ids
            assert ids == [id_ for _priority, id_, _channel in queue[: len(ids)]]
            del queue[: len(ids)]
            if rng.random() < 0.3:
                arrive((rng.choice(names), rng.randrange(9), 1))
        assert not claimed(9)


@pytest.mark.parametrize('count', [60, 450])
def test_urgent_job_in_one_of_many_locked_channels(database, channels, claimed, count):
    """It comes next, though the first jobs of all these channels are locked, and later ones wait."""
    with database.env() as env:
        env['ir.async.channel'].create({'name': 'many', 'capacity': 1})
    names = [f'many/{number}' for number in range(count)]
    *ids, first = enqueue(database, *((name, 1, 2) for name in names), *((name, 50, 1) for name in names), ('b', 20, 3))
    with database.locked(*(id_ for group in ids[:count] for id_ in group)):
        assert claimed(1) == first[:1]
        [[urgent]] = enqueue(database, (names[7], 5, 1))
        assert [claimed(1) for _i in range(4)] == [[urgent], first[1:2], first[2:], ids[count]]


@contextlib.contextmanager
def in_transaction(session):
    """What the session locks stays locked until the end."""
    session._connection.autocommit = False
    try:
        yield
    finally:
        session._connection.commit()
        session._connection.autocommit = True


def test_batch_after_a_locked_plain_job(database, channels, claimed):
    """It is as large as without that job."""
    [locked], *ids, last = enqueue(
        database, ('default', 1, 1), *((f'a/{number}', 2, 1) for number in range(9)), ('default', 3, 1)
    )
    with database.locked(locked):
        assert claimed(20) == [id_ for [id_] in ids]
        assert claimed(20) == last


@pytest.mark.parametrize('is_over', [False, True])
def test_many_locked_jobs_of_a_channel(database, channels, claimed, monkeypatch, is_over):
    """For a while, claims do not step over them again. They miss only what comes among them."""
    from odoo.addons.ir_async.engine import probes as module  # noqa: PLC0415 -- importable once the cluster is there

    monkeypatch.setattr(module, 'MANY', 3)
    monkeypatch.setattr(module, 'SCAN_INTERVAL', 0 if is_over else 1000)
    monkeypatch.setattr(module, 'LONGEST_SCAN_INTERVAL', 0 if is_over else 1000)
    *ids, _other = enqueue(database, ('a', 1, 3), ('a', 9, 3), ('b', 20, 3))
    with database.locked(*(id_ for group in ids for id_ in group)):
        [other] = claimed(1)
        [behind], [among], [before] = enqueue(database, ('a', 9, 1), ('a', 5, 1), ('a', 0, 1))
        assert claimed(1) == [before]
        if is_over:
            assert claimed(1) == [among]
        assert claimed(1) == [behind]
        assert claimed(1) == [other + 1]


def test_job_that_another_worker_probes(database, channels, sessions, claimed):
    """It is not taken for locked, as nobody has it yet."""
    [first], _second = enqueue(database, ('a', 1, 1), ('b', 2, 1))
    probing = sessions[1]._channels
    with ThreadPoolExecutor() as threads, in_transaction(sessions[1]):
        probing.look()
        probing._probes.probe([head for _place, head in probing._turns])
        claim = threads.submit(claimed, 1)
        wait_until(
            lambda: (
                database.value("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
                or claim.done()
            ),
            "the claim waits",
        )
    assert claim.result() == [first]


def test_plain_job_at_which_another_worker_looks(database, channels, sessions, claimed):
    [first], _second = enqueue(database, ('default', 1, 1), ('a', 2, 1))
    with in_transaction(sessions[1]):
        sessions[1]._claim.first(sessions[1]._channels.place)
        assert claimed(1) == [first]


@pytest.mark.parametrize('with_later', [False, True])
def test_plain_job_that_another_worker_takes_meanwhile(database, channels, sessions, claimed, with_later):
    """In its place comes the next job, not the next plain one, nor none."""
    [locked], [first], [second], _later = enqueue(
        database, ('a', 1, 1), ('default', 2, 1), ('b', 5, 1), ('default', 50, int(with_later))
    )
    [session, other] = sessions
    for each in sessions:
        each.maintain()
    look = session._claim.first

    def look_and_lose(start):
        session._claim.first = look
        place = look(start)
        assert [job.id for job in other.claim(1)] == [first]
        return place

    session._claim.first = look_and_lose
    with database.locked(locked):
        assert claimed(1) == [second]


def test_urgent_limited_job_after_a_while_without(database, server, channels):
    """A worker that knew of no limited job looks for one before it begins a plain one."""
    with server(database, workers=1):
        enqueue(database, ('default', 10, 1))
        wait_for_ends(database, 1)
        second, first = enqueue(database, ('default', 10, 3), ('a', 0, 1))
        wait_for_ends(database, 5)
    assert started(database)[1:] == first + second


@pytest.mark.parametrize('way', ['one channel', 'many channels'])
def test_limited_jobs_behind_many_locked_ones(database, server, channels, way):
    """A worker finds the channel whose job it can claim."""
    with database.env() as env:
        env['ir.async.channel'].create({'name': 'many', 'capacity': 1})
    names = [f'many/{number}' for number in range(250)] if way == 'many channels' else ['many']
    ids = enqueue(database, *((name, 1, 250 // len(names)) for name in names), ('a', 10, 1))
    locked = [id_ for group in ids[:-1] for id_ in group]
    with contextlib.ExitStack() as stack:
        stack.enter_context(database.locked(*locked))
        stack.enter_context(server(database, workers=1))
        database.wait_for(ids[-1][0])
