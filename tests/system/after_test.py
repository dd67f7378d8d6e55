"""Jobs that wait for others: many at once, random graphs, crashes in between."""

import contextlib
import json
import random
import time

import pytest
from harness import Server, wait_until
from pressure import seconds

from odoo.exceptions import UserError
from odoo.service.model import retrying


def test_many_parents_end_at_once(database, server):
    """Hundreds of parents of the same children, over four workers: none is run again, nobody is stalled."""
    with server(database, workers=4) as odoo:
        with database.env() as env:
            effect = env['test.async.effect']
            jobs = env['ir.async'].with_options(priority=20)
            parents = jobs.union(*(jobs.call(effect.effect, f'parent {i}') for i in range(400)))
            for i in range(20):
                jobs.with_options(after=parents).call(effect.effect, f'child {i}')
        assert database.wait_for_all() == {'done': 420}
        assert 'backs off from' not in odoo.log
        assert 'tries left' not in odoo.log, "nothing had to be tried again"
    runs = database.runs()
    assert len(runs) == 420
    last_parent = max(run.time for run in runs if run.name.startswith('parent'))
    assert min(run.time for run in runs if run.name.startswith('child')) > last_parent
    assert database.effects() == dict.fromkeys([run.name for run in runs], 1)


def test_worker_killed_right_after_the_parent(database, server):
    """The parent is committed, its worker dies before it can unblock the child: others do."""
    with server(database, workers=1) as odoo:
        database.enqueue('effect', 'warm up')
        [run] = database.wait_for_run('warm up')
        with database.env() as env:
            effect = env['test.async.effect']
            parent = env['ir.async'].call(effect.effect, 'parent')
            child = env['ir.async'].with_options(after=parent).call(effect.effect, 'child')
            ids = parent.id, child.id
            with contextlib.closing(database.cluster.connect(database.name)) as other:
                env.cr.precommit.run()
                env.cr._cnx.commit()  # without the NOTIFY, that comes at the end of the block
                other.autocommit = False
                with other.cursor() as cr:
                    # whoever unblocks it has to wait here, or to pass it over
                    cr.execute("SELECT FROM ir_async_after_rel WHERE job_id = %s FOR UPDATE", [ids[1]])
                    cr.execute("SELECT FROM ir_async WHERE id = %s FOR UPDATE", [ids[1]])
                    env.cr.commit()
                    assert database.wait_for(ids[0]).state == 'done'
                    odoo.worker(run.pid).kill()
                    wait_until(
                        lambda: (
                            not database.sql(
                                "SELECT FROM pg_stat_activity WHERE application_name = %s AND datname = %s",
                                [f'odoo-{run.pid}', database.name],
                            )
                        ),
                        "its sessions are over",
                    )
                    assert database.job(ids[1]).state == 'waiting'
                other.rollback()
        job = database.wait_for(ids[1])
        assert (job.state, job.starts) == ('done', 1)
        assert database.runs('child')[0].pid != run.pid
    assert database.effects() == {'warm up': 1, 'parent': 1, 'child': 1}


def test_parent_of_another_transaction(database, server, tmp_path):
    """A parent that was saved after the transaction of its child had begun counts."""
    gate = tmp_path / 'gate'
    with server(database, workers=2, expected=['Job .* failed']), database.env() as env:
        env.cr.execute("SELECT 1")  # the snapshot is taken
        with database.env() as other:
            parents = (
                other['ir.async']
                .with_options(max_attempts=1)
                .call(other['test.async.effect'].fail_unless, 'parent', str(gate))
            )
            quick = other['ir.async'].call(other['test.async.effect'].effect, 'quick')
            ids = parents.id, quick.id
        assert database.wait_for(ids[0]).state == 'failed'
        assert database.wait_for(ids[1]).state == 'done'
        effect = env['test.async.effect']
        with env.cr.savepoint(flush=False):
            children = [
                env['ir.async'].with_options(after=env['ir.async'].browse(after)).call(effect.effect, name)
                for name, after in (
                    ('after the failed one', ids[:1]),
                    ('after both', ids),
                    ('after the quick one', ids[1:]),
                )
            ]
        own = env['ir.async'].call(effect.effect, 'own')
        children.append(
            env['ir.async'].with_options(after=own + env['ir.async'].browse(ids)).call(effect.effect, 'after all')
        )
        child_ids = [child.id for child in children]
        env.cr.commit()
        assert database.wait_for(child_ids[2]).state == 'done'
        wait_until(
            lambda: (
                database.value("SELECT count(*) FROM ir_async_after_rel WHERE unmet AND after_id = %s", [ids[0]]) == 3
            ),
            "the others wait for the one that failed",
        )
        assert [database.job(child_id).state for child_id in child_ids] == ['waiting', 'waiting', 'done', 'waiting']
        gate.touch()
        env['ir.async'].browse(ids[0]).retry()
        env.cr.commit()
        database.wait_for_all()
    parent_done = database.job(ids[0]).date_done
    for child_id in (child_ids[0], child_ids[1], child_ids[3]):
        assert database.job(child_id).state == 'done'
        assert database.job(child_id).date_start >= parent_done


def test_server_killed_right_after_the_parent(cluster, database, server, tmp_path):
    """Another server that has nothing to do soon finds the child, whose time has come without a word."""
    with server(database, workers=1, settings={'channels': 'default'}), contextlib.ExitStack() as stack:
        other = Server(
            cluster, tmp_path, [*Server.PREFORK, '-d', database.name], workers=1, settings={'channels': 'other'}
        )
        stack.callback(other.kill)
        other.wait_until_ready()
        with database.env() as env:
            effect = env['test.async.effect']
            parent = env['ir.async'].with_options(channel='other').call(effect.effect_then_kill_server, 'parent')
            child_id = env['ir.async'].with_options(after=parent).call(effect.effect, 'child').id
            parent_id = parent.id
        assert database.wait_for(parent_id).state == 'done'
        ended = time.time()
        assert database.wait_for(child_id).state == 'done'
        assert seconds(ended, time.time()) < 25, "by the second sweep, not by the poll"
    assert database.effects() == {'parent': 1, 'child': 1}


def test_locked_parent(database, server):
    """A child whose parent is locked waits for that; other jobs do not."""
    with server(database, workers=1) as odoo, database.env() as env:
        env.cr.execute("SELECT 1")  # the snapshot does not have the parent
        parent_id = database.enqueue('effect', 'parent')
        assert database.wait_for(parent_id).state == 'done'
        jobs = env['ir.async'].with_options(after=env['ir.async'].browse(parent_id))
        child_id = jobs.call(env['test.async.effect'].effect, 'child').id
        with database.locked(parent_id):
            env.cr.commit()
            assert database.job(child_id).late_parent_ids == [parent_id]
            for i in range(5):
                assert database.wait_for(database.enqueue('effect', f'other {i}')).state == 'done'
                time.sleep(0.5)  # sweeps take place
            assert database.job(child_id).state == 'waiting'
        assert database.wait_for(child_id).state == 'done'
        assert 'backs off from' not in odoo.log


def test_parent_that_is_not_saved_yet(database):
    """It is an error at the call, whether its row is there or not; both transactions go on."""
    with database.env() as other:
        parents = [other['ir.async'].call(other['test.async.effect'].effect, 'inserted')]
        parents[0].flush_recordset()
        parents.append(other['ir.async'].call(other['test.async.effect'].effect, 'not inserted'))
        ids = [parent.id for parent in parents]
        with database.env() as env:
            effect = env['test.async.effect']
            env['ir.async'].call(effect.effect, 'before')
            for parent in (*parents, *map(env['ir.async'].browse, ids)):
                with pytest.raises(UserError, match=f"{parent.id} is not saved yet"):
                    env['ir.async'].with_options(after=parent).call(effect.effect, 'child')
            env['ir.async'].call(effect.effect, 'after')
            env.cr.execute("SHOW lock_timeout")
            assert env.cr.fetchone() == ('0',)
    assert [json.loads(args)[0] for (args,) in database.sql("SELECT args FROM ir_async ORDER BY id")] == [
        'inserted',
        'not inserted',
        'before',
        'after',
    ]


def test_parents_that_are_gone(database):
    """Many of them, among others that were saved just now."""
    with database.env() as env:
        env.cr.execute("SELECT 1")
        ids = [database.enqueue('effect', f'parent {i}') for i in range(20)]
        late_ids = ids[3], ids[11]
        database.sql("DELETE FROM ir_async WHERE id != ALL(%s)", [list(late_ids)])
        child = (
            env['ir.async']
            .with_options(after=env['ir.async'].browse(ids))
            .call(env['test.async.effect'].effect, 'child')
        )
        child_id = child.id
    assert database.value("SELECT late_parent_ids FROM ir_async WHERE id = %s", [child_id]) == list(late_ids)
    assert database.job(child_id).state == 'waiting'


@pytest.mark.alone
def test_fan_out_and_in(database, server, measured):
    """One job, then 10,000, then one: what PostgreSQL reads and writes for it is in proportion to their number."""

    def work(count):
        """Return the rows that were read and updated."""
        before = rows()
        with database.env() as env:
            effect = env['test.async.effect']
            first = env['ir.async'].call(effect.noop)
            jobs = env['ir.async'].with_options(after=first)
            middle = jobs.browse([jobs.call(effect.noop).id for _i in range(count)])
            last = env['ir.async'].with_options(after=middle).call(effect.effect, f'end of {count}')
            last_id = last.id
        begin = time.monotonic()
        job = database.wait_for(last_id, timeout=240)
        measured(f"fan-out and fan-in of {count}: {time.monotonic() - begin:.1f} s")
        assert job.state == 'done'
        last_done = database.value("SELECT max(date_done) FROM ir_async WHERE id < %s", [last_id])
        assert job.date_start >= last_done
        # Sessions report what they did when they have had nothing to do for a while. A job is claimed, finished and unblocked,
        # and each of its two dependencies is met.
        wait_until(lambda: rows().updated - before.updated >= 5 * count, "PostgreSQL has counted the rows")
        return [after - earlier for earlier, after in zip(before, rows())]

    def rows():
        return database.sql("""
            SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) AS read, sum(n_tup_upd) AS updated
              FROM pg_stat_user_tables WHERE relname IN ('ir_async', 'ir_async_after_rel')
        """)[0]

    with server(database, workers=3) as odoo:
        few_read, few_updated = work(1000)
        many_read, many_updated = work(10_000)
        assert 'backs off from' not in odoo.log
    assert database.states() == {'done': 11_004}
    measured(
        f"rows of 1,000: {few_read} read, {few_updated} updated; of 10,000: {many_read} read, {many_updated} updated"
    )
    # claimed, finished, unblocked: three updates a job, and one for each of its two dependencies; some are released
    assert many_updated < 7 * 10_000
    assert many_read < 40 * few_read, (
        "ten times as many jobs, not a hundred times; sweeps, once in a while, come on top"
    )


@pytest.mark.parametrize('count', [1000])
def test_random_graph(database, server, measured, tmp_path, count):
    """Random dependencies, failures, retries and cancels: order is kept, and everything ends as it should."""
    seed = random.randrange(10**9)
    print("seed", seed)  # noqa: T201 -- shown when it fails
    rng = random.Random(seed)
    gate = tmp_path / 'gate'

    kinds = ['ok'] * 74 + ['flaky'] * 8 + ['postponed'] * 6 + ['fails'] * 5 + ['cancelled'] * 1 + ['dated'] * 6
    jobs = []  # (kind, numbers of the parents)
    hanging = {rng.randrange(count // 2) for _i in range(4)}
    for i in range(count):
        parents = rng.sample(range(max(0, i - 60), i), k=min(i, rng.choice([0, 0, 1, 1, 1, 2, 3]))) if i else []
        jobs.append(('hangs' if i in hanging else rng.choice(kinds), parents))

    def expected(failures_pass):
        states = []
        for kind, parents in jobs:
            of_parents = {states[parent] for parent in parents}
            if kind == 'cancelled' or 'cancelled' in of_parents:
                states.append('cancelled')
            elif of_parents & {'waiting', 'failed'}:
                states.append('waiting')
            elif kind == 'hangs':
                states.append('cancelled')
            elif kind == 'fails' and not failures_pass:
                states.append('failed')
            else:
                states.append('done')
        return states

    def enqueue(env, name, kind, after):
        effect = env['test.async.effect']
        options = {'after': after, 'priority': rng.choice([5, 10, 10, 15])}
        match kind:
            case 'flaky':
                options |= {'max_attempts': 3, 'retry_delay': [0, 0.1]}
                return env['ir.async'].with_options(**options).call(effect.fail_first, name, 2)
            case 'postponed':
                return env['ir.async'].with_options(**options).call(effect.postpone_first, name)
            case 'fails':
                options |= {'max_attempts': rng.choice([1, 2]), 'retry_delay': 0}
                return env['ir.async'].with_options(**options).call(effect.fail_unless, name, str(gate))
            case 'hangs':
                return env['ir.async'].with_options(**options).call(effect.hang_in_sleep, name)
            case 'dated':
                options |= {'delay': rng.uniform(0, 2)}
        return env['ir.async'].with_options(**options).call(effect.effect, name, 0.002)

    def states():
        by_id = dict(tuple(row) for row in database.sql("SELECT id, state FROM ir_async"))
        return [by_id[job_id] for job_id in ids]

    def settle(wanted):
        """Cancel the hanging jobs as they come, until all is as it should be."""

        def settled():
            for row in database.sql("SELECT id FROM ir_async WHERE method = 'hang_in_sleep' AND state = 'processing'"):
                if row.id not in cancelled:
                    cancelled.add(row.id)
                    with database.env() as env:
                        retrying(env['ir.async'].browse(row.id).cancel, env)
            return states() == wanted

        try:
            wait_until(settled, "everything is as it should be", 90)
        except AssertionError:
            wrong = [
                (i, kind, is_, should)
                for i, ((kind, _p), is_, should) in enumerate(zip(jobs, states(), wanted))
                if is_ != should
            ]
            pytest.fail(f"seed {seed}: {wrong[:20]}")

    cancelled = set()
    with server(database, workers=4, expected=['Job .* failed', 'bad query', 'could not serialize']) as odoo:
        ids = []
        for begin in range(0, count, 250):  # a transaction each; parents may have ended by then
            with database.env() as env:
                Async = env['ir.async']
                for i in range(begin, begin + 250):
                    kind, parents = jobs[i]
                    job = enqueue(env, f'job {i}', kind, Async.browse([ids[parent] for parent in parents]))
                    ids.append(job.id)
                    if kind == 'cancelled':
                        job.cancel()
        settle(expected(False))
        first_expectation = states()
        gate.touch()
        with database.env() as env:
            failed = env['ir.async'].search([('state', '=', 'failed')])
            count_failed = len(failed)
            retrying(failed.retry, env)
        settle(expected(True))
        assert 'backs off from' not in odoo.log
    final = expected(True)

    # What was done is there once, what was not is not.
    effects = database.effects()
    for i, state in enumerate(final):
        assert effects[f'job {i}'] == (state == 'done'), (seed, i, jobs[i], state)
    # Nothing was run that should not have been, and nothing more often.
    runs = {}
    for run in database.runs():
        runs.setdefault(run.name, []).append(run)
    for i, ((kind, _parents), state) in enumerate(zip(jobs, final)):
        count_runs = len(runs.get(f'job {i}', []))
        if state == 'cancelled':
            assert count_runs <= (1 if ids[i] in cancelled else 0), (seed, i, jobs[i])
        elif kind in ('ok', 'dated'):
            assert count_runs == 1, (seed, i, jobs[i])
        else:
            assert count_runs == {'flaky': 3, 'postponed': 2}.get(kind, count_runs), (seed, i, jobs[i])
    # No child began before its parents had ended.
    rows = {row.id: row for row in database.sql("SELECT id, date_start, date_done, attempts, deaths FROM ir_async")}
    checked = 0
    for i, (_kind, parents) in enumerate(jobs):
        assert rows[ids[i]].deaths == 0
        if final[i] == 'done':
            for parent in parents:
                assert rows[ids[parent]].date_done <= rows[ids[i]].date_start, (seed, i, parent)
                checked += 1
    assert checked > count / 5, "a graph worth its name"
    measured(
        f"random graph of {count} (seed {seed}): {checked} edges, {count_failed} failed and tried again, "
        f"{first_expectation.count('waiting')} waited for them, {final.count('cancelled')} cancelled, {len(cancelled)} of them while running"
    )
