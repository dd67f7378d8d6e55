"""Numbers and durations of jobs: exact where an index helps, else from a sample, so cheap with millions of rows."""

from __future__ import annotations

import contextlib
from collections import defaultdict

from psycopg2.extensions import TRANSACTION_STATUS_INERROR

from odoo import api, models
from odoo.tools import SQL

from ..engine.job import QUEUED_PARTS
from .ir_async import ENDED, LIVE

SAMPLE_PAGES = 4096  # pages of 8 KiB: a larger table is sampled
COUNT_MAX = 20_000  # from so many jobs of a state on, the number in a larger table is an estimate
CHANNELS_MAX = 200  # series of a metric
STATEMENT_TIMEOUT = '5s'
STATES = (*LIVE, *ENDED)
QUANTILES = (0.5, 0.95, 0.99)


class IrAsync(models.Model):
    _inherit = 'ir.async'

    # Leaves out `done`, the state of most ended jobs.
    _ended_idx = models.Index("(state, channel) WHERE state IN ('succeeded', 'failed', 'cancelled')")

    @contextlib.contextmanager
    def _cheaply(self):
        """Limit the time of statements that look at the queue."""
        self._insert_pending()
        with self._local_settings(statement_timeout=STATEMENT_TIMEOUT, lock_timeout=STATEMENT_TIMEOUT):
            yield

    @contextlib.contextmanager
    def _local_settings(self, **settings):
        """Change settings of the transaction temporarily. After an error of PostgreSQL, the rollback restores them."""
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
        """Return the numbers of jobs. In a large table, numbers that no index gives quickly are estimates from a sample.

        A channel ``name/anything`` counts as ``name``.

        :return: the numbers by (state, channel), and whether some of them are estimates
        :rtype: tuple[dict[tuple[str, str], int], bool]
        """
        share = self._sample_share()
        counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for state, channel, count in self.env.execute_query(
            SQL(
                "SELECT state, split_part(channel, '/', 1), count(*) FROM %s GROUP BY 1, 2",
                _sampled(share),
            )
        ):
            counts[state][channel] = round(count * 100 / share)
        is_estimated = False
        if share < 100:
            is_estimated = 'done' in counts
            # All other states have partial indexes. The planner might wrongly prefer to read the whole table.
            with self._local_settings(enable_seqscan='off'):
                for state in STATES:
                    if state == 'done':
                        continue
                    exact = self._count_exactly(state)
                    if sum(exact.values()) < COUNT_MAX:
                        counts[state] = exact
                    else:
                        is_estimated = True
        return {(state, channel): count for state in counts for channel, count in counts[state].items()}, is_estimated

    def _count_exactly(self, state):
        """Return the numbers of jobs in a state, by channel. A sum of ``COUNT_MAX`` or more means that there may be more."""
        return dict(
            self.env.execute_query(
                SQL(
                    "SELECT split_part(channel, '/', 1), count(*) FROM (%s) AS job GROUP BY 1",
                    SQL(" UNION ALL ").join(
                        SQL("(SELECT channel FROM ir_async WHERE state = %s%s LIMIT %s)", state, condition, COUNT_MAX)
                        for condition in index_conditions(state)
                    ),
                )
            )
        )

    def _sample_share(self):
        """Return the percentage of the table to read where no index helps."""
        [[pages]] = self.env.execute_query(
            SQL("SELECT pg_relation_size('ir_async') / current_setting('block_size')::int")
        )
        return min(100, SAMPLE_PAGES * 100 / max(pages, 1))

    def _durations(self):
        """Return, for the jobs that ended in the last hour, the number and the quantiles of the duration by channel."""
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
            """, list(QUANTILES), _sampled(share), ENDED, CHANNELS_MAX))  # fmt: skip
        return [(channel, round(count * 100 / share), *values) for channel, count, values in rows]


def _sampled(share):
    return SQL("ir_async") if share == 100 else SQL("ir_async TABLESAMPLE SYSTEM (%s)", share)


def index_conditions(state: str) -> tuple[SQL, ...]:
    """Return conditions that divide the jobs in a state, so that each part has one index."""
    if state == 'created':
        return tuple(SQL(" AND %s", SQL(part)) for part in QUEUED_PARTS)
    return (SQL(),)
