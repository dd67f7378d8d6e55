"""Print a statement of the engine: see script/sql."""

import importlib
import re
import sys

from devenv import ROOT

from odoo.tools import config

ENGINE = sorted((ROOT / 'engine').glob('*.py'))
IS_STATEMENT = re.compile(r'\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b')
IS_TEMPLATE = re.compile(r'\{[a-z_]+\}')
# A sample of each parameter, as SQL. Those in a list are of prepared statements.
SAMPLES = {
    'attempts': '1',
    'channel': "'default'",
    'channels': "'{}'::text[]",
    'claim_count': 'NULL',
    'claim_number': '1',
    'claim_numbers': "'{1}'",
    'dead': 'NULL',
    'debug': 'NULL',
    'delay': '0',
    'from_worker_id': '1',
    'host': "'host'",
    'id': '1',
    'ids': "'{1}'",
    'job_id': '1',
    'killed': "'{}'",
    'max': '1000',
    'parents': "'{1}'",
    'payload': 'NULL::json',
    'pid': '1',
    'process_number': '1',
    'reason': "'cancel'",
    'starts': '1',
    'state': "'done'",
    'worker_id': '1',
}
ARGUMENTS = {
    'CLAIM': "'{-2147483647}', '{0}', '{2147483648}', 10, 2147483648, 0, true",
    'FIRST': "'{-2147483647}', '{0}', '{2147483648}'",
    'LOOK': 'false',
}


def statements():
    """Return the statements by their names, as pairs of a file and a text."""
    config.parse_config(['--load=base,web'], setup_logging=False)
    found = {}
    for path in ENGINE:
        module = importlib.import_module(f'odoo.addons.ir_async.engine.{path.stem}')
        for name in re.findall(r'^([A-Z][A-Z_]+) = ', path.read_text(encoding='utf-8'), re.MULTILINE):
            text = getattr(module, name)
            if isinstance(text, str) and IS_STATEMENT.match(text) and not IS_TEMPLATE.search(text):
                found[name if name not in found else f'{path.stem}.{name}'] = path, text
    return found


def comment(path, name):
    """Return the comment above a constant."""
    above, _sep, _rest = path.read_text(encoding='utf-8').partition(f'\n{name} = ')
    lines = above.split('\n')
    first = len(lines)
    while lines[first - 1].startswith('#'):
        first -= 1
    return [line.replace('#', '--', 1) for line in lines[first:]]


def main():
    found = statements()
    if len(sys.argv) != 2:
        for name, (path, _text) in found.items():
            print(f'{name:16} {path.relative_to(ROOT)}')
        return 0
    name = sys.argv[1]
    if name not in found:
        print(f"script/sql: there is no statement {name}; script/sql lists the names", file=sys.stderr)
        return 1
    from odoo.addons.ir_async.engine.origin import EXPRESSIONS  # noqa: PLC0415 - once the addons path is known

    path, text = found[name]
    constant = name.rpartition('.')[2]
    text = text.strip().replace('%s', 'NULL') % (SAMPLES | {'origin': EXPRESSIONS[True]})
    if text.endswith('RETURNING'):
        text += ' *'
    print(f'-- {path.relative_to(ROOT)}', *comment(path, constant), sep='\n')
    if '$1' in text:
        print(f'PREPARE {constant.lower()} AS\n{text};\nEXECUTE {constant.lower()} ({ARGUMENTS.get(constant, "…")});')
    else:
        print(f'{text};')
    return 0


if __name__ == '__main__':
    sys.exit(main())
