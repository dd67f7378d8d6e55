"""A substitute for ``request`` in a job, where there is none. Odoo's web code reads the user's environment and session there."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING

from odoo.http import _request_stack

if TYPE_CHECKING:
    from collections.abc import Generator

    from odoo.api import Environment


@contextlib.contextmanager
def as_request(env: Environment) -> Generator[None]:
    """Provide a ``request`` of the user of an environment, with only ``env``, ``db`` and ``session``.

    Use it for single functions of Odoo that need these attributes. Run code of other addons without it: where there is a
    ``request``, it may expect all of its attributes.

    :param odoo.api.Environment env: the environment
    """
    session = {'db': env.cr.dbname, 'uid': env.uid, 'login': env.user.login, 'context': dict(env.user.context_get())}
    _request_stack.push(SimpleNamespace(env=env, db=env.cr.dbname, session=session))
    try:
        yield
    finally:
        _request_stack.pop()
