"""Notify users of the changes of their jobs, in transactions that are not those of the jobs."""
from __future__ import annotations

import logging

from odoo import SUPERUSER_ID, api, sql_db
from odoo.modules.registry import Registry

_logger = logging.getLogger(__name__)


def transact(dbname, function, pool=None):
    """Call a function with an environment of the superuser, in a transaction of its own. It is called once.

    :param str dbname: the database
    :param function: it gets the environment
    :param JobPool pool: the connection, by default one of Odoo's pool
    """
    with sql_db.Cursor(pool, dbname, {}) if pool else Registry(dbname).cursor() as cr:
        function(api.Environment(cr, SUPERUSER_ID, {}))


def publish(session):
    """Notify users of the changes that a session made. What fails is logged: the web client repairs what it missed.

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
