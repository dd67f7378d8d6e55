import re

import polib

from odoo.tests import TransactionCase, tagged
from odoo.tools import file_path

PLACEHOLDER = re.compile(r'%\(\w+\)[sd]|%[sd]|</?\w+[^>]*>')


@tagged('post_install', '-at_install')
class TestFrench(TransactionCase):
    def test_terms(self):
        """Each term is translated, and keeps its placeholders and tags."""
        for entry in polib.pofile(file_path('ir_async/i18n/fr.po')):
            with self.subTest(term=entry.msgid):
                self.assertTrue(entry.msgstr)
                self.assertFalse(entry.fuzzy)
                self.assertEqual(sorted(PLACEHOLDER.findall(entry.msgstr)), sorted(PLACEHOLDER.findall(entry.msgid)))

    def test_loaded(self):
        """A French user sees the words of the interface in French."""
        self.env['res.lang']._activate_lang('fr_FR')
        self.env['ir.module.module'].search([('name', '=', 'ir_async')])._update_translations(['fr_FR'])
        env = self.env(context={'lang': 'fr_FR'})
        self.assertEqual(
            dict(env['ir.async'].fields_get(['state'])['state']['selection'])['created'], "En file d’attente"
        )
        self.assertEqual(env.ref('ir_async.ir_async_action').name, "Tâches en arrière-plan")
        self.assertIn(
            "Annuler la tâche", env['ir.async'].get_view(env.ref('ir_async.ir_async_view_form').id, 'form')['arch']
        )
