"""What holds between jobs: how many run at once or start in a time, who waits for whom, what they add up to."""

from __future__ import annotations

from collections import defaultdict

from .kinds import CHANNELS


def find_crowds(runs, calls, jobs):
    """Return the run and a text wherever a channel has more jobs at once than its capacity, a key more than one, or a job more than one run.

    :param list runs: of a database, by their begin
    :param dict calls: of a database, by their tokens
    :param dict jobs: of a database, by their ids
    """
    groups = defaultdict(list)
    for run in runs:
        if call := calls.get(run.token):
            limits = CHANNELS.get((call.channel or '').split('/')[0], {})
            if 'capacity' in limits:
                groups[f'channel {call.channel}', limits['capacity']].append(run)
            if call.key and call.kind != 'restart' and run.job_id in jobs and not jobs[run.job_id].notify:
                groups[f'key {call.key}', 1].append(run)
            groups[f'job {run.job_id}', 1].append(run)
    found = []
    for (what, capacity), group in groups.items():
        at_once = []
        for run in group:
            at_once = [other for other in at_once if other.end > run.begin]
            at_once.append(run)
            if len(at_once) > capacity:
                others = ', '.join(f"{r.job_id} in {r.pid} {r.begin:.3f}–{r.end:.3f}" for r in at_once)
                found.append((run, f"{what}, capacity {capacity}: jobs {others}"))
    return found


def find_bursts(name, events):
    """Return the id of a job and a text wherever a channel started more jobs in its interval than it may.

    :param str name: of a database
    :param list events: those that methods noted
    """
    seconds, count = CHANNELS['rate']['interval'], CHANNELS['rate']['starts_per_interval']
    starts = sorted(
        {(event['claimed'], event['job']) for event in events if event['event'] == 'start' and event['db'] == name}
    )
    return [
        (job_id, f"channel rate started {count + 1} jobs in {last - first:.3f} s")
        for (first, _job), (last, job_id) in zip(starts, starts[count:], strict=False)
        if last - first < seconds - 1e-5  # dates are in microseconds
    ]


def find_early_children(calls, effects):
    """Return the call and a text for each child that did not see the effects of all its parents.

    :param list calls: of a database
    :param list effects: of a database
    """
    values = {effect.token: effect.value for effect in effects if effect.step == 'effect'}
    return [
        (call, f"{values[call.token]} of {len(call.parents)} parents had ended well")
        for call in calls
        if call.parents and call.token in values and values[call.token] != len(call.parents)
    ]


def count_added(calls, jobs, cleaned):
    """Return how many jobs that add one have ended well.

    :param list calls: of a database
    :param dict jobs: of a database, by their ids
    :param set cleaned: the ids of its jobs that were deleted after they had ended well
    """
    return sum(
        any(jobs[job_id].state == 'done' if job_id in jobs else job_id in cleaned for job_id in call.job_ids)
        for call in calls
        if call.kind == 'count'
    )
