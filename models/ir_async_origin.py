"""Jobs that came with a copy of another database. They run only once a manager adopts them."""

from __future__ import annotations

import logging
from typing import Literal

import psycopg2.errors

from odoo import api, fields, models
from odoo.exceptions import AccessError, UserError
from odoo.fields import Domain
from odoo.tools import SQL, ormcache

from ..engine.origin import origin_expression, read_origin
from .ir_async import LIVE

_logger = logging.getLogger(__name__)


class IrAsync(models.Model):
    _inherit = 'ir.async'

    is_elsewhere = fields.Boolean(
        "From Another Database",
        compute='_compute_is_elsewhere',
        search='_search_is_elsewhere',
        help="The job came with a copy of another database and does not run in this one",
    )

    def _register_hook(self) -> None:
        super()._register_hook()
        self.env.registry.ir_async_origin = read_origin(self.env.cr)

    def _compute_is_elsewhere(self):
        self._insert_pending()
        foreign = {
            job_id
            for (job_id,) in self.env.execute_query(
                SQL(
                    "SELECT id FROM ir_async AS job WHERE id IN %s AND %s",
                    self._ids or (0,),
                    self._is_foreign(SQL("job")),
                )
            )
        }
        for job in self:
            job.is_elsewhere = job.id in foreign

    @api.model
    def _search_is_elsewhere(self, operator, value):
        if operator != 'in':
            return NotImplemented
        foreign = Domain.custom(to_sql=lambda model, alias, query: self._is_foreign(SQL.identifier(alias)))
        return foreign if True in value else ~foreign

    def _is_foreign(self, alias: SQL) -> SQL:
        return SQL(
            "(%(job)s.state IN %(live)s AND %(job)s.origin IS DISTINCT FROM %(here)s)",
            job=alias,
            live=LIVE,
            here=self._origin_sql(),
        )

    @api.model
    def _origin_sql(self) -> SQL:
        """Return the SQL expression of this database's identity, evaluated by the transaction that uses it.

        :rtype: SQL
        """
        return SQL(self._get_origin_expression())

    @ormcache()
    def _get_origin_expression(self) -> str:
        return origin_expression(self.env.cr)

    def adopt(self) -> Literal[True]:
        """Let jobs that came with a copy of another database run in this one. Other jobs stay as they are.

        :return: True
        :raises odoo.exceptions.AccessError: if the user is no manager of jobs
        :raises odoo.exceptions.UserError: if a job of the same key is queued or running here; then none is changed
        """
        if not (self.env.su or self.env.user.has_group('ir_async.ir_async_group_manager')):
            raise AccessError(
                self.env._("Only a manager of background jobs can run jobs of another database in this one.")
            )
        jobs = self._lock().filtered('is_elsewhere')
        here = self._origin_sql()
        running = jobs.filtered(lambda job: job.state == 'processing')  # in the original, when the copy was made
        try:
            with self.env.cr.savepoint():
                running._update(wakes=True, origin=here, state='created', worker_id=None)
                (jobs - running)._update(wakes=True, origin=here)
        except psycopg2.errors.UniqueViolation as exc:
            raise UserError(
                self.env._(
                    "There is already a queued or running job with the same key: %(detail)s",
                    detail=exc.diag.message_detail,
                )
            ) from None
        if jobs:
            self._pending()  # the savepoint's flush has dropped the precommit hook: add it again
            _logger.info(
                "User %s (%s) lets jobs of another database run in this one: %s",
                self.env.user.login,
                self.env.uid,
                jobs.ids,
            )
        return True
