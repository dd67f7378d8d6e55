"""Run the tests and count them: see script/test."""
import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

TEMPLATE, DATABASE = 'ir_async_template', 'ir_async_test'
BAD_LINE = re.compile(r'^\S+ \S+ \d+ (WARNING|ERROR|CRITICAL) ')
# What a database is made of: the rest needs no new installation.
INSTALLED = ('**/*.py', '**/*.xml', '**/*.csv', '**/*.sql', '**/*.po*')
NOT_INSTALLED = {'benchmarks', 'docs', 'script', 'static', 'tests'}


class Runner:
    def __init__(self, root, state, odoo, node):
        self.root, self.state, self.odoo, self.node = root, state, odoo, node
        self.addon = state / 'addons' / 'ir_async'
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
        self.step('ruff', 'ruff', 'check', '--quiet', '--output-format=concise', self.root, cwd=self.root)
        scripts = [path for path in self.root.glob('script/*') if path.is_file() and b'bash' in path.read_bytes()[:30]]
        self.step('bash -n', 'bash', '-n', *scripts)
        if any(self.root.glob('static/**/*.js')):
            self.install_node()
            run = [self.node / 'node_modules' / '.bin']
            self.step('eslint', run[0] / 'eslint', '--max-warnings=0', 'static', cwd=self.root)
            self.step('prettier', run[0] / 'prettier', '--check', '--log-level=warn', 'static/{src,tests}/**/*.js', cwd=self.root)

    def install_node(self):
        wanted, installed = self.root / 'script' / 'package.json', self.node / 'package.json'
        self.node.mkdir(exist_ok=True)
        with (self.node / 'lock').open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
                staged = Path(tempfile.mkdtemp(dir=self.node))
                shutil.copy(wanted, staged)
                subprocess.run(['npm', 'install', '--silent', '--no-audit', '--no-fund'], cwd=staged, check=True)
                shutil.rmtree(self.node / 'node_modules', ignore_errors=True)
                (staged / 'node_modules').rename(self.node / 'node_modules')
                shutil.move(staged / 'package.json', installed)
                shutil.rmtree(staged)

    # Odoo's database

    def fingerprint(self):
        digest = hashlib.sha256(self.odoo.as_posix().encode())
        for path in sorted({path for pattern in INSTALLED for path in self.root.glob(pattern)}):
            relative = path.relative_to(self.root)
            if relative.parts[0] not in NOT_INSTALLED:
                digest.update(f'{relative} {path.stat().st_size}\n'.encode() + path.read_bytes())
        return digest.hexdigest()

    def create_database(self, name, modules, template='template1'):
        """Install the modules, which must log nothing unexpected."""
        log = self.state / f'{name}.log'
        log.unlink(missing_ok=True)
        filestore = self.state / 'data' / 'filestore'
        subprocess.run(['dropdb', '--if-exists', '--force', name], check=True, capture_output=True)
        subprocess.run(['createdb', '-T', template, name], check=True)
        shutil.rmtree(filestore / name, ignore_errors=True)
        if (filestore / template).exists():
            shutil.copytree(filestore / template, filestore / name)
        done = subprocess.run(
            [sys.executable, self.odoo, '-d', name, '-i', modules, '--skip-auto-install', '--stop-after-init', '--no-http',
             '--max-cron-threads=0', f'--logfile={log}'],
            check=False, env=os.environ | {'ODOO_IR_ASYNC_WORKERS': '0'},
        )
        lines = log.read_text().splitlines() if log.exists() else []
        bad = [line for line in lines if BAD_LINE.match(line)]
        if done.returncode or bad:
            print('\n'.join(lines[-30:] if done.returncode else bad))
        return done.returncode == 0 and not bad

    def prepare_database(self):
        stamp = self.state / 'test_database'
        have = json.loads(stamp.read_text()) if stamp.exists() else {}
        existing = subprocess.run(['psql', '-Atc', 'SELECT datname FROM pg_database', 'postgres'],
                                  check=True, capture_output=True, text=True).stdout.split()
        base, addon = self.odoo.as_posix(), self.fingerprint()
        if have.get('base') != base or TEMPLATE not in existing:
            print('installing base, web and bus', flush=True)
            stamp.unlink(missing_ok=True)
            if not self.create_database(TEMPLATE, 'web,bus'):
                return False
        if have.get('addon') != addon or have.get('base') != base or DATABASE not in existing:
            print('installing ir_async', flush=True)
            stamp.unlink(missing_ok=True)
            if not self.create_database(DATABASE, 'ir_async', TEMPLATE):
                return False
        stamp.write_text(json.dumps({'base': base, 'addon': addon}))
        return True

    # pytest

    def pytest(self, title, *args):
        print(f'\n\033[1m{title}\033[0m', flush=True)
        with tempfile.NamedTemporaryFile('r', encoding='utf-8', dir=self.state) as report:
            env = os.environ | {
                'PYTHONPATH': f'{os.environ["PYTHONPATH"]}:{self.root / "script"}',
                'IR_ASYNC_TEST_REPORT': report.name,
            }
            code = subprocess.run(
                [sys.executable, '-m', 'pytest', '-p', 'pytest_report', '-c', self.root / 'pyproject.toml',
                 '-o', f'cache_dir={self.state / "pytest_cache"}', *args], check=False, env=env, cwd=self.state,
            ).returncode
            counts = Counter(json.loads(report.read() or '{}'))
        if code not in (0, 5) and not counts['failed']:  # 5: no test collected
            counts['failed'] += 1
        self.counts += counts

    def unit(self, paths=(), options=()):
        print('\n\033[1mdatabase\033[0m', flush=True)
        if not self.prepare_database():
            self.counts['failed'] += 1
            return
        paths = paths or [self.addon / 'tests', self.addon / 'script' / 'odoo_lint.py']
        self.pytest(
            'tests in Odoo', *paths, '--rootdir', self.addon, '--ignore', self.addon / 'tests' / 'system', '--odoo-http',
            '--odoo-database', DATABASE, '--odoo-log-level=info', '--odoo-extra', f'logfile={self.state / "test.log"}',
            '--odoo-extra', 'max-cron-threads=0', *options,
        )

    def system(self, paths=(), options=()):
        system = self.root / 'tests' / 'system'
        if system.exists():
            # Cut there: the packages above can be imported in Odoo alone.
            self.pytest('system tests', '-p', 'no:odoo', *(paths or [system]), '--rootdir', system, '--confcutdir', system, *options)


def main():
    parser = argparse.ArgumentParser()
    for option in ('root', 'state', 'odoo', 'node'):
        parser.add_argument(f'--{option}', type=Path)
    known, args = parser.parse_known_args()
    runner = Runner(**vars(known))
    args.remove('--')
    lock = (known.state / 'test.lock').open('w')
    fcntl.flock(lock, fcntl.LOCK_EX)

    parts = [arg for arg in args if arg in ('lint', 'unit', 'system')]
    options = [arg for arg in args if arg not in parts]
    unit, system = [], []
    for arg in options[:]:
        path, sep, selector = arg.partition('::')
        if not arg.startswith('-') and (path := Path(path).resolve()).exists() and path.is_relative_to(runner.root):
            options.remove(arg)
            relative = path.relative_to(runner.root)
            if relative.is_relative_to('tests/system'):
                system.append(f'{path}{sep}{selector}')
            else:  # the module's name is that of the link
                unit.append(f'{runner.addon / relative}{sep}{selector}')

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
    sys.exit(main())
