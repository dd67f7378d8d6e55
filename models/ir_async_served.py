"""Which workers serve a channel: the one question of exports, reports, the fallback, health and the interface."""

from __future__ import annotations

from odoo import api, models
from odoo.tools import SQL

from ..engine.serving import serving
from .ir_async_channel import EVERYTHING, root_of

IS_SERVED = "EXISTS (SELECT FROM serving WHERE channels IS NULL OR split_part(%s, '/', 1) = ANY(string_to_array(channels, ',')))"
HAS_UNSERVED = """
      WITH serving AS (%s)
    SELECT NOT EXISTS (SELECT FROM serving WHERE channels IS NULL) AND EXISTS (
        SELECT
          FROM (SELECT DISTINCT split_part(channel, '/', 1) AS name FROM ir_async WHERE state IN ('waiting', 'created', 'processing')) queued
         WHERE NOT EXISTS (
               SELECT
                 FROM serving
                WHERE queued.name = ANY(string_to_array(channels, ','))))
"""


class IrAsync(models.Model):
    _inherit = 'ir.async'

    @api.model
    def _serving(self) -> SQL:
        """Return a query for the live workers that serve this database: ``id``, ``process_number``, ``channels``.

        :rtype: SQL
        """
        return SQL(serving(self._get_origin_expression()))

    @api.model
    def _why_unserved(self, channel: str = 'default') -> str | None:
        """Return why no live worker would start a job of a channel now.

        :param str channel: the channel, as in ``with_options``
        :return: ``'upgrading'`` while modules are being installed or upgraded, ``'paused'`` if the channel or everything is
            paused, ``'no_worker'`` if no live worker serves the channel in this database; None if one would start it
        :rtype: str | None
        """
        [[is_upgrading, is_paused, is_served]] = self.env.execute_query(SQL(
            f"""
            WITH serving AS (%s)
            SELECT EXISTS (SELECT FROM ir_module_module WHERE state IN ('to install', 'to upgrade', 'to remove')),
                   EXISTS (SELECT FROM ir_async_channel WHERE name IN %s AND paused),
                   {IS_SERVED}
            """, self._serving(), (EVERYTHING, root_of(channel)), channel))  # fmt: skip
        if is_upgrading:
            return 'upgrading'
        if is_paused:
            return 'paused'
        return None if is_served else 'no_worker'

    @api.model
    def _has_unserved(self) -> bool:
        """Return whether any queued job is in a channel that no live worker serves.

        :rtype: bool
        """
        [[has_unserved]] = self.env.execute_query(SQL(HAS_UNSERVED, self._serving()))
        return has_unserved
