"""Deaths of workers: the parent notes them, and the worker that it spawns next reports them to the databases."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import psycopg2

from ..engine.rescue import charge, take_over
from .runner import finish_stopped

if TYPE_CHECKING:
    from ..engine.session import Session
    from .databases import Databases
    from .obituary import Mark, Obituary

_logger = logging.getLogger(__name__)

# In the parent, until the next worker takes them.
_obituaries: list[Obituary] = []
_ended: list[int] = []


def note_death(mark: Mark) -> None:
    """Note the job that a worker was running when it ended. The parent calls this.

    :param Mark mark: the mark of the worker
    """
    if obituary := mark.read():
        _obituaries.append(obituary)


def note_end(number: int) -> None:
    """Note that a worker has ended. The parent calls this.

    :param int number: its process number
    """
    _ended.append(number)


def take_ended() -> list[int]:
    """Return the process numbers of the workers whose end the next worker has to announce. The parent calls this.

    :rtype: list[int]
    """
    ended = _ended.copy()
    _ended.clear()
    return ended


def take_obituaries() -> list[Obituary]:
    """Return the obituaries that the next worker has to report. The parent calls this.

    :rtype: list[Obituary]
    """
    obituaries = _obituaries.copy()
    _obituaries.clear()
    return obituaries


def report_deaths(obituaries: list[Obituary], databases: Databases) -> None:
    """Report the deaths of earlier workers. A death that cannot be reported yet stays in the list.

    :param list[Obituary] obituaries: the deaths
    :param Databases databases: the databases of the worker
    """
    for obituary in obituaries.copy():
        database = databases.get(obituary.dbname)
        if not database:
            obituaries.remove(obituary)  # the database was dropped since
            continue
        try:
            if not database.session:
                database.open()
            if database.session:
                _report(database.session, obituary)
            obituaries.remove(obituary)
            database.wake()
        except psycopg2.Error as exc:
            _logger.info("The death of a worker of database %s cannot be recorded yet: %s", obituary.dbname, exc)
            database.back_off()


def _report(session: Session, obituary: Obituary) -> None:
    claim = obituary.job_id, obituary.worker_id, obituary.claim_number
    if not obituary.cause:
        _logger.warning("A worker died while it ran job %s of database %s", obituary.job_id, obituary.dbname)
        charge(session, *claim)
    elif jobs := take_over(session, *claim, obituary.cause):
        finish_stopped(session, jobs[0], 1, obituary.claim_count)
