"""Odoo's web code finds the environment and the session of the user in ``request``. In a job there is none."""
from __future__ import annotations

import contextlib
from types import SimpleNamespace

from odoo.http import _request_stack


@contextlib.contextmanager
def as_request(env):
    """Have ``request`` be one of the user of an environment: its ``env``, ``db`` and ``session``, no more.

    It is for single functions of Odoo's that ask for these. Code of others, which may ask for anything once there
    is a ``request``, goes without.

    :param odoo.api.Environment env: the environment
    """
    session = {'db': env.cr.dbname, 'uid': env.uid, 'login': env.user.login, 'context': dict(env.user.context_get())}
    _request_stack.push(SimpleNamespace(env=env, db=env.cr.dbname, session=session))
    try:
        yield
    finally:
        _request_stack.pop()
