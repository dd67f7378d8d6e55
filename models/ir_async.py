"""The row of a job: its call, its options, and its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from odoo import api, fields, models
from odoo.exceptions import AccessError, MissingError
from odoo.tools import SQL

from ..tools.fields import Payload, WeakMany2one

if TYPE_CHECKING:
    from typing_extensions import Self

    from odoo.api import ValuesType

LIVE = ('waiting', 'created', 'processing')
MAX_LABELS = 20  # jobs named in one error
# The scope in which a key is unique, and the jobs that hold their key. PostgreSQL uses the index only for its exact expressions.
KEY_OWNER = SQL("(CASE WHEN notify THEN user_id ELSE 0 END)")
TAKES_KEY = SQL(
    "key IS NOT NULL AND state IN ('waiting', 'created', 'processing')"
    " AND (key_until IS DISTINCT FROM 'start' OR claim_number = 0)"
)
ENDED = ('succeeded', 'done', 'failed', 'cancelled')
BUS_PAYLOAD_MAX_SIZE = 64 * 1024  # bytes of JSON; clients read a larger payload on demand


class IrAsync(models.Model):
    """A call of a method, which a worker process runs soon, with the same user, context and records."""

    _name = 'ir.async'
    _inherit = ['ir.async.primary']
    _description = "Background Job"
    _order = 'id DESC'
    _log_access = False  # jobs are written in bulk, by SQL
    _allow_sudo_commands = False

    name = fields.Char(readonly=True, help="Name that the notified user sees")
    state = fields.Selection(
        [
            ('waiting', "Waiting"),
            ('created', "Queued"),
            ('processing', "Running"),
            ('succeeded', "Ready"),
            ('done', "Done"),
            ('failed', "Failed"),
            ('cancelled', "Cancelled"),
        ],
        required=True,
        readonly=True,
        default='created',
    )
    payload = Payload(readonly=True, help="Result or error of the job", prefetch=False)
    progress = fields.Json(
        compute='_compute_progress', help="Last progress that the method reported: done, total and message"
    )
    notify = fields.Boolean(readonly=True, help="The user is notified of each change of the job")
    dismissed = fields.Boolean(readonly=True, help="The user has removed the job from their list")
    revision = fields.Integer(
        required=True, readonly=True, default=1, aggregator=None, help="Number of changes of the job"
    )

    # The call. A queued job's call can change only as a whole, by `on_duplicate='replace'`.
    res_model = fields.Char("Model", required=True, readonly=True)
    res_ids = fields.Text("Records", required=True, readonly=True, help="JSON")
    method = fields.Char(required=True, readonly=True)
    user_id = fields.Many2one('res.users', "User", required=True, readonly=True, ondelete='cascade')
    su = fields.Boolean("Superuser Mode", readonly=True)
    args = fields.Text(
        "Arguments", required=True, readonly=True, prefetch=False, groups='ir_async.ir_async_group_manager'
    )
    kwargs = fields.Text(
        "Keyword Arguments", required=True, readonly=True, prefetch=False, groups='ir_async.ir_async_group_manager'
    )
    context = fields.Text(required=True, readonly=True, prefetch=False, groups='ir_async.ir_async_group_manager')
    stack = fields.Text(
        readonly=True,
        prefetch=False,
        groups='ir_async.ir_async_group_manager',
        help="Code that enqueued the job, as JSON, with the innermost frame last",
    )
    # With a foreign key, deleting the parent would write this row, even while a worker runs the job.
    parent_id = WeakMany2one(
        'ir.async', "Enqueued by", readonly=True, index='btree_not_null', groups='ir_async.ir_async_group_manager'
    )

    # The options: see `with_options`.
    priority = fields.Integer(
        required=True, readonly=True, default=10, aggregator=None, help="Jobs with a lower number run first"
    )
    date_scheduled = fields.Datetime("Scheduled Date", readonly=True)
    max_attempts = fields.Integer(readonly=True, default=1, aggregator=None)
    retry_delay = fields.Char(
        readonly=True,
        help="Seconds until the next attempt, or a list of them, as JSON. Empty: 10 seconds to an hour, doubled each time",
    )
    timeout = fields.Float(
        digits=0, readonly=True, aggregator=None, help="Maximum number of seconds that the method runs"
    )
    channel = fields.Char(required=True, readonly=True, default='default')
    limited = fields.Boolean(readonly=True, help="The channel has limits")
    key = fields.Char(readonly=True, help="While a job with this key is queued or running, no second one is created")
    key_until = fields.Selection(
        [('end', "The job ends"), ('start', "The job starts")],
        readonly=True,
        help="Until then, no second job with this key is created",
    )
    after_ids = fields.Many2many(
        'ir.async',
        'ir_async_after_rel',
        'job_id',
        'after_id',
        "After",
        readonly=True,
        help="Jobs that must succeed before this one starts",
    )

    # The state.
    starts = fields.Integer(
        readonly=True,
        default=0,
        aggregator=None,
        help="Number of times the method started, also after conflicts with other transactions",
    )
    attempts = fields.Integer(
        readonly=True, default=0, aggregator=None, help="Number of times the method ended by itself"
    )
    deaths = fields.Integer(
        readonly=True, default=0, aggregator=None, help="Number of workers that died while they ran the method"
    )
    # Each claim makes a new pair of these two, which each outcome must match. See `engine/fence.py`.
    claim_number = fields.Integer(
        "Claims", readonly=True, default=0, aggregator=None, help="Number of times a worker claimed the job"
    )
    worker_id = WeakMany2one(
        'ir.async.worker',
        "Worker",
        readonly=True,
        groups='ir_async.ir_async_group_manager',
        help="Worker that is running the job",
    )
    origin = fields.Char(
        readonly=True,
        groups='ir_async.ir_async_group_manager',
        help="Database where the job may run: its PostgreSQL server and its number there. A copy of the database differs in one of them",
    )
    create_date = fields.Datetime("Created on", readonly=True)
    date_start = fields.Datetime("Started on", readonly=True)
    date_done = fields.Datetime("Ended on", readonly=True)

    # Workers search these by origin, so that jobs which came with a copy of a database do not slow them down. Of these
    # indexes, only `_limited_start_idx`, `_limited_turn_idx` and `_notified_idx` hold finished jobs, of which the table keeps weeks.
    _claim_idx = models.Index(
        "(origin, priority, id) WHERE state = 'created' AND date_scheduled IS NULL AND NOT limited"
    )
    _limited_claim_idx = models.Index(
        "(origin, priority, id) WHERE state = 'created' AND date_scheduled IS NULL AND limited"
    )
    _limited_channel_idx = models.Index(
        "(origin, channel, priority, id) WHERE state = 'created' AND date_scheduled IS NULL AND limited"
    )
    _limited_user_idx = models.Index(
        "(origin, channel, priority, user_id, id) WHERE state = 'created' AND date_scheduled IS NULL AND limited"
    )
    _scheduled_idx = models.Index("(origin, date_scheduled) WHERE state = 'created' AND date_scheduled IS NOT NULL")
    _scheduled_priority_idx = models.Index(
        "(origin, priority, date_scheduled) WHERE state = 'created' AND date_scheduled IS NOT NULL"
    )
    _waiting_idx = models.Index("(origin, id) WHERE state = 'waiting'")
    _worker_idx = models.Index("(worker_id) WHERE state = 'processing'")
    _limited_start_idx = models.Index("(channel, date_start) WHERE limited")
    _limited_turn_idx = models.Index("(channel, priority, date_start) WHERE limited AND date_start IS NOT NULL")
    _notified_idx = models.Index("(user_id, id) WHERE notify AND dismissed IS NOT TRUE")
    _live_key_uniq = models.UniqueIndex(
        f"(key, {KEY_OWNER.code}, origin) WHERE {TAKES_KEY.code}",
        "There is already a queued or running job with this key.",
    )

    def _compute_progress(self) -> None:
        # Leave out the progress that an earlier attempt reported.
        self.env.cr.execute(SQL(
            """
            SELECT job.id, progress.done, progress.total, progress.message
              FROM ir_async_progress AS progress
              JOIN ir_async AS job ON job.id = progress.job_id
             WHERE job.id IN %s AND job.state NOT IN ('waiting', 'created')
               AND (job.state != 'processing' OR coalesce(progress.revision, job.revision) = job.revision)
            """, self._ids or (0,)))  # fmt: skip
        reported = {job_id: _progress(*progress) for job_id, *progress in self.env.cr.fetchall()}
        for job in self:
            job.progress = reported.get(job.id, False)

    # ------------------------------------------------------------
    # Access
    # ------------------------------------------------------------

    # A job's row decides which code runs, and as which user. So only the methods of this class write it, by SQL:
    # no form, no import, and not even the superuser over RPC.

    @api.model_create_multi
    def create(self, vals_list: list[ValuesType]) -> NoReturn:
        raise AccessError(self.env._("Jobs cannot be created as records. Use the method call() of ir.async."))

    def write(self, vals: ValuesType) -> NoReturn:
        raise AccessError(self.env._("Jobs cannot be changed. Use their buttons."))

    def unlink(self) -> NoReturn:
        raise AccessError(self.env._("Jobs cannot be deleted. Old ones are deleted automatically."))  # pylint: disable=raise-unlink-override

    def copy(self, default: ValuesType | None = None) -> NoReturn:
        raise AccessError(self.env._("Jobs cannot be duplicated."))

    def _add_chain(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Add to the error of a job, for managers, where the job was enqueued.

        :param dict[str, Any] payload: the payload, changed in place
        :rtype: dict[str, Any]
        """
        if data := (payload.get('error') or {}).get('data'):
            data['debug'] = self.sudo()._format_chain() + (data.get('debug') or '')
        return payload

    def _is_manager(self) -> bool:
        return self.env.su or self.env.user.has_group('ir_async.ir_async_group_manager')

    def _lock(self) -> Self:
        """Lock the rows, if the user owns them or is a manager.

        :return: the records in sudo
        :raises odoo.exceptions.AccessError: if one of them is another user's
        """
        self.browse().check_access('read')
        jobs = self.sudo()
        jobs._insert_pending()
        if not jobs:
            return jobs
        jobs.invalidate_recordset()
        rows = dict(
            self.env.execute_query(
                SQL("SELECT id, user_id FROM ir_async WHERE id IN %s ORDER BY id FOR NO KEY UPDATE", self._ids)
            )
        )
        if missing := set(self._ids) - rows.keys():
            raise MissingError(self.env._("These jobs do not exist any more: %s", sorted(missing)))
        if not self._is_manager() and any(owner != self.env.uid for owner in rows.values()):
            raise AccessError(
                self.env._("Only the user who started the job or a manager of background jobs can do this.")
            )
        return jobs

    def _label(self) -> str:
        states = dict(self._fields['state']._description_selection(self.env))
        labels = [f"{job.name or job.method} ({job.id}: {states[job.state]})" for job in self[:MAX_LABELS]]
        if len(self) > MAX_LABELS:
            labels.append(self.env._("and %s more", len(self) - MAX_LABELS))
        return ", ".join(labels)

    def _update(self, wakes: bool = False, **values: Any) -> None:
        """Set columns of rows locked by :meth:`_lock`, and notify their users with the commit.

        :param bool wakes: whether to wake the workers after the commit
        :param values: the new values, by column
        """
        if not self:
            return
        self.env.cr.execute(
            SQL(
                "UPDATE ir_async SET %s, revision = revision + 1 WHERE id IN %s RETURNING id, revision - 1, now()",
                SQL(", ").join(SQL("%s = %s", SQL.identifier(name), value) for name, value in values.items()),
                self._ids,
            ),
            log_exceptions=False,
        )
        pending = self._pending()
        for job_id, revision, began in self.env.cr.fetchall():
            pending.add_change(job_id, revision, began, wakes)
        self.invalidate_recordset()

    def _send(self, job_id: int, user_id: int, name: str | None, state: str, revision: int, **more: Any) -> None:
        """Notify a user of a change, once the transaction is committed."""
        # sudo - res.users: the owner is notified even of changes by others
        self.env['res.users'].sudo().browse(user_id)._bus_send(
            'ir.async', {'id': job_id, 'name': name or False, 'state': state, 'revision': revision, **more}
        )


def _progress(done: float, total: float | None, message: str | None) -> dict[str, Any]:
    return {'done': done, 'total': total, 'message': message}
