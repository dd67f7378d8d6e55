"""Odoo's own linters (its module test_lint), limited to this addon."""

from unittest.mock import patch

import pytest

from odoo.modules import Manifest
from odoo.tools import config

from odoo.addons.test_lint.tests.test_docstring import TestDocstring
from odoo.addons.test_lint.tests.test_dunderinit import TestDunderinit
from odoo.addons.test_lint.tests.test_i18n import TestI18n
from odoo.addons.test_lint.tests.test_index import TestIndex
from odoo.addons.test_lint.tests.test_jstranslate import TestJsTranslations
from odoo.addons.test_lint.tests.test_manifests import ManifestLinter
from odoo.addons.test_lint.tests.test_markers import TestConflictMarkers
from odoo.addons.test_lint.tests.test_naming import TestNaming
from odoo.addons.test_lint.tests.test_onchange_domains import TestOnchangeDomains
from odoo.addons.test_lint.tests.test_orm_import import TestDunderinit as TestOrmImport
from odoo.addons.test_lint.tests.test_override_signatures import (
    TestLintOverrideSignatures,
)
from odoo.addons.test_lint.tests.test_pofile import PotLinter
from odoo.addons.test_lint.tests.test_pylint import TestPyLint
from odoo.addons.test_lint.tests.test_routes import RoutesLinter
from odoo.addons.test_lint.tests.test_test_holes import TestTestHoles


@pytest.fixture(autouse=True)
def this_addon_only():
    manifest = Manifest.for_addon('ir_async')
    with (
        patch.object(Manifest, 'all_addon_manifests', return_value=[manifest]),
        patch.dict(vars(config), root_path=manifest.path),  # a cached property
    ):
        yield
