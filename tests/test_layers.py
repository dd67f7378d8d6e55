"""Imports run one way: tools and exceptions, engine, service, then models and all that Odoo loads."""

import ast
from pathlib import Path

from odoo.tests import BaseCase

ROOT = Path(__file__).parents[1]
LAYERS = [{'tools', 'exceptions'}, {'engine'}, {'service'}, {'models', 'controllers', 'cli', 'hooks'}]
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
ADDON = 'odoo.addons.ir_async'


def imports(path):
    """Return the modules of this addon that a file imports, as pairs of a path such as ``engine.claim`` and the line.

    :param Path path: the file, relative to the addon
    :rtype: list[tuple[str, int]]
    """
    found = []
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = path.parts[: len(path.parts) - node.level]
            base = '.'.join([*package, *(node.module or '').split('.')]).strip('.')
            found += [(base or alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == ADDON:
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith(f'{ADDON}.'):
            found.append((node.module.removeprefix(f'{ADDON}.'), node.lineno))
        elif isinstance(node, ast.Import):
            found += [
                (alias.name.removeprefix(f'{ADDON}.'), node.lineno)
                for alias in node.names
                if alias.name.startswith(ADDON)
            ]
    return found


class TestLayers(BaseCase):
    def test_imports_run_one_way(self):
        back, count = [], 0
        for path in sorted(ROOT.rglob('*.py')):
            path = path.relative_to(ROOT)
            layer = path.parts[0].removesuffix('.py')
            if layer not in LEVELS:
                continue
            for name, line in imports(path):
                count += 1
                if LEVELS[name.split('.')[0]] > LEVELS[layer]:
                    back.append(f"{path}:{line} imports {name}")
        self.assertFalse(back)
        self.assertGreater(count, 100)
