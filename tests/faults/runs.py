"""What was executed, when, and in which process."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import NamedTuple


class Run(NamedTuple):
    """An interval in which a method was executed in a process."""

    db: str
    job_id: int
    token: str
    pid: int
    begin: float
    end: float
    is_certain: bool  # the claim may have been lost before the method ended


def read_events(world):
    """Return the events that methods noted."""
    if not world.trace.exists():
        return []
    return [json.loads(line) for line in world.trace.read_text(encoding='utf-8').splitlines()]


def find_runs(world, events):
    """Return the runs of methods by their begin. A run ends when its process or its claim may have."""
    cuts = defaultdict(list)
    for cut in world.cuts:
        cuts[cut.pid].append(cut)
    open_runs, runs = {}, []

    def close(event, end):
        last_seen = world.lifetimes.seen.get(_process(event), event['time'])
        end = max(event['time'], last_seen) if end is None else end
        hit = [cut.time for cut in cuts[event['pid']] if event['time'] <= cut.time <= end]
        runs.append(
            Run(event['db'], event['job'], event['token'], event['pid'], event['time'], min([end, *hit]), not hit)
        )

    for event in events:
        if event['event'] == 'begin':
            if previous := open_runs.pop(_process(event), None):
                close(previous, event['time'])
            open_runs[_process(event)] = event
        elif event['event'] == 'end' and _process(event) in open_runs:
            close(open_runs.pop(_process(event)), event['time'])
    for event in open_runs.values():
        close(event, None)
    return sorted(runs, key=lambda run: run.begin)


def _process(event):
    return event['pid'], event['start']


def possible_deaths(world, runs):
    """Return how many deaths each job may be charged with, and how many charges are for nobody certain.

    A kill is charged to the job whose method was running. When none was, a job may just have begun or ended.
    """
    by_pid = defaultdict(list)
    for run in runs:
        by_pid[run.pid].append(run)
    certain, uncertain = Counter(), 0
    for cut in world.cuts:
        if cut.what == 'kill':
            begun = [run for run in by_pid[cut.pid] if run.begin <= cut.time]
            if begun:
                certain[begun[-1].db, begun[-1].job_id] += 1
            if not begun or begun[-1].end < cut.time:
                uncertain += 1
    return certain, uncertain
