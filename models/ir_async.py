from __future__ import annotations

import functools
import io
import json
import logging
import math
import random
import time
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone

import psycopg2.errors

from odoo import SUPERUSER_ID, api, fields, models
from odoo.exceptions import AccessError, MissingError, UserError
from odoo.http import serialize_exception
from odoo.modules.registry import Registry
from odoo.tools import SQL, json_default, ormcache
from odoo.tools.constants import GC_UNLINK_LIMIT
from odoo.tools.misc import split_every

from odoo.addons.ir_async.exceptions import ClaimLost, RetryJob, WorkerDied
from odoo.addons.ir_async.service.pg import notifier
from odoo.addons.ir_async.service.session import CLAIM_TIME, IS_HELD
from odoo.addons.ir_async.tools.encoding import decode, encode, encode_result
from odoo.addons.ir_async.tools.options import Options, clean_text, is_text
from odoo.addons.ir_async.tools.target import caller_stack, check_target, format_stack

_logger = logging.getLogger(__name__)

LIVE = ('waiting', 'created', 'processing')
ENDED = ('succeeded', 'done', 'failed', 'cancelled')
MAX_DEATHS = 3
FIRST_RETRY_DELAY, LAST_RETRY_DELAY = 10, 3600  # seconds
CHAIN_DEPTH = 20  # jobs that enqueued each other, to explain a failure
BUS_PAYLOAD_MAX_SIZE = 64 * 1024  # characters of JSON; a larger payload is read on demand

OPTIONS = 'ir_async_options'  # key in the context of `ir.async` itself
PENDING = 'ir_async.pending'  # key in the hooks' data: the rows that the transaction is about to insert
COLUMNS = (
    'id', 'res_ids', 'state', 'name', 'notify', 'res_model', 'method', 'args', 'kwargs', 'user_id', 'su', 'context',
    'parent_id', 'stack', 'priority', 'date_scheduled', 'max_attempts', 'retry_delay', 'timeout', 'channel', 'limited',
    'key',
)

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
COPY_MIN = 50  # rows from which on COPY, that takes two round trips, but half of the work, is faster
COPY_ESCAPES = str.maketrans({'\\': r'\\', '\t': r'\t', '\n': r'\n', '\r': r'\r'})


class Running:
    """The job that this thread runs, and what it reported last.

    Not the context's ``async_job_id``: a client could forge that one.
    """
    current = ContextVar('ir_async.running', default=None)

    def __init__(self, job):
        self.job = job
        self.fresh_until = time.monotonic() + CLAIM_TIME  # when its claim has to be looked at again
        self.dbname = None
        self.progress = None
        self.deadline = None  # when its time is over, if it is limited

    @classmethod
    def get(cls, cr):
        """Return the job that this thread runs, if it is one of the database of the cursor.

        :rtype: Running | None
        """
        running = cls.current.get()
        return running if running and running.dbname in (None, cr.dbname) else None


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
    progress = fields.Json(compute='_compute_progress', help="What the method reported last: done, total and message")
    notify = fields.Boolean(readonly=True, help="Tell the user about every change")
    dismissed = fields.Boolean(readonly=True, help="The user does not want to see it any more")
    revision = fields.Integer(
        required=True, readonly=True, default=1, aggregator=None, help="Grows with every change of state")

    # What is to be run: written once, never changed.
    res_model = fields.Char("Model", required=True, readonly=True)
    res_ids = fields.Text("Records", required=True, readonly=True, help="JSON")
    method = fields.Char(required=True, readonly=True)
    user_id = fields.Many2one(
        'res.users', "User", required=True, readonly=True, ondelete='cascade')
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
        'ir.async', "Enqueued by", readonly=True, index='btree_not_null', ondelete='set null',
        groups='ir_async.ir_async_group_manager')

    # How: see `with_options`.
    priority = fields.Integer(required=True, readonly=True, default=10, aggregator=None, help="Lower runs first")
    date_scheduled = fields.Datetime("Not before", readonly=True)
    max_attempts = fields.Integer(readonly=True, default=1, aggregator=None)
    retry_delay = fields.Char(readonly=True, help="Seconds, a list of them, or nothing: exponential. JSON")
    timeout = fields.Float(digits=0, readonly=True, aggregator=None, help="Seconds that the method may run")
    channel = fields.Char(required=True, readonly=True, default='default')
    limited = fields.Boolean(readonly=True, help="The channel has limits")
    key = fields.Char(readonly=True, help="While a job of this key is queued or running, there is no second one")
    after_ids = fields.Many2many(
        'ir.async', 'ir_async_after_rel', 'job_id', 'after_id', "After", readonly=True,
        help="The jobs that must have ended well first")

    # What became of it so far.
    attempts = fields.Integer(readonly=True, default=0, aggregator=None, help="How many times the method ended")
    deaths = fields.Integer(
        readonly=True, default=0, aggregator=None, help="How many times a worker died while it ran the method")
    # (session, claims) is the fence: the pair is new with every claim, and every outcome must match it.
    claims = fields.Integer(readonly=True, default=0, aggregator=None, help="How many times a worker took it")
    session = fields.Integer(readonly=True, aggregator=None, help="The worker that has it, while processing")
    database = fields.Char(readonly=True, help="Where it was enqueued: its name differs in a copy of the database")
    create_date = fields.Datetime("Created on", readonly=True)
    date_start = fields.Datetime("Started on", readonly=True)
    date_done = fields.Datetime("Ended on", readonly=True)

    # What workers look for. Finished jobs, of which there are weeks, are in none of these but the last ones.
    _claim_idx = models.Index("(priority, id) WHERE state = 'created' AND date_scheduled IS NULL AND NOT limited")
    _limited_claim_idx = models.Index(
        "(priority, id) WHERE state = 'created' AND date_scheduled IS NULL AND limited")
    _limited_channel_idx = models.Index(
        "(channel, priority, id) WHERE state = 'created' AND date_scheduled IS NULL AND limited")
    _scheduled_idx = models.Index("(date_scheduled) WHERE state = 'created' AND date_scheduled IS NOT NULL")
    _waiting_idx = models.Index("(id) WHERE state = 'waiting'")
    _session_idx = models.Index("(session) WHERE state = 'processing'")
    _limited_start_idx = models.Index("(channel, date_start) WHERE limited")
    _notified_idx = models.Index("(user_id, id) WHERE notify AND dismissed IS NOT TRUE")
    _live_key_uniq = models.UniqueIndex(
        "(key, (CASE WHEN notify THEN user_id ELSE 0 END))"
        " WHERE key IS NOT NULL AND state IN ('waiting', 'created', 'processing')",
        "There is already a job of that key.")

    def init(self):
        # What `_enqueue` leaves out, it leaves to the database.
        self.env.cr.execute(SQL(
            """
            ALTER TABLE %s
            ALTER revision SET DEFAULT 1,
            ALTER attempts SET DEFAULT 0,
            ALTER deaths SET DEFAULT 0,
            ALTER claims SET DEFAULT 0,
            ALTER database SET DEFAULT current_database(),
            ALTER create_date SET DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')
            """, SQL.identifier(self._table)))
        # Each job leaves two dead rows. By default, they would be cleaned up once they are a fifth of all that have ended.
        self.env.cr.execute("""
            ALTER TABLE ir_async SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)
        """)
        # A dependency stays for information once it is met; until then it is in these indexes.
        self.env.cr.execute("""
            ALTER TABLE ir_async_after_rel ADD COLUMN IF NOT EXISTS unmet boolean NOT NULL DEFAULT true;
            CREATE INDEX IF NOT EXISTS ir_async_after_rel_unmet_idx ON ir_async_after_rel (job_id) WHERE unmet;
            CREATE INDEX IF NOT EXISTS ir_async_after_rel_after_idx ON ir_async_after_rel (after_id) WHERE unmet
        """)

    def _compute_progress(self):
        self.env.cr.execute(SQL(
            "SELECT job_id, done, total, message FROM ir_async_progress WHERE job_id IN %s", self._ids or (0,)))
        reported = {job_id: _progress(*progress) for job_id, *progress in self.env.cr.fetchall()}
        for job in self:
            job.progress = reported.get(job.id, False)

    # ------------------------------------------------------------
    # Enqueue
    # ------------------------------------------------------------

    @api.private
    def with_options(self, **options):
        """Return this model with options for the jobs that are called with it.

        :param int priority: lower runs first, ties in the order of creation; 10 by default
        :param datetime.datetime at: not before that date, in UTC
        :param delay: not before that many seconds, a number or a ``timedelta``, from now
        :param int max_attempts: how many times the method is tried when it raises; 1 by default
        :param retry_delay: seconds between two tries, or a list of them, the last of which is for all further ones;
            by default 10 seconds to an hour, doubled each time, with jitter
        :param float timeout: seconds that the method may run, at most the server's ``limit_time_real``
        :param str channel: the channel, whose limits apply, see ``ir.async.channel``
        :param str key: while a job of this key is waiting, created or processing, ``call`` returns that one
        :param after: jobs, records of ``ir.async``, that must have ended well first
        :param int chunk_size: one job for so many records of the target each, all of which are returned
        :return: the model ``ir.async``
        :raises TypeError: when an option is unknown, or its value is not what it takes
        """
        return self.with_context(**{OPTIONS: self._options().update(options)})

    def _options(self):
        options = self.env.context.get(OPTIONS)
        return options if isinstance(options, Options) else Options()

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
        :return: the job, a record of ``ir.async`` (not sudo); with the option ``chunk_size``, the jobs
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
        :return: the job, a record of ``ir.async`` (not sudo); with the option ``chunk_size``, the jobs
        :raises TypeError: as :meth:`call`, and when ``description`` is not a text
        :raises odoo.exceptions.UserError: as :meth:`call`
        """
        if callable(description):
            msg = f"call_notify() takes a description first, then the method; got {description!r}"
            raise TypeError(msg)
        if description and not is_text(str(description)):
            msg = f"the description cannot be stored: {description!r}"
            raise TypeError(msg)
        return self._enqueue(target, args, kwargs, name=str(description) if description else None, notify=True)

    @api.private
    def current(self):
        """Return the job that is running this code.

        :return: a record of ``ir.async``, empty outside of a job
        """
        running = Running.get(self.env.cr)
        return self._plain().browse([running.job.id] if running else [])

    @api.private
    def report_progress(self, done, total=None, message=None):
        """Tell how far the running job is. The user sees it at once, although the transaction of the job is open.

        It costs next to nothing: what is shown is the last of what was reported, a few times a second.
        Outside of a job, nothing happens.

        :param float done: how much is done
        :param float total: of how much, if that is known
        :param str message: what it is about
        :raises TypeError: when ``done`` or ``total`` is not a number
        """
        for name, value in (('done', done), ('total', 0 if total is None else total)):
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                msg = f"{name} must be a finite number, not {value!r}"
                raise TypeError(msg)
        if running := Running.get(self.env.cr):
            running.progress = (
                float(done), None if total is None else float(total), message and clean_text(str(message)))

    def _plain(self):
        """Return this model as the caller may have it: neither in sudo, nor with options for the next call."""
        context = {key: value for key, value in self.env.context.items() if key != OPTIONS}
        return self.sudo(False).with_context(context)

    def _enqueue(self, target, args, kwargs, name=None, notify=False):
        records, method, args, kwargs = check_target(target, args, kwargs)
        if not all(type(id_) is int for id_ in records._ids):
            raise UserError(self.env._(
                "Save %(records)s first: what is not saved cannot be worked on in the background.", records=records))
        env = records.env
        # The job comes to exist in the transaction of the target, whatever this one is.
        model = self if self.env.cr is env.cr else env[self._name].with_context(**{OPTIONS: self._options()})
        options = model._options()
        running = Running.get(env.cr)
        values = {
            'state': 'waiting' if options.after else 'created',
            'name': name,
            'notify': notify,
            'res_model': records._name,
            'res_ids': None,
            'method': method,
            'args': encode(list(args), 'args'),
            'kwargs': encode(kwargs, 'kwargs'),
            'user_id': env.uid,
            'su': env.su,
            'context': _encode_context(env.context),
            'parent_id': running and running.job.id,
            'stack': json.dumps(caller_stack(), separators=(',', ':')),
            'priority': options.priority,
            'date_scheduled': options.scheduled_date(),
            'max_attempts': options.max_attempts,
            'retry_delay': None if options.retry_delay is None else json.dumps(options.retry_delay),
            'timeout': options.timeout,
            'channel': options.channel,
            'limited': options.channel.split('/', 1)[0] in model.env['ir.async.channel']._limited_names(),
            'key': options.key,
        }
        chunks = split_every(options.chunk_size, records._ids) if options.chunk_size else [records._ids]
        return model._plain().browse(model._add_rows(values, [json.dumps(chunk) for chunk in chunks], options.after))

    def _add_rows(self, values, chunks, after):
        """Add one row for each chunk of record ids to what the transaction inserts; return the ids of the jobs."""
        rows = []
        for job_id, res_ids in zip(self._reserve_ids(len(chunks)), chunks):
            values['id'], values['res_ids'] = job_id, res_ids
            rows.append(tuple(values[column] for column in COLUMNS))
        if values['key']:
            self._insert_pending()
            [row] = rows
            if existing_id := self._insert_keyed(row, values):
                return [existing_id]
        self._pending(rows if not values['key'] else [], [
            (row[0], parent_id) for row in rows for parent_id in after._ids] if after else [])
        if self._is_referenced():
            self._insert_pending()
        if values['notify']:
            for row in rows:
                self._send(row[0], values['user_id'], values['name'], values['state'], 1)
        return [row[0] for row in rows]

    def _reserve_ids(self, count):
        """Return ids of the sequence; a transaction takes them in growing numbers."""
        data = self.env.cr.precommit.data
        ids, size = data.get('ir_async.ids') or ([], 1)
        if len(ids) < count:
            ids += [id_ for id_, in self.env.execute_query(SQL(
                "SELECT nextval(%s) FROM generate_series(1, %s)", f'{self._table}_id_seq', max(size, count - len(ids))))]
            size = min(size * 4, 256)
        data['ir_async.ids'] = ids[count:], size
        return ids[:count]

    def _pending(self, rows, dependencies):
        """Have rows inserted. They are in the hooks' data, which a savepoint's rollback clears."""
        data = self.env.cr.precommit.data
        if PENDING not in data:
            data[PENDING] = [], []
            self.env.cr.precommit.add(self._insert_pending)
        data[PENDING][0].extend(rows)
        data[PENDING][1].extend(dependencies)

    def _insert_pending(self):
        # Taken out, so that whoever calls later, from another hook, registers this one again.
        rows, dependencies = self.env.cr.precommit.data.pop(PENDING, ((), ()))
        if rows:
            columns = ', '.join(COLUMNS)
            if len(rows) < COPY_MIN:
                self.env.cr.execute_values(f'INSERT INTO ir_async ({columns}) VALUES %s', rows)
            else:
                # Jobs that are enqueued together often differ in nothing but their ids, or in little more.
                text = functools.lru_cache(typed=True)(_copy_text)
                rest = functools.lru_cache(lambda values: '\t'.join(map(text, values)))
                lines = '\n'.join(f'{row[0]}\t{row[1]}\t{rest(row[2:])}' for row in rows)
                self.env.cr.copy_expert(f'COPY ir_async ({columns}) FROM STDIN', io.StringIO(lines))
            self._wake_workers()
        if dependencies:
            # A parent that was deleted since had ended, long ago.
            self.env.cr.execute(
                "INSERT INTO ir_async_after_rel (job_id, after_id)"
                " SELECT DISTINCT job_id, after_id FROM unnest(%s, %s) AS rel (job_id, after_id)"
                " WHERE EXISTS (SELECT FROM ir_async WHERE id = after_id)",
                [list(ids) for ids in zip(*dependencies)])

    def _insert_keyed(self, row, values):
        """Insert one row, unless there is a live job of its key; then return the id of that job."""
        # At REPEATABLE READ, a job that another transaction inserted since is a serialization failure, that
        # `retrying` answers with another try, which sees it.
        inserted = self.env.execute_query(SQL(
            """
            INSERT INTO ir_async (%s) VALUES %s
            ON CONFLICT (key, (CASE WHEN notify THEN user_id ELSE 0 END))
                  WHERE key IS NOT NULL AND state IN ('waiting', 'created', 'processing')
             DO NOTHING
              RETURNING id
            """, SQL(', ').join(map(SQL.identifier, COLUMNS)), row))
        if inserted:
            self._wake_workers()
            return None
        owner = SQL("notify AND user_id = %s", values['user_id']) if values['notify'] else SQL("NOT notify")
        [[existing_id, state]] = self.env.execute_query(SQL(
            "SELECT id, state FROM ir_async WHERE key = %s AND %s AND state IN %s", values['key'], owner, LIVE))
        if state != 'processing':
            # It must not begin before this transaction is committed, or it would not see what it is called for.
            # Claims pass over locked rows; if it was claimed since, this is a serialization failure as well.
            self.env.cr.execute(SQL("SELECT FROM ir_async WHERE id = %s FOR SHARE", existing_id))
            self._wake_workers()
        return existing_id

    def _wake_workers(self):
        """Wake the workers up after the commit, once."""
        data = self.env.cr.postcommit.data
        if 'ir_async.notified' not in data:
            data['ir_async.notified'] = True
            self.env.cr.postcommit.add(self._notify_workers)

    def _notify_workers(self):
        """Wake the workers up, now; where there are none, the cron workers."""
        # another hook may enqueue more, and commit
        self.env.cr.postcommit.data.pop('ir_async.notified', None)
        # Odoo signals after these hooks that caches are to be cleared: a job would begin earlier, and not know.
        if self.env.registry.ready:
            self.env.registry.signal_changes()
        dbname = self.env.cr.dbname
        if not notifier.notify(dbname):
            with Registry(dbname).cursor() as cr:
                env = api.Environment(cr, SUPERUSER_ID, {})
                env.ref('ir_async.ir_cron_run_jobs')._trigger()

    @ormcache()
    def _is_referenced(self):
        """Tell whether another table may refer to a job: then its row must be there at once."""
        return any(
            field.store and field.comodel_name == self._name
            and not field.model_name.startswith(self._name)
            for model in self.env.registry.values()
            for field in model._fields.values()
            if field.type in ('many2one', 'many2many')
        )

    # Rows that were not inserted yet are there for whoever looks.

    def _search(self, *args, **kwargs):
        self._insert_pending()
        return super()._search(*args, **kwargs)

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
        self.browse().check_access('read')
        jobs = self.sudo()
        jobs._insert_pending()
        if not jobs:
            return jobs
        jobs.invalidate_recordset()
        rows = dict(self.env.execute_query(SQL(
            "SELECT id, user_id FROM ir_async WHERE id IN %s ORDER BY id FOR NO KEY UPDATE", self._ids)))
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

    def cancel(self):
        """Cancel these jobs: the queued ones at once, the running ones within a second. What they did is rolled back.

        :return: True
        :raises odoo.exceptions.AccessError: when one of them is not the user's, who is no manager either
        :raises odoo.exceptions.UserError: when one of them has ended; none is changed then
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state in ENDED):
            raise UserError(self.env._("Only jobs that did not end can be cancelled, not %(jobs)s.", jobs=others._label()))
        running = jobs.filtered(lambda job: job.state == 'processing')
        (jobs - running)._update(state='cancelled', date_done=fields.Datetime.now())
        for job in running:
            # Not in its row, that belongs to its worker. Within the transaction: the worker must see it then.
            self.env.cr.execute(SQL(
                "INSERT INTO ir_async_stop (job_id, reason) VALUES (%s, 'cancel')"
                " ON CONFLICT (job_id) DO UPDATE SET reason = 'cancel'", job.id))
            self.env.cr.execute(SQL("SELECT pg_notify('ir_async_stop', %s)", str(job.id)))
        self._wake_workers()  # for the children
        return True

    def retry(self):
        """Run these jobs, that failed or were cancelled, again. Their attempts and deaths start from zero.

        :return: True
        :raises odoo.exceptions.AccessError: when one of them is not the user's, who is no manager either
        :raises odoo.exceptions.UserError: when one of them did not fail and is not cancelled, waits for a cancelled
            job, or there is a live job of the same key; none is changed then
        """
        jobs = self._lock()
        if others := jobs.filtered(lambda job: job.state not in ('failed', 'cancelled')):
            raise UserError(self.env._(
                "Only jobs that failed or were cancelled can be tried again, not %(jobs)s.", jobs=others._label()))
        if parents := jobs.after_ids.filtered(lambda job: job.state == 'cancelled') - jobs:
            raise UserError(self.env._("First try again what they wait for: %(jobs)s.", jobs=parents._label()))
        waiting = jobs.filtered(lambda job: any(parent.state not in ('succeeded', 'done') for parent in job.after_ids))
        restart = {
            'attempts': 0, 'deaths': 0, 'payload': None, 'date_scheduled': None, 'date_done': None, 'dismissed': False,
        }
        try:
            with self.env.cr.savepoint():
                self.env.cr.execute(SQL("DELETE FROM ir_async_stop WHERE job_id IN %s", self._ids or (0,)))
                self.env.cr.execute(SQL("DELETE FROM ir_async_progress WHERE job_id IN %s", self._ids or (0,)))
                waiting._update(state='waiting', **restart)
                (jobs - waiting)._update(state='created', **restart)
        except psycopg2.errors.UniqueViolation as exc:
            raise UserError(self.env._(
                "There is already a queued or running job of the same key: %(detail)s", detail=exc.diag.message_detail)) from None
        self._wake_workers()
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
            "UPDATE ir_async SET %s, revision = revision + 1 WHERE id IN %s",
            SQL(", ").join(SQL("%s = %s", SQL.identifier(name), value) for name, value in values.items()),
            self._ids,
        ), log_exceptions=False)
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

    def _perform(self, running):
        """Call the method of a job, in its own environment.

        :param Running running: the job
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
        token = Running.current.set(running)
        # Odoo recomputes and flushes with the user of the transaction: not root's, as long as the method runs.
        root_env, env.transaction.default_env = env.transaction.default_env, env
        try:
            result = getattr(records, job.method)(*decode(job.args, env), **decode(job.kwargs, env))
            payload = None if result is None else encode_result(result)
            env.cr.flush()
        finally:
            env.transaction.default_env = root_env
            Running.current.reset(token)
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
            INSERT INTO ir_async_progress (job_id, done, total, message)
                 SELECT id, %(done)s, %(total)s, %(message)s FROM ir_async WHERE id = %(id)s
            ON CONFLICT (job_id) DO UPDATE SET done = %(done)s, total = %(total)s, message = %(message)s
            """, id=job.id, done=done, total=total, message=message))
        if job.notify:
            self._send(job.id, job.user_id, job.name, 'processing', job.revision, progress=_progress(*progress))

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
        # a parent stays while children wait for it
        domain &= fields.Domain.custom(to_sql=lambda model, alias, query: SQL(
            "NOT EXISTS (SELECT FROM ir_async_after_rel WHERE after_id = %s AND unmet)", SQL.identifier(alias, 'id')))
        jobs = self.sudo().search(domain, order='id', limit=GC_UNLINK_LIMIT)
        jobs._delete()
        return len(jobs), len(jobs) == GC_UNLINK_LIMIT  # done, remaining

    def _delete(self):
        """Delete jobs and the files that belong to them."""
        for ids in split_every(self.env.cr.IN_MAX, self._ids):
            self.env['ir.attachment'].sudo().search([('res_model', '=', self._name), ('res_id', 'in', ids)]).unlink()
            self.env.cr.execute(SQL("DELETE FROM ir_async WHERE id IN %s", ids))
        self.env.invalidate_all()


def _encode_context(context):
    """Return the context as JSON text, without what only means something in this process."""
    context = {key: value for key, value in context.items() if key not in ('async_job_id', OPTIONS)}
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


def _copy_text(value):
    return r'\N' if value is None else str(value).translate(COPY_ESCAPES)


def _retry_delay(job):
    """Return how many seconds to wait before the next attempt."""
    delay = json.loads(job.retry_delay or 'null')
    if isinstance(delay, list):
        return delay[min(job.attempts, len(delay) - 1)]
    if delay is None:
        delay = FIRST_RETRY_DELAY * 2 ** min(job.attempts, 20) * random.uniform(1, 1.5)
        return min(delay, LAST_RETRY_DELAY)
    return delay


def _progress(done, total, message):
    return {'done': done, 'total': total, 'message': message}
