"""Find markers of unclear English in comments, texts of the program and documents: called by `script/test lint`."""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

from lines import JAVASCRIPT

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    *(f'{folder}/**/*.py' for folder in ('engine', 'service', 'models', 'tools', 'controllers', 'cli')),
    '__manifest__.py',
    'exceptions.py',
    'hooks.py',
    'static/src/**/*.js',
    'README.md',
    'CONTRIBUTING.md',
    'docs/**/*.md',
    *(f'{folder}/**/*.xml' for folder in ('views', 'data', 'security', 'static/src')),
)
MARKERS = re.compile(
    r"""
    ,\s+ that\b
  | \b (?:is|are|was|were) \s+ (?:not\s+)? to\s+be \b
  | \b (?:tells?|told|telling) \b
  | \b (?:he|his|him) \b
  # A clause without an antecedent, where that is certain: at the begin of a text, paragraph, sentence, clause, item or cell,
  # or of the description of a parameter.
  | (?: \A\s* | \n\s*\n\s* | [.:;!?|]\s+ | ^\s*(?:[*\#-]+|\d+\.)\s+
      | ^\s*@(?:param|property)\s+\{.*\}\s+\S+\s+ | ^\s*@returns\s+\{.*\}\s+ )
    (?P<free> who|what ) \b
""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
XML = re.compile(r'<!--(?P<comment>.*?)-->|="(?P<attribute>[^"]*)"|>(?P<content>[^<]+)', re.DOTALL)
# Code is no English. It is masked without a change of its lines, so that their numbers stay right.
CODE = re.compile(r'^```.*?^```|``.+?``|`[^`\n]+`', re.DOTALL | re.MULTILINE)


def python_texts(source):
    """Yield the strings and the comments, each with the number of its first line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    yield from join_adjacent(
        source,
        (
            (*token.start, token.string.lstrip('#'))
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        ),
    )


def javascript_texts(source):
    """Yield the strings and the comments, each with the number of its first line."""
    comments = []
    for match in JAVASCRIPT.finditer(source):
        if string := match['string']:
            yield source.count('\n', 0, match.start()) + 1, string[1:-1]
        if comment := match['comment']:
            line_start = source.rfind('\n', 0, match.start()) + 1
            text = re.sub(r'^\s*\*', '', comment.strip('/*'), flags=re.MULTILINE)
            comments.append((source.count('\n', 0, line_start) + 1, match.start() - line_start, text))
    yield from join_adjacent(source, comments)


def join_adjacent(source, comments):
    """Yield comments as texts. Whole lines below each other, in the same column, are one text."""
    lines = source.split('\n')
    texts, expected = [], None
    for line, column, comment in comments:
        is_whole_line = not lines[line - 1][:column].strip()
        if is_whole_line and (line, column) == expected:
            texts[-1][1] += f'\n{comment}'
        else:
            texts.append([line, comment])
        expected = (line + comment.count('\n') + 1, column) if is_whole_line else None
    yield from texts


def xml_texts(source):
    """Yield the comments, the attributes and the contents, each with the number of its first line."""
    for match in XML.finditer(source):
        yield source.count('\n', 0, match.start(match.lastgroup)) + 1, match[match.lastgroup]


def markdown_texts(source):
    yield 1, source


TEXTS = {'.py': python_texts, '.js': javascript_texts, '.xml': xml_texts, '.md': markdown_texts}


def find_markers(path):
    """Yield the markers in a file, each with the number of its line."""
    for first_line, text in TEXTS[path.suffix](path.read_text(encoding='utf-8')):
        masked = CODE.sub(lambda match: re.sub(r'[^\n]', 'x', match[0]), text)
        for match in MARKERS.finditer(masked):
            start = match.start('free') if match['free'] else match.start()
            yield first_line + masked.count('\n', 0, start), ' '.join(masked[start : match.end()].split())


def main():
    is_found = False
    for path in sorted(path for pattern in FILES for path in ROOT.glob(pattern)):
        for line, marker in sorted(find_markers(path)):
            is_found = True
            print(f'{path.relative_to(ROOT)}:{line}: {marker}')
    return 1 if is_found else 0


if __name__ == '__main__':
    sys.exit(main())
