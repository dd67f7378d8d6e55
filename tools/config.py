"""The settings: the section ``[ir_async]`` of Odoo's configuration file, and variables of the environment.

The settings have a section of their own since Odoo ignores unknown sections, but warns about unknown keys of ``[options]``.
"""

from __future__ import annotations

import functools
import os
from configparser import Error, RawConfigParser
from typing import TYPE_CHECKING, Any, NamedTuple

from odoo.tools import config

if TYPE_CHECKING:
    from collections.abc import Callable

SECTION = 'ir_async'
PREFIX = 'ODOO_IR_ASYNC_'  # prefix of environment variables
MAX_SECONDS = 10**9  # timers of the system refuse very large numbers


class Settings(NamedTuple):
    """The settings of this server's workers. The environment (``ODOO_IR_ASYNC_WORKERS``…) takes precedence over the file."""

    workers: int = 2  # number of worker processes of this server
    channels: list[str] = []  # the channels whose jobs they take; all if empty
    limit_time_real: float = 3600  # seconds that one job may run; 0: no limit
    stop_timeout: float = 8  # seconds that running jobs have to end when the server stops
    poll_interval: float = 60  # seconds between two looks without a NOTIFY, as a safety net
    db_host: str = ''  # the host of PostgreSQL, if Odoo's db_host is a pooler
    db_port: int = 0
    db_maxconn: int = 0  # connections that a job may open beside its own; 0: Odoo's db_maxconn


class _Parser(NamedTuple):
    """The parser of a setting."""

    parse: Callable[[str], Any]
    expected: str = ''  # the values that it takes, if it refuses any


def _number(kind: type[float], minimum: int, maximum: int) -> _Parser:
    def parse(text: str) -> float:
        value = kind(text)
        if not minimum <= value <= maximum:
            raise ValueError
        return value

    number = 'a whole number' if kind is int else 'a number of seconds'
    return _Parser(parse, f"{number} from {minimum} to {maximum}")


def _names(text: str) -> list[str]:
    names = [name for part in text.split(',') if (name := part.strip())]
    if any('/' in name or ':' in name for name in names):
        raise ValueError
    return names


PARSERS = {
    'workers': _number(int, 0, 10_000),
    'channels': _Parser(_names, "names of channels, separated by commas, without slashes and capacities"),
    'limit_time_real': _number(float, 0, MAX_SECONDS),
    'stop_timeout': _number(float, 0, MAX_SECONDS),
    'poll_interval': _number(float, 1, MAX_SECONDS),
    'db_host': _Parser(str),
    'db_port': _number(int, 0, 65_535),
    # With one connection, code that opens a second cursor while it uses the first could never run.
    'db_maxconn': _number(int, 2, 10_000),
}


@functools.cache
def settings() -> Settings:
    """Return the :class:`Settings` of this process.

    :raises ValueError: for an unknown key or a wrong value; the message names it and says what is expected
    """
    parser = RawConfigParser(inline_comment_prefixes=(';', '#'))
    try:
        parser.read([config['config']])
        given = dict(parser.items(SECTION)) if parser.has_section(SECTION) else {}
    except Error as exc:
        msg = f"{config['config']}: {exc}"
        raise ValueError(msg) from exc
    if unknown := given.keys() - PARSERS.keys():
        msg = f"[{SECTION}] {', '.join(sorted(unknown))}: no such setting. Use {', '.join(PARSERS)}"
        raise ValueError(msg)
    variables = {PREFIX + key.upper(): key for key in PARSERS}
    environment = {name: text for name, text in os.environ.items() if name.startswith(PREFIX)}
    if unknown := environment.keys() - variables.keys():
        msg = f"{', '.join(sorted(unknown))}: no such setting. Use {', '.join(variables)}"
        raise ValueError(msg)

    sources = {f'[{SECTION}] {key}': (key, text) for key, text in given.items()}
    sources |= {name: (variables[name], text) for name, text in environment.items()}
    values = {}
    for source, (key, text) in sources.items():
        try:
            if text:
                values[key] = PARSERS[key].parse(text)
        except ValueError:
            msg = f"{source} = {text!r}: expected {PARSERS[key].expected}"
            raise ValueError(msg) from None
    return Settings(**values)
