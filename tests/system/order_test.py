"""The order of the queue, over channels with and without limits: priority, then the order of creation."""

import contextlib

import pytest
from harness import wait_until


@pytest.fixture
def channels(database):
    with database.env() as env:
        env['ir.async.channel'].create([{'name': 'a', 'capacity': 10}, {'name': 'b', 'capacity': 10}])


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
