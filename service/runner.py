"""Run one claimed job: its method, then its outcome, in one transaction."""
from __future__ import annotations

import logging
import threading
import time
from functools import partial

import psycopg2

from odoo import SUPERUSER_ID, api, sql_db
from odoo.exceptions import UserError
from odoo.modules.registry import Registry
from odoo.service.model import retrying

from ..exceptions import ClaimLost, JobInterrupted, WorkerDied

_logger = logging.getLogger(__name__)

MAX_DEATHS = 3


class JobCursor(sql_db.Cursor):
    """A cursor that commits the work of a job only as long as the job is this worker's."""

    def __init__(self, dbname):
        sql_db.db_connect(dbname)  # so that there is a pool
        _db, info = sql_db.connection_info_for(dbname)
        super().__init__(sql_db._Pool, dbname, info)
        self.job = None
        if self._cnx.server_version >= 140000:
            # The backend of a killed worker would go on with its statement to the end. Odoo's pool resets
            # the connection each time it lends it.
            self.execute("SET client_connection_check_interval = '500ms'")
        self._cnx.commit()

    def commit(self):
        if self.job:
            self.flush()
            # The lock holds off whoever would give the job to another worker, until the commit is through.
            self.execute("""
                SELECT FROM ir_async
                 WHERE id = %(id)s AND session = %(session)s AND claims = %(claims)s AND state = 'processing'
                   FOR NO KEY UPDATE
            """, self.job._asdict())
            if not self.rowcount:
                raise ClaimLost(self.job.id)
        super().commit()


class Runner:
    """Runs the jobs that a session claimed, one after the other.

    :param session: the session, a :class:`~odoo.addons.ir_async.service.session.Session`
    """

    def __init__(self, session):
        self.session = session
        self.cr = JobCursor(session.dbname)
        # Once per claim, as for a request: the modules and the caches may have changed.
        Registry(session.dbname).check_signaling(self.cr)
        self.cr.rollback()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.cr.close()

    def interrupt(self):
        """Cancel the statement that the job is executing; called from another thread."""
        self.cr._cnx.cancel()

    def run(self, job):
        """Run a job, and say how it ended. Nothing that its method raises gets out of here.

        :param job: a :class:`~odoo.addons.ir_async.service.session.Job`
        """
        thread = threading.current_thread()
        thread.dbname, thread.uid = self.session.dbname, job.user_id  # for the log
        start = time.monotonic()
        try:
            self._run(job)
        except ClaimLost:
            _logger.warning("Job %s was taken away from this worker, nothing of it is committed", job)
        except JobInterrupted:
            _logger.info("Job %s was interrupted after %.3fs", job, time.monotonic() - start)
        except BaseException as exc:  # noqa: BLE001 -- sys.exit() in a job ends the job, not the worker
            self._fail(job, exc, time.monotonic() - start)
        else:
            _logger.info("Job %s done in %.3fs", job, time.monotonic() - start)
        finally:
            self._reset()
            del thread.dbname, thread.uid

    def _run(self, job):
        env = self._env()
        if job.notify:
            env['ir.async']._send(job.id, job.user_id, job.name, 'processing', job.revision)
            self.cr.commit()
        if job.deaths >= MAX_DEATHS:
            msg = f"{job.deaths} workers died, one after the other, while they ran this job"
            raise WorkerDied(msg)
        retrying(partial(self._attempt, job, env), env)

    def _attempt(self, job, env):
        # Each try: when the one before failed because somebody else wrote the row, the job is theirs.
        self.session.start(job)
        self.cr.job = job
        try:
            state, payload = env['ir.async']._perform(job)
        finally:
            self.cr.job = None
        env['ir.async']._finish(job, state, payload)

    def _attempt_failure(self, job, env, exc):
        # When PostgreSQL goes down, the method fails for it. But the claim is gone with the session, then.
        self.session.start(job)
        env['ir.async']._finish(job, 'failed', env['ir.async']._encode_error(job, exc))

    def _fail(self, job, exc, duration):
        if isinstance(exc, UserError):
            _logger.warning("Job %s failed after %.3fs: %s", job, duration, exc)
        else:
            _logger.error("Job %s failed after %.3fs", job, duration, exc_info=exc)
        try:
            if self.cr.closed:
                self.cr.close()
                self.cr = JobCursor(self.session.dbname)
            self._reset()
            env = self._env()
            retrying(partial(self._attempt_failure, job, env, exc), env)
        except ClaimLost:
            _logger.warning("Job %s had ended, or was taken away from this worker, before it failed", job)
        except psycopg2.Error:
            # The job stays as it is, to be run again once this session is over.
            _logger.warning("The failure of job %s could not be written", job, exc_info=True)
            raise

    def _env(self):
        env = api.Environment(self.cr, SUPERUSER_ID, {})
        env.transaction.default_env = env
        return env

    def _reset(self):
        """Leave nothing of a job to the next one."""
        self.cr.job = None
        try:
            self.cr.rollback()
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            pass  # the connection is gone: whoever uses the cursor next notices
        self.cr.transaction = None
        self.cr.cache.clear()
