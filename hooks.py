"""What installing and uninstalling take beyond the data files."""
import logging
import time

from odoo import SUPERUSER_ID, api
from odoo.tools import SQL

from .engine.connection import LIVE_SESSIONS
from .engine.fence import drop_functions

_logger = logging.getLogger(__name__)

PARAMETERS = {'ir_async.export': 'True', 'ir_async.report': 'True'}  # switched off is: not there
# Exports and reports take long, and much memory: one at a time each, so that there is always a worker for the rest.
CHANNELS = {'export': 1, 'report': 1}
STOP_TIME = 10  # seconds that workers have to stop their jobs


def post_init_hook(env):
    """Set the defaults. Not in data files: users delete and make such records themselves, and a file would collide."""
    get_param = env['ir.config_parameter'].get_param
    for key, value in PARAMETERS.items():
        if not get_param(key):
            env['ir.config_parameter'].set_param(key, value)
    existing = env['ir.async.channel'].search([('name', 'in', list(CHANNELS))]).mapped('name')
    env['ir.async.channel'].create([
        {'name': name, 'capacity': capacity} for name, capacity in CHANNELS.items() if name not in existing])


def uninstall_hook(env):
    """Stop what runs, and delete what Odoo does not know to be ours."""
    _stop_jobs(env.registry)
    models = [name for name in env.registry if name == 'ir.async' or name.startswith('ir.async.')]
    attachments = env['ir.attachment'].search([('res_model', 'in', models), ('id', '!=', False)])
    if attachments:
        attachments.unlink()
        # The files go with the next vacuum, after a day; they are nobody's from now on.
        env.cr.postcommit.add(lambda: _vacuum_files(env.registry))
    drop_functions(env.cr)
    env['ir.config_parameter'].search([('key', '=like', r'ir\_async.%')]).unlink()
    env['ir.filters'].with_context(active_test=False).search([('model_id', 'in', models)]).unlink()
    env['ir.exports'].search([('resource', 'in', models)]).unlink()


def _stop_jobs(registry):
    """Cancel all jobs. A running one may hold a lock on a table that is dropped next."""
    with registry.cursor() as cr:
        cr.execute(
            "UPDATE ir_async SET state = 'cancelled', date_done = now() AT TIME ZONE 'UTC', revision = revision + 1"
            " WHERE state IN ('waiting', 'created')")
        cr.execute("""
            INSERT INTO ir_async_stop (job_id, reason)
                 SELECT id, 'cancel' FROM ir_async WHERE state = 'processing'
            ON CONFLICT (job_id) DO UPDATE SET reason = 'cancel'
              RETURNING pg_notify('ir_async_stop', job_id::text)
        """)
        is_running = bool(cr.rowcount)
    end = time.monotonic() + STOP_TIME
    while is_running and time.monotonic() < end:
        time.sleep(0.1)
        with registry.cursor() as cr:
            # The sessions of workers hold a lock each: the jobs of those that are gone, nobody runs.
            cr.execute(SQL(
                "SELECT EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND session IN (%s))", SQL(LIVE_SESSIONS)))
            [is_running] = cr.fetchone()
    if is_running:
        _logger.warning("Some jobs do not end. If the tables cannot be dropped for it, stop the servers that run them.")


def _vacuum_files(registry):
    with registry.cursor() as cr:
        api.Environment(cr, SUPERUSER_ID, {})['ir.attachment']._gc_file_store()
