from contextlib import contextmanager
from unittest.mock import patch

from odoo.tests import HttpCase

from .common import AsyncCase
from odoo.addons.ir_async.models import ir_async_download


class DownloadCase(AsyncCase, HttpCase):
    """Files that jobs make and users download."""

    def serve(self):
        """Have live workers serve all channels, as far as the downloads know.

        :return: why they do not, by channel
        :rtype: dict
        """
        served = {}
        self.startPatch(patch.object(ir_async_download.module, 'current_test', None))
        self.startPatch(
            patch.object(
                type(self.env['ir.async']), '_why_unserved', lambda _self, channel='default': served.get(channel)
            )
        )
        return served


@contextmanager
def extended(controller, mixin, module='odoo.addons.bus.controllers'):
    """Have an addon extend a controller."""
    extension = type(mixin.__name__, (mixin, controller), {'__module__': module})
    try:
        yield
    finally:
        extension.__module__ = 'gone'  # Odoo's routes are those of addons
