"""Compare what the jobs left behind with what was asked for."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict

from .copies import find_changed, scope_of
from .dates import LATEST, find_waits
from .intervals import find_runs_of_archived, find_stale_runs, may_have_failed
from .kinds import ACCOUNT
from .log import find_errors
from .relations import count_added, find_bursts, find_crowds, find_early_children
from .runs import find_runs, possible_deaths, read_events
from .violations import Violation

TOKEN = re.compile(r'"((?:%s)-\d+(?:/more)?)"')


class Audit:
    """What is wrong, in ``violations``.

    :param World world: after its queue has drained
    :param list workloads: of all databases
    :param Faults faults: what was done meanwhile
    :param bool is_quiet: without any fault
    :param bool is_prompt: without any fault that keeps jobs waiting
    """

    def __init__(self, world, workloads, faults, is_quiet=False, is_prompt=False):
        self.world = world
        self.workloads = workloads
        self.faults = faults
        self.is_quiet = is_quiet
        self.is_prompt = is_prompt
        self.violations = []
        self.counts = Counter()
        self.states = Counter()
        self.waits = []  # seconds from the dates of jobs to their begins
        self.may_fail = set()  # names of methods in the log's lines

    def add(self, result, database, job_id, text):
        self.violations.append(Violation(result, database, job_id, text))

    def run(self):
        events = read_events(self.world)
        self.run_databases(events)
        for event in events:
            if event['event'] == 'leaked':
                self.add('leaked', event['db'], event['job'], ', '.join(event['left']))
        for event in find_runs_of_archived(self.faults.archived, events):
            self.add('unwanted', event['db'], event['job'], f"{event['token']} ran though its user was archived")
        for event in find_stale_runs(self.faults.settled, events):
            self.add('leaked', event['db'], event['job'], f"{event['token']} ran in an old registry")
        for (level, text), count in find_errors(
            self.world, self.may_fail | self.faults.may_fail, self.is_quiet
        ).items():
            self.add('log', '', None, f"{count} × {level} {text}")
        return self.violations

    def run_databases(self, events):
        """Audit the databases of the workloads alone."""
        self.runs = find_runs(self.world, events)
        self.deaths, self.uncertain_deaths = possible_deaths(self.world, self.runs)
        for workload in self.workloads:
            self._database(workload)
            for job_id, text in find_bursts(workload.database.name, events):
                self.add('capacity', workload.database.name, job_id, text)

    # ------------------------------------------------------------
    # A database
    # ------------------------------------------------------------

    def _database(self, workload):
        database, name = workload.database, workload.database.name
        self.scope = scope = scope_of(workload)
        jobs = {job.id: job for job in database.sql("SELECT * FROM ir_async ORDER BY id")}
        token_of = re.compile(
            TOKEN.pattern % '|'.join(map(re.escape, {*self.world.names, *(prefix[:-1] for prefix in scope.prefixes)}))
        )
        tokens = {job_id: match[1] if (match := token_of.search(job.args)) else None for job_id, job in jobs.items()}
        by_token = defaultdict(list)
        for job_id, token in tokens.items():
            by_token[token].append(job_id)
        effects = database.sql("SELECT * FROM ir_async_ledger ORDER BY id")
        steps = defaultdict(Counter)
        for effect in effects:
            steps[effect.job_id][effect.step] += 1
            if effect.dbname not in scope.homes or not effect.token.startswith(scope.prefixes):
                self.add('database', name, effect.job_id, f"effect of {effect.token}, written in {effect.dbname}")
            elif effect.job_id in jobs and tokens[effect.job_id] != effect.token:
                self.add(
                    'database', name, effect.job_id, f"effect of {effect.token}, but the job is {tokens[effect.job_id]}"
                )
        for run in self.runs:
            if run.db == name and run.begin >= scope.since and not run.token.startswith(scope.running):
                self.add('database', name, run.job_id, f"{run.token} was executed here")
        if workload.copied:
            for job_id, text in find_changed(workload.copied, jobs):
                self.add('database', name, job_id, text)
        self.counts['transactions broken'] += workload.broken
        self.counts['jobs'] += len(jobs)
        self.states.update(job.state for job in jobs.values())
        self.may_fail |= {(name, job.id) for job in jobs.values() if job.state == 'failed'}
        self.calls = calls = {call.token: call for call in scope.known}
        self.cancelled = {job_id for call in scope.known if call.cancelled for job_id in call.job_ids}
        self.parents = defaultdict(dict)  # the states of the jobs that each one waits for, by their ids
        for job_id, parent_id in database.sql("SELECT job_id, after_id FROM ir_async_after_rel"):
            if parent_id in jobs:
                self.parents[job_id][parent_id] = jobs[parent_id].state
        for call in scope.audited:
            self._call(database, call, calls, jobs, by_token, steps)
        for job_id, job in jobs.items():
            if (token := tokens[job_id] or '').endswith('/more') and token.startswith(scope.running):
                parents = by_token.get(token.removesuffix('/more'), [])
                self._job(database, None, job, steps[job_id], len(by_token[token]))
                if parents and jobs[parents[0]].state not in ('succeeded', 'done'):
                    self.add(
                        'unwanted', name, job_id, f"was enqueued by {parents[0]}, which is {jobs[parents[0]].state}"
                    )
        self._relations(database, calls, jobs, effects)
        self._enqueued(name, calls, effects, jobs)

    def _call(self, database, call, calls, jobs, by_token, steps):
        name = database.name
        found = by_token.get(call.token, [])
        if call.fate == 'rolled back' and not call.key:
            for job_id in found:
                self.add(
                    'unwanted', name, job_id, f"{call.token} was rolled back, its job is there: {jobs[job_id].state}"
                )
            return
        if call.fate == 'committed':
            self.counts['calls'] += 1
            for job_id in call.job_ids:
                if job_id not in jobs and (name, job_id) not in self.faults.cleaned:
                    self.add('lost', name, job_id, f"{call.token} ({call.kind}) was committed, its job is not there")
        for job_id in call.job_ids:
            if job_id not in jobs and (name, job_id) in self.faults.cleaned:
                self._effects(name, call, job_id, 'done', steps[job_id], None)
                if call.kind == 'more' and len(by_token.get(f'{call.token}/more', ())) > 1:
                    self.add('doubled', name, job_id, f"{call.token}/more: jobs {by_token[f'{call.token}/more']}")
        for job_id in found:
            self._job(database, call, jobs[job_id], steps[job_id])
        if call.kind == 'more':
            more = by_token.get(f'{call.token}/more', ())
            for job_id in found:
                if jobs[job_id].state == 'done' and len(more) > 1:
                    self.add('doubled', name, job_id, f"enqueued {len(more)} jobs {list(more)} instead of one")

    def _job(self, database, call, job, steps, siblings=1):
        name = database.name
        expected = call.expected if call else ('succeeded',)
        # Calls under one key share their job; the children of a job that is retried later stay cancelled.
        parents = self.parents[job.id]
        cancelled = call and (
            not self.cancelled.isdisjoint({job.id, *parents})
            or any(self.calls[token].cancelled for token in call.parents)  # it may have been deleted since
        )
        label = f"{call.token if call else job.method} ({call.kind if call else 'more'})"
        allowed = sum(self.deaths[home, job.id] for home in self.scope.homes)
        if job.deaths > allowed:
            excess = job.deaths - allowed
            if excess > self.uncertain_deaths:
                self.add('charged', name, job.id, f"{label}: {job.deaths} deaths, {allowed} kills while it ran")
            else:
                self.uncertain_deaths -= excess
        if siblings > 1:
            self.add('doubled', name, job.id, f"{label}: {siblings} jobs of one enqueuing")
        if job.state in ('created', 'processing'):
            self.add('stuck', name, job.id, f"{label} is {job.state}, scheduled {job.date_scheduled}")
            return
        if job.state == 'waiting':
            if not {'failed', 'waiting'} & {*parents.values()}:
                self.add('stuck', name, job.id, f"{label} waits for {parents}")
            return
        if job.state not in expected and not (job.state == 'done' and 'succeeded' in expected):
            is_killed = job.state == 'failed' and job.deaths >= 3 and job.deaths <= allowed
            may_cancel = job.state == 'cancelled' and (cancelled or 'cancelled' in parents.values())
            is_archived = call and call.kind == 'of_user' and may_have_failed(self.faults.archived, name, job)
            if not (is_killed or may_cancel or is_archived):
                self.add(
                    'failed', name, job.id, f"{label} is {job.state} instead of {' or '.join(expected)}: {_error(job)}"
                )
        elif (
            call
            and not call.retried
            and job.state in ('done', 'succeeded', 'failed')
            and call.kind not in ('overtime', 'hang')
            and job.attempts != call.attempts
            and job.deaths < 3
        ):
            self.add('charged', name, job.id, f"{label}: {job.attempts} attempts instead of {call.attempts}")
        self._effects(name, call, job.id, job.state, steps, job)

    def _effects(self, name, call, job_id, state, steps, job):
        kind = call.kind if call else 'more'
        label = f"{call.token if call else 'more'} ({kind}), {state}"
        steps = dict(steps)
        if kind == 'commit' and (before := steps.pop('before', 0)):
            begins = sum(run.job_id == job_id and run.db in self.scope.homes for run in self.runs)
            if before > begins:
                self.add('doubled', name, job_id, f"{label}: committed {before} times, begun {begins} times")
        if kind == 'noop' or state not in ('done', 'succeeded'):
            wanted = {}
        elif kind == 'chunks':
            wanted = {str(id_): 1 for id_ in json.loads(job.res_ids)} if job else steps
        else:
            wanted = {'effect': 1}
        for step in {*steps, *wanted}:
            have, want = steps.get(step, 0), wanted.get(step, 0)
            if have < want:
                self.add('lost', name, job_id, f"{label}: {have} × {step}")
            elif have > want:
                self.add('doubled' if want else 'unwanted', name, job_id, f"{label}: {have} × {step}")

    def _enqueued(self, name, calls, effects, jobs):
        """A job that a job has enqueued is there."""
        for effect in effects:
            call = calls.get(effect.token)
            if (
                call
                and call.kind == 'more'
                and effect.value not in jobs
                and (name, effect.value) not in self.faults.cleaned
            ):
                self.add('lost', name, effect.job_id, f"{effect.token} enqueued job {effect.value}, which is not there")

    def _relations(self, database, calls, jobs, effects):
        name, scope = database.name, self.scope
        runs = [run for run in self.runs if run.db == name]
        for run, text in find_crowds([run for run in runs if run.begin >= scope.since], calls, jobs):
            self.add('capacity', name, run.job_id, text)
        for run, wait in find_waits(runs, calls):
            self.waits.append(wait)
            if wait < 0 or (self.is_prompt and wait > LATEST):
                self.add('date', name, run.job_id, f"{run.token} began {wait:.3f} s after its date")
        for call, text in find_early_children(scope.audited, effects):
            self.add('order', name, call.job_ids[0], text)
        cleaned = {job_id for database_name, job_id in self.faults.cleaned if database_name == name}
        done = count_added(scope.known, jobs, cleaned)
        total = database.value(f"SELECT coalesce(sum(value), 0) FROM {ACCOUNT.replace('.', '_')}")
        if total != done:
            result = 'lost' if total < done else 'doubled'
            self.add(result, name, None, f"{done} jobs added 1, the sum is {total}")


def _error(job):
    data = ((job.payload or {}).get('error') or {}).get('data') or {}
    return data.get('message')
