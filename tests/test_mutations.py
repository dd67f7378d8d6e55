"""The faults of script/mutate still have their places in the code."""

from pathlib import Path

from odoo.tests import BaseCase

from .mutations import FAULTS

ADDON = Path(__file__).parent.parent


class TestMutations(BaseCase):
    def test_each_fault_can_be_planted(self):
        for fault in FAULTS:
            with self.subTest(fault=fault.name):
                compile(fault.plant((ADDON / fault.path).read_text(encoding='utf-8')), fault.path, 'exec')

    def test_names(self):
        names = {fault.name for fault in FAULTS}
        self.assertEqual(len(names), len(FAULTS))
