from odoo import api, models
from odoo.tools import SQL

from .ir_async import BUS_PAYLOAD_MAX_SIZE

LISTED_MAX = 100  # jobs in the list of a user: the others are in the views


class IrAsync(models.Model):
    _inherit = 'ir.async'

    # What `get_user_jobs` looks for.
    _listed_idx = models.Index("(user_id, id) WHERE notify AND dismissed IS NOT TRUE")

    @api.model
    @api.readonly
    def get_user_jobs(self, job_ids=()):
        """Return the jobs that the web client shows to the user, as the bus would tell him about them.

        :param list job_ids: more of his jobs that the client knows, or waits for
        :return: ``{id, name, state, revision, payload, …}`` of each; without the payload if that is large, see the
            bus messages. ``elapsed`` is in seconds, up to now or to the end.
        :rtype: list[dict]
        """
        rows = self.env.execute_query_dict(SQL(
            """
            WITH listed AS (
                SELECT id
                  FROM %(table)s
                 WHERE user_id = %(uid)s AND notify AND dismissed IS NOT TRUE
                   AND (name IS NOT NULL OR state NOT IN ('done', 'failed', 'cancelled'))
              ORDER BY state IN ('waiting', 'created', 'processing') DESC, id DESC
                 LIMIT %(limit)s
            )
            SELECT id, name, state, revision, dismissed, notify,
                   extract(epoch FROM coalesce(date_done, now() AT TIME ZONE 'UTC') - date_start)::float AS elapsed,
                   coalesce(length(payload::text), 0) <= %(max_size)s AS is_small,
                   CASE WHEN length(payload::text) <= %(max_size)s THEN payload END AS payload
              FROM %(table)s
             WHERE (id IN (SELECT id FROM listed) OR id = ANY(%(job_ids)s)) AND user_id = %(uid)s
          ORDER BY id
            """,
            table=SQL.identifier(self._table), uid=self.env.uid, limit=LISTED_MAX, max_size=BUS_PAYLOAD_MAX_SIZE,
            job_ids=[int(job_id) for job_id in job_ids or ()]))
        for row in rows:
            row['name'] = row['name'] or False
            if not row.pop('is_small'):
                del row['payload']
            if row['state'] == 'processing' and 'progress' in self._fields:
                row['progress'] = self.browse(row['id']).progress or None
        return rows
