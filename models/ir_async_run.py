"""The run of a job's method and the decision on its outcome, for workers and for run_jobs() of tests."""

from __future__ import annotations

import json
import logging
import random
from typing import TYPE_CHECKING

from odoo import models
from odoo.api import SUPERUSER_ID
from odoo.exceptions import UserError
from odoo.http import serialize_exception
from odoo.tools import SQL, json_default

from ..engine.channels import PAUSE
from ..engine.errors import Kind, kind_of
from ..engine.job import Outcome
from ..engine.rescue import MAX_DEATHS
from ..exceptions import RetryJob, WorkerDied
from ..service.execution import Execution
from ..tools.encoding import decode, encode_result, model_of
from ..tools.error_text import minimal_payload
from ..tools.payload import dump_payload
from ..tools.target import format_stack
from .ir_async import BUS_PAYLOAD_MAX_SIZE, _progress

if TYPE_CHECKING:
    from ..engine.job import Job
    from ..service.execution import Report

_logger = logging.getLogger(__name__)

FIRST_RETRY_DELAY, LAST_RETRY_DELAY = 10, 3600  # seconds
CHAIN_DEPTH = 20  # length of a chain of jobs that enqueued each other, in an error


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _perform(self, execution: Execution) -> Outcome:
        """Call the method of a job, in its own environment.

        :param Execution execution: the job
        :return: the outcome
        :rtype: Outcome
        """
        job = execution.job
        context = decode(job.context, self.env(user=job.user_id, context={}, su=job.su))
        env = self.env(user=job.user_id, context={**context, 'async_job_id': job.id}, su=job.su)
        if not job.user_active and job.user_id != SUPERUSER_ID and not env.user._is_public():
            raise UserError(
                env._(
                    "The user %(login)s has been archived. Unarchive the user, then retry the job.",
                    login=env.user.sudo().login,
                )
            )
        records = model_of(env, job.res_model).browse(json.loads(job.res_ids))
        execution.dbname = env.cr.dbname
        token = Execution.current.set(execution)
        # Odoo recomputes and flushes as the user of the transaction. While the method runs, this is the job's user, not root.
        root_env, env.transaction.default_env = env.transaction.default_env, env
        try:
            try:
                result = getattr(records, job.method)(*decode(job.args, env), **decode(job.kwargs, env))
            finally:
                execution.end_forked_child()
            payload = None if result is None else encode_result(result)
            env.cr.flush()
        finally:
            env.transaction.default_env = root_env
            Execution.current.reset(token)
        return Outcome('done' if payload is None else 'succeeded', payload)

    def _finish(self, job: Job, outcome: Outcome, starts: int = 1) -> None:
        """Write the outcome of a job in the current transaction, and notify its user with the commit.

        :param Job job: the job
        :param Outcome outcome: the outcome
        :param int starts: how often its method was begun since the claim
        :raises ClaimLost: if the claim does not hold any more
        """
        revision = self.env.cr.finish(job, outcome, starts)
        if job.stop:
            self.env.cr.execute(SQL("DELETE FROM ir_async_stop WHERE job_id = %s", job.id))
        if outcome.pauses_channel:
            self.env.cr.execute(PAUSE, {'id': job.id})
            if not self.env.cr.rowcount:
                _logger.warning("The channel of job %s has no limits, so it is not paused. Only the job waits", job)
        if outcome.state == 'created':
            self.env.cr.execute(SQL("DELETE FROM ir_async_progress WHERE job_id = %s", job.id))
        if job.notify:
            more = {}
            if outcome.payload and len(outcome.payload.encode()) <= BUS_PAYLOAD_MAX_SIZE:
                record = self.browse(job.id)
                payload = json.loads(outcome.payload)
                owner = record.with_user(job.user_id)
                more['payload'] = record._add_chain(payload) if 'error' in payload and owner._is_manager() else payload
            self._send(job.id, job.user_id, job.name, outcome.state, revision, **more)
        if outcome.state == 'failed':
            record = self.browse(job.id)
            record.invalidate_recordset(flush=False)
            try:
                with self.env.cr.savepoint():
                    record._on_failed()
            except Exception as exc:
                if kind_of(exc) is not Kind.METHOD:
                    raise  # such as a lost race: the end of the job is tried again
                _logger.exception("The hook _on_failed() of job %s raised an error", job)

    def _outcome_of_error(self, job: Job, exc: BaseException, debug: str | None = None) -> Outcome:
        """Decide the outcome of a job whose method raised: it has failed, or is tried again.

        :param Job job: the job
        :param BaseException exc: the exception
        :param str | None debug: the traceback, if the exception has none
        :rtype: Outcome
        """
        payload = self._encode_error(job, exc, debug)
        if isinstance(exc, RetryJob):
            delay = exc.delay if exc.delay is not None else _retry_delay(job)
            return Outcome('created', payload, delay=delay, attempts=0, pauses_channel=exc.pause_channel)
        if job.attempts + 1 < job.max_attempts and not isinstance(exc, WorkerDied):
            return Outcome('created', payload, delay=_retry_delay(job))
        return Outcome('failed', payload, attempts=int(job.deaths < MAX_DEATHS))  # otherwise it did not run

    def _on_failed(self) -> None:
        """Hook: called in sudo when a job ends ``failed``, in the transaction that writes it."""

    def _encode_error(self, job: Job, exc: BaseException, debug: str | None = None) -> str:
        """Return the payload for a job that ended with an exception, in the form of an RPC error.

        :rtype: str
        """
        try:
            data = serialize_exception(exc)
            data['debug'] = debug or data['debug']
            error = {'code': 0, 'message': "Odoo Server Error", 'data': data}
            try:
                return dump_payload({'error': error}, default=json_default)
            except (TypeError, ValueError, RecursionError):
                data.update(arguments=[str(arg) for arg in exc.args], context={})
                return dump_payload({'error': error})
        except BaseException:  # noqa: BLE001 -- the code of a method may raise anything
            return minimal_payload(exc)

    def _format_chain(self) -> str:
        """Return the users and jobs that enqueued this job, with their stacks, the outermost first."""
        chain: list[str] = []
        job = self
        while job.exists() and len(chain) < CHAIN_DEPTH:
            who = f"job {job.parent_id.id}" if job.parent_id else job.user_id.login
            chain.append(
                f"Job {job.id} ({job.res_model}.{job.method}) was enqueued by {who} (most recent call last):\n"
                f"{format_stack(json.loads(job.stack or '[]'))}\n"
            )
            job = job.parent_id
        return ''.join(reversed(chain))

    def _save_progress(self, job: Job, progress: Report) -> None:
        """Write and publish the progress of a job, in another transaction than the job's."""
        done, total, message = progress
        self.env.cr.execute(SQL(
            """
            INSERT INTO ir_async_progress (job_id, revision, done, total, message)
                 SELECT id, %(revision)s, %(done)s, %(total)s, %(message)s FROM ir_async WHERE id = %(id)s
            ON CONFLICT (job_id) DO UPDATE SET revision = %(revision)s, done = %(done)s, total = %(total)s, message = %(message)s
            """, id=job.id, revision=job.revision, done=done, total=total, message=message), log_exceptions=False)  # fmt: skip
        if job.notify:
            self._send(job.id, job.user_id, job.name, 'processing', job.revision, progress=_progress(*progress))


def _retry_delay(job: Job) -> float:
    """Return the seconds until the next attempt."""
    delay = json.loads(job.retry_delay or 'null')
    if isinstance(delay, list):
        return delay[min(job.attempts, len(delay) - 1)]
    if delay is None:
        delay = FIRST_RETRY_DELAY * 2 ** min(job.attempts, 20) * random.uniform(1, 1.5)
        return min(delay, LAST_RETRY_DELAY)
    return delay
