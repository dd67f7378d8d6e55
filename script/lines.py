"""Count the lines of code: see script/lines."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDON = ['engine', 'service', 'models', 'tools', 'controllers', 'cli', 'exceptions.py', 'hooks.py', 'static/src']
# The kernel is the code that runs jobs. DOWNLOADS are files in its folders that only use it.
KERNEL = ('engine', 'service', 'models')
DOWNLOADS = {'models/base.py', 'models/ir_actions_report.py', 'models/ir_async_download.py', 'models/ir_attachment.py'}

MAX_LINES = 250  # of a file

NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
WITH_DOCSTRING = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
# Text that looks like a comment inside a string or regular expression is none.
JAVASCRIPT = re.compile(
    r"""
    (?P<comment> //[^\n]* | /\*.*?\*/ )
  | (?P<string> `(?:\\.|[^`\\])*` | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
  | (?<=[(,=:\[!&|?{};])\s*/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/
""",
    re.VERBOSE | re.DOTALL,
)


def count_python(source):
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def count_javascript(source):
    def replace(match):
        return re.sub(r'[^\n]', ' ', match[0]) if match['comment'] else match[0]

    return sum(bool(line.strip()) for line in JAVASCRIPT.sub(replace, source).splitlines())


COUNT = {'.py': count_python, '.js': count_javascript}


def main():
    paths = [Path(arg).resolve() for arg in sys.argv[1:]] or ADDON
    if missing := [str(path) for path in paths if not (ROOT / path).exists()]:
        sys.exit(f"script/lines: there is no {', '.join(missing)}")
    files = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '--', *paths],
        check=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.split()
    totals = Counter()
    long = []
    for name in sorted(files):
        path = ROOT / name
        if path.suffix in COUNT and path.exists():
            count = COUNT[path.suffix](path.read_text(encoding='utf-8'))
            folder = name.split('/')[0]
            totals[folder] += count
            totals['kernel'] += count if folder in KERNEL and name not in DOWNLOADS else 0
            print(f'{count:6} {name}')
            if count > MAX_LINES:
                long.append(name)
    print()
    for name, count in totals.most_common():
        print(f'{count:6} {name}')
    if long:
        sys.exit(f"script/lines: more than {MAX_LINES} lines: {', '.join(long)}")


if __name__ == '__main__':
    main()
