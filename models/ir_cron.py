"""Scheduled actions: lost races for the keys of jobs, and failed notifications, fail none of them."""

import logging

import psycopg2

from odoo import models
from odoo.service.model import MAX_TRIES_ON_CONCURRENCY_FAILURE

from odoo.addons.ir_async.exceptions import KeyTaken

_logger = logging.getLogger(__name__)


class IrCron(models.Model):
    _inherit = 'ir.cron'

    def _notifydb(self):
        """Notify the cron workers. An error is only logged: the caller has committed, and they look each minute anyway."""
        try:
            super()._notifydb()
        except psycopg2.OperationalError as exc:
            _logger.warning("Could not wake the cron workers. They look for scheduled actions later: %s", exc)

    def _callback(self, cron_name, server_action_id):
        """Run the action again if it loses the race for the key of a job before it has committed anything.

        Odoo's ``retrying`` does this for requests, and workers for jobs, but nothing does it for scheduled actions.
        """
        for tries_left in reversed(range(MAX_TRIES_ON_CONCURRENCY_FAILURE)):
            commits = []
            self.env.cr.postcommit.add(lambda: commits.append(True))  # noqa: B023 -- a rollback drops it
            try:
                super()._callback(cron_name, server_action_id)
            except KeyTaken as exc:
                if commits or not tries_left:
                    raise
                _logger.info("Scheduled action %s runs again, %d tries left: %s", cron_name, tries_left, exc)
            else:
                return
