"""Deaths of workers: noted by their parent, reported to the databases by the worker that it spawns next."""
from __future__ import annotations

import logging

import psycopg2

from ..engine.rescue import charge, take_over
from .runner import conclude

_logger = logging.getLogger(__name__)

_obituaries = []  # of dead workers, in the parent


def note_death(mark):
    """Note what a worker that has ended was doing; called by the parent.

    :param Mark mark: the mark of the worker
    """
    if obituary := mark.read():
        _obituaries.append(obituary)


def take_obituaries():
    """Return what the next worker has to report; called by the parent.

    :rtype: list[Obituary]
    """
    obituaries = _obituaries.copy()
    _obituaries.clear()
    return obituaries


def report_deaths(obituaries, databases):
    """Report the deaths of earlier workers. Those that cannot be reported yet stay in the list.

    :param list[Obituary] obituaries: the deaths
    :param Databases databases: the databases of the worker
    """
    for obituary in obituaries.copy():
        database = databases.get(obituary.dbname)
        if not database:
            obituaries.remove(obituary)  # dropped since
            continue
        try:
            if not database.session:
                database.open()
            if database.session:
                _report(database.session, obituary)
            obituaries.remove(obituary)
            database.wake()
        except psycopg2.Error as exc:
            _logger.info("A death cannot be reported yet: %s", exc)
            database.back_off()


def _report(session, obituary):
    claim = obituary.job_id, obituary.session, obituary.claims
    if not obituary.cause:
        _logger.info("A worker died while it ran job %s of %s", obituary.job_id, obituary.dbname)
        charge(session, *claim)
    elif jobs := take_over(session, *claim, obituary.cause):
        conclude(session, jobs[0], 1, obituary.shown_claims)
