"""Save what a running job reports, in a transaction that is not the job's."""
from __future__ import annotations

import logging

from .publisher import transact

_logger = logging.getLogger(__name__)

LOCK_WAIT = '1s'  # for a lock, until the next report


class Progress:
    """Saves the progress of jobs.

    :param str dbname: their database
    :param JobPool pool: the connection, by default one of Odoo's pool: that waits for a host that vanished, and so would the
        thread that has to stop the job
    """

    def __init__(self, dbname, pool=None):
        self._dbname = dbname
        self._pool = pool

    def save(self, execution):
        """Save what a job reported, and notify its user; called from both threads, one after the other.

        :param Execution execution: the job
        """
        if not execution.progress:
            return
        with execution.progress_lock:
            progress, execution.progress = execution.progress, None
            if progress:
                try:
                    transact(self._dbname, lambda env: env['ir.async']._save_progress(execution.job, progress), self._pool)
                except Exception as exc:  # noqa: BLE001 -- whatever it is, the job goes on
                    _logger.info("The progress of job %s could not be saved: %s", execution.job, exc)

    def close(self):
        """Close the connection."""
        self._pool.close()
