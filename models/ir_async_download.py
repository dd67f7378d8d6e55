"""Exports and reports that jobs make for waiting users."""

from __future__ import annotations

import hashlib
import json
import logging

from odoo import api, models
from odoo.exceptions import AccessError
from odoo.modules import module
from odoo.tools import SQL, str2bool
from odoo.tools.misc import clean_context

from ..engine.claim import HERE, IS_PAUSED
from ..engine.slots import RUNNING, SLOT_DELAY

_logger = logging.getLogger(__name__)

KINDS = ('export', 'report')
SHORT_PRIORITY = 5  # files that take a moment do not wait for files that take minutes


class IrAsync(models.Model):
    _inherit = 'ir.async'

    @api.model
    def _get_download_settings(self):
        """Return which kinds of files jobs make, according to the settings.

        :rtype: dict[str, bool]
        """
        # sudo - ir.config_parameter: the administrator's setting applies to all users
        get_param = self.env['ir.config_parameter'].sudo().get_param
        return {kind: str2bool(get_param(f'ir_async.{kind}', ''), False) for kind in KINDS}

    @api.model
    def _can_download(self, kind, is_short=lambda: True):
        """Return whether a job should make a file now.

        True if the setting says so and a live worker serves the channel. But a short file does not wait in the queue: if no
        worker is free, it is made in the foreground. A long file waits.

        :param str kind: ``export`` or ``report``, which is also the channel
        :param is_short: function that returns whether the file takes a moment, or an unknown time
        :rtype: bool
        """
        return (
            self.env.user._is_internal()
            and self._get_download_settings()[kind]
            and not module.current_test  # no worker runs jobs during tests
            and not self._why_unserved(kind)
            and (self._is_worker_free(kind) or not is_short())
        )

    @api.model
    def _is_worker_free(self, channel):
        """Return whether a worker would begin a job of a channel at once, as far as this database knows.

        :param str channel: the name of the channel
        :rtype: bool
        """
        self.flush_model()
        [[delay, capacity, interval, running, busy, queued, workers]] = self.env.execute_query(SQL(
            f"""
              WITH {RUNNING},
                   candidate AS (SELECT %(channel)s::varchar AS channel)
            SELECT CASE WHEN NOT {IS_PAUSED} THEN {SLOT_DELAY} END,
                   limits.capacity,
                   limits.interval,
                   coalesce((SELECT jobs FROM running WHERE channel = candidate.channel), 0),
                   (SELECT count(DISTINCT worker_id) FROM ir_async WHERE state = 'processing' AND {HERE}),
                   (SELECT count(*)
                      FROM ir_async
                     WHERE state = 'created' AND date_scheduled IS NULL AND limited AND channel = %(channel)s AND {HERE}),
                   (SELECT count(DISTINCT process_number)
                      FROM (%(serving)s) AS serving
                     WHERE channels IS NULL OR %(channel)s = ANY(string_to_array(channels, ',')))
              FROM candidate
         LEFT JOIN ir_async_channel limits ON limits.name = split_part(candidate.channel, '/', 1)
            """, channel=channel, origin=self._origin_sql(), serving=self._serving()))  # fmt: skip
        workers = max(workers, 1)  # the channel is served, even if the worker is not visible here
        has_slot = delay == 0 and not (capacity and running + queued >= capacity) and not (interval and queued)
        return has_slot and busy < workers

    @api.model
    def _check_download(self):
        """Check that the user may make files in the background.

        :raises odoo.exceptions.AccessError: if they are a portal or public user
        """
        if not self.env.user._is_internal():
            raise AccessError(self.env._("Only internal users can export or print in the background."))

    @api.model
    def _call_download(self, kind, description, target, *args, is_short=False, identity=None):
        """Enqueue a job that makes a file, and return the answer that ``asyncRpc`` in the web client expects.

        While a job of the same user for the same file is queued, there is no second one. A job that has begun does not
        count: it may have read data that was changed since.

        :param str kind: ``export`` or ``report``
        :param str description: the job's name in the list of the user
        :param target: the method that makes the file
        :param args: its arguments
        :param bool is_short: whether the file takes a moment
        :param identity: JSON that, with the user and the context, identifies the file
        :rtype: dict
        """
        context = {name: value for name, value in target.__self__.env.context.items() if name != 'async_job_id'}
        content = json.dumps([self.env.uid, target.__self__._name, identity, context], sort_keys=True, default=repr)
        key = f'ir_async.{kind}/{hashlib.sha256(content.encode()).hexdigest()}'
        queued = self.search([('key', '=', key), ('user_id', '=', self.env.uid), ('state', '=', 'created')])
        options = {
            'channel': kind,
            'key': key,
            'key_until': 'start',
            **({'priority': SHORT_PRIORITY} if is_short else {}),
        }
        job = self.with_options(**options).call_notify(description, target, *args)
        if job.id in queued.ids:
            self.env.user._bus_send(
                'simple_notification',
                {
                    'type': 'info',
                    'message': self.env._(
                        "“%(name)s” is already being prepared. You will get that file.", name=job.name
                    ),
                },
            )
        return {'asyncJobId': job.id}

    @api.model
    def _log_extension(self, extension, what):
        """Log that an addon keeps a kind of download in the foreground, once per process.

        :param str | None extension: the result of :func:`find_extension`
        :param str what: the kind of download, for the log
        :return: the extension
        :rtype: str | None
        """
        if extension and extension not in _logged:
            _logged.add(extension)
            _logger.info("%s are made in the foreground, since %s extends them", what, extension)
        return extension

    @api.model
    def _download(self, name, content, mimetype):
        """Return the result of a job that makes a file: an action that downloads it.

        Only the user can read the file. It is deleted with the job.

        :param str name: the name of the downloaded file
        :param bytes content: its content
        :param str mimetype: its type
        :rtype: dict
        """
        # sudo - ir.attachment: users may neither write jobs nor attach anything to them
        attachment = (
            self.env['ir.attachment']
            .sudo()
            .with_context(clean_context(self.env.context))
            .create(
                {
                    'name': name,
                    'raw': content,
                    'mimetype': mimetype,
                    'res_model': self._name,
                    'res_id': self.current().id,
                }
            )
        )
        return {
            'type': 'ir.actions.act_url',
            'url': f'/web/content/{attachment.id}?download=true',
            'target': 'download',
        }


_logged: set[str] = set()
