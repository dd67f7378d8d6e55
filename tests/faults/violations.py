"""What may be wrong."""

from __future__ import annotations

from typing import NamedTuple

RESULTS = {
    'lost': "Committed jobs without their outcome",
    'doubled': "Effects more often than once",
    'unwanted': "Effects of failed, cancelled or rolled-back jobs",
    'stuck': "Jobs left over without reason",
    'charged': "Attempts or deaths charged without reason",
    'failed': "Jobs that ended in a wrong state",
    'date': "Dated jobs that began too early, or too late",
    'order': "Children that ran before their parents",
    'capacity': "More jobs at once or in an interval than the channel or key allows",
    'leaked': "What a job found from an earlier one",
    'database': "Effects in a wrong database",
    'blocked': "Databases that could not be dropped, copied or renamed in time",
    'log': "Unexpected errors in the log",
}


class Violation(NamedTuple):
    result: str
    database: str
    job_id: int | None
    text: str
