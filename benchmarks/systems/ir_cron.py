"""Odoo's own scheduled actions, triggered: `ir.cron._trigger`."""

from .odoo import OdooSystem
from .system import WORKERS, Unavailable


class IrCron(OdooSystem):
    name = 'ir.cron'
    kind = 'cron'
    role = 'bench_cron'
    database = 'bench_cron'

    def install(self):
        pass  # its database is a copy of the one of ir_async

    def start(self):
        self.log.unlink(missing_ok=True)
        self.server = self.start_process('--workers=1', '--proxy-mode', f'--max-cron-threads={WORKERS}')
        self.start_client()

    def warm_up(self):
        self.latency(3, 0.2)

    def clean(self):
        pass

    def drain(self, method='noop', args=(), count=1, **options):
        msg = "not a queue: what is triggered twice before it runs, runs once"
        raise Unavailable(msg)
