"""Channels: limits for groups of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from odoo import api, fields, models
from odoo.exceptions import ValidationError
from odoo.tools import SQL, ormcache

from ..tools.options import MAX_BYTES, MAX_INT

if TYPE_CHECKING:
    from typing_extensions import Self

    from odoo.api import ValuesType

EVERYTHING = '*'  # the channel of all jobs; it can only be paused


def root_of(channel: str) -> str:
    """Return the channel whose settings a channel has: ``parent`` for ``parent/x``.

    :param str channel: the name of a channel
    :rtype: str
    """
    return channel.split('/', 1)[0]


class IrAsyncChannel(models.Model):
    """Limits of a group of jobs, over all workers of all servers: how many run at once, and how many start in an interval.

    A channel ``name/anything`` has the limits of ``name``, but its jobs are counted separately.
    A channel without a record has no limits.
    """

    _name = 'ir.async.channel'
    _inherit = ['ir.async.primary']
    _description = "Background Job Channel"
    _order = 'name'
    _allow_sudo_commands = False

    name = fields.Char(
        required=True,
        help="Name that jobs give in their option channel. The channel * stands for all jobs and can only be paused",
    )
    capacity = fields.Integer(aggregator=None, help="Maximum number of jobs that run at once. 0: no limit")
    interval = fields.Float(digits=0, aggregator=None, help="Seconds in which a number of jobs may start. 0: no limit")
    starts_per_interval = fields.Integer(
        "Starts per Interval",
        default=1,
        aggregator=None,
        help="Maximum number of jobs that start in any interval. They may start at once",
    )
    fair = fields.Boolean(
        "Users Take Turns",
        help="Among jobs of the same priority, each user's first one comes in turn. So a long queue of one user does not hold"
        " up the others",
    )
    paused = fields.Boolean(help="No job of this channel starts")

    _name_uniq = models.UniqueIndex('(name)', "There is already a channel with this name.")
    _check_limits = models.Constraint(
        'CHECK (capacity >= 0 AND interval >= 0)', "The capacity and the interval of a channel cannot be negative."
    )
    _check_interval = models.Constraint(
        f'CHECK (interval <= {MAX_INT})',  # also refuses NaN; claims add the interval to a date
        "The interval of a channel is a number of seconds, at most 2,147,483,647.",
    )
    _check_starts = models.Constraint(
        'CHECK (starts_per_interval BETWEEN 1 AND 10000)',  # a claim looks at as many
        "A channel starts between 1 and 10,000 jobs in an interval.",
    )

    def init(self) -> None:
        # Earlier versions took any interval.
        self.env.cr.execute(SQL("UPDATE ir_async_channel SET interval = %(max)s WHERE interval > %(max)s", max=MAX_INT))

    @api.constrains('name', 'capacity', 'interval', 'fair')
    def _check_name(self):
        for channel in self:
            if not channel.name or len(channel.name.encode()) > MAX_BYTES:
                raise ValidationError(
                    self.env._("The name of a channel has at least 1 and at most %s bytes.", MAX_BYTES)
                )
            if channel.name != channel.name.strip() or channel.name.startswith('/'):
                raise ValidationError(
                    self.env._(
                        "The name of the channel “%s” begins with a slash, or has spaces around it.", channel.name
                    )
                )
            if '/' in channel.name:
                raise ValidationError(
                    self.env._(
                        "The channel %(name)s has the limits of the channel %(parent)s. Set them there.",
                        name=channel.name,
                        parent=root_of(channel.name),
                    )
                )
            if channel.name == EVERYTHING and channel._has_limits():
                raise ValidationError(self.env._("The channel * can only be paused."))

    @api.model_create_multi
    def create(self, vals_list: list[ValuesType]) -> Self:
        channels = super().create(vals_list)
        channels._apply()
        return channels

    def write(self, vals: ValuesType) -> Literal[True]:
        result = super().write(vals)
        self._apply()
        return result

    def unlink(self) -> Literal[True]:
        result = super().unlink()
        self._apply()
        return result

    def action_pause(self) -> Literal[True]:
        """Start no more jobs of these channels. Running jobs go on."""
        return self.write({'paused': True})

    def action_resume(self) -> Literal[True]:
        """Start jobs of these channels again, also if one of their jobs has paused them."""
        self.write({'paused': False})  # which checks the rights
        self.env.cr.execute(
            SQL("DELETE FROM ir_async_pause WHERE split_part(channel, '/', 1) = ANY(%s)", self.mapped('name'))
        )
        return True

    def _has_limits(self) -> bool:
        """Return whether anything but a pause limits the jobs of this channel: see ``LIMITED`` in ``engine/claim.py``.

        :rtype: bool
        """
        return bool(self.capacity or self.interval or self.fair)

    @api.model
    def _limited_names(self) -> frozenset[str]:
        """Return the names of the channels that have limits.

        :rtype: frozenset[str]
        """
        return self._get_limited_names()

    @ormcache()
    def _get_limited_names(self) -> frozenset[str]:
        return frozenset(
            self.sudo()
            .search([('name', '!=', EVERYTHING)])
            .filtered(lambda channel: channel.paused or channel._has_limits())
            .mapped('name')
        )

    def _apply(self) -> None:
        """Make calls and workers follow a change.

        The row of a job notes whether its channel is limited, so that other jobs pay nothing for channels. Workers correct
        the rows of queued jobs: a second writer would only get in their way.
        """
        if not self:
            return  # nothing has changed, and nobody's rights were checked
        self.flush_model()
        self.env.registry.clear_cache()
        self.env['ir.async']._wake_workers()
