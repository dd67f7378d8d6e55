"""The test case for code that enqueues jobs, which the tests of this addon use as well."""

from __future__ import annotations

import contextlib
import inspect
import threading
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from odoo.tests import RecordCapturer, TransactionCase

from odoo.addons.ir_async.engine import fence
from odoo.addons.ir_async.engine.claim import claim_one
from odoo.addons.ir_async.engine.session import Session
from odoo.addons.ir_async.exceptions import ClaimLost
from odoo.addons.ir_async.service.execution import Execution
from odoo.addons.ir_async.service.progress import Progress
from odoo.addons.ir_async.service.publisher import publish
from odoo.addons.ir_async.service.runner import Runner
from odoo.addons.ir_async.tools.encoding import decode
from odoo.addons.ir_async.tools.target import check_target

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from odoo.models import BaseModel
    from odoo.modules.registry import Registry
    from odoo.sql_db import BaseCursor

    from odoo.addons.ir_async.engine.job import Job, Outcome


class AsyncCase(TransactionCase):
    """A test case that runs its jobs when the test says so. ::

        class TestExport(AsyncCase):
            def test_export(self):
                with self.assertEnqueues(self.partners.async_export, 'xlsx', limit=80):
                    self.partners.action_export()
                [job] = self.run_jobs()
                self.assertEqual(job.state, 'succeeded')

    It combines with other test cases: ``class TestExport(AsyncCase, HttpCase)``.
    """

    _last_foreign_job_id: int

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.cr.execute("SELECT coalesce(max(id), 0) FROM ir_async")
        [[cls._last_foreign_job_id]] = cls.cr.fetchall()

    def run_jobs(self) -> BaseModel:
        """Run the jobs that the test enqueued, the jobs that these enqueue, the jobs that wait for them, and so on.

        They run in the transaction of the test, by the code of the worker and in its order. No date is waited for: delayed
        jobs run after the others, and failed attempts are repeated at once, up to ``max_attempts``. A job that raises
        ``RetryJob`` runs again with the next call. Limits of channels have no effect, as jobs run one by one.

        A failure is logged, as by a worker: expect it with ``assertLogs``, or use
        ``mute_logger('odoo.addons.ir_async.service.runner')``.

        :return: the jobs that ran, in this order, in sudo
        """
        ids: list[int] = []
        aside = {0}
        self.env.cr.flush()  # as a commit does
        self.env['ir.async']._insert_pending()
        with self._in_place_of_worker() as session:
            while job := session.claim_next(self._last_foreign_job_id, aside):
                _TestRunner(session, self.registry).run(Execution(job))
                ids.append(job.id)
                if not job.attempts < session.attempts(job) < job.max_attempts:
                    aside.add(job.id)
        self.env.invalidate_all()
        return self.env['ir.async'].sudo().browse(dict.fromkeys(ids))

    @contextlib.contextmanager
    def _in_place_of_worker(self) -> Generator[_TestSession]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(patch.dict(vars(threading.current_thread())))
            if not self._registry_patched:
                stack.enter_context(self.enter_registry_test_mode())
            # A WebsocketCase allows cursors in its requests only.
            stack.enter_context(patch.object(self, 'assertCanOpenTestCursor'))
            yield _TestSession(self.env.cr)

    def queued_jobs(self) -> BaseModel:
        """Return the jobs that the test enqueued and that have not run.

        :return: records of ``ir.async``, in sudo
        """
        return (
            self.env['ir.async']
            .sudo()
            .search(
                [
                    ('id', '>', self._last_foreign_job_id),
                    ('state', 'in', ('waiting', 'created')),
                ],
                order='priority, id',
            )
        )

    def assertEnqueued(self, target: Callable[..., Any], /, *args: Any, **kwargs: Any) -> BaseModel:
        """Check that a call of ``target(*args, **kwargs)`` is in the queue.

        An argument may be positional in one call and by keyword in the other. Defaults may be left out.

        :param target: a method bound to a recordset
        :return: the jobs with this call, in sudo
        """
        return self._assertAmong(self.queued_jobs(), target, args, kwargs)

    @contextlib.contextmanager
    def assertEnqueues(self, target: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Generator[None]:
        """Check that the block enqueues exactly one call of ``target(*args, **kwargs)``, among any others.

        :param target: a method bound to a recordset
        """
        with RecordCapturer(self.env['ir.async'].sudo()) as capture:
            yield
        jobs = self._assertAmong(capture.records, target, args, kwargs)
        self.assertEqual(len(jobs), 1, f"enqueued more than once: {_call(*check_target(target, args, kwargs))}")

    @contextlib.contextmanager
    def assertEnqueuesNothing(self) -> Generator[None]:
        """Check that the block enqueues no job."""
        with RecordCapturer(self.env['ir.async'].sudo()) as capture:
            yield
        self.assertFalse(capture.records, f"enqueued: {', '.join(self._calls(capture.records))}")

    def _assertAmong(
        self,
        jobs: BaseModel,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> BaseModel:
        records, name, args, kwargs = check_target(target, args, kwargs)

        def bind(args: Sequence[Any], kwargs: dict[str, Any]) -> inspect.BoundArguments:
            bound = inspect.signature(target).bind(*args, **kwargs)
            bound.apply_defaults()
            return bound

        def is_wanted(job: BaseModel) -> bool:
            return (
                (job.res_model, job.method) == (records._name, name)
                and self._records(job) == records
                and bind(self._decode(job.args), self._decode(job.kwargs)) == bind(args, kwargs)
            )

        found = jobs.filtered(is_wanted)
        if not found:
            self.fail(
                "not enqueued: %s\nbut: %s"
                % (_call(records, name, args, kwargs), '\n     '.join(self._calls(jobs)) or "nothing")
            )
        return found

    def _calls(self, jobs: BaseModel) -> list[str]:
        return [_call(self._records(job), job.method, self._decode(job.args), self._decode(job.kwargs)) for job in jobs]

    def _records(self, job: BaseModel) -> BaseModel:
        return self.env[job.res_model].browse(self._decode(job.res_ids))

    def _decode(self, text: str) -> Any:
        return decode(text, self.env)


class _TestSession(Session):
    """A worker's session whose connection is the cursor of the test."""

    server_version = 0  # jobs have no connection of their own

    def __init__(self, cr: BaseCursor) -> None:
        super().__init__(cr.dbname, None, 0)  # type: ignore[arg-type]  # it has a cursor instead of a connection
        self.client_check = {}
        self.cr = cr

    def execute(self, query: str, params: Any = ()) -> Any:
        self.cr.execute(query, params)  # pylint: disable=sql-injection
        return self.cr.fetchall() if self.cr.description else self.cr.rowcount

    def claim_next(self, after_id: int, aside: set[int]) -> Job | None:
        """Claim and return the next queued job with an id above ``after_id`` and not in ``aside``; None if there is none."""
        self.unblock()
        self._dependencies.cancel()
        publish(self)
        rows = self.execute(
            """
            SELECT id
              FROM ir_async
             WHERE state = 'created' AND origin = %s AND id > %s AND id NOT IN %s
          ORDER BY date_scheduled NULLS FIRST, priority, id
             LIMIT 1
        """,
            [self.origin, after_id, tuple(aside)],
        )
        return claim_one(self, *rows[0])[0] if rows else None

    def attempts(self, job: Job) -> int:
        [[attempts]] = self.execute("SELECT attempts FROM ir_async WHERE id = %s", [job.id])
        return attempts


class _TestRunner(Runner):
    """A worker's runner whose cursors are those of the test."""

    def __init__(self, session: Session, registry: Registry) -> None:
        super().__init__(session)
        self._registry = registry
        self.progress = Progress(session.dbname)

    def _cursor(self) -> Any:
        cr = self._cr = self._registry.cursor()
        _CursorOfJob(cr)
        return cr


class _CursorOfJob:
    """The methods that make a cursor of the test the cursor of a job.

    :param odoo.sql_db.BaseCursor cr: the cursor
    """

    def __init__(self, cr: Any) -> None:
        self._cr = cr
        self._execution: Execution | None = None
        self._is_finishing = False
        self._commit, self._rollback = cr.commit, cr.rollback
        cr.begin_job, cr.finish, cr.commit, cr.rollback = self.begin_job, self.finish, self.commit, self.rollback

    def begin_job(self, execution: Execution) -> Job:
        self._execution = execution
        return execution.job  # nobody can take a job away

    def finish(self, job: Job, outcome: Outcome, starts: int) -> int:
        revision = _finish(self._cr, job, outcome, starts)
        self._is_finishing = True
        return revision

    def commit(self) -> None:
        self._commit()
        if self._is_finishing and self._execution:
            self._execution.ended = True

    def rollback(self) -> None:
        self._is_finishing = False
        self._rollback()


def _finish(cr: BaseCursor, job: Job, outcome: Outcome, starts: int) -> int:
    cr.execute(fence.FINISH, {**fence.token(job), **outcome._asdict(), 'starts': starts, 'claim_count': None})
    [[revision]] = cr.fetchall()
    if revision is None:
        raise ClaimLost
    return revision


def _call(records: BaseModel, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    arguments = [*map(repr, args), *(f'{name}={value!r}' for name, value in kwargs.items())]
    return f"{records!r}.{method}({', '.join(arguments)})"
