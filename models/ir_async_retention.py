"""Retention: jobs that ended long ago are deleted, with their files."""

from __future__ import annotations

from odoo import api, models
from odoo.tools import SQL
from odoo.tools.constants import GC_UNLINK_LIMIT
from odoo.tools.misc import split_every

from ..engine.job import UNMET_OF_CHILD
from .ir_async import LIVE

RETENTION_DAYS = 7
MAX_RETENTION_DAYS = 36500


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _retention_days(self) -> int:
        value = self.env['ir.config_parameter'].sudo().get_param('ir_async.retention_days')
        try:
            days = int(float(value or RETENTION_DAYS))
        except (ValueError, OverflowError):
            days = RETENTION_DAYS
        return min(days, MAX_RETENTION_DAYS) if days >= 0 else RETENTION_DAYS

    @api.autovacuum
    def _gc_jobs(self) -> tuple[int, bool]:
        days = self._retention_days()

        def is_old(alias: str) -> SQL:
            return SQL(
                "(%(job)s.state NOT IN %(live)s AND coalesce(%(job)s.date_done < now() AT TIME ZONE 'UTC' - make_interval("
                "days => CASE %(job)s.state WHEN 'failed' THEN greatest(%(days)s, 30) ELSE %(days)s END), false))",
                job=SQL.identifier(alias),
                live=LIVE,
                days=days,
            )

        self._insert_pending()
        # A job stays while a job that waits for it stays, directly or through others, so a cancelled chain goes as a whole.
        # Its last jobs go first: if the limit cuts it, the rest is still a chain. A job also stays until its children have
        # ended, as they may read its result, and until the jobs that it has enqueued have ended.
        jobs = self.sudo().browse(job_id for job_id, in self.env.execute_query(SQL(
            """
            WITH RECURSIVE kept AS (
                SELECT rel.after_id AS id
                  FROM ir_async_after_rel rel
                  JOIN ir_async child ON child.id = rel.job_id
                 WHERE %(unmet)s AND NOT %(is_child_old)s
                 UNION
                SELECT rel.after_id
                  FROM kept
                  JOIN ir_async_after_rel rel ON rel.job_id = kept.id
                 WHERE %(unmet)s
            )
            SELECT id
              FROM ir_async job
             WHERE %(is_job_old)s
               AND NOT EXISTS (SELECT FROM kept WHERE id = job.id)
               AND NOT EXISTS (
                   SELECT
                     FROM ir_async_after_rel rel
                     JOIN ir_async child ON child.id = rel.job_id
                    WHERE rel.after_id = job.id AND child.state IN %(live)s)
               AND NOT EXISTS (SELECT FROM ir_async child WHERE child.parent_id = job.id AND child.state IN %(live)s)
          ORDER BY id DESC
             LIMIT %(limit)s
        FOR UPDATE OF job SKIP LOCKED
            """, unmet=SQL(UNMET_OF_CHILD), is_child_old=is_old('child'), is_job_old=is_old('job'), live=LIVE,
            limit=GC_UNLINK_LIMIT)))  # fmt: skip
        jobs._delete()
        return len(jobs), len(jobs) == GC_UNLINK_LIMIT  # done, remaining

    @api.autovacuum
    def _gc_starts(self) -> None:
        """Forget the starts of channels that were left, and pauses that are over. A claim forgets the starts of its channel."""
        self.env.cr.execute("""
            DELETE FROM ir_async_start
             WHERE date < clock_timestamp() AT TIME ZONE 'UTC' - interval '1 day' - coalesce((
                   SELECT interval FROM ir_async_channel WHERE name = split_part(channel, '/', 1)), 0) * interval '1 second'
        """)
        # Starts of the future are from before the clock was set back. Nobody knows when they were: it may have been just now.
        self.env.cr.execute("""
            UPDATE ir_async_start SET date = clock_timestamp() AT TIME ZONE 'UTC' WHERE date > clock_timestamp() AT TIME ZONE 'UTC'
        """)
        self.env.cr.execute("DELETE FROM ir_async_pause WHERE until < clock_timestamp() AT TIME ZONE 'UTC'")

    def _delete(self) -> None:
        """Delete jobs and the files that belong to them."""
        for ids in split_every(self.env.cr.IN_MAX, self._ids):
            self.env['ir.attachment'].sudo().search([('res_model', '=', self._name), ('res_id', 'in', ids)]).unlink()
            # There is no foreign key to do this. Running jobs are left out, as their rows belong to their workers.
            self.env.cr.execute(SQL(
                """
                UPDATE ir_async
                   SET parent_id = NULL
                 WHERE id IN (SELECT id FROM ir_async WHERE parent_id IN %s AND state NOT IN %s FOR UPDATE SKIP LOCKED)
                """, ids, LIVE))  # fmt: skip
            self.env.cr.execute(SQL("DELETE FROM ir_async WHERE id IN %s", ids))
        self.env.invalidate_all()
