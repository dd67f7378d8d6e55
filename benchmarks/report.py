"""The report of the benchmark: rows of figures, as Markdown and JSON."""

import json
import os
import platform
import statistics
import time
from collections import Counter
from pathlib import Path

import pg


class Row:
    """The figures of one system in one scenario."""

    def __init__(self, scenario, system, unit, digits=0, version=''):
        self.scenario = scenario
        self.system = system
        self.version = version
        self.unit = unit
        self.digits = digits
        self.values = []
        self.samples = []  # samples of all runs, for percentiles
        self.drains = []
        self.statements = []  # dicts of kind, text, calls, milliseconds
        self.note = ''
        self.targets = []  # (text, whether it is met)

    @property
    def value(self):
        return statistics.median(self.values) if self.values else None

    def add_drain(self, drain, value=None):
        self.drains.append(drain)
        self.values.append(drain['count'] / drain['seconds'] if value is None else value)

    def add_note(self, note):
        self.note = f'{self.note}; {note}' if self.note else note

    def add_statements(self, statements, jobs=1, figure='calls', unit=''):
        """Note what the statements of each kind cost.

        :param list[dict] statements: kind, text, calls, milliseconds
        :param int jobs: the number of jobs that caused them
        :param str figure: ``calls`` or ``milliseconds``
        """
        self.statements = statements
        kinds = Counter()
        for statement in statements:
            kinds[statement['kind']] += statement[figure] / jobs
        self.add_note(
            unit + ', '.join(f'{kind} {value:,.3f}'.rstrip('0').rstrip('.') for kind, value in kinds.most_common())
        )

    def judge(self, target, ok):
        self.targets.append((target, bool(ok)))

    def judge_ratio(self, other, factor, text):
        """Judge how many times as fast as another system this one is."""
        if self.values and other.values:
            # Ratios are per turn, since the machine may be busy with something else for a while.
            ratio = statistics.median(one / another for one, another in zip(self.values, other.values))
            self.judge(f'{text}: ' + (f'{ratio:.1f} ×' if factor > 1 else f'{ratio:.0%}'), ratio >= factor)

    def per_job(self, key):
        values = [drain[key] / drain['count'] for drain in self.drains if drain[key] is not None]
        return statistics.median(values) if values else None

    def number(self, value):
        return f'{value:,.{self.digits}f}'

    def cells(self):
        result = ''
        if self.values:
            result = f'**{self.number(self.value)}**'
            if len(self.values) > 1:
                result += f' ({self.number(min(self.values))}–{self.number(max(self.values))})'
            result += f' {self.unit}'
        cpu = self.per_job('cpu')
        statements = self.per_job('statements')
        verdict = '; '.join(f"{'✓' if ok else '✗'} {text}" for text, ok in self.targets)
        return [
            self.system,
            result,
            '' if cpu is None else f"{cpu * 1000:.2f} + {self.per_job('postgres_cpu') * 1000:.2f}",
            '' if cpu is None else 'not known' if statements is None else f'{statements:.1f}',
            self.note,
            verdict,
        ]

    def as_json(self):
        return {
            key: getattr(self, key)
            for key in (
                'scenario',
                'system',
                'version',
                'unit',
                'values',
                'drains',
                'samples',
                'statements',
                'note',
                'targets',
            )
        }


def percentile(samples, share):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def cpu_model():
    for line in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def fsync_time():
    """Return the milliseconds to write 8 kB to the disk: the median of 50."""
    path = Path(os.environ['IR_ASYNC_BENCH']) / 'fsync'
    times = []
    with path.open('wb') as file:
        for _i in range(50):
            file.write(bytes(8192))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    path.unlink()
    return statistics.median(times) * 1000


def header(workers, quick):
    [[version, fsync, synchronous_commit, shared_buffers]] = pg.query(
        "SELECT version(), current_setting('fsync'), current_setting('synchronous_commit'), current_setting('shared_buffers')"
    )
    return {
        'date': time.strftime('%Y-%m-%d %H:%M'),
        'cpu': f'{os.cpu_count()} × {cpu_model()}, load average {os.getloadavg()[0]:.1f} before',
        'disk': f'{fsync_time():.2f} ms per fdatasync of 8 kB',
        'system': f'{platform.system()} {platform.release()}, Python {platform.python_version()}',
        'postgresql': f"{' '.join(version.split()[:2])}, fsync={fsync}, synchronous_commit={synchronous_commit}, "
        f"shared_buffers={shared_buffers}",
        'workers': workers + (', quick' if quick else ''),
    }


SYSTEMS = ('ir_async', 'queue_job', 'ir.cron', 'pgqueuer', 'bare loop')


def summary(rows):
    """Return the table of the README: the medians, with a column for each system."""
    lines = {}
    columns = [SYSTEMS[0], *dict.fromkeys(row.version for row in rows if row.version), *SYSTEMS[1:]]
    for row in rows:
        # A variant of a system or of its work has a line of its own.
        system = next((system for system in SYSTEMS if row.system.startswith(system)), SYSTEMS[0])
        variant = row.system.removesuffix(f', {row.version}').removeprefix(system).removeprefix(', ')
        line = lines.setdefault(f'{row.scenario}: {variant}' if variant else row.scenario, dict.fromkeys(columns, ''))
        if row.values:
            line[row.version or system] = f'{row.number(row.value)} {row.unit}'.replace(' /s', '/s').rstrip()
    table = ['| median | ' + ' | '.join(columns) + ' |', '|---' * (len(columns) + 1) + '|']
    for title, line in lines.items():
        ours, *others = line.values()
        table.append(f"| {title} | {f'**{ours}**' if ours else ''} | {' | '.join(others)} |")
    return table


def markdown(head, rows):
    lines = [*summary(rows), '', *(f'* {key}: {value}' for key, value in head.items())]
    columns = ['', 'median (min–max)', 'CPU ms/job: workers + PostgreSQL', 'statements/job', '', 'target']
    scenario = None
    for row in rows:
        if row.scenario != scenario:
            scenario = row.scenario
            lines += ['', f'**{scenario}**', '', '| ' + ' | '.join(columns) + ' |', '|---' * len(columns) + '|']
        lines.append('| ' + ' | '.join(row.cells()) + ' |')
    return '\n'.join(lines)


def dump(path, head, rows):
    Path(path).write_text(
        json.dumps({'header': head, 'rows': [row.as_json() for row in rows]}, indent=1), encoding='utf-8'
    )
