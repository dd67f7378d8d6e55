"""The row of a session in its database: register, note the running job, close."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from ..tools.config import settings
from .connection import LIVE_SESSIONS, LOCK_CLASS
from .serving import served_database, serving

if TYPE_CHECKING:
    from psycopg2.extensions import AsIs
    from psycopg2.extensions import cursor as Cursor

    from .job import Job
    from .session import Session

# A session locks its id before it inserts its row, so a row without a lock belongs to a session that has ended. Two kinds
# of such rows stay: rows of live processes that serve this database, and rows of sessions whose jobs are not yet rescued.
FORGET = f"""
    DELETE FROM ir_async_worker
     WHERE (process_number = %(process_number)s OR id NOT IN (SELECT id FROM ({serving('%(origin)s')}) AS worker))
       AND id NOT IN ({LIVE_SESSIONS})
       AND id NOT IN (SELECT worker_id FROM ir_async WHERE state = 'processing')
"""
REGISTER = f"""
    INSERT INTO ir_async_worker (id, host, pid, process_number, channels, database)
         SELECT worker_id, %(host)s, %(pid)s, %(process_number)s, %(channels)s, {served_database('%(origin)s')}
           FROM nextval('ir_async_worker_id_seq') AS worker_id
          WHERE pg_try_advisory_lock({LOCK_CLASS}, worker_id::int)
      RETURNING id
"""
CLOSE = """
    UPDATE ir_async_worker SET closed = true
     WHERE id = %(worker_id)s AND NOT EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND worker_id = %(worker_id)s)
"""
NOTE_RUNNING = """
    UPDATE ir_async_worker
       SET running_job_id = %s, process_start = %s, server_pid = %s, server_start = %s
     WHERE id = %s
"""


def register(cr: Cursor, origin: AsIs, process_number: int | None = None) -> int:
    """Register a new session, and delete the rows of sessions that ended.

    :param cr: a cursor of the session's connection
    :param AsIs origin: the expression of the identity of the database
    :param int process_number: the number that this process has locked on ``postgres`` as long as it lives
    :return: the id of the session's row, which its connection has locked
    :rtype: int
    """
    params = {
        'origin': origin,
        'process_number': process_number,
        'host': socket.gethostname(),
        'pid': os.getpid(),
        'channels': ','.join(settings().channels) or None,
    }
    cr.execute(FORGET, params)
    # An id may be locked: the module was installed again while sessions of the earlier installation live.
    row = None
    while not row:
        cr.execute(REGISTER, params)
        row = cr.fetchone()
    return row[0]


def note_running(session: Session, job: Job | None, worker_id: int | None = None) -> None:
    """Note which job runs in a cron worker, since its parent would not report a death.

    :param Session session: the session that writes the note
    :param Job job: the running job; None when it has ended
    :param int worker_id: the session that runs the job; by default the session itself
    """
    session.execute(NOTE_RUNNING, [job and job.id, *session.process, worker_id or session.worker_id])
