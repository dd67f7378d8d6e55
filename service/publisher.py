"""Notify users of changes of their jobs, in transactions of their own."""
from __future__ import annotations

import logging

from odoo import SUPERUSER_ID, api, sql_db
from odoo.modules.registry import Registry

_logger = logging.getLogger(__name__)


def transact(dbname, function, pool=None):
    """Call a function once with an environment of the superuser, in a transaction of its own.

    :param str dbname: the database
    :param function: a function of the environment
    :param JobPool pool: the connection; by default one of Odoo's pool
    """
    with sql_db.Cursor(pool, dbname, {}) if pool else Registry(dbname).cursor() as cr:
        function(api.Environment(cr, SUPERUSER_ID, {}))


def publish(session):
    """Notify users of the changes that a session made. A failure is only logged, since the web client catches up by itself.

    :param Session session: the session
    """
    changes, session.changes = session.changes, []
    if not changes:
        return
    try:
        transact(session.dbname, lambda env: [
            env['ir.async']._send(change.id, change.user_id, change.name, change.state, change.revision)
            for change in changes])
    except Exception as exc:  # noqa: BLE001 -- the queue goes on
        _logger.info("Users of %s could not be notified of %d changes: %s", session.dbname, len(changes), exc)
