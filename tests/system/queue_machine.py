"""The machine that drives the queue step by step, on real connections, and compares it with the model after each step.

Import this module when Odoo's configuration has been read: it needs the addons.
"""

import contextlib
from datetime import timedelta
from unittest.mock import patch

import hypothesis.strategies as st
import psycopg2
from harness import LIVE, wait_until
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from queue_actors import Caller, Run, Worker
from queue_model import ENDED, ENDED_WELL, Job, Model

from odoo import fields
from odoo.exceptions import UserError

from odoo.addons.ir_async.engine import claim, dependencies, maintenance, rescue
from odoo.addons.ir_async.engine.errors import Kind, kind_of
from odoo.addons.ir_async.engine.fence import fence_off
from odoo.addons.ir_async.engine.release import release
from odoo.addons.ir_async.service.runner import finish_stopped
from odoo.addons.test_ir_async.models.async_effect_script import DAY

WORKERS, CALLERS = 3, 2  # at most at a time
OPTIONS = {
    'priority': [None, 5, 15],
    'channel': [None, 'one', 'one/x'],
    'max_attempts': [None, 2],
    'key': [None, None, 'a', 'a', 'b'],
    'at': [None, None, None, 'past', 'future'],
}
LIMITS = [  # name, capacity, whether it has an interval, whether it is paused
    ('one', 1, False, False),
    ('one', 2, False, False),
    ('one', 0, True, False),
    ('one', 1, True, False),
    ('one', 0, False, False),
    ('one', 1, False, True),
    ('*', 0, False, False),
    ('*', 0, False, False),
    ('*', 0, False, True),
]
FIELDS = (
    'state',
    'tag',
    'priority',
    'date',
    'attempts',
    'deaths',
    'starts',
    'claim_number',
    'worker_id',
    'stop',
    'effects',
    'has_payload',
)
ROWS = """
    SELECT id, state, args::json->>0 AS tag, priority, attempts, deaths, starts, claim_number, worker_id, revision,
           payload IS NOT NULL AS has_payload, date_done IS NOT NULL AS has_end,
           CASE WHEN date_scheduled < clock_timestamp() AT TIME ZONE 'UTC' THEN 'past'
                WHEN date_scheduled IS NOT NULL THEN 'future' END AS date,
           (SELECT reason FROM ir_async_stop WHERE job_id = job.id) AS stop,
           ARRAY(SELECT name::text FROM test_async_effect WHERE value = job.id ORDER BY name) AS effects
      FROM ir_async job
"""
CLEAN = """
    DELETE FROM ir_async_after_rel; DELETE FROM ir_async_stop; DELETE FROM ir_async; DELETE FROM ir_async_worker;
    DELETE FROM ir_async_channel; DELETE FROM ir_async_start; DELETE FROM ir_async_pause; DELETE FROM test_async_effect; DELETE FROM ir_cron_trigger;
    SELECT setval(name, 1, false) FROM unnest('{ir_async_id_seq, ir_async_worker_id_seq}'::regclass[]) AS name;
"""


class Clock:
    """Takes the place of the module ``time`` in the engine: it stands still until the machine says so."""

    now = 1000

    def monotonic(self):
        return self.now


class QueueMachine(RuleBasedStateMachine):
    database = None

    def __init__(self):
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.clock = Clock()
        for module in (claim, dependencies, maintenance, rescue):
            self.stack.enter_context(patch.object(module, 'time', self.clock))
        # The worker ids begin anew, and so does the clock.
        self.stack.enter_context(patch.dict(rescue._seen, clear=True))
        self.admin = self.stack.enter_context(contextlib.closing(self.database.cluster.connect(self.database.name)))
        self.sql(CLEAN)
        with self.database.env() as env:
            env.registry.clear_cache()
        self.model = Model()
        self.workers, self.gone, self.callers, self.deaths = [], [], [], []
        self.tags = iter(range(10**6))
        self.revisions = {}  # of each job, with its state then

    def teardown(self):
        for caller in self.callers:
            caller.cr.close()
        for worker in self.workers + self.gone:
            worker.close()
        self.stack.close()

    def sql(self, query, params=None):
        with self.admin.cursor() as cr:
            cr.execute(query, params)
            return cr.fetchall() if cr.description else []

    def step(self):
        self.model.now += 1

    # ------------------------------------------------------------
    # What there is to choose from
    # ------------------------------------------------------------

    @property
    def jobs(self):
        return self.model.jobs

    @property
    def locked(self):
        return set().union(*(caller.locked for caller in self.callers))

    @property
    def busy_keys(self):
        return set().union(*(caller.keys for caller in self.callers))

    @property
    def runs(self):
        return [worker.run for worker in self.workers + self.gone if worker.run]

    def ids(self, *states):
        """Return the ids of the jobs in these states that no open transaction has locked."""
        return sorted(id_ for id_, job in self.jobs.items() if job.state in states and id_ not in self.locked)

    # ------------------------------------------------------------
    # Callers
    # ------------------------------------------------------------

    @precondition(lambda self: len(self.callers) < CALLERS)
    @rule(data=st.data())
    def begin(self, data):
        """Begin transactions that call at once, as far as there may be more."""
        self.step()
        self.callers += [Caller(self.database, self.model) for _i in range(CALLERS - len(self.callers))]
        for caller in self.callers:
            self._call(caller, data)

    @precondition(lambda self: self.callers)
    @rule(data=st.data())
    def call(self, data):
        self.step()
        self._call(data.draw(st.sampled_from(self.callers)), data)

    @initialize(data=st.data(), limits=st.sampled_from(LIMITS))
    def first(self, data, limits):
        self.set_channel(limits)
        for _i in range(2):
            self.enqueue(data, 3)

    @rule(data=st.data(), count=st.integers(1, 3))
    def enqueue(self, data, count):
        """Call in a transaction that is committed at once."""
        self.step()
        caller = Caller(self.database, self.model)
        for _i in range(count):
            self._call(caller, data)
        if self._would_block(caller):
            caller.cr.close()
        else:
            self._commit(caller)

    def _call(self, caller, data):
        draw = data.draw
        known = sorted({*self.jobs, *(job.id for job in caller.model.new)})
        options = {
            name: value for name, values in OPTIONS.items() if (value := draw(st.sampled_from(values), label=name))
        }
        replaces = 'key' in options and draw(st.booleans(), label='replaces')
        if 'key' in options:
            options['key_until'] = draw(st.sampled_from(['end', 'start']))
        if any(options.get('key') in other.keys for other in self.callers if other is not caller):
            return  # it would have to wait for the end of that transaction
        parents = []
        if known and not replaces:
            parents = draw(
                st.lists(st.sampled_from(known), max_size=draw(st.sampled_from([0, 0, 2])), unique=True), label='after'
            )
        count = 1 if 'key' in options else draw(st.integers(1, 2), label='jobs')
        job = Job(
            f't{next(self.tags)}',
            'waiting' if parents else 'created',
            parents=set(parents),
            unmet=set(parents),
            date=options.pop('at', None),
            late={id_ for id_ in parents if id_ in self.jobs and self.jobs[id_].born > caller.model.began},
            **options,
        )
        if job.date:
            options['at'] = fields.Datetime.now() + timedelta(seconds=DAY if job.date == 'future' else -DAY)
        if replaces:
            options['on_duplicate'] = 'replace'
        if count > 1:
            options['chunk_size'] = 1
        env = caller.env
        asynchronous = env['ir.async'].with_options(retry_delay=DAY, after=env['ir.async'].browse(parents), **options)
        target = env['test.async.effect'].browse(range(1, count + 1)).follow
        is_undone = draw(st.integers(0, 9), label='undo') == 9
        is_lost = caller.model.is_lost_call(job, replaces)
        try:
            with env.cr.savepoint(flush=False) if is_undone else contextlib.nullcontext() as savepoint:
                found = asynchronous.call(target, job.tag)
                if savepoint:
                    savepoint.rollback()
        except psycopg2.Error as exc:
            assert is_lost and kind_of(exc) is Kind.RACE, repr(exc)
            self._leave(caller)
            return
        assert not is_lost, "a call relied on a job that has changed"
        if is_undone:
            return
        for id_ in found.ids:
            new = Job(**{**vars(job), 'id': id_, 'parents': set(parents), 'unmet': set(parents), 'effects': []})
            live = caller.model.call(new, replaces)
            assert (live or new).id == id_, f"{live} has the key, not {id_}"

    def _would_block(self, caller):
        others = [other for other in self.callers if other is not caller]
        return any(
            caller.model.held.keys() & other.locked or {job.key for job in caller.model.new} & other.keys
            for other in others
        )

    def _flush(self, caller, commit=False):
        """Insert the jobs. Return whether that was possible."""
        is_lost = not caller.model.is_flushed and caller.model.is_lost(caller.locked)
        try:
            caller.cr.commit() if commit else caller.cr.flush()
        except psycopg2.Error as exc:
            assert is_lost and kind_of(exc) is Kind.RACE, repr(exc)
            self._leave(caller)
            return False
        assert not is_lost, "a race was lost, but the transaction went on"
        caller.model.is_flushed = True
        caller.locked |= caller.model.held.keys()
        caller.keys |= {job.key for job in caller.model.new if job.key}
        caller.inserted = list(caller.model.new)
        return True

    def _commit(self, caller):
        if self._flush(caller, commit=True):
            caller.model.commit()
            self._leave(caller)

    def _leave(self, caller):
        caller.cr.close()
        if caller in self.callers:
            self.callers.remove(caller)

    def _free_callers(self):
        return [caller for caller in self.callers if not self._would_block(caller)]

    @precondition(lambda self: self._free_callers())
    @rule(data=st.data(), commit=st.booleans())
    def flush_or_commit(self, data, commit):
        self.step()
        caller = data.draw(st.sampled_from(self._free_callers()))
        if commit:
            self._commit(caller)
        else:
            self._flush(caller)

    @precondition(lambda self: self.callers)
    @rule(data=st.data())
    def rollback(self, data):
        self._leave(data.draw(st.sampled_from(self.callers)))

    # ------------------------------------------------------------
    # Workers
    # ------------------------------------------------------------

    def _worker(self, data):
        if len(self.workers) < WORKERS and (not self.workers or data.draw(st.booleans(), label='new worker')):
            self.workers.append(Worker(self.database))
        return data.draw(st.sampled_from(self.workers), label='worker')

    def _maintain(self, worker):
        for _round in range(2):  # the first one sees which sessions ended, the second one rescues their jobs
            self.clock.now += 1
            worker.session.wake()
            while worker.session.maintain() == 0:
                pass
        self.model.maintain({other.session.worker_id for other in self.gone}, self.locked)
        self._read_limited()

    def _read_limited(self):
        """Take over which jobs are in the index of limited ones."""
        for id_, limited in self.sql("SELECT id, limited FROM ir_async"):
            if id_ in self.jobs and self.jobs[id_].limited != limited:
                self.model.write(self.jobs[id_], limited=limited)

    @rule(data=st.data())
    def maintain(self, data):
        self.step()
        self._maintain(self._worker(data))

    @rule(data=st.data(), limit=st.integers(1, 3), is_complete=st.sampled_from([True, True, False]))
    def claim(self, data, limit, is_complete):
        self.step()
        self._claim(self._worker(data), limit, is_complete)

    def _claim(self, worker, limit, is_complete):
        if is_complete:
            self._maintain(worker)
            self.clock.now += 1
            worker.session.wake()
        jobs = worker.session.claim(limit)
        worker.jobs += jobs
        self.model.claim(
            [job.id for job in jobs], limit, worker.session.worker_id, self.locked, is_complete and not self.locked
        )

    @rule(data=st.data())
    def start(self, data):
        """Begin a job, and leave its method running."""
        self.step()
        self._begin(self._worker(data))

    def _begin(self, worker):
        if not worker.jobs and not worker.run:
            self._claim(worker, 1, is_complete=True)
        if worker.jobs and not worker.run:
            self._start(worker)

    def _start(self, worker):
        token = worker.jobs.pop(0)
        run = Run(worker, token)
        job = self._held(token)
        if not job:
            expected = 'ended'
        elif job.stop:
            expected = 'ended'
            self.model.end(job, 'stopped', 0)
        elif job.deaths >= 3:
            expected = 'ended'
            self.model.end(job, 'died', 1)
        else:
            expected = 'begun'
            worker.run = run
            run.began = self.model.now
        assert run.event == expected, f"job {token.id}: {run.event}, not {expected}"

    def _held(self, token):
        """Return the job, if the claim still holds."""
        job = self.jobs.get(token.id)
        return job if job and (job.worker_id, job.claim_number) == (token.worker_id, token.claim_number) else None

    @precondition(lambda self: self.runs)
    @rule(
        data=st.data(),
        ending=st.sampled_from(['commit', 'rest', 'rest', 'done', 'done', 'succeeded', 'failed', 'retry', 'lost']),
    )
    def go_on(self, data, ending):
        self.step()
        self._go_on(data.draw(st.sampled_from(self.runs)), ending)

    def _go_on(self, run, ending):
        worker, job = run.worker, self._held(run.job)
        run.began = run.began or self.model.now
        if ending == 'lost':
            self._terminate(run.worker.runner._pool._connection)
        event = run.say(ending)
        if ending in ('commit', 'rest', *ENDED_WELL) and job and job.changed > run.began:
            if job.stop:  # the next try sees the request
                ending = 'stopped'
            else:
                assert event == 'begun', f"job {run.job.id} has lost a race: {event}"
                run.starts += 1
                run.began = self.model.now
                event = run.say(ending)
        if ending in ('commit', 'rest') and job:
            assert event == 'committed', f"job {run.job.id}: {event}"
            job.effects.append(job.tag)
            run.began = self.model.now if ending == 'commit' else None
            return
        assert event == 'ended', f"job {run.job.id}: {event}"
        worker.run = None
        if job and not (ending == 'lost' and worker in self.gone):
            if ending in ENDED_WELL:
                job.effects.append(job.tag)
            self.model.end(job, ending, run.starts)
            if ending == 'lost':  # it goes back for a moment: make that a day
                self._set_date(job, 'future')
        if run.fenced and worker not in self.gone:
            self._conclude(worker.session, *run.fenced, run.starts, run.job.claim_number)

    @rule(data=st.data(), ending=st.sampled_from(['done', 'succeeded', 'failed', 'retry']))
    def work(self, data, ending):
        """Run a job to its end."""
        self.step()
        worker = self._worker(data)
        self._begin(worker)
        if worker.run:
            self._go_on(worker.run, ending)

    @precondition(lambda self: any(run.worker in self.workers and not run.fenced for run in self.runs))
    @rule(data=st.data(), reason=st.sampled_from(['cancel', 'timeout', 'shutdown']))
    def fence(self, data, reason):
        """Do as the watchdog: fence a running job off."""
        self.step()
        self._fence(self._unfenced(data), reason)

    @precondition(lambda self: any(run.worker in self.workers and not run.fenced for run in self.runs))
    @rule(data=st.data(), ending=st.sampled_from(ENDED_WELL))
    def end_late(self, data, ending):
        """Fence off a job that has committed, and end it well in a transaction that begins afterwards."""
        self.step()
        run = self._unfenced(data)
        self._go_on(run, 'rest')
        if run.worker.run is run:
            self.step()
            self._fence(run, 'timeout')
            self.step()
            self._go_on(run, ending)

    def _unfenced(self, data):
        return data.draw(st.sampled_from([run for run in self.runs if run.worker in self.workers and not run.fenced]))

    def _fence(self, run, reason):
        """Fence a running job off, unless it is not held any more."""
        job = self._held(run.job)
        if not job or (reason == 'cancel' and job.stop != 'cancel'):
            return
        fenced = fence_off(run.worker.session, run.job, None if reason == 'shutdown' else reason)
        run.fenced = fenced, reason
        self.model.write(
            job, claim_number=job.claim_number + 1, stop=job.stop or (reason if reason != 'shutdown' else None)
        )

    def _conclude(self, session, token, reason, starts, claims):
        """Write the outcome of a stopped job."""
        job = self._held(token)
        if reason == 'shutdown':
            release(session, [token], starts=starts, claim_count=claims)
            if job:
                self.model.write(job, state='created', worker_id=None, starts=job.starts + starts, claim_number=claims)
            return
        for taken in rescue.take_over(session, token.id, token.worker_id, token.claim_number, reason):
            finish_stopped(session, taken, starts, claims)
        if job:
            self.model.end(job, 'stopped', starts, claim_number=claims)

    def _terminate(self, *connections):
        pids = tuple(connection.get_backend_pid() for connection in connections if connection and not connection.closed)
        self.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [list(pids)])
        wait_until(
            lambda: not self.sql("SELECT FROM pg_stat_activity WHERE pid IN %s", [pids]), "the connections are gone"
        )

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), is_killed=st.booleans())
    def lose(self, data, is_killed):
        """Cut the session of a worker, or kill the worker, which its parent may report later."""
        self.step()
        worker = data.draw(st.sampled_from(self.workers))
        self.workers.remove(worker)
        self.gone.append(worker)
        run = worker.run
        if not is_killed:
            self._terminate(worker.session._connection)
            return
        self._terminate(worker.session._connection, worker.runner._pool._connection)
        worker.run, worker.jobs = None, []
        if run:
            assert run.say('failed') == 'ended'
            token, reason = run.fenced or (run.job, None)
            if reason != 'shutdown':
                self.deaths.append((token, reason, run.job.claim_number))

    @precondition(lambda self: self.deaths)
    @rule(data=st.data())
    def report_death(self, data):
        self.step()
        worker = self._worker(data)
        token, reason, claims = self.deaths.pop(0)
        if token.id in self.locked:
            return
        if reason:
            self._conclude(worker.session, token, reason, 1, claims)
        else:
            rescue.charge(worker.session, token.id, token.worker_id, token.claim_number)
            if job := self.jobs.get(token.id):
                self.model.charge(job, token.worker_id, token.claim_number)

    @precondition(lambda self: any(worker.jobs for worker in self.workers))
    @rule(data=st.data())
    def release(self, data):
        """Put the jobs back that a worker has not begun."""
        self.step()
        worker = data.draw(st.sampled_from([worker for worker in self.workers if worker.jobs]))
        released = release(worker.session, worker.jobs)
        assert released == {token.id for token in worker.jobs if self._held(token)}
        for id_ in released:
            self.model.release(self.jobs[id_])
        worker.jobs = []

    @precondition(lambda self: self.workers and self.ids(*ENDED))
    @rule(data=st.data())
    def unblock(self, data):
        self.step()
        parents = data.draw(st.lists(st.sampled_from(self.ids(*ENDED)), min_size=1, max_size=2, unique=True))
        data.draw(st.sampled_from(self.workers)).session.unblock(parents)
        self.model.unblock(set(parents))

    # ------------------------------------------------------------
    # Users, dates, clean-up
    # ------------------------------------------------------------

    @precondition(lambda self: self.ids(*LIVE, *ENDED))
    @rule(data=st.data(), is_any=st.sampled_from([False, False, False, True]))
    def act(self, data, is_any):
        self.step()
        job = self.jobs[data.draw(st.sampled_from(self.ids(*LIVE, *ENDED)))]
        action = 'cancel' if job.state in LIVE else 'complete' if job.state == 'succeeded' else 'retry'
        if is_any:
            action = data.draw(st.sampled_from(['cancel', 'retry', 'complete', 'dismiss']))
        if job.key in self.busy_keys:
            return
        try:
            self.database.act(action, job.id)
            is_done = True
        except UserError:
            is_done = False
        assert self.model.act(job, action) == is_done, f"{action} of {job}"

    def _set_date(self, job, date):
        self.sql(
            "UPDATE ir_async SET date_scheduled = clock_timestamp() AT TIME ZONE 'UTC' + make_interval(secs => %s) WHERE id = %s",
            [DAY if date == 'future' else -DAY, job.id],
        )
        self.model.write(job, date=date)

    @precondition(lambda self: any(self.jobs[id_].date == 'future' for id_ in self.ids('created')))
    @rule(data=st.data())
    def come_due(self, data):
        self.step()
        dated = [id_ for id_ in self.ids('created') if self.jobs[id_].date == 'future']
        self._set_date(self.jobs[data.draw(st.sampled_from(dated))], 'past')

    @precondition(lambda self: not self.locked)
    @rule()
    def interval_passes(self):
        self.step()
        self.sql("UPDATE ir_async_start SET date = date - interval '2 days'")
        self.model.recent.clear()

    @rule(limits=st.sampled_from(LIMITS))
    def set_channel(self, limits):
        self.step()
        name, capacity, has_interval, paused = limits
        values = {'capacity': capacity, 'interval': has_interval * DAY, 'paused': paused}
        with self.database.env() as env:
            if channel := env['ir.async.channel'].search([('name', '=', name)]):
                channel.write(values)
            else:
                channel.create({'name': name, **values})
        self.model.channels[name] = (capacity, has_interval, paused)

    @precondition(lambda self: self.ids(*ENDED))
    @rule(data=st.data())
    def prune(self, data):
        self.step()
        ids = data.draw(st.lists(st.sampled_from(self.ids(*ENDED)), min_size=1, max_size=3, unique=True))
        self.sql("UPDATE ir_async SET date_done = date_done - interval '60 days' WHERE id = ANY(%s)", [ids])
        old = {id_ for (id_,) in self.sql("SELECT id FROM ir_async WHERE date_done < now() - interval '40 days'")}
        needed = {id_ for caller in self.callers for job in caller.inserted for id_ in job.parents}
        with self.database.env() as env:
            env['ir.async']._gc_jobs()
        deleted = self.jobs.keys() - {id_ for (id_,) in self.sql("SELECT id FROM ir_async")}
        self.model.prune(deleted, old, self.locked | needed)

    # ------------------------------------------------------------
    # Compare
    # ------------------------------------------------------------

    @invariant()
    def is_as_the_model_says(self):
        rows = self.sql(ROWS)
        self._read_limited()
        found = {(row.id, name): getattr(row, name) for row in rows for name in FIELDS}
        expected = {
            (job.id, name): sorted(job.effects) if name == 'effects' else getattr(job, name)
            for job in self.jobs.values()
            for name in FIELDS
        }
        wrong = {
            key: (found.get(key), expected.get(key)) for key in found | expected if found.get(key) != expected.get(key)
        }
        assert not wrong, f"(job, field): (what it is, what it must be): {wrong}"
        before, self.revisions = self.revisions, {row.id: (row.state, row.revision) for row in rows}
        for row in rows:
            assert row.has_end == (row.state in ENDED), f"job {row.id} is {row.state}, and has an end: {row.has_end}"
            state, revision = before.get(row.id, (row.state, 0))
            assert row.state == state or row.revision > revision, f"job {row.id}: revision {revision} again"
