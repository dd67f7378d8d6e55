"""Messages of others, and maintenance."""

from __future__ import annotations

import contextlib

from odoo import SUPERUSER_ID, api
from odoo.modules.registry import Registry

GARBAGE = ['', 'x', '-1', '0', '99999999999999999999', '1; SELECT 1', '{"id": 1}', 'nul', 'ä' * 500, '*']


class Upkeep:
    WEIGHTS = {
        'garbage': 2, 'foreign_burst': 1, 'clean_up': 1,
    }  # fmt: skip

    def garbage(self):
        """NOTIFY of garbage on odoo_async and ir_async_stop, also of running jobs that nobody cancelled"""
        database = self._database()
        for payload in self.rng.sample(GARBAGE, 5):
            self.world.cluster.sql("SELECT pg_notify('odoo_async', %s)", [payload])
            database.sql("SELECT pg_notify('ir_async_stop', %s)", [payload])
        database.sql("SELECT pg_notify('ir_async_stop', id::text) FROM ir_async WHERE state = 'processing'")

    def foreign_burst(self):
        """a burst of NOTIFYs for databases that are not ours"""
        self.world.cluster.sql("SELECT pg_notify('odoo_async', 'stranger' || i) FROM generate_series(1, 200) i")

    def clean_up(self):
        """Odoo's clean-up, with ended jobs made old: those that enqueued others first"""
        database = self._database()
        with contextlib.closing(self.world.cluster.connect(database.name)) as connection, connection.cursor() as cr:
            cr.execute("SET lock_timeout = '2s'")
            cr.execute(
                "SELECT id FROM ir_async WHERE state = 'done' ORDER BY (method = 'enqueue_more') DESC, id DESC LIMIT 10"
            )
            ids = [row.id for row in cr.fetchall()]
            if not ids:
                return
            self.cleaned |= {(database.name, job_id) for job_id in ids}
            cr.execute("UPDATE ir_async SET date_done = date_done - interval '100 days' WHERE id = ANY(%s)", [ids])

        def clean():
            with Registry(database.name).cursor() as cr:
                env = api.Environment(cr, SUPERUSER_ID, {})
                cron = env.ref('base.autovacuum_job')
                env['ir.autovacuum'].with_context(cron_id=cron.id)._run_vacuum_cleaner()

        self._meanwhile(clean)
