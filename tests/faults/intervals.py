"""Jobs that ran while a user was archived, or while a module was installed."""

from __future__ import annotations

from datetime import timezone
from typing import NamedTuple


class Archived(NamedTuple):
    """An interval in which a user was archived, certainly from ``since`` to ``until``, and at most from ``begin`` to ``end``.

    All are seconds since 1970, but for ``until``, which is monotonic. What is not certain has no ``since`` or ``until``.
    """

    database: str
    begin: float
    since: float | None
    until: float | None
    end: float


def may_have_failed(archived, name, job):
    """Return whether a job may have begun while its user was archived, and failed for that."""
    if job.state != 'failed' or 'has been archived' not in str(job.payload):
        return False
    begin, end = (date.replace(tzinfo=timezone.utc).timestamp() for date in (job.date_start, job.date_done))
    return any(interval.database == name and begin <= interval.end and interval.begin <= end for interval in archived)


def find_runs_of_archived(archived, events):
    """Return the events of methods that began, although their user was archived when the transaction of the job began."""
    return [
        event
        for event in events
        if event['event'] == 'transaction'
        and any(
            interval.database == event['db']
            and interval.until
            and interval.since < event['since']
            and event['time'] < interval.until
            for interval in archived
        )
    ]


class Settled(NamedTuple):
    """An interval in which a module was certainly installed, or certainly not, from ``since`` (since 1970) to ``until`` (monotonic)."""

    database: str
    is_installed: bool
    since: float
    until: float


def find_stale_runs(settled, events):
    """Return the events of methods in a registry that was not up to date when their job was claimed."""
    return [
        event
        for event in events
        if event['event'] == 'transaction'
        and any(
            interval.database == event['db']
            and interval.since < event['claimed']
            and event['time'] < interval.until
            and interval.is_installed != event['is_installed']
            for interval in settled
        )
    ]
