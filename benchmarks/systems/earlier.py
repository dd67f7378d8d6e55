"""Earlier versions of this addon, from the history of this checkout: see `script/bench --against`."""

import ast
import subprocess
from pathlib import Path
from typing import NamedTuple

from .packages import fetched
from .system import ROOT, Unavailable


class Version(NamedTuple):
    """A version of this addon: its name in the report, and its folder of addons."""

    name: str
    addons: Path


def git(*args):
    return subprocess.run(['git', '-C', ROOT, *args], check=False, capture_output=True)


def version_of(commit):
    """Take a version from git.

    :param str commit: its commit, branch or tag
    :rtype: Version
    :raises Unavailable: when there is no such version
    """

    def fetch(folder):
        (folder / 'ir_async').mkdir()
        archive = git('archive', sha).stdout
        subprocess.run(['tar', '-x', '-C', folder / 'ir_async'], input=archive, check=True)

    if (done := git('rev-parse', '--git-dir')).returncode:
        raise Unavailable(
            f"{ROOT} has no history: use a checkout that `git clone` made ({done.stderr.decode().strip()})"
        )
    sha = git('rev-parse', '--quiet', '--verify', '--end-of-options', f'{commit}^{{commit}}').stdout.decode().strip()
    if not sha:
        raise Unavailable(
            f"{ROOT} has no commit {commit}: `git log` lists those that are here, `git fetch` gets others"
        )
    if git('cat-file', '-e', f'{sha}:./__manifest__.py').returncode:
        raise Unavailable(f"{commit} has no __manifest__.py: choose a commit that has the addon")
    folder = fetched(sha, fetch, 'against')
    manifest = ast.literal_eval((folder / 'ir_async' / '__manifest__.py').read_text(encoding='utf-8'))
    return Version(f"{manifest['version']} {sha[:7]}", folder)
