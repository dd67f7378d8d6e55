"""Compare what the jobs left behind with what was asked for."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from typing import NamedTuple

from .workload import ACCOUNT, CHANNELS

TOKEN = re.compile(r'"((?:%s)-\d+(?:/more)?)"')
RESULTS = {
    'lost': "Committed jobs without their outcome",
    'doubled': "Effects more often than once",
    'unwanted': "Effects of failed, cancelled or rolled-back jobs",
    'stuck': "Jobs left over without reason",
    'charged': "Attempts or deaths charged without reason",
    'failed': "Jobs that ended in a wrong state",
    'order': "Children that ran before their parents",
    'capacity': "More jobs at once than the channel or key allows",
    'database': "Effects in a wrong database",
    'log': "Unexpected errors in the log",
}
# What faults explain. The end of a job says its id; those that may fail are left out by `_log`.
NOISE = (
    r'psycopg2\.(OperationalError|InterfaceError): ',
    r'psycopg2\.errors\.(\w+Shutdown|CannotConnectNow|\w+Timeout|LockNotAvailable|QueryCanceled|SerializationFailure|DeadlockDetected): ',
    r'odoo\.sql_db: (bad query|Connection to the database failed|Couldn.t|Programming error)',
    r'(?i)(terminating connection|server closed|connection .*(closed|lost|refused)|could not connect|shutting down|starting up|recovery)',
)


class Violation(NamedTuple):
    result: str
    database: str
    job_id: int | None
    text: str


class Run(NamedTuple):
    """An interval in which a method was executed in a process."""

    db: str
    job_id: int
    token: str
    pid: int
    begin: float
    end: float
    is_certain: bool  # the claim may have been lost before the method ended


class Audit:
    """What is wrong, in ``violations``.

    :param World world: after its queue has drained
    :param list workloads: of all databases
    :param set cleaned: pairs of database and job that the clean-up may have deleted
    :param bool is_quiet: without any fault
    """

    def __init__(self, world, workloads, cleaned=(), is_quiet=False):
        self.world = world
        self.workloads = workloads
        self.cleaned = cleaned
        self.is_quiet = is_quiet
        self.violations = []
        self.counts = Counter()
        self.states = Counter()
        self.may_fail = set()  # names of methods in the log's lines

    def add(self, result, database, job_id, text):
        self.violations.append(Violation(result, database, job_id, text))

    def run(self):
        self.runs = self._runs()
        self.deaths = self._possible_deaths()
        for workload in self.workloads:
            self._database(workload)
        self._log()
        return self.violations

    # ------------------------------------------------------------
    # What was executed, when
    # ------------------------------------------------------------

    def _runs(self):
        cuts = defaultdict(list)
        for cut in self.world.cuts:
            cuts[cut.pid].append(cut)
        events, open_runs, runs = [], {}, []
        if self.world.trace.exists():
            events = [json.loads(line) for line in self.world.trace.read_text(encoding='utf-8').splitlines()]

        def close(event, end):
            last_seen = self.world.lifetimes.seen.get(event['pid'], event['time'])
            end = max(event['time'], last_seen) if end is None else end
            hit = [cut.time for cut in cuts[event['pid']] if event['time'] <= cut.time <= end]
            runs.append(
                Run(event['db'], event['job'], event['token'], event['pid'], event['time'], min([end, *hit]), not hit)
            )

        for event in events:
            if event['event'] == 'begin':
                if previous := open_runs.pop(event['pid'], None):
                    close(previous, event['time'])
                open_runs[event['pid']] = event
            elif event['pid'] in open_runs:
                close(open_runs.pop(event['pid']), event['time'])
        for event in open_runs.values():
            close(event, None)
        return sorted(runs, key=lambda run: run.begin)

    def _possible_deaths(self):
        """Return how many deaths each job may be charged with, and how many charges are for nobody certain.

        A kill is charged to the job whose method was running. When none was, a job may just have begun or ended.
        """
        by_pid = defaultdict(list)
        for run in self.runs:
            by_pid[run.pid].append(run)
        certain, self.uncertain_deaths = Counter(), 0
        for cut in self.world.cuts:
            if cut.what == 'kill':
                begun = [run for run in by_pid[cut.pid] if run.begin <= cut.time]
                if begun:
                    certain[begun[-1].db, begun[-1].job_id] += 1
                if not begun or begun[-1].end < cut.time:
                    self.uncertain_deaths += 1
        return certain

    # ------------------------------------------------------------
    # A database
    # ------------------------------------------------------------

    def _database(self, workload):
        database, name = workload.database, workload.database.name
        jobs = {job.id: job for job in database.sql("SELECT * FROM ir_async ORDER BY id")}
        token_of = re.compile(TOKEN.pattern % '|'.join(self.world.names))
        tokens = {job_id: match[1] if (match := token_of.search(job.args)) else None for job_id, job in jobs.items()}
        by_token = defaultdict(list)
        for job_id, token in tokens.items():
            by_token[token].append(job_id)
        effects = database.sql("SELECT * FROM ir_async_ledger ORDER BY id")
        steps = defaultdict(Counter)
        for effect in effects:
            steps[effect.job_id][effect.step] += 1
            if effect.dbname != name or not effect.token.startswith(f'{name}-'):
                self.add('database', name, effect.job_id, f"effect of {effect.token}, written in {effect.dbname}")
            elif effect.job_id in jobs and tokens[effect.job_id] != effect.token:
                self.add(
                    'database', name, effect.job_id, f"effect of {effect.token}, but the job is {tokens[effect.job_id]}"
                )
        for run in self.runs:
            if run.db == name and not run.token.startswith(f'{name}-'):
                self.add('database', name, run.job_id, f"{run.token} was executed here")
        self.counts['transactions broken'] += workload.broken
        self.counts['jobs'] += len(jobs)
        self.states.update(job.state for job in jobs.values())
        self.may_fail |= {(name, job.id) for job in jobs.values() if job.state == 'failed'}
        calls = {call.token: call for call in workload.calls}
        self.cancelled = {job_id for call in workload.calls if call.cancelled for job_id in call.job_ids}
        self.parents = defaultdict(dict)  # the states of the jobs that each one waits for, by their ids
        for job_id, parent_id in database.sql("SELECT job_id, after_id FROM ir_async_after_rel"):
            if parent_id in jobs:
                self.parents[job_id][parent_id] = jobs[parent_id].state
        for call in workload.calls:
            self._call(database, call, calls, jobs, by_token, steps)
        for job_id, job in jobs.items():
            if tokens[job_id] and (token := tokens[job_id]).endswith('/more'):
                parents = by_token.get(token.removesuffix('/more'), [])
                self._job(database, None, job, steps[job_id], len(by_token[token]))
                if parents and jobs[parents[0]].state not in ('succeeded', 'done'):
                    self.add(
                        'unwanted', name, job_id, f"was enqueued by {parents[0]}, which is {jobs[parents[0]].state}"
                    )
        self._intervals(name, {call.token: call for call in workload.calls}, jobs, tokens)
        self._children(name, workload, by_token, effects, jobs)
        self._counter(database, workload, jobs, by_token)

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
                if job_id not in jobs and (name, job_id) not in self.cleaned:
                    self.add('lost', name, job_id, f"{call.token} ({call.kind}) was committed, its job is not there")
        for job_id in call.job_ids:
            if job_id not in jobs and (name, job_id) in self.cleaned:
                self._effects(name, call, job_id, 'done', steps[job_id], None)
                if call.kind == 'more' and len(by_token.get(f'{call.token}/more', ())) > 1:
                    self.add('doubled', name, job_id, f"{call.token}/more: jobs {by_token[f'{call.token}/more']}")
        for job_id in found:
            self._job(database, call, jobs[job_id], steps[job_id])
        if call.kind == 'more':
            more = by_token.get(f'{call.token}/more', ())
            for job_id in found:
                if jobs[job_id].state == 'done' and len(more) != 1 and not self._all_cleaned(name, call):
                    self.add(
                        'doubled' if more else 'lost',
                        name,
                        job_id,
                        f"enqueued {len(more)} jobs {list(more)} instead of one",
                    )

    def _all_cleaned(self, name, call):
        # `…/more` may have been deleted as well: it is as old.
        return any(database == name for database, _id in self.cleaned)

    def _job(self, database, call, job, steps, siblings=1):
        name = database.name
        expected = call.expected if call else ('succeeded',)
        # Calls under one key share their job; the children of a job that is retried later stay cancelled.
        parents = self.parents[job.id]
        cancelled = call and not self.cancelled.isdisjoint({job.id, *parents})
        label = f"{call.token if call else job.method} ({call.kind if call else 'more'})"
        allowed = self.deaths[name, job.id]
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
            if not (is_killed or may_cancel):
                self.add(
                    'failed', name, job.id, f"{label} is {job.state} instead of {' or '.join(expected)}: {_error(job)}"
                )
        elif (
            call
            and not call.retried
            and job.state in ('done', 'succeeded', 'failed')
            and call.kind != 'overtime'
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
            begins = sum(run.job_id == job_id and run.db == name for run in self.runs)
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

    # ------------------------------------------------------------
    # Relations between jobs
    # ------------------------------------------------------------

    def _intervals(self, name, calls, jobs, tokens):
        """No channel has more jobs than its capacity, no key more than one, no job more than one run at once."""
        groups = defaultdict(list)
        for run in self.runs:
            if run.db == name and (call := calls.get(run.token)):
                if call.channel:
                    groups[f'channel {call.channel}', CHANNELS[call.channel]].append(run)
                if call.key and run.job_id in jobs and not jobs[run.job_id].notify:
                    groups[f'key {call.key}', 1].append(run)
                groups[f'job {run.job_id}', 1].append(run)
        for (what, capacity), runs in groups.items():
            at_once = []
            for run in runs:
                at_once = [other for other in at_once if other.end > run.begin]
                at_once.append(run)
                if len(at_once) > capacity:
                    self.add(
                        'capacity',
                        name,
                        run.job_id,
                        f"{what}, capacity {capacity}: jobs "
                        + ', '.join(f"{r.job_id} in {r.pid} {r.begin:.3f}–{r.end:.3f}" for r in at_once),
                    )

    def _children(self, name, workload, by_token, effects, jobs):
        values = {effect.token: effect.value for effect in effects if effect.step == 'effect'}
        for call in workload.calls:
            if call.parents and call.token in values and values[call.token] != len(call.parents):
                self.add(
                    'order',
                    name,
                    call.job_ids[0],
                    f"{values[call.token]} of {len(call.parents)} parents had ended well",
                )

    def _counter(self, database, workload, jobs, by_token):
        """The sum of what jobs added is the number of those that ended well."""
        done = [
            call
            for call in workload.calls
            if call.kind == 'count'
            and any(
                jobs[job_id].state == 'done' if job_id in jobs else (database.name, job_id) in self.cleaned
                for job_id in call.job_ids
            )
        ]
        total = database.value(f"SELECT sum(value) FROM {ACCOUNT.replace('.', '_')}")
        if total != len(done):
            self.add(
                'lost' if total < len(done) else 'doubled',
                database.name,
                None,
                f"{len(done)} jobs added 1, the sum is {total}",
            )

    # ------------------------------------------------------------
    # The log
    # ------------------------------------------------------------

    def _log(self):
        levels = '(WARNING|ERROR|CRITICAL)' if self.is_quiet else '(ERROR|CRITICAL)'
        found = Counter()
        # With the lines of its traceback, a record says what caused it.
        for record in re.split(r'\n(?=\d{4}-\d\d-\d\d \S+ \d+ )', self.world.log_text()):
            match = re.match(rf'\S+ \S+ \d+ {levels} (\S+) (.*)', record)
            if not match or (not self.is_quiet and any(re.search(noise, record) for noise in NOISE)):
                continue
            text = match[3]
            job_ids = {int(number) for number in re.findall(r'\b[Jj]obs? (\d+)', text)}
            if any((name, job_id) in self.may_fail for name in self.world.names for job_id in job_ids):
                continue
            if re.search(r'\((fail_times|raise_odd)\b|\.(fail_times|raise_odd)\b', text):
                continue
            found[match[1], re.sub(r'\d+', 'N', text)[:180]] += 1
        for (level, text), count in found.items():
            self.add('log', '', None, f"{count} × {level} {text}")

    def log_lines(self, job_ids):
        """Return the lines of the servers' logs that name one of these jobs."""
        wanted = {str(job_id) for job_id in job_ids}
        return [
            line for line in self.world.log_text().splitlines() if wanted & set(re.findall(r'\b[Jj]ob (\d+)', line))
        ]


def _error(job):
    data = ((job.payload or {}).get('error') or {}).get('data') or {}
    return data.get('message')
