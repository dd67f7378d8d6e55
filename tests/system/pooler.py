"""PgBouncer in front of a cluster."""

import os
import signal
import subprocess

from harness import WITH_US, wait_until


class Pooler:
    """PgBouncer, with a socket in its folder, under the name that clients of PostgreSQL look for.

    :param Path folder: for its files
    :param Path host: the folder with PostgreSQL's socket
    :param str mode: of all databases but those of ``modes``
    :param dict modes: modes by databases
    """

    def __init__(self, folder, host, mode, modes=()):
        self.folder = folder
        folder.mkdir()
        folder.chmod(0o777)
        databases = {'*': mode} | dict(modes)
        (folder / 'users.txt').write_text('"odoo" ""\n')
        (folder / 'pgbouncer.ini').write_text(
            '[databases]\n'
            + ''.join(f'{name} = host={host} port=5432 pool_mode={mode}\n' for name, mode in databases.items())
            + f'[pgbouncer]\nlisten_port = 5432\nunix_socket_dir = {folder}\nauth_type = trust\n'
            f'auth_file = {folder / "users.txt"}\ndefault_pool_size = 40\nmax_client_conn = 500\nserver_login_retry = 1\n'
            'ignore_startup_parameters = extra_float_digits,options\n'
        )
        # It refuses to run as root.
        self._user = {'user': 'postgres', 'group': 'postgres', 'extra_groups': []} if os.getuid() == 0 else {}

    def start(self):
        """Start it. From the main thread: it ends with the thread that started it."""
        with (self.folder / 'pgbouncer.log').open('w') as log:
            self._process = subprocess.Popen(
                [*WITH_US, 'TERM', 'pgbouncer', self.folder / 'pgbouncer.ini'],
                stdout=log,
                stderr=log,
                cwd='/',
                start_new_session=True,
                **self._user,
            )
        wait_until(lambda: 'process up' in (self.folder / 'pgbouncer.log').read_text(), "PgBouncer starts")

    def stop(self, how=signal.SIGTERM):
        self._process.send_signal(how)
        self._process.wait()
