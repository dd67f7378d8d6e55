"""The figures of the queue, for monitoring and for the interface. They stay cheap on millions of rows."""
import contextlib
from collections import defaultdict

from psycopg2.extensions import TRANSACTION_STATUS_INERROR

from odoo import api, models
from odoo.tools import SQL

from .ir_async import ENDED, LIVE
from .ir_async_channel import EVERYTHING

SAMPLE_PAGES = 4096  # pages of the table, 8 KiB each, up to which all rows are read
COUNT_MAX = 20_000  # jobs of a state that are counted one by one in a larger table
HEADS_MAX = 1000  # channels and priorities that are looked at for the oldest job
CHANNELS_MAX = 200  # series of a metric
STATEMENT_TIMEOUT = '5s'
OVERDUE_SECONDS = 300  # by default
ID_LIMIT = 0.9  # share of its sequence
STATES = (*LIVE, *ENDED)
QUANTILES = (0.5, 0.95, 0.99)
ESCAPES = str.maketrans({'\\': r'\\', '"': r'\"', '\n': r'\n'})


class IrAsync(models.Model):
    _inherit = 'ir.async'

    # Few of all that ended are in it: jobs that were called for their effects are `done`.
    _ended_idx = models.Index("(state, channel) WHERE state IN ('succeeded', 'failed', 'cancelled')")

    @api.model
    def _health(self):
        """Return whether the queue of this database is well, and if not, why.

        :return: ``status``: ``'ok'`` or ``'unhealthy'``; ``reasons``: a list of ``{code, message}``, whose codes are
            ``no_worker``, ``overdue``, ``paused``, ``upgrading``, ``ids`` and ``copied``; ``workers``: how many are alive;
            ``oldest_due_seconds``: for how long the oldest job is due that could start
        :rtype: dict
        """
        with self._cheaply():
            reasons = []
            paused, limits = self._limits()
            heads = self._due_heads()
            if EVERYTHING in paused:
                reasons.append(('paused', "Everything is paused: no job starts until it is resumed."))
            if modules := self._modules_in_flux():
                reasons.append(('upgrading', f"Modules are being installed, upgraded or removed: {', '.join(modules)}."))
            workers = self._count_workers()
            if unserved := self._unserved_channels({head['channel'] for head in heads}, workers):
                reasons.append(('no_worker', f"No live worker of this database serves the channels {', '.join(unserved)}."))
            age, channel = self._oldest_startable(heads, paused, limits)
            if age > (limit := self._overdue_seconds()):
                reasons.append(('overdue', f"A job of the channel {channel} is due for {age:.0f} s, more than {limit:.0f} s."))
            reasons += [
                ('ids', f"{used:.0%} of the ids of {table} are used up.")
                for table, used in self._used_ids().items() if used >= ID_LIMIT]
            if self._has_copied():
                reasons.append(('copied', "Queued jobs came with a copy of a database, and do not run by themselves."))
        return {
            'status': 'unhealthy' if reasons else 'ok',
            'reasons': [{'code': code, 'message': message} for code, message in reasons],
            'workers': workers,
            'oldest_due_seconds': round(age, 3),
        }

    @api.model
    def _metrics(self):
        """Return the figures of the queue of this database in the text format of Prometheus.

        :rtype: str
        """
        with self._cheaply():
            counts, is_estimated = self._count_jobs()
            paused, limits = self._limits()
            heads = self._due_heads()
            durations = self._durations()
            used_ids = self._used_ids()
            health = self._health()
        channels = sorted({channel for _state, channel in counts} | set(limits) - {EVERYTHING} | {'default'})[:CHANNELS_MAX]
        codes = {reason['code'] for reason in health['reasons']}
        families = [
            ('jobs', "Jobs by state and channel.", [
                ({'state': state, 'channel': channel}, counts.get((state, channel), 0))
                for channel in channels for state in STATES]),
            ('jobs_estimated', "1 if the table is so large that some of the numbers of jobs are estimates.", [({}, int(is_estimated))]),
            ('oldest_due_seconds', "For how long the oldest job that is due has been waiting for its start, in seconds.", [
                ({}, max((head['age'] for head in heads), default=0))]),
            ('job_duration_seconds', "How long the jobs took that ended in the last hour.", [
                ({'channel': channel, 'quantile': quantile}, value)
                for channel, _count, *values in durations for quantile, value in zip(QUANTILES, values)]),
            ('jobs_ended_last_hour', "Jobs that ended in the last hour.", [
                ({'channel': channel}, count) for channel, count, *_values in durations]),
            ('workers', "Live worker processes.", [({}, health['workers'])]),
            ('channel_capacity', "Jobs of the channel that may run at once, 0: no limit.", [
                ({'channel': channel}, capacity) for channel, (capacity, _interval) in sorted(limits.items())[:CHANNELS_MAX]
                if channel != EVERYTHING]),
            ('channel_paused', "1 if no job of the channel is started; the channel * holds all jobs.", [
                ({'channel': channel}, int(channel in paused)) for channel in sorted({*limits, EVERYTHING})[:CHANNELS_MAX]]),
            ('ids_used_ratio', "How much of the sequence of ids is used up, from 0 to 1.", [
                ({'table': table}, used) for table, used in used_ids.items()]),
            ('unhealthy', "1 if the queue is not well for this reason.", [
                ({'reason': code}, int(code in codes))
                for code in ('no_worker', 'overdue', 'paused', 'upgrading', 'ids', 'copied')]),
        ]
        return ''.join(
            f'# HELP ir_async_{name} {text}\n# TYPE ir_async_{name} gauge\n'
            + ''.join(f'ir_async_{name}{_labels(labels)} {_number(value)}\n' for labels, value in samples)
            for name, text, samples in families)

    @contextlib.contextmanager
    def _cheaply(self):
        """Bound what a look at the queue costs."""
        self._insert_pending()
        with self._local_settings(statement_timeout=STATEMENT_TIMEOUT, lock_timeout=STATEMENT_TIMEOUT):
            yield

    @contextlib.contextmanager
    def _local_settings(self, **settings):
        """Change settings of the transaction for a while. A rollback, after an error of PostgreSQL, undoes it as well."""
        before = {name: self.env.execute_query(SQL("SELECT current_setting(%s)", name))[0][0] for name in settings}
        self._set_local(settings)
        try:
            yield
        finally:
            if self.env.cr._cnx.get_transaction_status() != TRANSACTION_STATUS_INERROR:
                self._set_local(before)

    def _set_local(self, settings):
        for name, value in settings.items():
            self.env.execute_query(SQL("SELECT set_config(%s, %s, true)", name, value))

    @api.model
    def _count_jobs(self):
        """Return how many jobs there are. In a large table, what cannot be counted quickly is estimated from a sample.

        A channel ``name/anything`` counts as ``name``.

        :return: the numbers by (state, channel), and whether some of them are estimates
        :rtype: tuple[dict[tuple[str, str], int], bool]
        """
        share = self._sample_share()
        counts = defaultdict(int)
        for state, channel, count in self.env.execute_query(SQL(
            "SELECT state, split_part(channel, '/', 1), count(*) FROM %s GROUP BY 1, 2", _sampled(share),
        )):
            counts[state, channel] = round(count * 100 / share)
        if share == 100:
            return dict(counts), False
        is_estimated = any(state == 'done' for state, _channel in counts)
        # All but those that are done are in partial indexes. The planner might think that the table is read faster.
        with self._local_settings(enable_seqscan='off'):
            for state in STATES:
                if state == 'done':
                    continue
                exact = self._count_exactly(state)
                if sum(exact.values()) < COUNT_MAX:
                    for key in [key for key in counts if key[0] == state]:
                        del counts[key]
                    counts.update(((state, channel), count) for channel, count in exact.items())
                else:
                    is_estimated = True
        return dict(counts), is_estimated

    def _count_exactly(self, state):
        """Return the numbers of jobs in a state by channel, unless there are ``COUNT_MAX`` of them or more."""
        return dict(self.env.execute_query(SQL(
            "SELECT split_part(channel, '/', 1), count(*) FROM (%s) AS job GROUP BY 1",
            SQL(" UNION ALL ").join(
                SQL("(SELECT channel FROM ir_async WHERE state = %s%s LIMIT %s)", state, condition, COUNT_MAX)
                for condition in _index_conditions(state)))))

    def _sample_share(self):
        """Return how many percent of the table are read where no index helps."""
        [[pages]] = self.env.execute_query(SQL("SELECT pg_relation_size('ir_async') / current_setting('block_size')::int"))
        return min(100, SAMPLE_PAGES * 100 / max(pages, 1))

    def _durations(self):
        """Return the channel, number, and quantiles of the duration of the jobs that ended in the last hour."""
        share = self._sample_share()
        rows = self.env.execute_query(SQL(
            """
            SELECT split_part(channel, '/', 1), count(*),
                   percentile_cont(%s) WITHIN GROUP (ORDER BY greatest(0, extract(epoch FROM date_done - date_start)))
              FROM %s
             WHERE date_done > now() AT TIME ZONE 'UTC' - interval '1 hour' AND date_start IS NOT NULL AND state IN %s
          GROUP BY 1
          ORDER BY 1
             LIMIT %s
            """, list(QUANTILES), _sampled(share), ENDED, CHANNELS_MAX))
        return [(channel, round(count * 100 / share), *values) for channel, count, values in rows]

    def _limits(self):
        """Return the names of the paused channels, and ``(capacity, interval)`` of each by its name."""
        rows = self.env.execute_query(SQL("SELECT name, capacity, interval, paused FROM ir_async_channel"))
        return (
            {name for name, _capacity, _interval, paused in rows if paused},
            {name: (capacity or 0, interval or 0) for name, capacity, interval, _paused in rows})

    def _due_heads(self):
        """Return the jobs that come first: one of each priority, channel with limits, and date that has passed.

        The oldest one is among them. An index leads from one to the next, however many there are behind each.
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
            """, columns=columns, here=here, ready=ready, limit=HEADS_MAX))

    def _oldest_startable(self, heads, paused, limits):
        """Return for how many seconds the oldest job is due that nothing holds back but the workers, and its channel."""
        running = dict(self.env.execute_query(SQL(
            "SELECT channel, count(*) FROM ir_async WHERE state = 'processing' GROUP BY channel")))
        moved = self._moved_since({
            head['channel'] for head in heads if any(limits.get(_root(head['channel']), (0, 0)))})
        oldest = (0.0, None)
        for head in heads:
            root = _root(head['channel'])
            capacity, interval = limits.get(root, (0, 0))
            is_full = capacity and running.get(head['channel'], 0) >= capacity
            if not (root in paused or EVERYTHING in paused or is_full):
                # In a channel with limits, a job cannot start before the one ahead of it made room.
                age = max(0.0, min(head['age'], moved.get(head['channel'], head['age']) - interval))
                oldest = max(oldest, (age, head['channel']), key=lambda item: item[0])
        return oldest

    def _moved_since(self, channels):
        """Return for how many seconds no job of each channel began, or the last one that did has been over.

        :param channels: names of channels with limits
        :rtype: dict[str, float]
        """
        return {channel: seconds for channel, seconds in self.env.execute_query(SQL(
            """
            SELECT wanted, (
                       SELECT extract(epoch FROM clock_timestamp() AT TIME ZONE 'UTC' - greatest(date_start, date_done))::float
                         FROM ir_async
                        WHERE channel = wanted AND limited AND date_start IS NOT NULL
                     ORDER BY date_start DESC
                        LIMIT 1)
              FROM unnest(%s::varchar[]) AS wanted
            """, list(channels))) if seconds is not None}

    def _unserved_channels(self, channels, workers):
        roots = ['default', *sorted({_root(channel) for channel in channels} - {'default'})][:CHANNELS_MAX]
        # Who asks why learns of a pause first.
        return roots if not workers else [root for root in roots if self._why_unserved(root) == 'no_worker']

    @api.model
    def _count_workers(self):
        """Return how many worker processes that serve this database are alive.

        :rtype: int
        """
        [[count]] = self.env.execute_query(SQL("SELECT count(DISTINCT process_key) FROM (%s) AS serving", self._serving()))
        return count

    def _modules_in_flux(self):
        return [name for name, in self.env.execute_query(SQL(
            "SELECT name FROM ir_module_module WHERE state IN ('to install', 'to upgrade', 'to remove') ORDER BY name LIMIT 10"))]

    def _overdue_seconds(self):
        value = self.env['ir.config_parameter'].sudo().get_param('ir_async.overdue_seconds')
        try:
            return float(value) if value else OVERDUE_SECONDS
        except ValueError:
            return OVERDUE_SECONDS

    def _used_ids(self):
        """Return which share of its ids each table has used up that takes one for a job or a report of progress."""
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
            """, ['ir_async', 'ir_async_progress', 'ir_async_stop']))}

    def _has_copied(self):
        """Return whether queued jobs came with a copy of a database."""
        # Each is a range of an index, however many jobs there are.
        conditions = [SQL("state = %s%s", state, condition) for state in LIVE for condition in _index_conditions(state)]
        others = [SQL("%s %s", SQL(operator), self._origin_sql()) for operator in ('<', '>')] + [SQL("IS NULL")]
        [[has_copied]] = self.env.execute_query(SQL("SELECT %s", SQL(" OR ").join(
            SQL("EXISTS (SELECT FROM ir_async WHERE %s AND origin %s)", condition, other)
            for condition in conditions for other in others)))
        return has_copied


def _root(channel):
    return channel.split('/', 1)[0]


def _sampled(share):
    return SQL("ir_async") if share == 100 else SQL("ir_async TABLESAMPLE SYSTEM (%s)", share)


def _index_conditions(state):
    """Return conditions that leave the planner one index of the queue for each."""
    if state == 'created':
        return (
            SQL(" AND date_scheduled IS NULL AND NOT limited"), SQL(" AND date_scheduled IS NULL AND limited"),
            SQL(" AND date_scheduled IS NOT NULL"))
    return (SQL(),)


def _labels(labels):
    return '{%s}' % ','.join(f'{name}="{str(value).translate(ESCAPES)}"' for name, value in labels.items()) if labels else ''


def _number(value):
    return f'{value:.6f}'.rstrip('0').rstrip('.') if isinstance(value, float) else str(value)
