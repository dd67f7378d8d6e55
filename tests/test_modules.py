from unittest.mock import patch

from odoo.tests import TransactionCase


class TestModules(TransactionCase):
    """Installations, upgrades and removals of modules."""

    def test_signal_at_the_end(self):
        """The registry is signaled in the transaction that ends the flux of modules, and not once for each module."""
        first, second = self.env['ir.module.module'].search([('state', '=', 'uninstalled')], limit=2)
        with patch.object(self.env.registry['ir.async'], '_signal_changes') as signal:
            (first + second).write({'state': 'to install'})
            first.write({'state': 'installed'})
            second.write({'shortdesc': "another name"})
            self.assertFalse(signal.called, "modules are still in flux")
            second.write({'state': 'installed'})
            signal.assert_called_once_with()
