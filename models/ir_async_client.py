"""Fields and methods for the web client: the list in the top bar, and the views."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from odoo import api, fields, models
from odoo.tools import SQL

from ..tools.options import MAX_INT
from .ir_async import BUS_PAYLOAD_MAX_SIZE, LIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

LISTED_MAX = 100  # jobs in the list of a user; the views have the others
ERROR_MAX_SIZE = 2000  # characters of an error in lists; the payload has all
ACTION_MAX_SIZE = 1024 * 1024  # bytes of JSON; a larger result is data, not an action


class IrAsync(models.Model):
    _inherit = 'ir.async'

    duration = fields.Float(
        compute='_compute_duration', digits=(16, 3), aggregator='avg', help="Seconds that the job ran the last time"
    )
    wait_duration = fields.Float(
        "Waited",
        compute='_compute_duration',
        digits=(16, 3),
        aggregator='avg',
        help="Seconds between the creation and the start of the job",
    )
    child_ids = fields.One2many(
        'ir.async',
        'parent_id',
        "Enqueued",
        readonly=True,
        groups='ir_async.ir_async_group_manager',
        help="Jobs that this job enqueued",
    )
    before_ids = fields.Many2many(
        'ir.async',
        'ir_async_after_rel',
        'after_id',
        'job_id',
        "Before",
        readonly=True,
        help="Jobs that wait for this job",
    )

    error_message = fields.Char("Error", compute='_compute_error_message', help="Last error of the job")

    @api.depends('state', 'create_date', 'date_start', 'date_done')
    def _compute_duration(self):
        # By the database's clock, like the dates.
        [[now]] = self.env.execute_query(SQL("SELECT clock_timestamp() AT TIME ZONE 'UTC'"))
        for job in self:
            # For a job that waits for its next attempt, the end of the last one is not known.
            end = now if job.state == 'processing' else job.date_done
            job.duration = job.date_start and end and max(0, (end - job.date_start).total_seconds())
            job.wait_duration = job.date_start and max(0, (job.date_start - job.create_date).total_seconds())

    @api.depends('state', 'attempts', 'payload')
    def _compute_error_message(self):
        # Results may be large, so read only payloads that can be errors.
        with_error = self.filtered(lambda job: job.state in ('failed', *LIVE))
        payloads = dict(
            self.env.execute_query(SQL("SELECT id, payload FROM ir_async WHERE id IN %s", with_error._ids or (0,)))
        )
        for job in self:
            error = (payloads.get(job.id) or {}).get('error') or {}
            message = error.get('data', {}).get('message') or error.get('message')
            job.error_message = message and message[:ERROR_MAX_SIZE]

    def _field_to_sql(self, alias, field_expr, query=None):
        # Makes the durations usable in groups, totals and orders although they are not columns.
        if field_expr == 'duration':
            return SQL(
                "extract(epoch FROM CASE WHEN %s = 'processing' THEN clock_timestamp() AT TIME ZONE 'UTC' ELSE %s END - %s)",
                super()._field_to_sql(alias, 'state', query),
                super()._field_to_sql(alias, 'date_done', query),
                super()._field_to_sql(alias, 'date_start', query),
            )
        if field_expr == 'wait_duration':
            return SQL(
                "extract(epoch FROM %s - %s)",
                super()._field_to_sql(alias, 'date_start', query),
                super()._field_to_sql(alias, 'create_date', query),
            )
        return super()._field_to_sql(alias, field_expr, query)

    @api.depends('name', 'res_model', 'method')
    def _compute_display_name(self):
        for job in self:
            job.display_name = job.name or f"{job.res_model}.{job.method}()"

    @api.model
    def get_user_jobs(self, job_ids: Iterable[int] = ()) -> list[dict[str, Any]]:
        """Return the jobs that the web client lists for the user, in the form of the bus messages.

        If there are too many, running jobs take precedence, then jobs with a result or an error, then queued ones, the
        latest of each first. Running jobs are always included.

        :param Iterable[int] job_ids: more jobs of the user, which the client knows or waits for
        :return: ``{id, name, state, revision, payload, …}`` of each job, in the order of their ids. Times are durations in
            seconds, so that the browser's clock does not matter. ``elapsed``: how long the job has run, up to now or to its
            end; None while it is queued. ``ended_ago``, ``scheduled_in``: only for jobs that have ended or are dated. Large
            payloads are left out, as in bus messages; then ``result_type`` is the type of the action, or False.
            ``is_stuck``: a job that it waits for has failed.
        :rtype: list[dict[str, Any]]
        """
        self.browse().check_access('read')
        self._insert_pending()
        rows = self.env.execute_query_dict(SQL(
            """
            WITH listed AS (
                SELECT id
                  FROM ir_async
                 WHERE user_id = %(uid)s AND notify AND dismissed IS NOT TRUE
                   AND (name IS NOT NULL OR state NOT IN ('done', 'failed', 'cancelled'))
              ORDER BY CASE WHEN state = 'processing' THEN 0
                            WHEN state IN ('succeeded', 'failed') THEN 1
                            WHEN state IN ('waiting', 'created') THEN 2
                            ELSE 3 END,
                       id DESC
                 LIMIT %(limit)s
            ), running AS (
                SELECT id
                  FROM ir_async
                 WHERE user_id = %(uid)s AND notify AND state = 'processing'
            )
            SELECT id, name, state, revision, dismissed,
                   CASE WHEN state NOT IN ('waiting', 'created') AND date_start IS NOT NULL
                        THEN greatest(extract(epoch FROM coalesce(date_done, now() AT TIME ZONE 'UTC') - date_start), 0)::float
                   END AS elapsed,
                   CASE WHEN state NOT IN ('waiting', 'created', 'processing')
                        THEN extract(epoch FROM now() AT TIME ZONE 'UTC' - date_done)::float
                   END AS ended_ago,
                   CASE WHEN state = 'created' AND date_scheduled > now() AT TIME ZONE 'UTC'
                        THEN extract(epoch FROM date_scheduled - now() AT TIME ZONE 'UTC')::float
                   END AS scheduled_in,
                   state = 'waiting' AND EXISTS (
                       SELECT FROM ir_async_after_rel AS rel
                         JOIN ir_async AS parent ON parent.id = rel.after_id
                        WHERE rel.job_id = ir_async.id AND rel.unmet AND parent.state = 'failed'
                   ) AS is_stuck,
                   coalesce(octet_length(payload::text), 0) AS size,
                   CASE WHEN octet_length(payload::text) <= %(max_size)s THEN payload END AS payload
              FROM ir_async
             WHERE id IN (SELECT id FROM listed UNION SELECT id FROM running UNION SELECT unnest(%(job_ids)s::int[]))
               AND user_id = %(uid)s
          ORDER BY id
            """,
            uid=self.env.uid, limit=LISTED_MAX, max_size=BUS_PAYLOAD_MAX_SIZE,
            job_ids=[id_ for id_ in map(int, job_ids or ()) if 0 < id_ <= MAX_INT],  # no job has another id
        ))  # fmt: skip
        for row in rows:
            row['name'] = row['name'] or False
            for key in ('ended_ago', 'scheduled_in', 'is_stuck'):
                if row[key] is None or row[key] is False:
                    del row[key]
            size = row.pop('size')
            if size > BUS_PAYLOAD_MAX_SIZE:
                del row['payload']
                row['result_type'] = size <= ACTION_MAX_SIZE and self.browse(row['id'])._read_result_type()
            elif row['payload'] and 'error' in row['payload'] and self._is_manager():
                self.browse(row['id'])._add_chain(row['payload'])
            if row['state'] == 'processing':
                row['progress'] = self.browse(row['id']).progress or None
        return rows

    def _read_result_type(self):
        """Return the type of a large result if it is an action, or False."""
        [[payload]] = self.env.execute_query(SQL("SELECT payload::text FROM ir_async WHERE id = %s", self.id))
        result = json.loads(payload).get('result')
        return isinstance(result, dict) and isinstance(result.get('type'), str) and result['type']
