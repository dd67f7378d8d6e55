"""The rows that a transaction is about to insert, its signals to other processes, and the wake-up of the workers."""
from __future__ import annotations

import contextlib
import functools
import io
import itertools
import time
from datetime import timedelta

from psycopg2 import errors
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS

from odoo import models
from odoo.exceptions import UserError
from odoo.modules import module
from odoo.tools import SQL, ormcache

from ..engine.notifier import notifier
from ..exceptions import KeyTaken
from ..tools.options import MAX_INT
from .ir_async import KEY_OWNER, TAKES_KEY

PENDING = '_ir_async_pending'  # attribute of the cursor: what its transaction enqueues
WOKEN = 'ir_async.notified'  # key in the hooks' data: whether to wake the workers up after the commit
SIGNALED = 'ir_async.signaled'  # the same: the signals that the transaction sends with its commit
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
PROBE = '100ms'  # how long to wait when looking for the key, or the job, that another transaction is about to insert

# What is set LOCAL is rolled back with a savepoint, whoever made it and however: a mark that is still there proves
# that what was done when it was set still counts.
MARK_LOCK_CLASS = int.from_bytes(b'iram', 'big')  # of the advisory lock that goes with the first one
# Of the advisory lock on the last id of the sequence before the first mark: the ids of this transaction are larger.
IDS_LOCK_CLASS = int.from_bytes(b'irai', 'big')
MARKS = SQL("coalesce(current_setting('ir_async.marks', true), '')")
_marks = itertools.count(1)

LAST_ID = SQL("last_value - (NOT is_called)::int")  # of the sequence
# What a transaction knows of a parent that another one has enqueued.
SEEN = 'seen'
LATE = 'late'  # saved since this transaction began, and no row for it
GONE = 'gone'  # deleted


class Insertion:
    """What was inserted, or changed, at one time: it counts as long as its mark is there.

    :param str mark: the mark
    :param list items: the calls and replacements
    :param list parts: insertions for whose marks this one stands, since they were too many
    """
    __slots__ = ('items', 'mark', 'parts', 'whole')

    def __init__(self, mark, items=(), parts=()):
        self.mark = mark
        self.items = items
        self.parts = parts
        self.whole = None
        for part in parts:
            part.whole = self

    def counts(self, marks):
        return self.mark in marks or (self.whole is not None and self.whole.counts(marks))

    def all_items(self):
        return [*self.items, *(item for part in self.parts for item in part.all_items())]


class PendingItem:
    """Something that a transaction does for its jobs, unless it is rolled back with a savepoint."""
    __slots__ = ('insertion', 'mark')

    def __init__(self, mark):
        self.mark = mark
        self.insertion = None  # the last one

    def is_done(self, marks):
        return bool(self.insertion) and self.insertion.counts(marks)

    def is_called(self, marks):
        """Return whether what it is for was not rolled back with a savepoint, as far as marks say so."""
        return self.mark in marks

    def counts(self, marks):
        return self.is_called(marks) or self.is_done(marks)  # the marks of many calls become one

    def queue_of(self, pending):
        """Return where it waits until it is done."""
        return pending.open


class PendingCall(PendingItem):
    """The jobs of one call: their ids are taken when somebody asks for them, or they are inserted.

    It stands in for the ids of the record that ``call`` returned, see ``ir.async.__getattr__``.
    """
    __slots__ = ('chunks', 'ids', 'late_parent_ids', 'parent_ids', 'values')

    def __init__(self, values, chunks, mark):
        super().__init__(mark)
        self.values = values
        self.chunks = chunks
        self.parent_ids = self.late_parent_ids = ()
        self.ids = None

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


class PendingNotice(PendingItem):
    """What tells others of a call: workers, or the cron workers, and its user."""
    __slots__ = ('call',)

    def __init__(self, call):
        super().__init__(call.mark)
        self.call = call

    def queue_of(self, pending):
        return pending.notices


class PendingChange(PendingItem):
    """What tells others of a job that this transaction changed. The job's revision says whether that counts."""
    __slots__ = ('job_id', 'revision', 'wakes')

    def __init__(self, job_id, revision, wakes):
        super().__init__(None)
        self.job_id = job_id
        self.revision = revision  # before
        self.wakes = wakes

    def is_called(self, marks):
        return True

    def queue_of(self, pending):
        return pending.notices


class PendingKey(PendingItem):
    """A queued job that a keyed call has found: it gets new values, or must not begin before the commit."""
    __slots__ = ('claims', 'job_id', 'values')

    def __init__(self, mark, job_id, claims, values=None):
        super().__init__(mark)
        self.job_id = job_id
        self.claims = claims  # when it was found: it must not have begun since
        self.values = values

    def queue_of(self, pending):
        return pending.relied if self.values is None else pending.open


class Pending:
    """What a transaction does for the jobs it enqueues, until it is over."""
    __slots__ = (
        'began', 'calls', 'checked', 'clock', 'first', 'insertions', 'is_committing', 'is_inserting', 'keyed', 'mark', 'marks',
        'notices', 'open', 'origin', 'parents', 'query', 'relied')

    def __init__(self):
        self.reset()

    def reset(self):
        """Begin anew."""
        self.open = []  # calls and replacements that are not done, or not any more
        self.notices = []  # those that are not given
        self.relied = []  # queued jobs that must not begin before the commit, and are not locked
        self.insertions = []
        self.keyed = {}  # (key, owner): the calls of that key
        self.calls = {}  # by the ids of their jobs
        self.parents = {}  # jobs of other transactions that calls wait for: whether each is SEEN, LATE or GONE
        self.mark = None
        self.marks = set()  # those that were there when it was set
        self.first = None  # a mark for which there is a lock as well
        self.query = None  # the last statement of the cursor when the mark was set
        self.checked = None  # the last statement when it was last checked what counts
        self.clock = None  # that of the database, and of this process at that moment
        self.began = None  # when the transaction began
        self.origin = None  # the identity of the database, read in this transaction
        self.is_committing = False
        self.is_inserting = False

    def now(self):
        date, reading = self.clock
        return date + timedelta(seconds=time.monotonic() - reading)

    def reopen(self, marks):
        """Take up again what was rolled back though the call for it was not.

        :param set[str] marks: the marks that are there
        :return: whether anything was rolled back
        :rtype: bool
        """
        is_rolled_back = False
        insertions, self.insertions = self.insertions, []
        while insertions:
            insertion = insertions.pop()
            if insertion.mark in marks:
                self.insertions.append(insertion)
                continue
            is_rolled_back = True
            insertions += insertion.parts
            for part in insertion.parts:
                part.whole = None
            for item in insertion.items:
                item.insertion = None
                item.queue_of(self).append(item)
        for queue in (self.open, self.notices, self.relied):
            queue[:] = [item for item in queue if item.is_called(marks)]
        return is_rolled_back

    def set_ids(self, call, ids):
        call.ids = ids
        self.calls.update(dict.fromkeys(ids, call))

    def add_change(self, job_id, revision, began, wakes):
        """Have others be told of a change, with the commit.

        :param int job_id: the job
        :param int revision: that of its row before
        :param datetime.datetime began: when the transaction began
        :param bool wakes: whether there is something for the workers
        """
        self.began = self.began or began
        self.notices.append(PendingChange(job_id, revision, wakes))

    def is_due(self, is_flush):
        """Return whether there is anything to do.

        :param bool is_flush: whether all of it is to be done, or only what others may look for
        :rtype: bool
        """
        return bool(self.open or (is_flush and (self.relied or self.notices)))

    def items(self):
        """Return what was done and counts.

        :rtype: list[PendingItem]
        """
        return [item for insertion in self.insertions for item in insertion.all_items()]


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
        ids = self._mark(pending, len(chunks))
        if options.delay is not None:
            values['date_scheduled'] = pending.now() + timedelta(seconds=options.delay)
        values['origin'] = pending.origin
        call = PendingCall(values, chunks, pending.mark)
        if options.after:
            call.parent_ids, call.late_parent_ids = self._find_parents(pending, options.after._ids)
        if ids:
            pending.set_ids(call, ids)
        pending.open.append(call)
        pending.notices.append(PendingNotice(call))
        if values['key']:
            pending.keyed.setdefault(call.identity(), []).append(call)
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
        """Return what the transaction does for its jobs. It is looked at again and again until the commit."""
        cr = self.env.cr
        pending = vars(cr).get(PENDING)
        if not pending:
            pending = vars(cr)[PENDING] = Pending()
            self._wrap_commit(pending)
        if PENDING not in cr.precommit.data:
            # A flush should show the jobs to whoever looks by SQL. It forgets its hooks.
            cr.precommit.data[PENDING] = True
            cr.precommit.add(self.sudo(False)._on_flush)
        return pending

    def _mark(self, pending, count):
        """Make sure that the mark of the next call is one that goes if the call is rolled back.

        :param int count: how many jobs the call has
        :return: their ids, if there was something to ask the database anyway; else None
        """
        cr = self.env.cr
        if pending.mark and cr.query is pending.query and cr._cnx.get_transaction_status() == TRANSACTION_STATUS_INTRANS:
            return None  # nothing was executed since, so no savepoint began or ended
        if len(pending.open) >= MAX_MARKS and pending.mark:
            self._insert_pending()
        mark = str(next(_marks))
        is_locked = not pending.first
        # The locks come before the ids.
        [[marks, began, now, origin, last_id, _locked, ids]] = self.env.execute_query(SQL(
            """
            SELECT %s, now(), clock_timestamp() AT TIME ZONE 'UTC', %s, %s, %s,
                   ARRAY(SELECT nextval('ir_async_id_seq') FROM generate_series(1, %s))
              FROM ir_async_id_seq
            """, _add_mark(mark), self._origin_sql(), LAST_ID, _locks(mark, LAST_ID) if is_locked else SQL("NULL"), count))
        if pending.began not in (None, began):
            self._leave_transaction(pending)
        pending.began, pending.origin, marks = began, origin, set(marks.split(','))
        if pending.first:
            self._check_marks(pending, marks)
        if pending.first not in marks:
            pending.first = mark
            if not is_locked:
                self.env.execute_query(SQL("SELECT %s", _locks(mark, SQL("%s", last_id))))
        pending.mark, pending.marks, pending.clock = mark, marks, (now, time.monotonic())
        pending.query = cr.query
        return tuple(ids)

    def _reserve_ids(self, pending, calls):
        """Take as many ids of the sequence as there are jobs that have none, in the order of their calls."""
        calls = [item for item in pending.open if isinstance(item, PendingCall) and item.ids is None] or calls
        holds = self.env.cr.query is pending.query
        ids = iter([id_ for id_, in self.env.execute_query(SQL(
            "SELECT nextval(%s) FROM generate_series(1, %s)",
            f'{self._table}_id_seq', sum(len(call.chunks) for call in calls)))])
        for call in calls:
            pending.set_ids(call, tuple(itertools.islice(ids, len(call.chunks))))
        if holds:
            pending.query = self.env.cr.query

    # ------------------------------------------------------------
    # Keys
    # ------------------------------------------------------------

    def _find_keyed(self, pending, values, chunks, options):
        """Return the live job that has the key of a call, committed or of this transaction; None if there is none.

        It is looked for in the snapshot: without a lock, which would keep the job from being begun.
        """
        identity = values['key'], values['user_id'] if values['notify'] else 0
        calls = pending.keyed.get(identity, ())
        own = calls[-1] if calls else None
        job_id = None
        if not own or own.insertion or own.mark != pending.mark or self.env.cr.query is not pending.query:
            [[marks, job_id, state, claims]] = self.env.execute_query(SQL(
                """
                SELECT %s, id, state, claims
                  FROM (SELECT) AS nothing
             LEFT JOIN ir_async ON key = %s AND %s = %s AND %s AND origin = %s
                """, MARKS, identity[0], KEY_OWNER, identity[1], TAKES_KEY, self._origin_sql()))
            marks = set(marks.split(','))
            # The others are in the database, or rolled back with a savepoint: then an earlier one may count again.
            own = next((call for call in reversed(calls) if call.is_called(marks) and not call.is_done(marks)), None)
        if not job_id and not own:
            return None
        if job_id:
            job = self.browse(job_id)
        else:
            job, state, claims = self._of_call(own), own.values['state'], 0
        if options.on_duplicate == 'replace' and state == 'created':
            if options.after:
                raise UserError(self.env._(
                    "Job %(id)s of the key \"%(key)s\" is queued already: it cannot be replaced by one that waits for other jobs.",
                    id=job.id, key=values['key']))
            self._mark(pending, 0)
            date = pending.now() + timedelta(seconds=options.delay) if options.delay is not None else options.at
            replaced = {name: values.get(name) for name in REPLACED} | {'res_ids': chunks[0], 'date_scheduled': date}
            if not job_id and own.mark == pending.mark and not own.insertion:
                own.values.update(replaced)
                own.chunks = [chunks[0]]
            else:
                pending.is_inserting = True  # it need not be there to be invalidated
                job.invalidate_recordset(flush=False)
                pending.is_inserting = False
                pending.open.append(PendingKey(pending.mark, job.id, claims, replaced))
        elif job_id and options.key_until == 'start' and state == 'created':
            self._mark(pending, 0)
            pending.relied.append(PendingKey(pending.mark, job_id, claims))
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
                    self._insert_free_keys([call], PROBE, 'ir_async_probe')
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

    def _hold_keyed(self, pending, held, lock_timeout):
        """Change queued jobs, or keep them from beginning, until this transaction is committed.

        Workers pass over locked rows: this is the last thing before the commit.

        :param Pending pending: what the transaction does
        :param dict[int, PendingKey] held: what to do, by the ids of the jobs
        :raises KeyTaken: when one of them has begun meanwhile
        :raises odoo.exceptions.UserError: when another transaction is about to change one of them, and does not end
        """
        changed_ids = {item.job_id for item in (*pending.notices, *pending.items()) if isinstance(item, PendingChange)}
        for job_id, item in sorted(held.items()):
            job = self.browse(job_id)
            if item.values is None:
                statement = SQL(
                    "SELECT revision FROM ir_async WHERE id = %s AND state = 'created' AND claims = %s FOR SHARE",
                    job_id, item.claims)
            else:
                statement = SQL(
                    "UPDATE ir_async SET %s, revision = revision + 1 WHERE id = %s AND state = 'created' AND claims = %s"
                    " RETURNING revision - 1",
                    SQL(', ').join(SQL("%s = %s", SQL.identifier(name), value) for name, value in item.values.items()),
                    job_id, item.claims)
            try:
                self.env.cr.execute(
                    SQL("SAVEPOINT ir_async_key; SET LOCAL lock_timeout = %s; %s", KEY_WAIT, statement), log_exceptions=False)
            except errors.LockNotAvailable:
                self.env.cr.execute("ROLLBACK TO SAVEPOINT ir_async_key; RELEASE SAVEPOINT ir_async_key")
                raise self._key_busy(job.sudo().key) from None
            except errors.SerializationFailure as exc:
                raise KeyTaken(f"job {job_id}") from exc
            row = self.env.cr.fetchone()
            # What this transaction has changed itself, to whatever state, does not begin before its commit.
            if not row and (item.values is not None or job_id not in changed_ids):
                raise KeyTaken(f"job {job_id}")
            self.env.cr.execute(SQL("SET LOCAL lock_timeout = %s; RELEASE SAVEPOINT ir_async_key", lock_timeout))
            if item.values is not None:
                job.invalidate_recordset(flush=False)
                pending.add_change(job_id, *row, pending.began, wakes=True)

    # ------------------------------------------------------------
    # Parents
    # ------------------------------------------------------------

    def _find_parents(self, pending, ids):
        """Check the jobs that a call waits for: a worker finds a dependency that is missing met.

        :param Pending pending: what the transaction does; its marks are up to date
        :param ids: the ids of the jobs
        :return: the ids of those that this transaction sees, and of those that were saved since it began
        :raises odoo.exceptions.UserError: when one of them is not saved yet, was rolled back, or never existed
        """
        ids = dict.fromkeys(ids)
        calls = {id_: pending.calls[id_] for id_ in ids if id_ in pending.calls}
        if lost := [id_ for id_, call in calls.items() if not call.counts(pending.marks)]:
            raise self._no_parents(lost)
        if unknown := [id_ for id_ in ids if id_ not in calls and id_ not in pending.parents]:
            holds = self.env.cr.query is pending.query
            pending.parents |= self._find_saved_parents(unknown)
            if holds:
                pending.query = self.env.cr.query
        found = {id_: SEEN if id_ in calls else pending.parents[id_] for id_ in ids}
        return [[id_ for id_, state in found.items() if state == wanted] for wanted in (SEEN, LATE)]

    def _find_saved_parents(self, ids):
        """Return what is known of jobs of other transactions.

        :rtype: dict[int, str]
        """
        if wrong := [id_ for id_ in ids if not 0 < id_ <= MAX_INT]:
            raise self._no_parents(wrong)
        unseen = [id_ for id_, in self.env.execute_query(SQL(
            "SELECT id FROM unnest(%s) AS parent (id) WHERE NOT EXISTS (SELECT FROM ir_async WHERE id = parent.id)", ids))]
        late = []
        if unseen:
            # The ids of open transactions, some of which have no rows yet, are larger than those that they have locked.
            [[last_id, open_id]] = self.env.execute_query(SQL(
                """
                SELECT %s, (
                           SELECT min(objid::int8)
                             FROM pg_locks
                            WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2 AND pid != pg_backend_pid()
                              AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
                  FROM ir_async_id_seq
                """, LAST_ID, IDS_LOCK_CLASS))
            if wrong := [id_ for id_ in unseen if id_ > last_id]:
                raise self._no_parents(wrong)
            late = self._probe_parents(unseen)
            for id_ in unseen:
                if id_ not in late and open_id is not None and id_ > open_id:
                    raise self._unsaved_parent(id_)
        return dict.fromkeys(ids, SEEN) | dict.fromkeys(unseen, GONE) | dict.fromkeys(late, LATE)

    def _probe_parents(self, ids):
        """Return those of the ids that have rows although this transaction does not see them.

        Inserting one more row of an id is the question: PostgreSQL answers it whatever the snapshot is.

        :raises odoo.exceptions.UserError: when another transaction has inserted such a row, and is not over
        """
        try:
            with self.env.cr.savepoint(flush=False) as savepoint:
                self.env.cr.execute(SQL(
                    """
                    SET LOCAL lock_timeout = %s;
                    INSERT INTO ir_async (
                                id, state, res_model, res_ids, method, args, kwargs, context, user_id, priority, channel, origin)
                         SELECT id, 'cancelled', '', '[]', '', '[]', '{}', '{}', %s, 0, '', ''
                           FROM unnest(%s) AS parent (id)
                    """, PROBE, self.env.uid, ids), log_exceptions=False)
                savepoint.rollback()
        except errors.UniqueViolation:
            if len(ids) == 1:
                return ids
        except errors.LockNotAvailable:
            if len(ids) == 1:
                raise self._unsaved_parent(ids[0]) from None
        else:
            return []
        half = len(ids) // 2
        return self._probe_parents(ids[:half]) + self._probe_parents(ids[half:])

    def _unsaved_parent(self, job_id):
        return UserError(self.env._(
            "Job %s is not saved yet, so no other job can wait for it: enqueue both in one transaction, or commit that one first.",
            job_id))

    def _no_parents(self, job_ids):
        return UserError(self.env._(
            "No job can wait for these jobs, which do not exist or were rolled back: %s", ", ".join(map(str, job_ids))))

    def _insert_dependencies(self, calls):
        dependencies = [(job_id, parent_id) for call in calls for job_id in call.ids for parent_id in call.parent_ids]
        if dependencies:
            # A parent that was checked by the call, and is not there, was deleted by this very transaction.
            self.env.cr.execute(
                "INSERT INTO ir_async_after_rel (job_id, after_id)"
                " SELECT job_id, after_id FROM unnest(%s, %s) AS rel (job_id, after_id)"
                " WHERE EXISTS (SELECT FROM ir_async WHERE id = after_id)",
                [list(ids) for ids in zip(*dependencies)])
        for call in calls:
            if call.late_parent_ids:
                # A foreign key takes what the snapshot shows: a worker inserts these dependencies.
                self.env.cr.execute(SQL(
                    "UPDATE ir_async SET late_parent_ids = %s WHERE id = ANY(%s)", call.late_parent_ids, list(call.ids)))

    # ------------------------------------------------------------
    # Rows
    # ------------------------------------------------------------

    def _insert_pending(self, is_flush=False):
        """Insert what the transaction has not inserted yet, and what was rolled back with a savepoint it is older than.

        :param bool is_flush: whether to do the rest as well that a commit takes: it may come next
        """
        cr = self.env.cr
        pending = vars(cr).get(PENDING)
        if not pending or not pending.began or pending.is_inserting or not (
                is_flush or pending.open or (pending.insertions and cr.query is not pending.checked)):
            return
        holds = cr.query is pending.query
        pending.is_inserting = True
        try:
            mark = f'i{next(_marks)}'
            is_due = pending.is_due(is_flush)
            [[marks, began, lock_timeout, _set]] = self.env.execute_query(SQL(
                "SELECT %s, now(), current_setting('lock_timeout'), %s", MARKS, _add_mark(mark) if is_due else SQL("NULL")))
            if began != pending.began:
                self._leave_transaction(pending)
                return
            self._check_marks(pending, marks := set(marks.split(',')))
            if pending.reopen(marks):
                cr.postcommit.data.pop(SIGNALED, None)  # that was rolled back, too
            if pending.is_due(is_flush):
                if not is_due:
                    self.env.execute_query(SQL("SELECT %s", _add_mark(mark)))
                self._insert(pending, is_flush, mark, marks, lock_timeout)
        finally:
            pending.is_inserting = False
        pending.checked = cr.query
        if holds:
            pending.query = cr.query

    def _insert(self, pending, is_flush, mark, marks, lock_timeout):
        cr = self.env.cr
        # In the order of their calls, also what is done again.
        items = sorted(pending.open, key=lambda item: int(item.mark))
        insertion = Insertion(mark, items)
        calls = [item for item in items if isinstance(item, PendingCall)]
        if any(call.ids is None for call in calls):
            self._reserve_ids(pending, calls)
        keyed = [call for call in calls if call.values['key']]
        relied = pending.relied[:] if is_flush else []
        held = {item.job_id: item for item in (*relied, *items) if isinstance(item, PendingKey)}
        # Where it may fail and the transaction go on, either all of it is there or nothing.
        with cr.savepoint(flush=False) if keyed or held else contextlib.nullcontext():
            self._insert_rows([row for call in calls if not call.values['key'] for row in call.rows()])
            # As late as possible: others wait for whoever inserts a key, and no worker begins a job that is locked.
            if keyed:
                self._insert_keyed(keyed, lock_timeout)
            self._insert_dependencies(calls)
            self._hold_keyed(pending, held, lock_timeout)
        notices = pending.notices[:] if is_flush else []
        items += relied + notices
        for item in items:
            item.insertion = insertion
        pending.insertions.append(insertion)
        pending.open = []
        if is_flush:
            pending.relied, pending.notices = [], []
        if held:
            self._wake_workers(is_certain=False)  # they passed over rows that were locked
        if notices:
            self._announce(notices)
        if len(marks) > MAX_MARKS:
            # One mark stands for all that was inserted. A savepoint that is rolled back brings the others back.
            whole = Insertion(f'i{next(_marks)}', parts=pending.insertions)
            kept = {whole.mark, pending.first, *(item.mark for item in (*pending.relied, *pending.notices))} & {whole.mark, *marks}
            self.env.execute_query(SQL("SELECT set_config('ir_async.marks', %s, true)", ''.join(f'{mark},' for mark in kept)))
            pending.insertions = [whole]
            pending.mark = None

    def _leave_transaction(self, pending):
        """Forget what was committed below the cursor.

        :raises odoo.exceptions.UserError: when that was lost
        """
        job_ids = {id_ for item in pending.items() if isinstance(item, PendingCall) for id_ in item.ids}
        [[count]] = self.env.execute_query(SQL("SELECT count(*) FROM ir_async WHERE id = ANY(%s)", list(job_ids)))
        if pending.open or count < len(job_ids):
            raise UserError(self.env._(
                "COMMIT or ROLLBACK in SQL, or a connection in autocommit, would lose the jobs of this transaction."
                " Call commit() or rollback() of the cursor."))
        self._wake_workers()
        self._announce_changes([notice for notice in pending.notices if isinstance(notice, PendingChange)])
        pending.reset()

    def _check_marks(self, pending, marks):
        """Refuse to lose jobs whose marks are gone for another reason than the rollback of a savepoint.

        :raises odoo.exceptions.UserError: when the lock of a mark is there and the mark is not
        """
        if pending.first and pending.first not in marks and self.env.execute_query(SQL(
            """
            SELECT FROM pg_locks
             WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2 AND pid = pg_backend_pid()
            """, MARK_LOCK_CLASS, _lock_key(pending.first))):
            raise UserError(self.env._("RESET ALL in a transaction that has enqueued jobs would lose them. Reset single settings."))

    def _announce(self, notices):
        """Have somebody run jobs once they are committed, and notify the users of those that are new or changed."""
        calls = [notice.call for notice in notices if isinstance(notice, PendingNotice)]
        if calls:
            self._wake_workers(is_certain=False)
            self._ensure_served({call.values['channel'].split('/', 1)[0] for call in calls})
        for call in calls:
            if call.values['notify']:
                for job_id in call.ids:
                    self._send(job_id, call.values['user_id'], call.values['name'], call.values['state'], 1)
        self._announce_changes([notice for notice in notices if isinstance(notice, PendingChange)])

    def _announce_changes(self, changes):
        """Do the same for jobs that were changed, as they are now: a change may have been rolled back with a savepoint."""
        if not changes:
            return
        before = {}
        for change in changes:
            before[change.job_id] = min(change.revision, before.get(change.job_id, change.revision))
        rows = [row for row in self.env.execute_query_dict(SQL(
            "SELECT id, user_id, name, state, revision, notify, dismissed FROM ir_async WHERE id = ANY(%s) ORDER BY id", list(before),
        )) if row['revision'] > before[row['id']]]
        changed_ids = {row['id'] for row in rows}
        if any(change.wakes and change.job_id in changed_ids for change in changes):
            self._wake_workers(is_certain=False)
        for row in rows:
            if row['notify']:
                more = {'dismissed': True} if row['dismissed'] else {}
                self._send(row['id'], row['user_id'], row['name'], row['state'], row['revision'], **more)

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

    def _on_flush(self):
        hooks = self.env.cr.precommit
        if hooks.data.pop(PENDING, False) and hooks:
            hooks.add(self._on_flush)  # the others may enqueue more, or change what is cached
            return
        pending = vars(self.env.cr).get(PENDING)
        if pending and not pending.is_committing:
            self._prepare_commit()

    def _prepare_commit(self):
        self._insert_pending(is_flush=True)
        self._signal_changes()

    def _wrap_commit(self, pending):
        """Have the commit of this transaction insert what is pending, in its last moment, and signal what changed.

        A hook does it at each flush as well, where Odoo's `retrying` catches what fails, and is forgotten then.
        """
        cr = self.env.cr
        model, commit = self.sudo(False), cr.commit
        before = {'commit': commit} if 'commit' in vars(cr) else {}  # tests patch it

        def forget():
            if vars(cr).get(PENDING) is pending:
                del vars(cr)[PENDING]
                if vars(cr).get('commit') is insert_and_commit:
                    del vars(cr)['commit']
                    vars(cr).update(before)

        def insert_and_commit():
            pending.is_committing = True
            try:
                cr.flush()  # its hooks may enqueue more, or change what is cached
                model._prepare_commit()
                model._wake_nobody(pending)
            finally:
                pending.is_committing = False
            forget()
            commit()

        cr.commit = insert_and_commit
        cr.postcommit.add(forget)
        cr.postrollback.add(forget)

    def _signal_changes(self):
        """Signal what other processes have to reload, in this transaction: its jobs must not begin with old values.

        Odoo signals after the commit, when a worker may have begun a job of it already.
        """
        registry = self.env.registry
        if not registry.ready or registry.registry_invalidated:
            names = ['registry']  # a reloaded registry begins with empty caches
        else:
            names = sorted(registry.cache_invalidated)
        data = self.env.cr.postcommit.data
        names = [name for name in names if name not in data.get(SIGNALED, ())]
        if not names:
            return
        self.env.cr.execute(SQL("; ").join(
            SQL("INSERT INTO %s DEFAULT VALUES", SQL.identifier(f'orm_signaling_{name}')) for name in names))
        if not data.setdefault(SIGNALED, []):
            self.env.cr.postcommit.add(self._count_signals)
        data[SIGNALED] += names

    def _count_signals(self):
        """Make this process know its own signals, so that it does not reload what it has."""
        registry = self.env.registry
        for name in self.env.cr.postcommit.data.pop(SIGNALED, ()):
            if name == 'registry':
                registry.registry_sequence += 1
            else:
                registry.cache_sequences[name] += 1

    def _wake_workers(self, is_certain=True):
        """Wake the workers up after the commit, once.

        :param bool is_certain: whether there is something for them, or only if no savepoint is rolled back
        """
        self._pending()  # what they begin must know what changed
        data = self.env.cr.postcommit.data
        if WOKEN not in data:
            self.env.cr.postcommit.add(self._notify_workers)
        data[WOKEN] = is_certain or data.get(WOKEN, False)

    def _wake_nobody(self, pending):
        """Do not wake the workers up when all that was there for them was rolled back."""
        data = self.env.cr.postcommit.data
        if data.get(WOKEN) is False and not pending.items():
            data[WOKEN] = None

    def _ensure_served(self, channels):
        """Have the cron workers run jobs of channels that no live worker serves, in this transaction."""
        if not module.current_test and any(
                self._why_unserved(channel) == 'no_worker' for channel in channels):
            self._trigger_fallback()

    def _notify_workers(self):
        """Wake the workers up, now."""
        # Another hook may enqueue more, and commit, or change what is cached.
        if self.env.cr.postcommit.data.pop(WOKEN, None) is None:
            return
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


def _add_mark(mark):
    return SQL("set_config('ir_async.marks', %s || %s, true)", MARKS, f'{mark},')


def _lock_key(mark):
    return int(mark) % 2**31


def _locks(mark, last_id):
    return SQL(
        "ROW(pg_advisory_xact_lock_shared(%s, %s), pg_advisory_xact_lock_shared(%s, (%s)::int))",
        MARK_LOCK_CLASS, _lock_key(mark), IDS_LOCK_CLASS, last_id)


def _copy_text(value):
    return r'\N' if value is None else str(value).translate(COPY_ESCAPES)
