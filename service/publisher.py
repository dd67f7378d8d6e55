"""Notify users of changes of their jobs, in transactions of their own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from odoo import api, sql_db
from odoo.api import SUPERUSER_ID
from odoo.modules.registry import Registry

from .pools import own_work

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..engine.session import Session
    from .cursor import JobPool

_logger = logging.getLogger(__name__)


def transact(dbname: str, function: Callable[[api.Environment], Any], pool: JobPool | None = None) -> None:
    """Call a function once with an environment of the superuser, in a transaction of its own.

    :param str dbname: the database
    :param function: a function of the environment
    :param JobPool pool: the connection; by default one of Odoo's pool
    """
    own = sql_db.Cursor(pool, dbname, {}) if pool else None  # type: ignore[arg-type]  # see `JobCursor`
    with own_work(), own or Registry(dbname).cursor() as cr:
        function(api.Environment(cr, SUPERUSER_ID, {}))


def publish(session: Session) -> None:
    """Notify users of the changes that a session made. A failure is only logged, since the web client catches up by itself.

    :param Session session: the session
    """
    changes, session.changes = session.changes, []
    if not changes:
        return
    try:
        transact(
            session.dbname,
            lambda env: [
                env['ir.async']._send(change.id, change.user_id, change.name, change.state, change.revision)
                for change in changes
            ],
        )
    except Exception as exc:  # noqa: BLE001 -- the queue goes on
        _logger.info(
            "Users of database %s could not be notified of %d changes of their jobs: %s",
            session.dbname,
            len(changes),
            exc,
        )
