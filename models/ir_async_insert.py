"""The rows of jobs that a transaction is about to insert, and the wake-up of the workers after its commit."""
from __future__ import annotations

import functools
import io

from odoo import models
from odoo.modules import module
from odoo.tools import SQL, ormcache

from ..engine.notifier import notifier
from .ir_async import LIVE

PENDING = 'ir_async.pending'  # key in the hooks' data: the rows that the transaction is about to insert
COLUMNS = (
    'id', 'res_ids', 'state', 'name', 'notify', 'res_model', 'method', 'args', 'kwargs', 'user_id', 'su', 'context',
    'parent_id', 'stack', 'priority', 'date_scheduled', 'max_attempts', 'retry_delay', 'timeout', 'channel', 'limited',
    'key',
)
COPY_MIN = 50  # rows from which on COPY, that takes two round trips, but half of the work, is faster
COPY_ESCAPES = str.maketrans({'\\': r'\\', '\t': r'\t', '\n': r'\n', '\r': r'\r'})


class IrAsync(models.Model):
    _inherit = 'ir.async'

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
            self._ensure_served({row[COLUMNS.index('channel')] for row in rows})
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
            self._ensure_served({values['channel']})
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

    def _ensure_served(self, channels):
        """Have the cron workers run jobs of channels that no live worker serves, in this transaction."""
        if not module.current_test and any(self._why_unserved(channel) == 'no_worker' for channel in {name.split('/', 1)[0] for name in channels}):
            self._trigger_fallback()

    def _notify_workers(self):
        """Wake the workers up, now."""
        # another hook may enqueue more, and commit
        self.env.cr.postcommit.data.pop('ir_async.notified', None)
        # Odoo signals after these hooks that caches are to be cleared: a job would begin earlier, and not know.
        if self.env.registry.ready:
            self.env.registry.signal_changes()
        notifier.notify(self.env.cr.dbname)

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


def _copy_text(value):
    return r'\N' if value is None else str(value).translate(COPY_ESCAPES)
