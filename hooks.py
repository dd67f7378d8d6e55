"""The steps of installing and uninstalling that data files cannot do."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from odoo import api
from odoo.api import SUPERUSER_ID
from odoo.tools import SQL

from .engine.connection import LIVE_SESSIONS
from .engine.fence import drop_functions

if TYPE_CHECKING:
    from odoo.api import Environment
    from odoo.modules.registry import Registry

_logger = logging.getLogger(__name__)

PARAMETERS = {'ir_async.export': 'True', 'ir_async.report': 'True'}  # a feature is off when its parameter is missing
# Exports and reports take long, and much memory. Only one of each runs at a time, so that workers remain for other jobs.
CHANNELS = {'export': 1, 'report': 1}
STOP_TIME = 10  # seconds that workers have to stop their jobs


def post_init_hook(env: Environment) -> None:
    """Create the default records. A data file would collide with records that users have created or deleted themselves."""
    get_param = env['ir.config_parameter'].get_param
    for key, value in PARAMETERS.items():
        if not get_param(key):
            env['ir.config_parameter'].set_param(key, value)
    existing = env['ir.async.channel'].search([('name', 'in', list(CHANNELS))]).mapped('name')
    env['ir.async.channel'].create(
        [{'name': name, 'capacity': capacity} for name, capacity in CHANNELS.items() if name not in existing]
    )


def uninstall_hook(env: Environment) -> None:
    """Stop all jobs, and delete the records that Odoo does not know to belong to this module."""
    _stop_jobs(env.registry)
    models = [name for name in env.registry if name == 'ir.async' or name.startswith('ir.async.')]
    attachments = env['ir.attachment'].search([('res_model', 'in', models), ('id', '!=', False)])
    if attachments:
        attachments.unlink()
        # The next regular vacuum of files is up to a day away, and these files have no owner any more.
        env.cr.postcommit.add(lambda: _vacuum_files(env.registry))
    drop_functions(env.cr)
    # In the order in which claims lock them, so that none of both waits for the other.
    env.cr.execute("LOCK TABLE ir_async, ir_async_channel; DROP TABLE ir_async_start, ir_async_pause")
    env['ir.config_parameter'].search([('key', '=like', r'ir\_async.%')]).unlink()
    env['ir.filters'].with_context(active_test=False).search([('model_id', 'in', models)]).unlink()
    env['ir.exports'].search([('resource', 'in', models)]).unlink()


def _stop_jobs(registry: Registry) -> None:
    """Cancel all jobs, since a running one may hold a lock on a table that is about to be dropped."""
    with registry.cursor() as cr:
        cr.execute(
            "UPDATE ir_async SET state = 'cancelled', date_done = now() AT TIME ZONE 'UTC', revision = revision + 1"
            " WHERE state IN ('waiting', 'created')"
        )
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
            # Each session of a worker holds a lock. Nobody runs the jobs of a session whose lock is gone.
            cr.execute(
                SQL(
                    "SELECT EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND worker_id IN (%s))",
                    SQL(LIVE_SESSIONS),
                )
            )
            [is_running] = cr.fetchone()
    if is_running:
        _logger.warning(
            "Some jobs are still running. If they keep the tables from being dropped, stop the servers that run them"
        )


def _vacuum_files(registry: Registry) -> None:
    with registry.cursor() as cr:
        api.Environment(cr, SUPERUSER_ID, {})['ir.attachment']._gc_file_store()
