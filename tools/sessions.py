"""The web sessions in which wkhtmltopdf fetches the style sheets and images of a report."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from odoo.http import get_default_session, root
from odoo.service import security

if TYPE_CHECKING:
    from collections.abc import Generator

    from odoo.api import Environment

NOTE_PREFIX = 'session.'


@contextlib.contextmanager
def cookie_jar(env: Environment, base_url: str) -> Generator[str]:
    """Open a session for wkhtmltopdf, and delete it in the end.

    The session belongs to the user of the environment, since some images need a login. For the superuser and the public
    user, the session has no user. It then names the database of the style sheets, and gives no other access.

    :param odoo.api.Environment env: the environment
    :param str base_url: the address from which wkhtmltopdf fetches
    :return: the path of the file with the cookie
    """
    # Nobody else can read this folder. That matters, since the name of a note is as good as the cookie.
    with tempfile.TemporaryDirectory(prefix='ir_async.') as folder:
        session = root.session_store.new()
        session.update(
            {
                **get_default_session(),
                'db': env.cr.dbname,
                'context': dict(env.user.context_get()),
                '_trace_disable': True,  # the session must not show up among the user's devices
            }
        )
        if env.user.active and not env.user._is_superuser():
            session.update({'uid': env.uid, 'login': env.user.login})
            session.session_token = security.compute_session_token(session, env)
        try:
            # The note comes first, so that the clean-up after a killed worker finds the session.
            Path(folder, NOTE_PREFIX + session.sid).touch()
            root.session_store.save(session)
            path = Path(folder, 'report.cookie_jar.txt')
            path.write_text(
                f'session_id={session.sid}; HttpOnly; domain={urlparse(base_url).hostname}; path=/;', encoding='utf-8'
            )
            yield str(path)
        finally:
            delete_noted(folder)


def delete_noted(folder: str | os.PathLike[str]) -> None:
    """Delete the sessions that are noted in a folder or below it, and the notes.

    :param folder: the folder for temporary files of a job or of a worker process; it may be gone
    """
    for parent, _folders, names in os.walk(folder):
        for name in names:
            sid = name.removeprefix(NOTE_PREFIX)
            if name.startswith(NOTE_PREFIX) and root.session_store.is_valid_key(sid):
                root.session_store.delete(root.session_store.session_class({}, sid, False))
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(parent, name))
