"""Save the progress that a running job reports, in a transaction of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .publisher import transact

if TYPE_CHECKING:
    from .cursor import JobPool
    from .execution import Execution

_logger = logging.getLogger(__name__)

LOCK_WAIT = '1s'  # maximum time to wait for a lock; the next report will follow


class Progress:
    """Saves the progress of jobs.

    :param str dbname: their database
    :param JobPool pool: the connection; by default one of Odoo's pool, which would make the thread that stops jobs wait when
        the host of PostgreSQL has vanished
    """

    def __init__(self, dbname: str, pool: JobPool | None = None) -> None:
        self._dbname = dbname
        self._pool = pool

    def save(self, execution: Execution) -> None:
        """Save the progress of a job, and notify its user. Both threads call this; a lock keeps them apart.

        :param Execution execution: the job
        """
        if not execution.progress:
            return
        with execution.progress_lock:
            progress, execution.progress = execution.progress, None
            if progress:
                try:
                    transact(
                        self._dbname, lambda env: env['ir.async']._save_progress(execution.job, progress), self._pool
                    )
                except Exception as exc:  # noqa: BLE001 -- the job goes on without it
                    _logger.info("The progress of job %s could not be saved: %s", execution.job, exc)

    def close(self) -> None:
        if self._pool:
            self._pool.close()
