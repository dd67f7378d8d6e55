"""All orders in which the statements of a few connections can be executed, and what must be true after each.

A participant is a list of steps on a connection of its own, in a thread of its own. A step that waits for a lock lets the
others go on. Import this module when Odoo's configuration has been read: it needs the addons.
"""

import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import psycopg2
from harness import TIMEOUT

from odoo import SUPERUSER_ID, api
from odoo.exceptions import UserError
from odoo.modules.registry import Registry

from odoo.addons.ir_async.engine.connection import LOCK_CLASS
from odoo.addons.ir_async.engine.errors import Kind, kind_of
from odoo.addons.ir_async.engine.fence import fence_off
from odoo.addons.ir_async.engine.job import Outcome
from odoo.addons.ir_async.engine.registration import note_running
from odoo.addons.ir_async.engine.release import release
from odoo.addons.ir_async.engine.rescue import RESCUE, take_over
from odoo.addons.ir_async.engine.session import Session
from odoo.addons.ir_async.exceptions import ClaimLost
from odoo.addons.ir_async.service.cursor import JobCursor, JobPool
from odoo.addons.ir_async.service.execution import Execution
from odoo.addons.ir_async.service.runner import finish_stopped

POLL = 0.002  # seconds between two looks at a step that is executed
BLOCKED = """
    SELECT count(*)
      FROM pg_stat_activity waiting
     WHERE datname = current_database()
       AND EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(waiting.pid)) AND backend_type = 'client backend')
"""
CLEAN = """
    DELETE FROM ir_async_after_rel; DELETE FROM ir_async_stop; DELETE FROM ir_async; DELETE FROM ir_async_channel;
    DELETE FROM ir_async_start; DELETE FROM ir_async_pause; DELETE FROM test_async_effect
"""


class Participant:
    """A connection and its steps.

    :param steps: functions; the first one begins anew after a lost race
    """

    def __init__(self, *steps):
        self.steps = steps
        self.position = 0
        self.future = None  # of the step that is executed now
        self.refusal = None  # the exception that ended it
        self.executor = ThreadPoolExecutor(1)

    def note_end(self):
        """Note how the step ended. After a lost race, the participant begins anew."""
        future, self.future = self.future, None
        self.position += 1
        try:
            future.result()
        except (psycopg2.Error, UserError, ClaimLost) as exc:
            is_race = kind_of(exc) is Kind.RACE
            assert is_race or not isinstance(exc, psycopg2.Error), repr(exc)
            self.refusal = None if is_race else exc
            self.position = 0 if is_race else len(self.steps)

    def leave(self):
        """Close the connection, as far as it is not kept."""


class Worker(Participant):
    """The session of a worker. What it executes in one statement is a transaction here, so that others come in between."""

    def __init__(self, database):
        self.session, _delay = Session.open(database.name, always=True)
        self.claimed = []
        super().__init__(self.claim, self.commit)

    def commit(self):
        self.session.execute("COMMIT")

    def claim(self):
        self.session.execute("BEGIN")
        self.session.wake()
        self.claimed += self.session.claim(1)

    def rescue(self):
        self.session.execute("BEGIN")
        self.session.change(RESCUE, self.session.params(dead=None, killed=[]))

    def fence_off(self):
        self.session.execute("BEGIN")
        self.fenced = fence_off(self.session, self.claimed[0], 'cancel')

    def release(self):
        self.session.execute("BEGIN")
        release(self.session, self.claimed)

    def unblock(self):
        self.session.execute("BEGIN")
        self.session.unblock([self.claimed[0].id])

    def sweep(self):
        self.session.execute("BEGIN")
        self.session.unblock()

    def cut(self):
        """End the session as others see it."""
        self.session.execute("SELECT pg_advisory_unlock(%s, %s)", [LOCK_CLASS, self.session.worker_id])

    def leave(self):
        self.session.close()


class JobRun(Participant):
    """The run of a claimed job, on the connection of jobs."""

    def __init__(self, worker, job):
        self.worker, self.job = worker, job
        self.pool = JobPool(worker.session.dbname, worker.session.server_version)
        self.cr = None
        self.has_ended = False
        super().__init__(self.begin, self.finish, self.commit)

    def begin(self):
        if self.cr:
            self.cr.close()
        self.cr = JobCursor(self.pool)
        self.execution = Execution(self.job)
        self.job = self.cr.begin_job(self.execution)
        self.cr.execute("INSERT INTO test_async_effect (name, value) VALUES ('effect', %s)", [self.job.id])

    def check(self):
        self.cr.check_claim()

    def commit_below(self):
        """Commit without a further check."""
        self.cr._cnx.guard = None
        self.cr._cnx.commit()

    def finish(self):
        self.cr.finish(self.job, Outcome('done'), 1)

    def commit(self):
        self.cr.commit()
        self.has_ended = True

    def leave(self):
        if self.cr:
            self.cr.close()
        self.pool.close()


class Request(Participant):
    """A transaction of Odoo, which takes its snapshot first."""

    def __init__(self, database, function):
        self.database, self.function = database, function
        self.cr = self.result = None
        super().__init__(self.begin, self.execute, self.commit)

    def begin(self):
        self.leave()
        self.cr = Registry(self.database.name).cursor()
        self.cr.execute("SELECT 1")

    def execute(self):
        self.result = self.function(api.Environment(self.cr, SUPERUSER_ID, {}))
        self.cr.flush()

    def commit(self):
        self.cr.commit()
        self.leave()

    def leave(self):
        if self.cr:
            self.cr.close()


def orders(*counts):
    """Provide all orders of so many steps of each participant."""
    if not any(counts):
        yield ()
    for index, count in enumerate(counts):
        if count:
            rest = [other - (i == index) for i, other in enumerate(counts)]
            yield from ((index, *order) for order in orders(*rest))


def play(scenario, order):
    """Have the participants execute their steps in an order, and check after each. Turns that were missed come last."""
    turns, participants = deque(order), scenario.participants
    while unfinished := [participant for participant in participants if participant.position < len(participant.steps)]:
        idle = [participant for participant in unfinished if not participant.future]
        participant = participants[turns.popleft()] if turns else idle[0] if idle else None
        if participant in idle:
            participant.future = participant.executor.submit(participant.steps[participant.position])
        elif not participant:
            wait([other.future for other in unfinished], return_when=FIRST_COMPLETED)
        settle(scenario, [other.future for other in unfinished if other.future])
        for other in unfinished:
            if other.future and other.future.done():
                other.note_end()
        scenario.check()


def settle(scenario, futures):
    """Wait until each step has ended or waits for a lock."""
    deadline = time.monotonic() + TIMEOUT
    while left := [future for future in futures if not future.done()]:
        if scenario.sql(BLOCKED)[0][0] == len(left):
            return
        assert time.monotonic() < deadline, "a step neither ends nor waits for a lock"
        wait(left, POLL, return_when=FIRST_COMPLETED)


def claimed_job(database):
    """Return a worker and a job that it has claimed."""
    database.enqueue('noop')
    worker = Worker(database)
    worker.claim()
    worker.commit()
    return worker, worker.claimed[0]


class Scenario:
    """What happens at once, and what must be true."""

    def __init__(self, database):
        self.database = database
        self.admin = database.cluster.connect(database.name)
        self.sql(CLEAN)
        self.helpers = []  # connections that take no turns
        self.participants = self.prepare()

    def prepare(self):
        """Return the participants."""

    def sql(self, query):
        with self.admin.cursor() as cr:
            cr.execute(query)
            return cr.fetchall() if cr.description else []

    def jobs(self):
        """Return the rows of all jobs, with their effects."""
        return self.sql(
            "SELECT *, (SELECT count(*) FROM test_async_effect WHERE value = job.id) AS effects FROM ir_async job ORDER BY id"
        )

    def check(self):
        """Check what must be true at any time."""

    def check_end(self):
        """Check what must be true in the end."""

    def leave(self):
        for participant in self.participants + self.helpers:
            participant.leave()
            participant.executor.shutdown()
        self.admin.close()


class ClaimClaim(Scenario):
    """Two workers never have one job, and none passes over a job that nobody has."""

    def prepare(self):
        self.database.enqueue('noop')
        self.database.enqueue('noop')
        return [Worker(self.database), Worker(self.database)]

    def check_end(self):
        owners = {job.id: worker.session.worker_id for worker in self.participants for job in worker.claimed}
        assert {job.id: job.worker_id for job in self.jobs()} == owners
        assert len(owners) == 2


class ClaimCancel(Scenario):
    """A cancelled job is nobody's, a claimed one has a request to stop it. The worker waits for nobody."""

    options = {}

    def prepare(self):
        job_id = self.database.enqueue('noop', options=self.options)
        return [Worker(self.database), Request(self.database, lambda env: env['ir.async'].browse(job_id).cancel())]

    def check(self):
        assert not self.participants[0].future

    def check_end(self):
        [job], [worker, request] = self.jobs(), self.participants
        assert not request.refusal
        if worker.claimed:
            assert (job.state, job.worker_id) == ('processing', worker.session.worker_id)
            assert worker.session.stop_reason(worker.claimed[0]) == 'cancel'
        else:
            assert (job.state, job.worker_id) == ('cancelled', None)


class LimitedClaimCancel(ClaimCancel):
    """The same in a channel with a capacity."""

    options = {'channel': 'one'}
    limits = {'capacity': 2}

    def prepare(self):
        with self.database.env() as env:
            env['ir.async.channel'].create({'name': 'one', **self.limits})
        worker, request = super().prepare()
        worker.session.maintain()
        return [worker, request]


class FairClaimCancel(LimitedClaimCancel):
    """The same in a channel where users take turns."""

    limits = {'fair': True}


class CommitRescue(Scenario):
    """A job that commits in between has its row until that commit is through."""

    def prepare(self):
        lost, job = claimed_job(self.database)
        lost.cut()
        self.helpers.append(lost)
        self.lost_id = lost.session.worker_id
        run = JobRun(lost, job)
        run.steps = (run.begin, run.check, run.commit_below)
        worker = Worker(self.database)
        worker.steps = (worker.rescue, worker.commit, worker.claim, worker.commit)
        return [run, worker]

    def check(self):
        [job], [run, _worker] = self.jobs(), self.participants
        if run.position == 2:
            assert job.worker_id == self.lost_id

    def check_end(self):
        [job], [run, _worker] = self.jobs(), self.participants
        assert job.effects == (0 if run.refusal else 1)


class ReleaseRescue(Scenario):
    """A job that its worker puts back when others have it already stays theirs."""

    def prepare(self):
        lost, _job = claimed_job(self.database)
        lost.cut()
        lost.steps = (lost.release, lost.commit)
        worker = Worker(self.database)
        # In one transaction, since the release would mostly come in between.
        worker.steps = (worker.rescue, worker.claim, worker.commit)
        return [lost, worker]

    def check_end(self):
        [job], [_lost, worker] = self.jobs(), self.participants
        expected = ('processing', worker.session.worker_id) if worker.claimed else ('created', None)
        assert (job.state, job.worker_id) == expected


class ReleaseRelease(Scenario):
    """Jobs that two put back at once are back once, whoever is first. Neither waits for the other."""

    def prepare(self):
        self.database.enqueue('noop')
        lost, _job = claimed_job(self.database)
        lost.claim()
        lost.commit()
        note_running(lost.session, lost.claimed[0])
        lost.cut()
        lost.steps = (lost.release, lost.commit)
        return [lost, self._rescuer()]

    def _rescuer(self):
        worker = Worker(self.database)
        worker.steps = (worker.rescue, worker.commit)
        return worker

    def check(self):
        assert not any(participant.future for participant in self.participants)

    def check_end(self):
        assert [(job.state, job.worker_id, job.revision) for job in self.jobs()] == [('created', None, 3)] * 2


class RescueRescue(ReleaseRelease):
    """The same with two that rescue them. The start of the method is counted once."""

    def prepare(self):
        lost, rescuer = super().prepare()
        self.helpers.append(lost)
        return [rescuer, self._rescuer()]

    def check_end(self):
        super().check_end()
        assert [job.starts for job in self.jobs()] == [1, 0]


class FinishRescue(Scenario):
    """A job whose session was lost has its effect once, by the old run or by the next one."""

    def prepare(self):
        lost, job = claimed_job(self.database)
        lost.cut()
        self.helpers.append(lost)
        worker = Worker(self.database)
        worker.steps = (worker.rescue, worker.commit, worker.claim, worker.commit)
        return [JobRun(lost, job), worker]

    def check_end(self):
        run, worker = self.participants
        assert run.has_ended != bool(worker.claimed)
        for job in worker.claimed:
            again = JobRun(worker, job)
            self.helpers.append(again)
            for step in again.steps:
                step()
        [job] = self.jobs()
        assert (job.state, job.effects) == ('done', 1)


class FinishCancel(Scenario):
    """A request to stop a job that ends by itself changes nothing of its end. One that comes after the end is refused."""

    is_late = False

    def prepare(self):
        worker, job = claimed_job(self.database)
        self.helpers.append(worker)
        return [JobRun(worker, job), Request(self.database, lambda env: env['ir.async'].browse(job.id).cancel())]

    def check(self):
        run, request = self.participants
        self.is_late |= run.has_ended and request.position < 2 and not request.future

    def check_end(self):
        [job], [run, request] = self.jobs(), self.participants
        assert run.has_ended
        assert request.refusal or not self.is_late
        assert (job.state, job.effects) == ('done', 1)


class FinishStop(Scenario):
    """A job that is stopped while it ends is done with its effect, or cancelled without."""

    def prepare(self):
        worker, job = claimed_job(self.database)
        worker.steps = (worker.fence_off, worker.commit)
        return [JobRun(worker, job), worker]

    def check_end(self):
        run, worker = self.participants
        assert run.has_ended != bool(worker.fenced)
        if job := worker.fenced:
            run.leave()
            [taken] = take_over(worker.session, job.id, job.worker_id, job.claim_number, 'cancel')
            finish_stopped(worker.session, taken, 1, run.job.claim_number)
        [job] = self.jobs()
        assert (job.state, job.effects) == (('done', 1) if run.has_ended else ('cancelled', 0))


class UnblockUnblock(Scenario):
    """Two parents end at once: their child begins once both have ended, and is not forgotten."""

    def prepare(self):
        with self.database.env() as env:
            call, noop = env['ir.async'].call, env['test.async.effect'].noop
            parents = call(noop) + call(noop)
            env['ir.async'].with_options(after=parents).call(noop)
        return [self._worker(), self._worker()]

    def _worker(self):
        worker = Worker(self.database)
        worker.claim()
        worker.commit()
        run = JobRun(worker, worker.claimed[0])
        run.begin()
        run.finish()
        self.helpers.append(run)
        worker.steps = (run.commit, worker.unblock, worker.commit)
        return worker

    def check(self):
        *parents, child = self.jobs()
        assert child.state == 'waiting' or {parent.state for parent in parents} == {'done'}

    def check_end(self):
        self.participants[0].session.wake()
        self.participants[0].session.maintain()
        *_parents, child = self.jobs()
        assert (child.state, child.revision) == ('created', 2)


class UnblockSweep(Scenario):
    """A child that its parent's worker and a sweep unblock at once begins once. Neither waits for the other."""

    def prepare(self):
        with self.database.env() as env:
            call, noop = env['ir.async'].call, env['test.async.effect'].noop
            self.child_id = env['ir.async'].with_options(after=call(noop)).call(noop).id
        worker = Worker(self.database)
        worker.claim()
        worker.commit()
        run = JobRun(worker, worker.claimed[0])
        self.helpers.append(run)
        for step in run.steps:
            step()
        worker.steps = (worker.unblock, worker.commit)
        return [worker, self._other()]

    def _other(self):
        worker = Worker(self.database)
        worker.steps = (worker.sweep, worker.commit)
        return worker

    def check(self):
        assert not any(participant.future for participant in self.participants)

    def check_end(self):
        self.participants[1].sweep()
        self.participants[1].commit()
        _parent, child = self.jobs()
        assert (child.state, child.revision) == ('created', 2)


class UnblockCancel(UnblockSweep):
    """A child that is cancelled when its parent ends stays cancelled."""

    def _other(self):
        return Request(self.database, lambda env: env['ir.async'].browse(self.child_id).cancel())

    def check(self):
        assert not self.participants[0].future

    def check_end(self):
        _parent, child = self.jobs()
        assert child.state == 'cancelled'


class KeyKey(Scenario):
    """Two transactions that call one key get one job."""

    def prepare(self):
        return [Request(self.database, self._call) for _i in range(2)]

    def _call(self, env):
        return env['ir.async'].with_options(key='key').call(env['test.async.effect'].noop).id

    def check(self):
        assert len(self.jobs()) <= 1

    def check_end(self):
        assert {request.result for request in self.participants} == {job.id for job in self.jobs()}


class KeyClaim(Scenario):
    """A call that relies on a queued job commits before that job begins, or makes another job."""

    def prepare(self):
        self.options = {'key': 'key', 'key_until': 'start'}
        self.job_id = self.database.enqueue('noop', options=self.options)
        return [Worker(self.database), Request(self.database, self._call)]

    def _call(self, env):
        return env['ir.async'].with_options(**self.options).call(env['test.async.effect'].noop).id

    def check(self):
        worker, request = self.participants
        if request.position == 2 and request.result == self.job_id and not request.future:
            self.was_free = not worker.claimed
        if request.position == 3 and request.result == self.job_id:
            assert self.was_free

    def check_end(self):
        assert {self.job_id, self.participants[1].result} == {job.id for job in self.jobs()}


class CapacityCapacity(Scenario):
    """A channel never runs more jobs than it may, nor one with the limits of another."""

    def prepare(self):
        with self.database.env() as env:
            env['ir.async.channel'].create({'name': 'one', 'capacity': 1})
        for _i in range(2):
            self.database.enqueue('noop', options={'channel': 'one/x'})
        workers = [Worker(self.database) for _i in range(2)]
        for worker in workers:
            worker.session.maintain()
        return workers

    def check(self):
        assert sum(job.state == 'processing' for job in self.jobs()) <= 1

    def check_end(self):
        assert sum(len(worker.claimed) for worker in self.participants) == 1


class StartStart(Scenario):
    """A channel never starts more jobs in an interval than it may."""

    def prepare(self):
        with self.database.env() as env:
            env['ir.async.channel'].create({'name': 'one', 'interval': 3600, 'starts_per_interval': 2})
        for _i in range(3):
            self.database.enqueue('noop', options={'channel': 'one'})
        workers = [Worker(self.database) for _i in range(2)]
        for worker in workers:
            worker.session.maintain()
        worker.claim()
        worker.commit()
        return workers

    def check(self):
        assert sum(job.state == 'processing' for job in self.jobs()) <= 2

    def check_end(self):
        assert sum(len(worker.claimed) for worker in self.participants) == 2


class RetryPrune(Scenario):
    """A job that is tried again is not deleted. The clean-up waits for nobody."""

    def prepare(self):
        job_id = self.database.enqueue('noop')
        self.sql("UPDATE ir_async SET state = 'failed', date_done = now() - interval '60 days'")
        return [
            Request(self.database, lambda env: env['ir.async'].browse(job_id).retry()),
            Request(self.database, lambda env: env['ir.async']._gc_jobs()),
        ]

    def check(self):
        assert not self.participants[1].future

    def check_end(self):
        states = [job.state for job in self.jobs()]
        assert states == ([] if self.participants[0].refusal else ['created'])


DERIVED = (LimitedClaimCancel, FairClaimCancel, RescueRescue, UnblockCancel)
SCENARIOS = {scenario.__name__: scenario for scenario in (*Scenario.__subclasses__(), *DERIVED)}


def play_all(database, name):
    """Play all orders of a scenario."""
    untried = None
    while untried is None or untried:
        scenario = SCENARIOS[name](database)
        if untried is None:
            untried = list(orders(*(len(participant.steps) for participant in scenario.participants)))
        order = untried.pop()
        try:
            play(scenario, order)
            scenario.check_end()
        except AssertionError as exc:
            msg = f"order {order}: {exc}"
            raise AssertionError(msg) from exc
        finally:
            scenario.leave()
