"""The documents name tests that exist."""

import re
from pathlib import Path

from odoo.tests import BaseCase

ADDON = Path(__file__).parent.parent
# A file, and the names after it: `test_x.py::TestX::test_a`, `::test_b` or, in a table, `test_x.py`: `test_a`, `test_b`.
NAMED = re.compile(r'(\w+_test|test_\w+)\.py((?:[`:, ]|\b(?:Test\w+|test_\w+)\b(?!\.py))*)')


class TestDocuments(BaseCase):
    def test_tests_exist(self):
        sources = {
            path.stem: path.read_text(encoding='utf-8')
            for folder in ('tests', 'tests/system')
            for path in (ADDON / folder).glob('*.py')
        }
        count = 0
        for document in sorted((ADDON / 'docs').glob('*.md')):
            for file, names in NAMED.findall(document.read_text(encoding='utf-8')):
                self.assertIn(file, sources, document.name)
                for name in re.findall(r'\btest_\w+', names):
                    self.assertTrue(f'def {name}(' in sources[file], f"{document.name}: {file}.py has no {name}")
                    count += 1
        self.assertGreater(count, 50)
