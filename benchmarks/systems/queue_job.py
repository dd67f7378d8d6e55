"""OCA's queue_job as in its documentation: as many HTTP workers as its channel has slots, and two for the users."""

import functools
import zipfile

from .odoo import OdooSystem
from .packages import fetched, pip
from .system import WORKERS

PACKAGE = 'odoo-addon-queue-job==19.0.2.4.0.1'


def fetch(folder):
    pip('download', '--no-deps', '-d', folder, PACKAGE)
    for wheel in folder.glob('*.whl'):
        zipfile.ZipFile(wheel).extractall(folder)
    pip('install', '--no-deps', '--target', folder / 'packages', 'openupgradelib', 'cssselect')


class QueueJob(OdooSystem):
    name = 'queue_job'
    kind = 'queue_job'
    role = 'bench_queue_job'
    database = 'bench_queue_job'
    modules = 'web,queue_job,bench_ir_async'
    copies = ('bench_queue_job_enqueue',)
    server_wide = 'base,rpc,web,queue_job'
    reserve = 2  # HTTP workers for the users
    EMPTY = "SELECT NOT EXISTS (SELECT FROM queue_job WHERE state IN ('wait_dependencies', 'pending', 'enqueued', 'started'))"
    CLEAN = "TRUNCATE queue_job CASCADE"

    @functools.cached_property
    def folder(self):
        return fetched(PACKAGE, fetch)

    @property
    def addons(self):
        return [self.folder / 'odoo' / 'addons']

    @property
    def packages(self):
        return [self.folder / 'packages']

    def start(self):
        self.log.unlink(missing_ok=True)
        self.server = self.start_process(
            f'--workers={WORKERS + self.reserve}',
            '--proxy-mode',
            '--log-handler=odoo.addons.queue_job.jobrunner:INFO',
            ODOO_QUEUE_JOB_CHANNELS=f'root:{WORKERS}',
            ODOO_QUEUE_JOB_HOST='127.0.0.1',
            ODOO_QUEUE_JOB_PORT='{port}',
        )
        self.start_client()
        self.wait_ready(lambda: 'database connections ready' in self.log.read_text(encoding='utf-8', errors='replace'))
