"""Jobs that came with a copy of another database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass
class Copied:
    """The jobs of the original.

    :param Workload load: what was enqueued there until the copy
    :param dict rows: state and revision of the live ones, by their ids, as they were copied
    :param float time: since when what runs in a database of this name runs in the copy
    :param bool is_adopted: whether they were allowed to run in the copy
    """

    load: Any
    rows: dict
    time: float
    is_adopted: bool = False


def find_changed(copied, jobs):
    """Return the ids of live jobs that were changed in the copy, with how, though nobody adopted them."""
    if copied.is_adopted:
        return []
    return [
        (row.id, f"is {jobs[row.id].state} in the copy, was {row.state}" if row.id in jobs else "is gone")
        for row in copied.rows.values()
        if row.id not in jobs or (jobs[row.id].state, jobs[row.id].revision) != (row.state, row.revision)
    ]


class Scope(NamedTuple):
    """What belongs into a database.

    :param list audited: the calls whose jobs must have ended
    :param list known: these, and those of which only the ended jobs count
    :param tuple prefixes: of the tokens of all
    :param tuple running: of the tokens that may run
    :param set homes: names of the databases where effects may be from
    :param float since: since when this database has its name
    """

    audited: list
    known: list
    prefixes: tuple
    running: tuple
    homes: set
    since: float


def scope_of(workload):
    """Return what belongs into the database of a workload."""
    copied = workload.copied
    loads = [workload, copied.load] if copied else [workload]
    running = loads if copied and copied.is_adopted else loads[:1]
    return Scope(
        audited=[call for load in running for call in load.calls],
        known=[call for load in loads for call in load.calls],
        prefixes=tuple(f'{load.prefix}-' for load in loads),
        running=tuple(f'{load.prefix}-' for load in running),
        homes={load.database.name for load in loads},
        since=copied.time if copied else 0,
    )
