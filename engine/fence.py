"""The claim as a lease: the only statements that compare ``(worker_id, claim_number)``, the fencing token of one job.

Each claim makes a new pair. A worker that lost its claim matches no row here, so it commits nothing of that job.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from .connection import DURABLE
from .job import BEGUN

if TYPE_CHECKING:
    from odoo.sql_db import BaseCursor

    from .job import Job
    from .session import Session

# `state = 'processing'` is implied and left out on purpose. With it, PostgreSQL would walk the index of processing jobs, with
# its dead entries, instead of the primary key.
HELD = "job.id = %(id)s AND job.worker_id = %(worker_id)s AND job.claim_number = %(claim_number)s"

LOOK_UP = f"SELECT job.id FROM ir_async job WHERE {HELD}"

# Until the commit is through, the lock keeps others from taking the job over.
CHECK = f"SELECT job.id FROM ir_async job WHERE {HELD} FOR NO KEY UPDATE"

BEGIN = "SELECT * FROM ir_async_begin(%(id)s, %(worker_id)s, %(claim_number)s)"

FINISH = """
    SELECT ir_async_finish(%(id)s, %(worker_id)s, %(claim_number)s,
        %(state)s, %(payload)s, %(delay)s, %(attempts)s, %(starts)s, %(claim_count)s)
"""

# Planning these two statements takes longer than executing them, and a session forgets its prepared statements between two
# jobs. PL/pgSQL keeps its plans, so the statements are in functions. Their plans must also suit a table that is not empty.
_TYPES = (
    dict.fromkeys(BEGUN, 'text')
    | dict.fromkeys(('su', 'user_active'), 'bool')
    | dict.fromkeys(('max_attempts', 'attempts', 'deaths', 'starts'), 'int4')
)
READ = f"SELECT {', '.join(f'{value}::{_TYPES[name]}' for name, value in BEGUN.items())} FROM ir_async job WHERE {HELD}"
WRITE = f"""
    UPDATE ir_async job
       SET state = %(state)s,
           payload = %(payload)s,
           date_scheduled = clock_timestamp() AT TIME ZONE 'UTC' + %(delay)s * interval '1 second',
           worker_id = NULL,
           claim_number = coalesce(%(claim_count)s, claim_number),
           attempts = attempts + %(attempts)s,
           starts = starts + %(starts)s,
           revision = revision + 1,
           date_done = CASE WHEN %(state)s != 'created' THEN clock_timestamp() AT TIME ZONE 'UTC' END
     WHERE {HELD}
 RETURNING job.revision
"""
_TOKEN = {'id': 'int4', 'worker_id': 'int4', 'claim_number': 'int4'}
_OUTCOME = {
    'state': 'varchar',
    'payload': 'json',
    'delay': 'float8',
    'attempts': 'int4',
    'starts': 'int4',
    'claim_count': 'int4',
}


def _arguments(types: dict[str, str]) -> str:
    return ', '.join(f'in_{name} {type_}' for name, type_ in types.items())


FIND_FUNCTIONS = """
    SELECT oid::regprocedure::text, obj_description(oid, 'pg_proc')
      FROM pg_proc
     WHERE proname IN ('ir_async_begin', 'ir_async_finish') AND pronamespace = current_schema()::regnamespace
"""
_LANGUAGE = "LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off"
_NAMES = {name: f'in_{name}' for name in _TOKEN | _OUTCOME}
FUNCTIONS = f"""
    CREATE FUNCTION ir_async_begin({_arguments(_TOKEN)})
    RETURNS TABLE ({', '.join(f'{name} {type_}' for name, type_ in _TYPES.items())}) {_LANGUAGE} AS $$
    #variable_conflict use_column
    BEGIN
        RETURN QUERY {READ % _NAMES};
    END
    $$;

    CREATE FUNCTION ir_async_finish({_arguments(_TOKEN | _OUTCOME)})
    RETURNS int4 {_LANGUAGE} AS $$
    DECLARE
        revision_now int4;
    BEGIN
        {WRITE % _NAMES} INTO revision_now;
        RETURN revision_now;
    END
    $$
"""
ARE_THERE = "to_regproc('ir_async_begin') IS NOT NULL AND to_regproc('ir_async_finish') IS NOT NULL"


def create_functions(cr: BaseCursor) -> None:
    """Create the functions, unless the database already has them in this version.

    Functions that are up to date are left alone: after a restore, they may belong to another role.

    :param odoo.sql_db.BaseCursor cr: a cursor of the database
    """
    version = hashlib.sha256(FUNCTIONS.encode()).hexdigest()
    cr.execute(FIND_FUNCTIONS)
    if [comment for _function, comment in cr.fetchall()] == [version] * 2:
        return
    drop_functions(cr)
    cr.execute(FUNCTIONS)  # pylint: disable=sql-injection
    cr.execute(FIND_FUNCTIONS)
    for function, _comment in cr.fetchall():
        cr.execute(f"COMMENT ON FUNCTION {function} IS %s", [version])  # pylint: disable=sql-injection


def drop_functions(cr: BaseCursor) -> None:
    """Drop the functions, whatever their arguments.

    :param odoo.sql_db.BaseCursor cr: a cursor of the database
    """
    cr.execute(FIND_FUNCTIONS)
    for function, _comment in cr.fetchall():
        cr.execute(f"DROP FUNCTION {function}")  # pylint: disable=sql-injection


# This raises the claim number without a new claim. The statement that ends the job sets it back to the count of its claims.
# The job stays `processing`, so that it keeps its slot in a limited channel until its method has been left.
RAISE = f"""
    WITH raised AS (
        UPDATE ir_async job
           SET claim_number = claim_number + 1, starts = starts + %(starts)s
         WHERE {HELD}
     RETURNING job.id, job.claim_number
    ),
    stop AS (
        INSERT INTO ir_async_stop (job_id, reason, debug)
             SELECT id, %(reason)s, %(debug)s FROM raised WHERE %(reason)s IS NOT NULL
        ON CONFLICT (job_id) DO UPDATE SET debug = EXCLUDED.debug
    )
    SELECT claim_number FROM raised
"""


def token(job: Job) -> dict[str, int]:
    """Return the parameters of a job's fencing token.

    :param Job job: the claimed job
    :rtype: dict
    """
    return {'id': job.id, 'worker_id': job.worker_id, 'claim_number': job.claim_number}


def holds(session: Session, job: Job) -> bool:
    """Return whether the claim on a job still holds.

    :param Session session: the session that claimed it
    :param Job job: the job
    :rtype: bool
    """
    return bool(session.execute(LOOK_UP, token(job)))


def fence_off(
    session: Session, job: Job, reason: str | None = None, debug: str | None = None, starts: int = 0
) -> Job | None:
    """Fence a running job off: from then on its method can commit nothing.

    :param Session session: the session that claimed it
    :param Job job: the running job
    :param str reason: ``cancel`` or ``timeout``, noted for the worker that writes the outcome
    :param str debug: the stack of its method
    :param int starts: how often its method was begun since it was claimed, if nobody writes this later
    :return: the job with its new claim number; None when it has ended by itself
    :rtype: Job | None
    """
    rows = session.execute(DURABLE + RAISE, {**token(job), 'reason': reason, 'debug': debug, 'starts': starts})
    return job._replace(claim_number=rows[0][0]) if rows else None
