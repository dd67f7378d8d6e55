"""Messages of others, and maintenance."""

from __future__ import annotations

import contextlib
import re
import select

from odoo import SUPERUSER_ID, api
from odoo.modules.registry import Registry

GARBAGE = ['', 'x', '-1', '0', '99999999999999999999', '1; SELECT 1', '{"id": 1}', 'nul', 'ä' * 500, '*']

MESSAGE = re.compile(r'(\w+) (\w+) (\d+) (\S+)')


class Upkeep:
    WEIGHTS = {
        'garbage': 2, 'foreign_burst': 1, 'clean_up': 1,
    }  # fmt: skip

    def garbage(self):
        """NOTIFY of garbage on the channels of workers, also of running jobs that nobody cancelled, and in the name of workers"""
        database = self._database()
        for payload in self.rng.sample(GARBAGE, 5):
            self.world.cluster.sql("SELECT pg_notify('odoo_async', %s)", [payload])
            database.sql("SELECT pg_notify('ir_async_stop', %s)", [payload])
            self.world.cluster.sql("SELECT pg_notify('ir_async_workers', %s)", [payload])
        database.sql("SELECT pg_notify('ir_async_stop', id::text) FROM ir_async WHERE state = 'processing'")
        self._imitate_workers(database)

    def _imitate_workers(self, database):
        """Say that other workers are idle, that those which are idle are not, and that nothing is to be done."""
        with contextlib.closing(self.world.cluster.connect()) as connection, connection.cursor() as cr:
            cr.execute("LISTEN ir_async_workers")
            select.select([connection], [], [], 2)
            connection.poll()
            for group, verb, worker, place in [
                heard.groups() for sent in connection.notifies if (heard := MESSAGE.match(sent.payload))
            ]:
                for text in (
                    *(f'on {i} {i}.{self.rng.randrange(10**6)}' for i in (1, 2, 3)),
                    f'{"gone" if verb == "on" else "on"} {worker} 4.{self.rng.randrange(10**6)}',
                    f'looked 5 5.{self.rng.randrange(10**6)} {place}+9 30 in {database.name}',
                ):
                    cr.execute("SELECT pg_notify('ir_async_workers', %s)", [f'{group} {text}'])

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
