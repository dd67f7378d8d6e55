"""The sessions in which wkhtmltopdf fetches the style sheets and images of a report by HTTP."""
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

    It is one of the user of the environment, who sees the images that need a login. The superuser and the public user
    get a session without a user: it says which database the style sheets are in, and opens no door.

    :param odoo.api.Environment env: the environment
    :param str base_url: the address from which wkhtmltopdf fetches
    :return: the path of the file with the cookie
    """
    # A folder that nobody else can read: the names of the notes are as good as the cookies.
    with tempfile.TemporaryDirectory(prefix='ir_async.') as folder:
        session = root.session_store.new()
        session.update({
            **get_default_session(),
            'db': env.cr.dbname,
            'context': dict(env.user.context_get()),
            '_trace_disable': True,  # no device of the user
        })
        if env.user.active and not env.user._is_superuser():
            session.update({'uid': env.uid, 'login': env.user.login})
            session.session_token = security.compute_session_token(session, env)
        try:
            # Noted first: whoever removes the files of a killed worker finds it.
            Path(folder, NOTE_PREFIX + session.sid).touch()
            root.session_store.save(session)
            path = Path(folder, 'report.cookie_jar.txt')
            path.write_text(
                f'session_id={session.sid}; HttpOnly; domain={urlparse(base_url).hostname}; path=/;', encoding='utf-8')
            yield str(path)
        finally:
            delete_noted(folder)


def delete_noted(folder: str | os.PathLike) -> None:
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
