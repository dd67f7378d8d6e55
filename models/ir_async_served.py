"""Who will run a job: the one question that exports, reports, the fallback, health and the interface ask."""
from odoo import api, models
from odoo.tools import SQL

from ..service.pg import workers_alive
from .ir_async_channel import EVERYTHING


class IrAsync(models.Model):
    _inherit = 'ir.async'

    @api.model
    def _why_unserved(self, channel='default'):
        """Return why no live worker would start a job of a channel of this database now.

        :param str channel: the channel, as in ``with_options``
        :return: ``'upgrading'`` while modules are being installed or upgraded, ``'paused'`` when the channel or everything
            is paused, ``'no_worker'`` when no live worker serves this database and this channel; None when one does
        :rtype: str | None
        """
        [[is_upgrading, is_paused]] = self.env.execute_query(SQL(
            """
            SELECT EXISTS (SELECT FROM ir_module_module WHERE state IN ('to install', 'to upgrade', 'to remove')),
                   EXISTS (SELECT FROM ir_async_channel WHERE name IN %s AND paused)
            """, (EVERYTHING, channel.split('/', 1)[0])))
        if is_upgrading:
            return 'upgrading'
        if is_paused:
            return 'paused'
        return None if workers_alive(self.env.cr) else 'no_worker'
