"""The options of ``with_options``, and the checks of their values."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from odoo.models import BaseModel

from .encoding import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_INT = 2**31 - 1
# Maximum of bytes of a key or channel in UTF-8. Both are in indexes, and PostgreSQL refuses entries of more than 2,704 bytes.
MAX_BYTES = 1000


class Options(NamedTuple):
    """The options given to ``with_options``. Their type distinguishes them from values that a client puts into a context."""

    priority: int = 10
    at: datetime | None = None
    delay: float | None = None
    max_attempts: int = 1
    retry_delay: float | list[float] | None = None
    timeout: float | None = None
    channel: str = 'default'
    key: str | None = None
    key_until: str = 'end'
    on_duplicate: str = 'keep'
    after: BaseModel | None = None
    chunk_size: int | None = None

    def update(self, options: Mapping[str, Any]) -> Options:
        """Return a copy of these options with others on top.

        :param dict options: options as for ``with_options``
        :rtype: Options
        :raises TypeError: when an option is unknown or has a wrong value; the message names it
        """
        if unknown := options.keys() - CHECKS.keys():
            msg = f"unknown option {', '.join(sorted(unknown))}: with_options() takes {', '.join(CHECKS)}"
            raise TypeError(msg)
        checked = {}
        for name, value in options.items():
            check, expected = CHECKS[name]
            try:
                checked[name] = check(value)
            except (TypeError, ValueError, OverflowError):
                msg = f"option {name} takes {expected}, not {describe(value)}"
                raise TypeError(msg) from None
        result = self._replace(**checked)
        for one, other in (('at', 'delay'), ('key', 'chunk_size')):
            if getattr(result, one) is not None and getattr(result, other) is not None:
                msg = f"options {one} and {other} exclude each other: pass only one of them"
                raise TypeError(msg)
        return result

    def check_partners(self) -> None:
        """Refuse options that mean nothing without another one. Only a call can check this, since it has all options.

        :raises TypeError: when there is such an option; the message names it
        """
        for name in ('key_until', 'on_duplicate'):
            if self.key is None and getattr(self, name) != self._field_defaults[name]:
                msg = f"option {name} applies to the key of a job: pass the option key as well"
                raise TypeError(msg)


class _Check(NamedTuple):
    """The check of an option."""

    check: Callable[[Any], Any]  # returns the value to use, or raises
    expected: str


def _integer(minimum: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or not minimum <= value <= MAX_INT:
            raise ValueError
        return value

    return check


def to_seconds(value: float | timedelta) -> float:
    """Return a duration in seconds.

    :param value: seconds, or a ``timedelta``
    :rtype: int | float
    :raises ValueError: when the value is no duration, or is negative or infinite
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= MAX_INT:
        raise ValueError
    return value


def _positive_seconds(value: float | timedelta) -> float:
    if not to_seconds(value):
        raise ValueError
    return to_seconds(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return str.__str__(value)  # noqa: PLC2801 -- not that of a subclass, such as an enumeration


def _text(value: Any) -> str:
    text = _string(value)
    if not is_text(text) or not 0 < len(text.encode()) <= MAX_BYTES:
        raise ValueError
    return text


def _one_of(*choices: str) -> _Check:
    def check(value: Any) -> str:
        text = _string(value)
        if text not in choices:
            raise ValueError
        return text

    return _Check(check, " or ".join(map(repr, choices)))


def clean_text(value: str) -> str:
    """Return a string without the characters that PostgreSQL cannot store."""
    return value.replace('\0', '').encode(errors='replace').decode()


def is_text(value: str) -> bool:
    """Return whether PostgreSQL can store a string."""
    return value == clean_text(value)


def _date(value: Any) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo:
        raise ValueError
    return value


def _delays(value: Any) -> float | list[float]:
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError
        return [to_seconds(delay) for delay in value]
    return to_seconds(value)


def _jobs(value: Any) -> BaseModel:
    if not isinstance(value, BaseModel) or value._name != 'ir.async' or not all(type(id_) is int for id_ in value._ids):
        raise ValueError
    return value


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


CHECKS = {
    'priority': _Check(_integer(-MAX_INT), "a whole number"),
    'at': _Check(_or_none(_date), "a datetime in UTC, without time zone"),
    'delay': _Check(_or_none(to_seconds), "a number of seconds or a timedelta of at least 0"),
    'max_attempts': _Check(_integer(1), "a whole number of at least 1"),
    'retry_delay': _Check(_or_none(_delays), "a number of seconds, a list of them, or None"),
    'timeout': _Check(_or_none(_positive_seconds), "a positive number of seconds"),
    'channel': _Check(_text, f"the name of a channel, of at most {MAX_BYTES} bytes in UTF-8 and without NUL"),
    'key': _Check(_or_none(_text), f"a text of at most {MAX_BYTES} bytes in UTF-8 and without NUL"),
    'key_until': _one_of('end', 'start'),
    'on_duplicate': _one_of('keep', 'replace'),
    'after': _Check(_or_none(_jobs), "jobs, records of ir.async"),
    'chunk_size': _Check(_or_none(_integer(1)), "a whole number of at least 1"),
}
