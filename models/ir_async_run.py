"""Run a job and decide what becomes of it: called by the worker, and by the tests' run_jobs()."""
from __future__ import annotations

import json
import logging
import random
from datetime import datetime, timedelta, timezone

import psycopg2.errors

from odoo import SUPERUSER_ID, models
from odoo.exceptions import UserError
from odoo.http import serialize_exception
from odoo.tools import SQL, json_default

from ..exceptions import ClaimLost, RetryJob, WorkerDied
from ..service.execution import Execution
from ..service.session import IS_HELD
from ..tools.encoding import decode, encode_result
from ..tools.target import format_stack
from .ir_async import BUS_PAYLOAD_MAX_SIZE, _progress

_logger = logging.getLogger(__name__)

MAX_DEATHS = 3
FIRST_RETRY_DELAY, LAST_RETRY_DELAY = 10, 3600  # seconds
CHAIN_DEPTH = 20  # jobs that enqueued each other, to explain a failure

FINISH = f"""
    UPDATE ir_async
       SET state = %(state)s::varchar,
           payload = %(payload)s,
           date_scheduled = %(date_scheduled)s,
           session = NULL,
           attempts = attempts + %(attempts)s,
           revision = revision + 1,
           date_done = CASE WHEN %(state)s != 'created' THEN clock_timestamp() AT TIME ZONE 'UTC' END
     WHERE id = %(id)s AND {IS_HELD}
 RETURNING id
"""


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _perform(self, running):
        """Call the method of a job, in its own environment.

        :param Execution running: the job
        :return: the state and the payload, JSON text, that the job ends with
        :rtype: tuple
        """
        job = running.job
        if job.deaths >= MAX_DEATHS:
            msg = f"{job.deaths} workers died, one after the other, while they ran this job"
            raise WorkerDied(msg)
        context = decode(job.context, self.env(user=job.user_id, context={}, su=job.su))
        env = self.env(user=job.user_id, context={**context, 'async_job_id': job.id}, su=job.su)
        if not job.user_active and job.user_id != SUPERUSER_ID and not env.user._is_public():
            raise UserError(env._("The user %(login)s was archived since.", login=env.user.sudo().login))
        records = env[job.res_model].browse(json.loads(job.res_ids))
        running.dbname = env.cr.dbname
        token = Execution.current.set(running)
        # Odoo recomputes and flushes with the user of the transaction: not root's, as long as the method runs.
        root_env, env.transaction.default_env = env.transaction.default_env, env
        try:
            result = getattr(records, job.method)(*decode(job.args, env), **decode(job.kwargs, env))
            payload = None if result is None else encode_result(result)
            env.cr.flush()
        finally:
            env.transaction.default_env = root_env
            Execution.current.reset(token)
        return 'done' if payload is None else 'succeeded', payload

    def _finish(self, job, state, payload=None, date_scheduled=None, attempts=1, at_commit=False):
        """Write what became of a job, in the current transaction.

        :param job: a :class:`~odoo.addons.ir_async.service.session.Job`
        :param str state: the state it ends in; ``created`` when it is to be tried again
        :param str payload: its result or error, JSON text
        :param datetime.datetime date_scheduled: when to try again
        :param int attempts: how many attempts it took
        :param bool at_commit: write it with the commit: by a :class:`~odoo.addons.ir_async.service.runner.JobCursor`
        :raises ClaimLost: when the job is not this worker's any more
        """
        values = {
            'state': state, 'payload': payload, 'date_scheduled': date_scheduled, 'attempts': attempts,
            'id': job.id, 'session': job.session, 'claims': job.claims,
        }
        if at_commit:
            self.env.cr.finish(FINISH, values)
        else:
            try:
                self.env.cr.execute(FINISH, values, log_exceptions=False)
            except psycopg2.errors.SerializationFailure as exc:
                raise ClaimLost from exc  # nobody writes the row but who takes the job away
            if not self.env.cr.rowcount:
                raise ClaimLost
        if job.stop:
            self.env.cr.execute(SQL("DELETE FROM ir_async_stop WHERE job_id = %s", job.id))
        if job.notify:
            small = payload and len(payload) <= BUS_PAYLOAD_MAX_SIZE
            self._send(
                job.id, job.user_id, job.name, state, job.revision + 1, **({'payload': json.loads(payload)} if small else {}))
        if state == 'failed':
            record = self.browse(job.id)
            record.invalidate_recordset(flush=False)
            try:
                with self.env.cr.savepoint():
                    record._on_failed()
            except Exception:
                _logger.exception("_on_failed() of job %s", job.id)

    def _fail(self, job, exc, debug=None):
        """Write that a job's method raised, in the current transaction: it failed, or is to be tried again.

        :param job: a :class:`~odoo.addons.ir_async.service.session.Job`
        :param BaseException exc: what it raised
        :param str debug: the traceback, if not that of the exception
        :raises ClaimLost: when the job is not this worker's any more
        """
        payload = self._encode_error(job, exc, debug)
        is_retry = isinstance(exc, RetryJob)
        if is_retry or (job.attempts + 1 < job.max_attempts and not isinstance(exc, WorkerDied)):
            delay = exc.delay if is_retry and exc.delay is not None else _retry_delay(job)
            date = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(seconds=delay)
            self._finish(job, 'created', payload, date, attempts=0 if is_retry else 1)
        else:
            self._finish(job, 'failed', payload)

    def _on_failed(self):
        """Hook: called in sudo when a job has ended ``failed``, in the transaction that says so."""

    def _encode_error(self, job, exc, debug=None):
        """Return the payload of a job that ended with an exception, shaped as the error of an RPC.

        :rtype: str
        """
        data = serialize_exception(exc)
        data['debug'] = self.browse(job.id)._format_chain() + (debug or data['debug'])
        error = {'code': 0, 'message': "Odoo Server Error", 'data': data}
        try:
            return json.dumps({'error': error}, default=json_default, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            data.update(arguments=[str(arg) for arg in exc.args], context={})
            return json.dumps({'error': error})

    def _format_chain(self):
        """Return who enqueued the job, from which job, and so on: the outermost first."""
        chain, job = [], self
        while job.exists() and len(chain) < CHAIN_DEPTH:
            who = f"job {job.parent_id.id}" if job.parent_id else job.user_id.login
            chain.append(
                f"Job {job.id} ({job.res_model}.{job.method}) was enqueued by {who} (most recent call last):\n"
                f"{format_stack(json.loads(job.stack or '[]'))}\n")
            job = job.parent_id
        return ''.join(reversed(chain))

    def _save_progress(self, job, progress):
        """Write and tell how far a job is, in a transaction that is not the job's."""
        done, total, message = progress
        self.env.cr.execute(SQL(
            """
            INSERT INTO ir_async_progress (job_id, revision, done, total, message)
                 SELECT id, %(revision)s, %(done)s, %(total)s, %(message)s FROM ir_async WHERE id = %(id)s
            ON CONFLICT (job_id) DO UPDATE SET revision = %(revision)s, done = %(done)s, total = %(total)s, message = %(message)s
            """, id=job.id, revision=job.revision, done=done, total=total, message=message))
        if job.notify:
            self._send(job.id, job.user_id, job.name, 'processing', job.revision, progress=_progress(*progress))


def _retry_delay(job):
    """Return how many seconds to wait before the next attempt."""
    delay = json.loads(job.retry_delay or 'null')
    if isinstance(delay, list):
        return delay[min(job.attempts, len(delay) - 1)]
    if delay is None:
        delay = FIRST_RETRY_DELAY * 2 ** min(job.attempts, 20) * random.uniform(1, 1.5)
        return min(delay, LAST_RETRY_DELAY)
    return delay
