"""The rows that a transaction is about to insert, its signals to other processes, and the wake-up of the workers."""
from __future__ import annotations

import functools
import io
import itertools
import time
from datetime import timedelta

from psycopg2 import errors

from odoo import models
from odoo.exceptions import UserError
from odoo.modules import module
from odoo.tools import SQL, ormcache

from ..engine.notifier import notifier
from ..exceptions import KeyTaken
from .ir_async import KEY_OWNER, TAKES_KEY

PENDING = 'ir_async.pending'  # key in the hooks' data: what the transaction is about to insert
FLUSHED = '_ir_async_flushed'  # attribute of the cursor: what was inserted by flushes of its transaction
SIGNALED = 'ir_async.signaled'  # key in the hooks' data: the signals that the transaction sends with its commit
COLUMNS = (
    'id', 'res_ids', 'state', 'name', 'notify', 'res_model', 'method', 'args', 'kwargs', 'user_id', 'su', 'context',
    'parent_id', 'stack', 'priority', 'date_scheduled', 'max_attempts', 'retry_delay', 'timeout', 'channel', 'limited',
    'key', 'key_until', 'origin',
)
# The call as a whole. Arguments of one call must not meet the method, the records or the rights of another one.
REPLACED = (
    'res_ids', 'name', 'res_model', 'method', 'args', 'kwargs', 'user_id', 'su', 'context', 'parent_id', 'stack',
    'priority', 'date_scheduled',
)
COPY_MIN = 50  # rows from which on COPY, that takes two round trips, but half of the work, is faster
COPY_ESCAPES = str.maketrans({'\\': r'\\', '\t': r'\t', '\n': r'\n', '\r': r'\r'})
MAX_MARKS = 200  # from which on rows are inserted before the end: the list of marks is sent with each new one
KEY_WAIT = '3s'  # how long to wait for a transaction that is about to enqueue a job of the same key
KEY_PROBE = '100ms'  # the same, when looking for the key that another transaction holds

# What is set LOCAL is rolled back with a savepoint, whoever made it and however: a mark that is still there proves
# that what was done when it was set still counts.
MARK_LOCK_CLASS = int.from_bytes(b'iram', 'big')  # of the advisory lock that goes with the first one
MARKS = SQL("coalesce(current_setting('ir_async.marks', true), '')")
_marks = itertools.count(1)


class PendingCall:
    """The jobs of one call: their ids are taken when somebody asks for them, or they are inserted.

    It stands in for the ids of the record that ``call`` returned, see ``ir.async.__getattr__``.
    """
    __slots__ = ('chunks', 'ids', 'inserted', 'mark', 'parent_ids', 'values')

    def __init__(self, values, chunks, parent_ids, mark, ids):
        self.values = values
        self.chunks = chunks
        self.parent_ids = parent_ids
        self.mark = mark
        self.inserted = None  # the mark of the insertion
        self.ids = ids

    def rows(self):
        values = self.values
        rest = tuple(values[column] for column in COLUMNS[2:])
        return [(id_, res_ids, *rest) for id_, res_ids in zip(self.ids, self.chunks, strict=True)]

    def identity(self):
        return self.values['key'], self.values['user_id'] if self.values['notify'] else 0

    # The ids for the ORM's prefetching, once they are known.

    def __iter__(self):
        return iter(self.ids or ())

    def __reversed__(self):
        return reversed(self.ids or ())

    def __len__(self):
        return len(self.ids or ())


class Pending:
    """What a transaction is about to do for the jobs it enqueued."""
    __slots__ = (
        'calls', 'clock', 'first', 'has_waited', 'is_complete', 'jobs', 'keyed', 'mark', 'marks', 'origin', 'query', 'relied',
        'replacements', 'settled')

    def __init__(self):
        self.calls = []
        self.jobs = {}  # id: the call of that job
        self.keyed = {}  # (key, owner): the last call of that key
        self.replacements = []  # [mark, job id, claims, values, mark of its execution]
        self.relied = []  # (mark, job id, claims): queued jobs that must not begin before the commit
        self.settled = 0  # how many calls and replacements were inserted or executed
        self.mark = None
        self.first = None  # the first mark of the transaction: a lock stands for it as well
        self.marks = set()  # those that held when the last one was set
        self.query = None  # the last statement of the cursor when the mark was known to hold
        self.clock = None  # that of the database, and of this process at that moment
        self.origin = None  # the identity of the database, read in this transaction
        self.is_complete = True  # whether everything was inserted
        self.has_waited = False

    def now(self):
        date, reading = self.clock
        return date + timedelta(seconds=time.monotonic() - reading)


class IrAsync(models.Model):
    _inherit = 'ir.async'

    # ------------------------------------------------------------
    # Calls
    # ------------------------------------------------------------

    def _add_call(self, values, chunks, options):
        """Add the jobs of one call to what the transaction inserts.

        :param dict values: the columns that all jobs of the call have in common
        :param list chunks: the record ids of each job, JSON
        :param Options options: those of the call
        :return: the jobs, or the live job of the same key
        """
        pending = self._pending()
        if values['key'] and (found := self._find_keyed(pending, values, chunks, options)):
            return found
        parent_ids = options.after._ids if options.after else ()
        ids = self._mark(pending, len(chunks))
        self._check_parents(pending, parent_ids)
        if options.delay is not None:
            values['date_scheduled'] = pending.now() + timedelta(seconds=options.delay)
        values['origin'] = pending.origin
        call = PendingCall(values, chunks, parent_ids, pending.mark, ids)
        pending.calls.append(call)
        pending.jobs.update(dict.fromkeys(ids or (), call))
        if values['key']:
            pending.keyed[call.identity()] = call
        pending.is_complete = False
        if self._is_referenced():
            self._insert_pending()
        return self._of_call(call)

    def _of_call(self, call):
        """Return the jobs of a call; their ids are those that it will have."""
        if call.ids is not None:
            return self.browse(call.ids)
        jobs = object.__new__(type(self))
        jobs.env, jobs._prefetch_ids = self.env, call
        return jobs

    def __getattr__(self, name):
        # Called when an attribute is missing: `_ids`, of a call whose ids were not looked at yet.
        if name == '_ids' and isinstance(call := self._prefetch_ids, PendingCall):
            if call.ids is None and self.env.cr._closed:
                call.ids = ()  # the transaction was rolled back before anybody looked: there is no job
            if call.ids is None:
                self._reserve_ids(self._pending(), [call])
            self._ids = self._prefetch_ids = call.ids
            return call.ids
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")  # noqa: EM102, TRY003

    def _pending(self):
        """Return what the transaction is about to insert. It is in the hooks' data, which a rollback clears."""
        data = self.env.cr.precommit.data
        if PENDING not in data:
            data[PENDING] = Pending()
            self.env.cr.precommit.add(self.sudo(False)._before_commit)
        return data[PENDING]

    def _mark(self, pending, count):
        """Make sure that the mark of the next call is one that goes if the call is rolled back.

        :param int count: how many jobs the call has
        :return: their ids, if there was something to ask the database anyway; else None
        """
        cr = self.env.cr
        if pending.mark and cr.query is pending.query:
            return None  # nothing was executed since, so no savepoint began or ended
        if len(pending.calls) + len(pending.replacements) - pending.settled >= MAX_MARKS and pending.mark:
            self._insert_pending()
        mark = str(next(_marks))
        has_others = pending.calls or pending.replacements or pending.relied or FLUSHED in vars(cr)
        marks = SQL("%s || %s", MARKS, f'{mark},') if has_others else SQL("%s", f'{mark},')
        if not has_others:
            pending.first = mark
        [[marks, now, pending.origin, ids, _lock]] = self.env.execute_query(SQL(
            """
            SELECT set_config('ir_async.marks', %s, true), clock_timestamp() AT TIME ZONE 'UTC', %s,
                   ARRAY(SELECT nextval(%s) FROM generate_series(1, %s)), %s
            """, marks, self._origin_sql(), f'{self._table}_id_seq', count,
            SQL("NULL") if has_others else SQL("pg_advisory_xact_lock_shared(%s, %s)", MARK_LOCK_CLASS, _lock_key(mark))))
        pending.marks = set(marks.split(','))
        pending.mark, pending.clock = mark, (now, time.monotonic())
        pending.query = cr.query
        return tuple(ids)

    def _reserve_ids(self, pending, calls):
        """Take as many ids of the sequence as there are jobs that have none, in the order of their calls."""
        calls = [call for call in pending.calls if call.ids is None] or calls
        holds = self.env.cr.query is pending.query
        ids = iter([id_ for id_, in self.env.execute_query(SQL(
            "SELECT nextval(%s) FROM generate_series(1, %s)",
            f'{self._table}_id_seq', sum(len(call.chunks) for call in calls)))])
        for call in calls:
            call.ids = tuple(itertools.islice(ids, len(call.chunks)))
            pending.jobs.update(dict.fromkeys(call.ids, call))
        if holds:
            pending.query = self.env.cr.query

    def _check_parents(self, pending, parent_ids):
        """Refuse parents that were rolled back with a savepoint: their children would wait for nothing.

        :raises odoo.exceptions.UserError: when there is one
        """
        for earlier in (pending, *vars(self.env.cr).get(FLUSHED, ())):
            for call in filter(None, map(earlier.jobs.get, parent_ids)):
                if not {call.mark, call.inserted} & pending.marks:
                    raise UserError(self.env._(
                        "A job cannot wait for a job that was rolled back with its savepoint: %s",
                        f"{call.values['res_model']}.{call.values['method']}"))

    # ------------------------------------------------------------
    # Keys
    # ------------------------------------------------------------

    def _find_keyed(self, pending, values, chunks, options):
        """Return the live job that has the key of a call, committed or of this transaction; None if there is none.

        It is looked for in the snapshot: without a lock, which would keep the job from being begun.
        """
        identity = values['key'], values['user_id'] if values['notify'] else 0
        own = pending.keyed.get(identity)
        job_id = None
        if not own or own.inserted or own.mark != pending.mark or self.env.cr.query is not pending.query:
            [[marks, job_id, state, claims]] = self.env.execute_query(SQL(
                """
                SELECT %s, id, state, claims
                  FROM (SELECT) AS nothing
             LEFT JOIN ir_async ON key = %s AND %s = %s AND %s AND origin = %s
                """, MARKS, identity[0], KEY_OWNER, identity[1], TAKES_KEY, self._origin_sql()))
            marks = set(marks.split(','))
            if own and (own.mark not in marks or own.inserted in marks):
                own = None  # rolled back with a savepoint, or in the database
        if not job_id and not own:
            return None
        if job_id:
            job = self.browse(job_id)
        else:
            job, state, claims = self._of_call(own), own.values['state'], 0
        if options.on_duplicate == 'replace' and state == 'created':
            self._mark(pending, 0)
            date = pending.now() + timedelta(seconds=options.delay) if options.delay is not None else options.at
            replaced = {name: values.get(name) for name in REPLACED} | {'res_ids': chunks[0], 'date_scheduled': date}
            if not job_id and own.mark == pending.mark:
                own.values.update(replaced)
                own.chunks = [chunks[0]]
            else:
                pending.replacements.append([pending.mark, job.id, claims, replaced, None])
                job.invalidate_recordset(flush=False)
                pending.is_complete = False
        elif job_id and options.key_until == 'start' and state == 'created':
            self._mark(pending, 0)
            pending.relied.append((pending.mark, job_id, claims))
        return job

    def _insert_keyed(self, calls, lock_timeout):
        """Insert the rows of jobs that have keys.

        :raises KeyTaken: when another transaction has enqueued a job of one of the keys meanwhile
        :raises odoo.exceptions.UserError: when another transaction is about to do so, and does not end
        """
        calls = sorted(calls, key=PendingCall.identity)  # always in the same order: no two wait for each other
        try:
            self._insert_free_keys(calls, KEY_WAIT)
        except errors.LockNotAvailable:
            self.env.cr.execute("ROLLBACK TO SAVEPOINT ir_async_key")
            for call in calls:
                try:
                    self._insert_free_keys([call], KEY_PROBE, 'ir_async_probe')
                except errors.LockNotAvailable:
                    self.env.cr.execute("ROLLBACK TO SAVEPOINT ir_async_key; RELEASE SAVEPOINT ir_async_key")
                    raise self._key_busy(call.values['key']) from None
        self.env.cr.execute(SQL("SET LOCAL lock_timeout = %s; RELEASE SAVEPOINT ir_async_key", lock_timeout))

    def _insert_free_keys(self, calls, wait, savepoint='ir_async_key'):
        try:
            self.env.cr.execute(SQL(
                """
                SAVEPOINT %s;
                SET LOCAL lock_timeout = %s;
                INSERT INTO ir_async (%s) VALUES %s
                ON CONFLICT (key, (%s), origin) WHERE %s DO NOTHING
                  RETURNING id
                """, SQL.identifier(savepoint), wait, SQL(', ').join(map(SQL.identifier, COLUMNS)),
                SQL(', ').join(SQL("%s", row) for call in calls for row in call.rows()), KEY_OWNER, TAKES_KEY,
            ), log_exceptions=False)
        except errors.SerializationFailure as exc:
            raise KeyTaken(*(call.values['key'] for call in calls)) from exc
        inserted = {id_ for id_, in self.env.cr.fetchall()}
        if taken := [call.values['key'] for call in calls if call.ids[0] not in inserted]:
            raise KeyTaken(*taken)  # at READ COMMITTED, the other transaction's job is not an error but a conflict

    def _key_busy(self, key):
        return UserError(self.env._(
            "Another transaction is about to enqueue or change a job of the key \"%s\". Try again.", key))

    def _hold_keyed(self, replacements, relied, lock_timeout):
        """Change queued jobs, and keep others from beginning, until this transaction is committed.

        Workers pass over locked rows: this is the last thing before the commit.

        :raises KeyTaken: when one of them has begun meanwhile
        :raises odoo.exceptions.UserError: when another transaction is about to change one of them, and does not end
        """
        statements = [(job_id, SQL(
            "UPDATE ir_async SET %s, revision = revision + 1 WHERE id = %s AND state = 'created' AND claims = %s RETURNING key",
            SQL(', ').join(SQL("%s = %s", SQL.identifier(name), value) for name, value in values.items()),
            job_id, claims)) for job_id, (claims, values) in replacements.items()]
        statements += [(job_id, SQL(
            "SELECT key FROM ir_async WHERE id = %s AND state = 'created' AND claims = %s FOR SHARE", job_id, claims,
        )) for job_id, claims in relied.items() if job_id not in replacements]
        for job_id, statement in sorted(statements, key=lambda item: item[0]):
            job = self.browse(job_id)
            try:
                self.env.cr.execute(
                    SQL("SAVEPOINT ir_async_key; SET LOCAL lock_timeout = %s; %s", KEY_WAIT, statement), log_exceptions=False)
            except errors.LockNotAvailable:
                self.env.cr.execute("ROLLBACK TO SAVEPOINT ir_async_key; RELEASE SAVEPOINT ir_async_key")
                raise self._key_busy(job.sudo().key) from None
            except errors.SerializationFailure as exc:
                raise KeyTaken(f"job {job_id}") from exc
            if not self.env.cr.rowcount:
                raise KeyTaken(f"job {job_id}")
            self.env.cr.execute(SQL("SET LOCAL lock_timeout = %s; RELEASE SAVEPOINT ir_async_key", lock_timeout))
            if job_id in replacements:
                job.invalidate_recordset(flush=False)
                job = job.sudo()
                if job.notify:
                    self._send(job.id, job.user_id.id, job.name, job.state, job.revision)

    # ------------------------------------------------------------
    # Rows
    # ------------------------------------------------------------

    def _insert_pending(self, last=False):
        """Insert what the transaction has not inserted yet, and what was rolled back with a savepoint it is older than.

        :param bool last: whether this is the end of the transaction
        """
        pending = self.env.cr.precommit.data.get(PENDING)
        if pending and not (pending.is_complete and not (last and (pending.calls or pending.replacements or pending.relied))):
            self._insert(pending, last)

    def _insert(self, pending, last=False):
        self._insert_parents(pending)
        pending.is_complete = True
        unnumbered = [call for call in pending.calls if call.ids is None]
        if unnumbered:
            self._reserve_ids(pending, unnumbered)
        inserted_mark = f'i{next(_marks)}'
        [[marks, lock_timeout, _set]] = self.env.execute_query(SQL(
            "SELECT %s, current_setting('lock_timeout'), set_config('ir_async.marks', %s || %s, true)",
            MARKS, MARKS, f'{inserted_mark},'))
        marks = set(marks.split(','))
        self._check_marks(pending, marks)
        calls = [call for call in pending.calls if call.mark in marks and call.inserted not in marks]
        keyed = [call for call in calls if call.values['key']]
        keyless = [call for call in calls if not call.values['key']]
        # What was rolled back with a savepoint is done again.
        current = [item for item in pending.replacements if item[0] in marks and item[4] not in marks]
        replacements = {job_id: (claims, values) for _mark, job_id, claims, values, _done in current}
        relied = {job_id: claims for mark, job_id, claims in pending.relied if mark in marks} if last else {}
        try:
            if keyless:
                self._insert_rows([row for call in keyless for row in call.rows()])
                for call in keyless:
                    call.inserted = inserted_mark
            # As late as possible: others wait for whoever inserts a key, and no worker begins a job that is locked.
            if keyed:
                self._insert_keyed(keyed, lock_timeout)
            if calls:
                self._after_insertion(calls, inserted_mark)  # a child may come before its parent here
            if last:
                self._notify_users([call for call in pending.calls if call.mark in marks or call.inserted in marks])
            if replacements or relied:
                self._hold_keyed(replacements, relied, lock_timeout)
                self._wake_workers()  # they passed over the locked rows
                for item in current:
                    item[4] = inserted_mark
            if len(marks) > MAX_MARKS:
                # One mark stands for all that was inserted. A savepoint that is rolled back brings the others back.
                kept = {inserted_mark, *(mark for mark, *_rest in pending.relied if mark in marks)}
                kept |= {mark for mark in marks if mark.startswith('i') or mark == pending.first}
                self.env.execute_query(SQL("SELECT set_config('ir_async.marks', %s, true)", ''.join(f'{mark},' for mark in kept)))
                pending.mark = None
            pending.settled = len(pending.calls) + len(pending.replacements)
        except BaseException:
            pending.is_complete = False
            raise

    def _check_marks(self, pending, marks):
        """Refuse to lose jobs whose marks were reset: what a savepoint takes away, it takes the lock along.

        :raises odoo.exceptions.UserError: when the lock is there and the mark is not
        """
        if pending.first in {None, *marks}:
            return
        if self.env.execute_query(SQL(
            """
            SELECT FROM pg_locks
             WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2 AND pid = pg_backend_pid()
            """, MARK_LOCK_CLASS, _lock_key(pending.first))):
            raise UserError(self.env._("RESET ALL in a transaction that has enqueued jobs would lose them. Reset single settings."))

    def _after_insertion(self, calls, mark):
        self._wake_workers()
        self._ensure_served({call.values['channel'].split('/', 1)[0] for call in calls})
        dependencies = [(job_id, parent_id) for call in calls for job_id in call.ids for parent_id in call.parent_ids]
        if dependencies:
            # A parent that was deleted since had ended, long ago.
            self.env.cr.execute(
                "INSERT INTO ir_async_after_rel (job_id, after_id)"
                " SELECT DISTINCT job_id, after_id FROM unnest(%s, %s) AS rel (job_id, after_id)"
                " WHERE EXISTS (SELECT FROM ir_async WHERE id = after_id)",
                [list(ids) for ids in zip(*dependencies)])
        for call in calls:
            call.inserted = mark

    def _notify_users(self, calls):
        """Notify the users of new jobs, at the end of the transaction: no savepoint takes these back any more."""
        for call in calls:
            if call.values['notify']:
                for job_id in call.ids:
                    self._send(job_id, call.values['user_id'], call.values['name'], call.values['state'], 1)

    def _insert_rows(self, rows):
        columns = ', '.join(COLUMNS)
        if len(rows) >= COPY_MIN:
            # Jobs that are enqueued together often differ in nothing but their ids, or in little more.
            text = functools.lru_cache(typed=True)(_copy_text)
            rest = functools.lru_cache(lambda values: '\t'.join(map(text, values)))
            lines = '\n'.join(f'{row[0]}\t{row[1]}\t{rest(row[2:])}' for row in rows)
            self.env.cr.copy_expert(f'COPY ir_async ({columns}) FROM STDIN', io.StringIO(lines))
        elif rows:
            self.env.cr.execute_values(f'INSERT INTO ir_async ({columns}) VALUES %s', rows)

    # ------------------------------------------------------------
    # The commit
    # ------------------------------------------------------------

    def _before_commit(self):
        """Insert what is pending, and signal what changed, in the last moment before the commit."""
        hooks = self.env.cr.precommit
        pending = hooks.data.get(PENDING)
        if pending is None:
            return
        if hooks and not pending.has_waited:
            pending.has_waited = True
            hooks.add(self._before_commit)  # the others may enqueue more, or change what is cached
            return
        try:
            self._insert_pending(last=True)
        except BaseException:
            # A caller may go on after a savepoint that could not begin. Its commit must fail as well.
            pending.has_waited = False
            hooks.add(self._before_commit)
            raise
        hooks.data.pop(PENDING, None)
        self._signal_changes()
        self._keep_until_commit(pending)

    def _keep_until_commit(self, pending):
        """Look again at the commit: this was a flush, and a savepoint around it may be rolled back with the rows.

        Hooks do not survive a flush, so the method of the cursor is wrapped until its transaction ends.
        """
        cr = self.env.cr
        pending.query = cr.query
        if FLUSHED in vars(cr):
            vars(cr)[FLUSHED].append(pending)
            return
        flushed, commit = [pending], cr.commit

        def forget():
            vars(cr).pop('commit', None)
            vars(cr).pop(FLUSHED, None)

        def commit_all():
            cr.flush()
            forget()
            if len(flushed) > 1 or cr.query is not flushed[0].query:
                self._insert_again(flushed)
            self._signal_changes()
            commit()

        vars(cr)[FLUSHED] = flushed
        cr.commit = commit_all
        cr.postcommit.add(forget)
        cr.postrollback.add(forget)

    def _insert_parents(self, pending):
        """Insert again what was rolled back, should a job that is about to be inserted wait for it."""
        parent_ids = {id_ for call in pending.calls for id_ in call.parent_ids}
        flushed = [
            earlier for earlier in vars(self.env.cr).get(FLUSHED, ())
            if earlier is not pending and not parent_ids.isdisjoint(earlier.jobs)]
        if flushed:
            existing = {id_ for id_, in self.env.execute_query(SQL("SELECT id FROM ir_async WHERE id = ANY(%s)", list(parent_ids)))}
            if any(parent_ids & earlier.jobs.keys() - existing for earlier in flushed):
                self._insert_again(flushed)

    def _insert_again(self, flushed):
        """Insert the rows that were rolled back with a savepoint which was older than the flush that inserted them."""
        [[marks]] = self.env.execute_query(SQL("SELECT %s", MARKS))
        marks = set(marks.split(','))
        for pending in flushed:
            if any(call.mark in marks and call.inserted not in marks for call in pending.calls):
                self._insert(pending)

    def _signal_changes(self):
        """Signal what other processes have to reload, in this transaction: its jobs must not begin with old values.

        Odoo signals after the commit, when a worker may have begun a job of it already.
        """
        registry = self.env.registry
        if not registry.ready or registry.registry_invalidated:
            names = ['registry']  # a reloaded registry begins with empty caches
        else:
            names = sorted(registry.cache_invalidated)
        if not names:
            return
        self.env.cr.execute(SQL("; ").join(
            SQL("INSERT INTO %s DEFAULT VALUES", SQL.identifier(f'orm_signaling_{name}')) for name in names))
        data = self.env.cr.postcommit.data
        if SIGNALED not in data:
            data[SIGNALED] = []
            self.env.cr.postcommit.add(self._count_signals)
        data[SIGNALED] += names

    def _count_signals(self):
        """Make this process know its own signals, so that it does not reload what it has."""
        registry = self.env.registry
        for name in self.env.cr.postcommit.data.pop(SIGNALED):
            if name == 'registry':
                registry.registry_sequence += 1
            else:
                registry.cache_sequences[name] += 1

    def _wake_workers(self):
        """Wake the workers up after the commit, once."""
        self._pending()  # what they begin must know what changed
        data = self.env.cr.postcommit.data
        if 'ir_async.notified' not in data:
            data['ir_async.notified'] = True
            self.env.cr.postcommit.add(self._notify_workers)

    def _ensure_served(self, channels):
        """Have the cron workers run jobs of channels that no live worker serves, in this transaction."""
        if not module.current_test and any(
                self._why_unserved(channel) == 'no_worker' for channel in channels):
            self._trigger_fallback()

    def _notify_workers(self):
        """Wake the workers up, now."""
        # another hook may enqueue more, and commit
        self.env.cr.postcommit.data.pop('ir_async.notified', None)
        # What was changed after the last savepoint was not signaled by `_signal_changes`.
        if self.env.registry.ready:
            self.env.registry.signal_changes()
        notifier.notify(self.env.cr.dbname)

    @ormcache()
    def _is_referenced(self):
        """Return whether another table may refer to a job: then its row must be there at once."""
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


def _lock_key(mark):
    return int(mark) % 2**31


def _copy_text(value):
    return r'\N' if value is None else str(value).translate(COPY_ESCAPES)
