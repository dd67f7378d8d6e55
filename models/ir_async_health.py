"""The health of a database's queue, with the reasons if it is bad."""

from odoo import api, models
from odoo.tools import SQL

from ..engine.claim import NOW
from ..engine.slots import NEXT_START
from .ir_async import LIVE
from .ir_async_channel import EVERYTHING, root_of
from .ir_async_statistics import CHANNELS_MAX, index_conditions

HEADS_MAX = 1000  # channels and priorities among which the oldest job is looked for
OVERDUE_SECONDS = 300  # by default
ID_LIMIT = 0.9  # share of a sequence


class IrAsync(models.Model):
    _inherit = 'ir.async'

    @api.model
    def _health(self):
        """Return the health of this database's queue, with the reasons if it is bad.

        :return: ``status``: ``'ok'`` or ``'unhealthy'``; ``reasons``: a list of ``{code, message}``, whose codes are
            ``no_worker``, ``overdue``, ``paused``, ``upgrading``, ``ids`` and ``copied``; ``workers``: how many are alive;
            ``oldest_due_seconds``: for how long the oldest job that could start has been due
        :rtype: dict
        """
        with self._cheaply():
            reasons = []
            paused, limits = self._limits()
            heads = self._due_heads()
            if EVERYTHING in paused:
                reasons.append(('paused', "All channels are paused. No job starts until they are resumed."))
            if modules := self._modules_in_flux():
                reasons.append(
                    ('upgrading', f"Modules are being installed, upgraded or removed: {', '.join(modules)}.")
                )
            workers = self._count_workers()
            if unserved := self._unserved_channels({head['channel'] for head in heads}, workers):
                reasons.append(('no_worker', f"No worker serves the channels {', '.join(unserved)}."))
            age, channel = self._oldest_startable(heads, paused, limits)
            if age > (limit := self._overdue_seconds()):
                reasons.append(
                    (
                        'overdue',
                        f"A job of the channel {channel} has been due for {age:.0f} s, more than {limit:.0f} s.",
                    )
                )
            reasons += [
                ('ids', f"{used:.0%} of the ids of {table} are used up.")
                for table, used in self._used_ids().items()
                if used >= ID_LIMIT
            ]
            if self._has_copied():
                reasons.append(
                    (
                        'copied',
                        "Queued jobs came with a copy of another database. They run only if a manager chooses so.",
                    )
                )
        return {
            'status': 'unhealthy' if reasons else 'ok',
            'reasons': [{'code': code, 'message': message} for code, message in reasons],
            'workers': workers,
            'oldest_due_seconds': round(age, 3),
        }

    def _limits(self):
        """Return the names of the paused channels, and ``(capacity, interval, starts_per_interval)`` of each by its name."""
        rows = self.env.execute_query(
            SQL("SELECT name, paused, capacity, interval, starts_per_interval FROM ir_async_channel")
        )
        return (
            {name for name, paused, *_limits in rows if paused},
            {name: (capacity or 0, interval or 0, starts or 1) for name, _paused, capacity, interval, starts in rows},
        )

    def _count_running(self):
        """Return how many jobs of each channel run, without those that came with a copy of another database.

        :rtype: dict[str, int]
        """
        return dict(
            self.env.execute_query(
                SQL(
                    "SELECT channel, count(*) FROM ir_async WHERE state = 'processing' AND origin = %s GROUP BY channel",
                    self._origin_sql(),
                )
            )
        )

    def _due_heads(self):
        """Return the first due job of each priority, of each limited channel and priority, and all dated jobs that are due.

        The oldest due job is among them. The query jumps in an index from one to the next, so the number of jobs behind each
        does not matter.
        """
        columns = SQL("channel, priority, id, create_date AS since")
        here = SQL("origin = %s AND", self._origin_sql())
        ready = SQL("%s state = 'created' AND date_scheduled IS NULL", here)
        return self.env.execute_query_dict(SQL(
            """
            WITH RECURSIVE plain AS (
                (SELECT %(columns)s FROM ir_async WHERE %(ready)s AND NOT limited ORDER BY priority, id LIMIT 1)
                UNION ALL
                SELECT next.* FROM plain, LATERAL (
                    SELECT %(columns)s FROM ir_async WHERE %(ready)s AND NOT limited AND priority > plain.priority
                  ORDER BY priority, id LIMIT 1
                ) next
            ),
            limited AS (
                (SELECT %(columns)s FROM ir_async WHERE %(ready)s AND limited ORDER BY channel, priority, id LIMIT 1)
                UNION ALL
                SELECT next.* FROM limited head, LATERAL (
                    SELECT %(columns)s FROM ir_async
                     WHERE %(ready)s AND limited AND (channel, priority) > (head.channel, head.priority)
                  ORDER BY channel, priority, id LIMIT 1
                ) next
            ),
            dated AS (
                SELECT channel, priority, id, date_scheduled AS since
                  FROM ir_async
                 WHERE %(here)s state = 'created' AND date_scheduled <= clock_timestamp() AT TIME ZONE 'UTC'
              ORDER BY date_scheduled LIMIT %(limit)s
            )
            SELECT channel,
                   greatest(0, extract(epoch FROM clock_timestamp() AT TIME ZONE 'UTC' - since))::float AS age
              FROM ((SELECT * FROM plain LIMIT %(limit)s) UNION ALL (SELECT * FROM limited LIMIT %(limit)s)
                    UNION ALL SELECT * FROM dated) AS head
            """, columns=columns, here=here, ready=ready, limit=HEADS_MAX))  # fmt: skip

    def _oldest_startable(self, heads, paused, limits):
        """Return for how many seconds the oldest job that could start has waited for a worker, and its channel."""
        running = self._count_running()
        free = self._free_since({head['channel'] for head in heads if root_of(head['channel']) in limits})
        oldest = (0.0, None)
        for head in heads:
            root = root_of(head['channel'])
            capacity = limits[root][0] if root in limits else 0
            is_full = capacity and running.get(head['channel'], 0) >= capacity
            if not (root in paused or EVERYTHING in paused or is_full):
                # In a channel with limits, a job could not start before the one ahead of it had made room.
                age = max(0.0, min(head['age'], free.get(head['channel'], head['age'])))
                oldest = max(oldest, (age, head['channel']), key=lambda item: item[0])
        return oldest

    def _free_since(self, channels):
        """Return for how many seconds each channel has at least been able to start a job: since a job started or ended there.

        :param channels: names of channels with limits
        :rtype: dict[str, float]
        """
        return {channel: seconds for channel, seconds in self.env.execute_query(SQL(
            f"""
            SELECT channel, extract(epoch FROM {NOW} - greatest(
                       (SELECT greatest(date_start, date_done)
                          FROM ir_async
                         WHERE channel = candidate.channel AND limited AND date_start IS NOT NULL
                      ORDER BY date_start DESC
                         LIMIT 1),
                       {NEXT_START}))::float
              FROM unnest(%s::varchar[]) AS candidate (channel)
              JOIN ir_async_channel limits ON limits.name = split_part(candidate.channel, '/', 1)
            """, list(channels))) if seconds is not None}  # fmt: skip

    def _unserved_channels(self, channels, workers):
        roots = ['default', *sorted({root_of(channel) for channel in channels} - {'default'})][:CHANNELS_MAX]
        # `_why_unserved` names a pause before it looks for workers.
        return roots if not workers else [root for root in roots if self._why_unserved(root) == 'no_worker']

    @api.model
    def _count_workers(self):
        """Return how many worker processes that serve this database are alive.

        :rtype: int
        """
        [[count]] = self.env.execute_query(
            SQL("SELECT count(DISTINCT process_number) FROM (%s) AS serving", self._serving())
        )
        return count

    def _modules_in_flux(self):
        return [
            name
            for (name,) in self.env.execute_query(
                SQL(
                    "SELECT name FROM ir_module_module WHERE state IN ('to install', 'to upgrade', 'to remove') ORDER BY name LIMIT 10"
                )
            )
        ]

    def _overdue_seconds(self):
        value = self.env['ir.config_parameter'].sudo().get_param('ir_async.overdue_seconds')
        try:
            return float(value) if value else OVERDUE_SECONDS
        except ValueError:
            return OVERDUE_SECONDS

    def _used_ids(self):
        """Return how much of its sequence of ids each table has used up: jobs, progress, stop requests."""
        return {table: float(used) for table, used in self.env.execute_query(SQL(
            """
            SELECT owner.relname, coalesce(pg_sequence_last_value(sequence.seqrelid), 0) / CASE
                       WHEN id.atttypid = 'int4'::regtype THEN least(sequence.seqmax, 2147483647)
                       ELSE sequence.seqmax END::numeric
              FROM pg_class owner
              JOIN pg_attribute id ON id.attrelid = owner.oid AND id.attname = 'id'
              JOIN pg_sequence sequence ON sequence.seqrelid = pg_get_serial_sequence(owner.oid::regclass::text, 'id')::regclass
             WHERE owner.oid IN (SELECT to_regclass(name) FROM unnest(%s) AS name) AND NOT sequence.seqcycle
          ORDER BY 1
            """, ['ir_async', 'ir_async_progress', 'ir_async_stop']))}  # fmt: skip

    def _has_copied(self):
        """Return whether queued jobs came with a copy of a database."""
        # Each condition is a range of an index, so the number of jobs does not matter.
        conditions = [SQL("state = %s%s", state, condition) for state in LIVE for condition in index_conditions(state)]
        others = [SQL("%s %s", SQL(operator), self._origin_sql()) for operator in ('<', '>')] + [SQL("IS NULL")]
        [[has_copied]] = self.env.execute_query(
            SQL(
                "SELECT %s",
                SQL(" OR ").join(
                    SQL("EXISTS (SELECT FROM ir_async WHERE %s AND origin %s)", condition, other)
                    for condition in conditions
                    for other in others
                ),
            )
        )
        return has_copied
