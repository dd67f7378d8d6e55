"""Lock the tables that any new version may alter, before it alters the first of them.

Otherwise it would wait in the middle for jobs that use one of them, and all others would wait behind it.
"""

import logging
import time

from psycopg2.errors import LockNotAvailable

from odoo.tools import SQL

_logger = logging.getLogger(__name__)

WAIT_TIME = 600  # seconds to wait for jobs that use the table
TRY_TIME = '200ms'  # maximum time that others have to wait behind one try to lock it


def migrate(cr, version):
    """Lock the tables as soon as no transaction uses them. Until then, others hardly have to wait behind this transaction."""
    cr.execute("SELECT current_setting('lock_timeout')")
    [lock_timeout] = cr.fetchone()
    end = time.monotonic() + WAIT_TIME
    is_logged = False
    while True:
        try:
            with cr.savepoint(flush=False):
                cr.execute(SQL("SET LOCAL lock_timeout = %s", TRY_TIME))
                # One statement locks all tables. Otherwise a transaction that reads one after the other could wait in between.
                cr.execute(
                    "LOCK TABLE ir_async, ir_async_after_rel, ir_async_worker IN ACCESS EXCLUSIVE MODE",
                    log_exceptions=False,
                )
                cr.execute(SQL("SET LOCAL lock_timeout = %s", lock_timeout))
        except LockNotAvailable:
            cr.execute("SELECT id, res_model, method FROM ir_async WHERE state = 'processing' ORDER BY id LIMIT 10")
            jobs = ', '.join(f"{job_id} ({model}.{method})" for job_id, model, method in cr.fetchall())
            if time.monotonic() > end:
                msg = f"The table of jobs is in use. Stop these jobs or wait for them, then upgrade ir_async again: {jobs}"
                raise RuntimeError(msg) from None
            if not is_logged:
                _logger.info("Waiting for the jobs that use their table: %s", jobs)
                is_logged = True
            time.sleep(0.5)
        else:
            return
