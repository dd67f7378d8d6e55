"""Unique keys: find the live job of a key, insert a new one, replace or hold a queued one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from psycopg2 import errors

from odoo import models
from odoo.exceptions import UserError
from odoo.tools import SQL

from ..exceptions import KeyTaken
from ..tools.pending import COLUMNS, PendingChange, PendingKey, key_identity
from .ir_async import KEY_OWNER, TAKES_KEY
from .ir_async_savepoint import MARKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from ..tools.options import Options
    from ..tools.pending import Pending, PendingCall

# A call is replaced as a whole: its arguments must not meet the method, records or rights of another call.
REPLACED = (
    'res_ids', 'name', 'res_model', 'method', 'args', 'kwargs', 'user_id', 'su', 'context', 'parent_id', 'stack',
    'priority', 'date_scheduled',
)  # fmt: skip
KEY_WAIT = '3s'  # how long to wait for an open transaction that holds a key
KEY_PROBE = '100ms'  # how long to wait for each key, to find out which one that transaction holds
UNDO = "ROLLBACK TO SAVEPOINT ir_async_key; RELEASE SAVEPOINT ir_async_key"


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _find_keyed(
        self,
        pending: Pending,
        values: dict[str, Any],
        chunks: list[str],
        options: Options,
    ) -> Self | None:
        """Return the live job with the key of a call, committed or of this transaction; None if there is none.

        The search is in the snapshot and takes no lock, which would keep workers from beginning the job.

        :raises KeyTaken: if the job has changed since the snapshot, so that it is unknown whether the call still may rely on it
        """
        identity = key_identity(values)
        calls = pending.keyed.get(identity, ())
        own = calls[-1] if calls else None
        job_id = None
        if not own or own.insertion or own.mark != pending.mark or not pending.is_current(self.env.cr):
            [[marks, job_id, state, claim_number, is_touched]] = self.env.execute_query(SQL(
                """
                SELECT %s, id, state, claim_number, ir_async.xmax::text != '0'
                  FROM (SELECT) AS nothing
             LEFT JOIN ir_async ON key = %s AND %s = %s AND %s AND origin = %s
                """, MARKS, identity[0], KEY_OWNER, identity[1], TAKES_KEY, self._origin_sql()))  # fmt: skip
            marks = set(marks.split(','))
            # The last call that counts and has no row yet. A savepoint may have taken back later ones.
            own = next((call for call in reversed(calls) if call.is_called(marks) and not call.is_done(marks)), None)
            # Somebody may have changed or locked the row since the snapshot.
            if job_id and is_touched and self._is_key_free(values, chunks, options):
                job_id = None
        if job_id:
            job = self.browse(job_id)
        elif own:
            job, state, claim_number = self._of_call(own), own.values['state'], 0
        else:
            return None
        if options.on_duplicate == 'replace' and state == 'created':
            if options.after:
                raise UserError(
                    self.env._(
                        "Job %(id)s with the key \"%(key)s\" is already queued. It cannot be replaced by one that waits for other jobs.",
                        id=job.id,
                        key=values['key'],
                    )
                )
            self._mark(pending, 0)
            date = pending.now() + timedelta(seconds=options.delay) if options.delay is not None else options.at
            replaced = {name: values.get(name) for name in REPLACED} | {'res_ids': chunks[0], 'date_scheduled': date}
            if not job_id and own and own.mark == pending.mark and not own.insertion:
                own.values.update(replaced)
                own.chunks = [chunks[0]]
            else:
                pending.is_inserting = True  # invalidation does not need the row, so nothing is inserted
                job.invalidate_recordset(flush=False)
                pending.is_inserting = False
                pending.open.append(PendingKey(pending.mark, job.id, claim_number, replaced))
        elif job_id and options.key_until == 'start' and state in ('waiting', 'created'):
            self._mark(pending, 0)
            pending.relied.append(PendingKey(pending.mark, job_id, claim_number))
        return job

    def _is_key_free(self, values: dict[str, Any], chunks: list[str], options: Options) -> bool:
        """Return whether the job with the key of a call has ended since the snapshot of this transaction.

        The snapshot cannot show that, but the unique index can: a job is inserted, and taken back.

        :raises KeyTaken: if the job has changed and still has the key, and the call depends on its state
        """
        row = {column: values.get(column) for column in COLUMNS[1:]} | {
            'res_ids': chunks[0],
            'origin': self._origin_sql(),
        }
        statement = _insert_if_free(row, SQL("(%s)", SQL(', ').join(SQL("%s", value) for value in row.values())))
        try:
            return bool(self._execute_keyed(statement, [values['key']], KEY_PROBE))
        except KeyTaken:
            if options.key_until == 'start' or options.on_duplicate == 'replace':
                raise
            return False
        except errors.LockNotAvailable:  # somebody is changing the job at this moment
            return False
        finally:
            self.env.cr.execute(UNDO)

    def _insert_keyed(self, calls: list[PendingCall], lock_timeout: str) -> None:
        """Insert the rows of jobs that have keys.

        :raises KeyTaken: if another transaction has enqueued a job with one of the keys meanwhile
        :raises odoo.exceptions.UserError: if another transaction is about to do so and does not end in time
        """
        # One order for all: no two wait for each other.
        calls = sorted(calls, key=lambda call: key_identity(call.values))
        try:
            self._insert_free_keys(calls, KEY_WAIT)
        except errors.LockNotAvailable:
            self.env.cr.execute("ROLLBACK TO SAVEPOINT ir_async_key")
            for call in calls:
                try:
                    self._insert_free_keys([call], KEY_PROBE, 'ir_async_probe')
                except errors.LockNotAvailable:
                    self.env.cr.execute(UNDO)
                    raise self._key_busy(call.values['key']) from None
        self.env.cr.execute(SQL("SET LOCAL lock_timeout = %s; RELEASE SAVEPOINT ir_async_key", lock_timeout))

    def _insert_free_keys(self, calls: list[PendingCall], wait: str, savepoint: str = 'ir_async_key') -> None:
        statement = _insert_if_free(COLUMNS, SQL(', ').join(SQL("%s", row) for call in calls for row in call.rows()))
        names = [call.values['key'] for call in calls]
        inserted = {id_ for (id_,) in self._execute_keyed(statement, names, wait, savepoint)}
        if taken := [call.values['key'] for call in calls if not inserted.issuperset(call)]:
            raise KeyTaken(*taken)  # at READ COMMITTED, a conflict raises no error: its row is left out

    def _execute_keyed(
        self,
        statement: SQL,
        names: Iterable[str],
        wait: str = KEY_WAIT,
        savepoint: str = 'ir_async_key',
    ) -> list[tuple[Any, ...]]:
        """Execute a statement that may have to wait for another transaction. Leave its savepoint to the caller.

        :return: the rows
        :raises KeyTaken: with these names, if the other transaction was committed
        """
        try:
            self.env.cr.execute(
                SQL("SAVEPOINT %s; SET LOCAL lock_timeout = %s; %s", SQL.identifier(savepoint), wait, statement),
                log_exceptions=False,
            )
        except errors.SerializationFailure as exc:
            raise KeyTaken(*names) from exc
        return self.env.cr.fetchall()

    def _key_busy(self, key: str) -> UserError:
        return UserError(
            self.env._("Another transaction is enqueuing or changing a job with the key \"%s\". Try again later.", key)
        )

    def _hold_keyed(self, pending: Pending, held: dict[int, PendingKey], lock_timeout: str) -> None:
        """Change queued jobs, or keep them from beginning, until this transaction is committed.

        This comes last before the commit, as workers pass over locked rows.

        :param Pending pending: the pending work of the transaction
        :param dict[int, PendingKey] held: the changes or holds, by the ids of the jobs
        :raises KeyTaken: if one of them has begun meanwhile
        :raises odoo.exceptions.UserError: if another transaction is about to change one of them and does not end in time
        """
        changed_ids = {item.job_id for item in (*pending.notices, *pending.items()) if isinstance(item, PendingChange)}
        for job_id, item in sorted(held.items()):
            job = self.browse(job_id)
            if item.values is None:
                statement = SQL(
                    "SELECT revision FROM ir_async WHERE id = %s AND state IN ('waiting', 'created') AND claim_number = %s"
                    " FOR SHARE",
                    job_id,
                    item.claim_number,
                )
            else:
                statement = SQL(
                    "UPDATE ir_async SET %s, revision = revision + 1 WHERE id = %s AND state = 'created' AND claim_number = %s"
                    " RETURNING revision - 1",
                    SQL(', ').join(SQL("%s = %s", SQL.identifier(name), value) for name, value in item.values.items()),
                    job_id,
                    item.claim_number,
                )
            try:
                rows = self._execute_keyed(statement, [f"job {job_id}"])
            except errors.LockNotAvailable:
                self.env.cr.execute(UNDO)
                raise self._key_busy(job.sudo().key) from None
            # If this transaction has changed the job itself, the row is locked already: the job cannot begin before the commit.
            if not rows and (item.values is not None or job_id not in changed_ids):
                raise KeyTaken(f"job {job_id}")
            self.env.cr.execute(SQL("SET LOCAL lock_timeout = %s; RELEASE SAVEPOINT ir_async_key", lock_timeout))
            if item.values is not None:
                job.invalidate_recordset(flush=False)
                [[revision]] = rows
                pending.add_change(job_id, revision, pending.began, wakes=True)


def _insert_if_free(columns: Iterable[str], rows: SQL) -> SQL:
    """Return SQL that inserts jobs whose keys nobody has, and evaluates to the ids of these."""
    return SQL(
        "INSERT INTO ir_async (%s) VALUES %s ON CONFLICT (key, (%s), origin) WHERE %s DO NOTHING RETURNING id",
        SQL(', ').join(map(SQL.identifier, columns)),
        rows,
        KEY_OWNER,
        TAKES_KEY,
    )
