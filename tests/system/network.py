"""Another host of our own kernel: a network namespace with a link to us."""

import contextlib
import os
import shutil
import subprocess


class OtherHost:
    """A host that commands of ``prefix`` run on, and that reaches us at ``address``."""

    def __init__(self):
        self.name = f'ir{os.getpid()}'
        self._network = f'10.{os.getpid() >> 8 & 255}.{os.getpid() & 255}'
        self.address = f'{self._network}.1'
        self.prefix = ['ip', 'netns', 'exec', self.name]

    def make(self):
        """Make the host; return whether that is possible here."""
        commands = (
            f'netns add {self.name}',
            f'link add {self.name}a type veth peer name {self.name}b netns {self.name}',
            f'address add {self.address}/24 dev {self.name}a',
            f'-n {self.name} address add {self._network}.2/24 dev {self.name}b',
            f'link set {self.name}a up',
            f'-n {self.name} link set {self.name}b up',
        )
        if os.getuid() or not shutil.which('ip'):
            return False
        return not any(subprocess.run(['ip', *command.split()], check=False).returncode for command in commands)

    def delete(self):
        subprocess.run(['ip', 'netns', 'delete', self.name], check=False, stderr=subprocess.DEVNULL)

    def set_link(self, state):
        """Set the link ``up`` or ``down``. While it is down, no packet gets through, and nobody is told."""
        subprocess.run(['ip', 'link', 'set', f'{self.name}a', state], check=True)

    @property
    def trust(self):
        """The line of ``pg_hba.conf`` that lets it in."""
        return f'host all all {self.address}/24 trust\n'


@contextlib.contextmanager
def other_host():
    """Give another host, or None if there can be none."""
    host = OtherHost()
    try:
        yield host if host.make() else None
    finally:
        if shutil.which('ip'):
            host.delete()
