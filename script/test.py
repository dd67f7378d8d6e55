"""Run the tests and count them: see script/test."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from devenv import (
    ADDON,
    CACHE,
    ODOO,
    ROOT,
    STATE,
    cluster,
    create_database,
    databases,
    fingerprint,
)

TEMPLATE, DATABASE = 'ir_async_template', 'ir_async_test'
NODE = CACHE / 'node'


class Runner:
    def __init__(self):
        self.counts = Counter()

    def step(self, title, *command, **kwargs):
        """Run a command that counts as one test."""
        print(f'\n\033[1m{title}\033[0m', flush=True)
        ok = subprocess.run(command, check=False, **kwargs).returncode == 0
        print(f'{title}: {"ok" if ok else "FAILED"}', flush=True)
        self.counts['passed' if ok else 'failed'] += 1
        return ok

    # linters

    def lint(self):
        self.step('ruff', 'ruff', 'check', '--quiet', '--output-format=concise', ROOT, cwd=ROOT)
        self.step('ruff format', 'ruff', 'format', '--quiet', '--check', '--output-format=concise', ROOT, cwd=ROOT)
        self.check_types()
        self.step('language', sys.executable, ROOT / 'script' / 'language.py')
        self.step('lines', sys.executable, ROOT / 'script' / 'lines.py', stdout=subprocess.DEVNULL)
        scripts = [path for path in ROOT.glob('script/*') if path.is_file() and b'bash' in path.read_bytes()[:30]]
        self.step('bash -n', 'bash', '-n', *scripts)
        if any(ROOT.glob('static/**/*.js')):
            self.install_node()
            run = NODE / 'node_modules' / '.bin'
            self.step('eslint', run / 'eslint', '--max-warnings=0', 'static', cwd=ROOT)
            self.step(
                'prettier', run / 'prettier', '--check', '--log-level=warn', 'static/{src,tests}/**/*.js', cwd=ROOT
            )

    def check_types(self):
        package = STATE / 'package'  # where the addon has its full name, as in Odoo
        env = os.environ | {'MYPYPATH': f'{package}:{os.environ["PYTHONPATH"]}'}
        self.step(
            'mypy',
            'mypy',
            '--config-file',
            ROOT / 'pyproject.toml',
            '--cache-dir',
            STATE / 'mypy',
            '--no-error-summary',
            cwd=package,
            env=env,
        )

    def install_node(self):
        wanted, installed = ROOT / 'script' / 'package.json', NODE / 'package.json'
        NODE.mkdir(exist_ok=True)
        with (NODE / 'lock').open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
                staged = Path(tempfile.mkdtemp(dir=NODE))
                shutil.copy(wanted, staged)
                subprocess.run(['npm', 'install', '--silent', '--no-audit', '--no-fund'], cwd=staged, check=True)
                shutil.rmtree(NODE / 'node_modules', ignore_errors=True)
                (staged / 'node_modules').rename(NODE / 'node_modules')
                shutil.move(staged / 'package.json', installed)
                shutil.rmtree(staged)

    # Odoo's database

    def prepare_database(self):
        """Install the test databases again if their files have changed. One is a copy of the other, which saves time."""
        stamp = STATE / 'test_databases'
        have = json.loads(stamp.read_text(encoding='utf-8')) if stamp.exists() else {}
        existing = databases()
        for name, made_of, template, *what in (
            (TEMPLATE, ODOO[1], 'template1', 'web,bus,web_tour', '--load=base,rpc,web'),
            (DATABASE, fingerprint(), TEMPLATE, 'ir_async'),
        ):
            if name not in existing or have.get(name) != made_of:
                print(f'installing {what[0]}', flush=True)
                if bad := create_database(name, *what, template=template):
                    print(*bad, sep='\n')
                    return False
                have[name] = made_of
                stamp.write_text(json.dumps(have), encoding='utf-8')
        return True

    # pytest

    def pytest(self, title, *args, may_be_empty):
        print(f'\n\033[1m{title}\033[0m', flush=True)
        with tempfile.NamedTemporaryFile('r', encoding='utf-8', dir=STATE) as report:
            env = os.environ | {
                'PYTHONPATH': f'{os.environ["PYTHONPATH"]}:{ROOT / "script"}',
                'IR_ASYNC_TEST_REPORT': report.name,
            }
            code = subprocess.run(
                [
                    sys.executable,
                    '-m',
                    'pytest',
                    '-p',
                    'pytest_report',
                    '-c',
                    ROOT / 'pyproject.toml',
                    '-o',
                    f'cache_dir={STATE / "pytest_cache"}',
                    *args,
                ],
                check=False,
                env=env,
                cwd=STATE,
            ).returncode
            counts = Counter(json.loads(report.read() or '{}'))
        no_tests = 5
        if code not in (0, no_tests if may_be_empty else 0) and not counts['failed']:
            counts['failed'] += 1
        self.counts += counts
        return counts

    def unit(self, paths=(), options=()):
        print('\n\033[1mdatabase\033[0m', flush=True)
        if not self.prepare_database():
            self.counts['failed'] += 1
            return
        everything = [ADDON / 'tests', ADDON / 'script' / 'odoo_lint.py']
        counts = self.pytest(
            'tests in Odoo',
            *(paths or everything),
            '--rootdir',
            ADDON,
            '--ignore',
            ADDON / 'tests' / 'system',
            '--odoo-http',
            '--odoo-database',
            DATABASE,
            '--odoo-log-level=info',
            '--odoo-extra',
            f'logfile={STATE / "test.log"}',
            '--odoo-extra',
            'max-cron-threads=0',
            *options,
            may_be_empty=bool(options),
        )
        if any(ROOT.glob('static/tests/**/*.test.js')) and not (paths or options or counts['hoot']):
            print('No HOOT test was run: see tests/test_js.py')
            self.counts['failed'] += 1

    def system(self, paths=(), options=()):
        system = ROOT / 'tests' / 'system'
        if system.exists():
            # Each process of pytest has a cluster of its own. Tests with limits of time run alone afterwards.
            runs = (
                [('', options)]
                if paths or options
                else [('', ['-n', '3', '--dist', 'loadfile', '-m', 'not alone']), (', alone', ['-m', 'alone'])]
            )
            for how, choice in runs:
                # pytest must not look for conftest.py above this folder: those packages can only be imported in Odoo.
                self.pytest(
                    f'system tests{how}',
                    *(paths or [system]),
                    '-p',
                    'no:odoo',
                    '-o',
                    'python_files=*_test.py',
                    '--rootdir',
                    system,
                    '--confcutdir',
                    system,
                    *choice,
                    may_be_empty=bool(options),
                )


def main():
    args = sys.argv[1:]
    runner = Runner()
    lock = (STATE / 'test.lock').open('w')
    fcntl.flock(lock, fcntl.LOCK_EX)

    parts = args[:1] if args[:1] in (['lint'], ['unit'], ['system']) else []
    options = args[len(parts) :]
    unit, system = [], []
    for arg in options[:]:
        path, sep, selector = arg.partition('::')
        if not arg.startswith('-') and (path := Path(path).resolve()).exists() and path.is_relative_to(ROOT):
            options.remove(arg)
            relative = path.relative_to(ROOT)
            if relative.is_relative_to('tests/system'):
                system.append(f'{path}{sep}{selector}')
            else:  # the path through the link has the name of the module
                unit.append(f'{ADDON / relative}{sep}{selector}')

    if not (parts or unit or system):
        parts = ['unit', 'system'] if options else ['lint', 'unit', 'system']
    if 'lint' in parts:
        runner.lint()
    if 'unit' in parts or unit:
        runner.unit(unit, options)
    if 'system' in parts or system:
        runner.system(system, options)

    counts = runner.counts
    skipped = f', {counts["skipped"]} skipped' if counts['skipped'] else ''
    print(f'\n{counts["passed"]} passed, {counts["failed"]} failed{skipped}')
    return 1 if counts['failed'] or not counts['passed'] else 0


if __name__ == '__main__':
    with cluster():
        sys.exit(main())
