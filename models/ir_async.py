from __future__ import annotations

import functools
import inspect
import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import timedelta

from odoo import SUPERUSER_ID, api, fields, models
from odoo.exceptions import AccessError, MissingError, UserError
from odoo.http import serialize_exception
from odoo.tools import SQL, json_default, ormcache
from odoo.tools.constants import GC_UNLINK_LIMIT
from odoo.tools.misc import split_every

from odoo.addons.ir_async.exceptions import ClaimLost
from odoo.addons.ir_async.service.pg import notifier
from odoo.addons.ir_async.tools.encoding import decode, encode, encode_result

_logger = logging.getLogger(__name__)

ENDED = ('succeeded', 'done', 'failed', 'cancelled')
STACK_DEPTH = 16  # frames of the enqueuer that are kept to explain a failure
CHAIN_DEPTH = 20  # jobs that enqueued each other, likewise
BUS_PAYLOAD_MAX_SIZE = 64 * 1024  # characters of JSON; a larger payload is read on demand
PENDING = 'ir_async.pending'  # key in the hooks' data: the rows that the transaction is about to insert
COLUMNS = (
    'id', 'name', 'notify', 'res_model', 'res_ids', 'method', 'args', 'kwargs', 'user_id', 'su', 'context', 'parent_id',
    'stack', 'priority',
)

# The id of the job that this thread runs. Not the context's `async_job_id`: a client could forge that one.
_current_id = ContextVar('ir_async.current_id', default=False)


class VerbatimJson(fields.Json):
    """JSON kept as the text it is: jsonb refuses ``\\u0000`` and rewrites numbers."""
    _column_type = ('json', 'json')


class IrAsync(models.Model):
    """A call of a model's method that is run by a worker process, soon, with the same user, context and records."""
    _name = 'ir.async'
    _description = "Async Job"
    _order = 'id DESC'
    _log_access = False  # jobs are written in bulk, by SQL
    _allow_sudo_commands = False

    name = fields.Char(readonly=True, help="What the user who is notified sees")
    state = fields.Selection(
        [
            ('waiting', "Waiting"),
            ('created', "Created"),
            ('processing', "Processing"),
            ('succeeded', "Succeeded"),
            ('done', "Done"),
            ('failed', "Failed"),
            ('cancelled', "Cancelled"),
        ],
        required=True, readonly=True, default='created')
    payload = VerbatimJson(readonly=True, help="The result or the error", prefetch=False)
    notify = fields.Boolean(readonly=True, help="Tell the user about every change")
    dismissed = fields.Boolean(readonly=True, help="The user does not want to see it any more")
    revision = fields.Integer(
        required=True, readonly=True, default=1, aggregator=None, help="Grows with every change of state")

    # What is to be run: written once, never changed.
    res_model = fields.Char("Model", required=True, readonly=True)
    res_ids = fields.Text("Records", required=True, readonly=True, help="JSON")
    method = fields.Char(required=True, readonly=True)
    user_id = fields.Many2one(
        'res.users', "User", required=True, readonly=True, index=True, ondelete='cascade')
    su = fields.Boolean("Superuser Mode", readonly=True)
    args = fields.Text(
        required=True, readonly=True, prefetch=False, groups='ir_async.ir_async_group_manager')
    kwargs = fields.Text(
        required=True, readonly=True, prefetch=False, groups='ir_async.ir_async_group_manager')
    context = fields.Text(
        required=True, readonly=True, prefetch=False, groups='ir_async.ir_async_group_manager')
    stack = fields.Text(
        readonly=True, prefetch=False, groups='ir_async.ir_async_group_manager',
        help="Where it was enqueued: JSON, innermost frame last")
    parent_id = fields.Many2one(
        'ir.async', "Enqueued by", readonly=True, index='btree_not_null', ondelete='set null')
    priority = fields.Integer(required=True, readonly=True, default=10, aggregator=None, help="Lower runs first")

    # What became of it so far.
    attempts = fields.Integer(readonly=True, default=0, aggregator=None, help="How many times the method ended")
    deaths = fields.Integer(
        readonly=True, default=0, aggregator=None, help="How many times a worker died while it ran the method")
    # (session, claims) is the fence: the pair is new with every claim, and every outcome must match it.
    claims = fields.Integer(readonly=True, default=0, aggregator=None, help="How many times a worker took it")
    session = fields.Integer(readonly=True, aggregator=None, help="The worker that has it, while processing")
    create_date = fields.Datetime("Created on", readonly=True)
    date_start = fields.Datetime("Started on", readonly=True)
    date_done = fields.Datetime("Ended on", readonly=True)

    # The order of a claim. Finished jobs, of which there are months, are in none of these.
    _claim_idx = models.Index("(priority, id) WHERE state = 'created'")
    _session_idx = models.Index("(session) WHERE state = 'processing'")
    _vacuum_idx = models.Index("(date_done) WHERE date_done IS NOT NULL")

    def init(self):
        # What `_enqueue` leaves out, it leaves to the database.
        self.env.cr.execute(SQL(
            """
            ALTER TABLE %s
            ALTER state SET DEFAULT 'created',
            ALTER revision SET DEFAULT 1,
            ALTER attempts SET DEFAULT 0,
            ALTER deaths SET DEFAULT 0,
            ALTER claims SET DEFAULT 0,
            ALTER create_date SET DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')
            """, SQL.identifier(self._table)))

    # ------------------------------------------------------------
    # Enqueue
    # ------------------------------------------------------------

    @api.private
    def call(self, target, /, *args, **kwargs):
        """Have a worker process call ``target(*args, **kwargs)``, once this transaction is committed.

        The method runs in a new transaction with the recordset, user, superuser mode and context of ``target``,
        which also decides whose job it is. If this transaction is rolled back, there is no job.

        ``call(target, args=[…], kwargs={…})`` works too, as it does for :class:`threading.Thread`, where ``target``
        has no parameters of these names.

        :param target: a method bound to a recordset, private or empty ones included
        :param args: positional arguments: JSON types, recordsets, datetime, date, Decimal, bytes, tuples and sets
        :param kwargs: keyword arguments, of the same types
        :return: the job, a record of ``ir.async`` (not sudo)
        :raises TypeError: when ``target`` is no such method, does not take these arguments, or one of them
            cannot be stored; the message names it by its path, as in ``args[1]['when']``
        :raises odoo.exceptions.UserError: when the records of ``target`` are not saved yet
        """
        return self._enqueue(target, args, kwargs)

    @api.private
    def call_notify(self, description, target, /, *args, **kwargs):
        """Do as :meth:`call` does, and tell the user of ``target`` about every change of the job's state.

        :param str description: what the user sees in the list of his jobs; falsy: he is notified, but sees nothing
        :param target: as for :meth:`call`
        :param args: as for :meth:`call`
        :param kwargs: as for :meth:`call`
        :return: the job, a record of ``ir.async`` (not sudo)
        :raises TypeError: as :meth:`call`, and when ``description`` is not a text
        :raises odoo.exceptions.UserError: as :meth:`call`
        """
        if callable(description):
            msg = f"call_notify() takes a description first, then the method; got {description!r}"
            raise TypeError(msg)
        return self._enqueue(target, args, kwargs, name=str(description) if description else None, notify=True)

    @api.private
    def current(self):
        """Return the job that is running this code.

        :return: a record of ``ir.async``, empty outside of a job
        """
        job_id = _current_id.get()
        return self.sudo(False).browse(job_id and [job_id])

    def _enqueue(self, target, args, kwargs, **values):
        records, function = self._check_target(target)
        if not args and kwargs:
            args, kwargs = _unpack_thread_style(function, kwargs)
        try:
            _signature(function).bind(records, *args, **kwargs)
        except TypeError as exc:
            msg = f"{records._name}.{function.__name__}(): {exc}"
            raise TypeError(msg) from None

        env = records.env
        row = {
            'name': None,
            'notify': False,
            'res_model': records._name,
            'res_ids': json.dumps(records._ids),
            'method': function.__name__,
            'args': encode(list(args), 'args'),
            'kwargs': encode(kwargs, 'kwargs'),
            'user_id': env.uid,
            'su': env.su,
            'context': _encode_context(env.context),
            'parent_id': _current_id.get() or None,
            'stack': json.dumps(_caller_stack(), separators=(',', ':')),
            'priority': 10,
            **values,
        }
        # The job comes to exist in the transaction of the target, whatever this one is.
        jobs = self if self.env.cr is env.cr else env[self._name]
        row['id'] = jobs._reserve_id()
        jobs._pending_rows().append(tuple(row[column] for column in COLUMNS))
        if jobs._is_referenced():
            jobs._insert_pending()
        if row['notify']:
            jobs._send(row['id'], row['user_id'], row['name'], 'created', 1)
        return jobs.sudo(False).browse(row['id'])

    def _check_target(self, target):
        """Return the recordset and the function of a bound method."""
        records = getattr(target, '__self__', None)
        if not inspect.ismethod(target) or not isinstance(records, models.BaseModel):
            msg = f"the target must be a method bound to a recordset, as in call(self.method); got {target!r}"
            raise TypeError(msg)
        function = target.__func__
        found = getattr(type(records), function.__name__, None)
        if found is not function:
            msg = (
                f"{records._name} has no method {function.__name__!r} that is the given {target!r}: a worker looks "
                f"it up by its name, so super().method, lambdas and wrappers cannot be called later"
            )
            raise TypeError(msg)
        if not all(type(id_) is int for id_ in records._ids):
            raise UserError(self.env._("Save %(records)s first: what is not saved cannot be worked on in the background.", records=records))
        return records, function

    def _reserve_id(self):
        """Return an id of the sequence; from the second one on, a transaction takes them in growing numbers."""
        data = self.env.cr.precommit.data
        ids, size = data.get('ir_async.ids') or ([], 1)
        if not ids:
            ids = [id_ for id_, in self.env.execute_query(SQL(
                "SELECT nextval(%s) FROM generate_series(1, %s)", f'{self._table}_id_seq', size))][::-1]
            size = min(size * 4, 256)
        id_ = ids.pop()
        data['ir_async.ids'] = ids, size
        return id_

    def _pending_rows(self):
        """Return the list of rows to insert. It is in the hooks' data, which a savepoint's rollback clears."""
        data = self.env.cr.precommit.data
        if PENDING not in data:
            data[PENDING] = []
            self.env.cr.precommit.add(self._insert_pending)
        return data[PENDING]

    def _insert_pending(self):
        rows = self.env.cr.precommit.data.get(PENDING)
        if not rows:
            return
        self.env.cr.execute_values(
            f'INSERT INTO "{self._table}" ({", ".join(COLUMNS)}) VALUES %s', rows, page_size=1000)
        rows.clear()
        data = self.env.cr.postcommit.data
        if 'ir_async.notified' not in data:
            data['ir_async.notified'] = True
            self.env.cr.postcommit.add(functools.partial(notifier.notify, self.env.cr.dbname))

    @ormcache()
    def _is_referenced(self):
        """Tell whether another table may refer to a job: then its row must be there at once."""
        return any(
            field.store and field.comodel_name == self._name and field.model_name != self._name
            for model in self.env.registry.values()
            for field in model._fields.values()
            if field.type in ('many2one', 'many2many')
        )

    # Rows that were not inserted yet are there for whoever looks.

    def _search(self, *args, **kwargs):
        self._insert_pending()
        return super()._search(*args, **kwargs)

    def _fetch_query(self, query, fields):
        self._insert_pending()
        return super()._fetch_query(query, fields)

    def exists(self):
        self._insert_pending()
        return super().exists()

    def flush_model(self, fnames=None):
        self._insert_pending()
        return super().flush_model(fnames)

    def flush_recordset(self, fnames=None):
        self._insert_pending()
        return super().flush_recordset(fnames)

    # ------------------------------------------------------------
    # Access
    # ------------------------------------------------------------

    # A job's row decides what code runs as whom. So nobody writes one but the methods of this class, by SQL:
    # neither a form, an import, nor the superuser over RPC.

    @api.model_create_multi
    def create(self, vals_list):
        raise AccessError(self.env._("Jobs are created by calling ir.async's method call(), not as records."))

    def write(self, vals):
        raise AccessError(self.env._("Jobs cannot be modified, use their buttons."))

    def unlink(self):
        raise AccessError(self.env._("Jobs cannot be deleted, old ones are cleaned up automatically."))  # pylint: disable=raise-unlink-override

    def copy(self, default=None):
        raise AccessError(self.env._("Jobs cannot be duplicated."))

    def _lock(self):
        """Lock the rows, for the user who owns them or a manager.

        :return: the records in sudo
        :raises odoo.exceptions.AccessError: when one of them is somebody else's
        """
        jobs = self.sudo()
        jobs._insert_pending()
        if not jobs:
            return jobs
        jobs.invalidate_recordset()
        rows = dict(self.env.execute_query(SQL(
            "SELECT id, user_id FROM %s WHERE id IN %s ORDER BY id FOR NO KEY UPDATE",
            SQL.identifier(self._table), self._ids)))
        if missing := set(self._ids) - rows.keys():
            raise MissingError(self.env._("These jobs do not exist any more: %s", sorted(missing)))
        is_manager = self.env.su or self.env.user.has_group('ir_async.ir_async_group_manager')
        if not is_manager and any(owner != self.env.uid for owner in rows.values()):
            raise AccessError(self.env._("Only the user who started a job, or a manager, can do that."))
        return jobs

    # ------------------------------------------------------------
    # What the user does with a job
    # ------------------------------------------------------------

    def complete(self):
        """Say that the result of these jobs was used: they are ``done``. Nothing happens to those that are already.

        :return: True
        :raises odoo.exceptions.AccessError: when one of them is not the user's, who is no manager either
        :raises odoo.exceptions.UserError: when one of them did not succeed (yet); none is changed then
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state not in ('succeeded', 'done')):
            raise UserError(self.env._("Only jobs that succeeded can be completed, not %(jobs)s.", jobs=others._label()))
        jobs.filtered(lambda job: job.state == 'succeeded')._update(state='done')
        return True

    def dismiss(self):
        """Take these ended jobs off their owner's list, in all tabs. They stay in the job views.

        :return: True
        :raises odoo.exceptions.AccessError: when one of them is not the user's, who is no manager either
        :raises odoo.exceptions.UserError: when one of them did not end yet; none is changed then
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state not in ENDED):
            raise UserError(self.env._("Only jobs that ended can be dismissed, not %(jobs)s.", jobs=others._label()))
        jobs.filtered(lambda job: not job.dismissed)._update(dismissed=True)
        return True

    def _label(self):
        return ", ".join(f"{job.name or job.method} ({job.id}: {job.state})" for job in self)

    def _update(self, **values):
        """Set columns of rows that :meth:`_lock` has locked, and tell their users."""
        if not self:
            return
        self.env.cr.execute(SQL(
            "UPDATE %s SET %s, revision = revision + 1 WHERE id IN %s",
            SQL.identifier(self._table),
            SQL(", ").join(SQL("%s = %s", SQL.identifier(name), value) for name, value in values.items()),
            self._ids,
        ))
        self.invalidate_recordset()
        for job in self.filtered('notify'):
            self._send(
                job.id, job.user_id.id, job.name, job.state, job.revision,
                **({'dismissed': True} if job.dismissed else {}))

    def _send(self, job_id, user_id, name, state, revision, **more):
        """Tell a user about a change, once the transaction is committed."""
        # sudo - res.users: the owner may be told, whoever made the change
        self.env['res.users'].sudo().browse(user_id)._bus_send(
            'ir.async', {'id': job_id, 'name': name or False, 'state': state, 'revision': revision, **more})

    # ------------------------------------------------------------
    # Run: called by the worker, and by the tests' run_jobs()
    # ------------------------------------------------------------

    def _perform(self, job):
        """Call the method of a job, in its own environment.

        :param job: a :class:`~odoo.addons.ir_async.service.session.Job`
        :return: the state and the payload, JSON text, that the job ends with
        :rtype: tuple
        """
        context = decode(job.context, self.env(user=job.user_id, context={}, su=job.su))
        env = self.env(user=job.user_id, context={**context, 'async_job_id': job.id}, su=job.su)
        if not job.user_active and job.user_id != SUPERUSER_ID and not env.user._is_public():
            raise UserError(env._("The user %(login)s was archived since.", login=env.user.sudo().login))
        records = env[job.res_model].browse(json.loads(job.res_ids))
        token = _current_id.set(job.id)
        try:
            result = getattr(records, job.method)(*decode(job.args, env), **decode(job.kwargs, env))
            payload = encode_result(result)
            env.cr.flush()
        finally:
            _current_id.reset(token)
        return ('done', None) if result is None else ('succeeded', payload)

    def _finish(self, job, state, payload=None):
        """Write what became of a job, in the current transaction.

        :param job: a :class:`~odoo.addons.ir_async.service.session.Job`
        :param str state: the state it ends in
        :param str payload: its result or error, JSON text
        :raises ClaimLost: when the job is not this worker's any more
        """
        rows = self.env.execute_query(SQL(
            """
            UPDATE %(table)s
               SET state = %(state)s,
                   payload = %(payload)s,
                   session = NULL,
                   attempts = attempts + 1,
                   revision = revision + 1,
                   date_done = clock_timestamp() AT TIME ZONE 'UTC'
             WHERE id = %(id)s AND session = %(session)s AND claims = %(claims)s AND state = 'processing'
         RETURNING revision
            """,
            table=SQL.identifier(self._table), state=state, payload=payload,
            id=job.id, session=job.session, claims=job.claims))
        if not rows:
            raise ClaimLost(job.id)
        record = self.browse(job.id)
        record.invalidate_recordset()
        if job.notify:
            small = payload and len(payload) <= BUS_PAYLOAD_MAX_SIZE
            self._send(job.id, job.user_id, job.name, state, rows[0][0], **({'payload': json.loads(payload)} if small else {}))
        if state == 'failed':
            try:
                with self.env.cr.savepoint():
                    record._on_failed()
            except Exception:
                _logger.exception("_on_failed() of job %s", job.id)

    def _on_failed(self):
        """Hook: called in sudo when a job has ended ``failed``, in the transaction that says so."""

    def _encode_error(self, job, exc):
        """Return the payload of a job that ended with an exception, shaped as the error of an RPC.

        :rtype: str
        """
        data = serialize_exception(exc)
        data['debug'] = self.browse(job.id)._format_chain() + data['debug']
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
            who = f"by job {job.parent_id.id}" if job.parent_id else f"by {job.user_id.login}"
            frames = [
                traceback.FrameSummary(filename, line, name, lookup_line=False)
                for filename, line, name in json.loads(job.stack or '[]')
            ]
            chain.append(
                f"Job {job.id} ({job.res_model}.{job.method}) was enqueued {who} (most recent call last):\n"
                + ''.join(traceback.format_list(frames)) + "\n")
            job = job.parent_id
        return ''.join(reversed(chain))

    # ------------------------------------------------------------
    # Retention
    # ------------------------------------------------------------

    @api.autovacuum
    def _gc_jobs(self):
        days = int(self.env['ir.config_parameter'].sudo().get_param('ir_async.retention_days', 7))
        now = fields.Datetime.now()
        ended = [state for state in ENDED if state != 'failed']
        domain = fields.Domain.OR([
            [('state', 'in', ended), ('date_done', '<', now - timedelta(days=days))],
            [('state', '=', 'failed'), ('date_done', '<', now - timedelta(days=max(days, 30)))],
        ])
        jobs = self.sudo().search(domain, order='date_done', limit=GC_UNLINK_LIMIT)
        jobs._delete()
        return len(jobs), len(jobs) == GC_UNLINK_LIMIT  # done, remaining

    def _delete(self):
        """Delete jobs and the files that belong to them."""
        for ids in split_every(self.env.cr.IN_MAX, self._ids):
            self.env['ir.attachment'].sudo().search([('res_model', '=', self._name), ('res_id', 'in', ids)]).unlink()
            self.env.cr.execute(SQL("DELETE FROM %s WHERE id IN %s", SQL.identifier(self._table), ids))
        self.env.invalidate_all()


@functools.lru_cache(maxsize=1024)
def _signature(function):
    return inspect.signature(function)


def _unpack_thread_style(function, kwargs):
    """Return the arguments that ``call(target, args=[…], kwargs={…})`` means."""
    args_list, kwargs_dict = kwargs.get('args'), kwargs.get('kwargs')
    named = {
        name for name, parameter in _signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    if (
        kwargs.keys() <= {'args', 'kwargs'} and not named & {'args', 'kwargs'}
        and (args_list is None or isinstance(args_list, (list, tuple)))
        and (kwargs_dict is None or isinstance(kwargs_dict, dict))
    ):
        return tuple(args_list or ()), kwargs_dict or {}
    return (), kwargs


def _encode_context(context):
    """Return the context as JSON text, without what only means something in this process."""
    context = dict(context)
    context.pop('async_job_id', None)
    try:
        return encode(context, 'context')
    except TypeError:
        for key, value in list(context.items()):
            try:
                encode({key: value}, 'context')
            except TypeError as exc:
                _logger.debug("Not passed on to the job: %s", exc)
                del context[key]
    return encode(context, 'context')


def _caller_stack():
    """Return the innermost frames outside of this file, as (filename, line, function).

    :func:`traceback.extract_stack` looks up the source lines, which takes longer than all the rest of a call.
    """
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__:
        frame = frame.f_back
    frames = []
    while frame and len(frames) < STACK_DEPTH:
        frames.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return frames[::-1]
