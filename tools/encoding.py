"""The encoding of arguments and results in the database. Arguments come back exactly, results as from an RPC.

Arguments are JSON text. A value of a type that JSON does not have becomes an object with one key: ``{"$date": "2026-11-24"}``.
A dict that looks like such an object is stored as pairs: ``{"$dict": [["$date", …]]}``.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg2
from markupsafe import Markup

from odoo import fields
from odoo.exceptions import UserError
from odoo.models import BaseModel
from odoo.tools import lazy
from odoo.tools.translate import LazyGettext

from .payload import dump_payload

if TYPE_CHECKING:
    from collections.abc import Generator

    from odoo.api import Environment

_logger = logging.getLogger(__name__)

# Python refuses to read longer numbers from decimal text: sys.get_int_max_str_digits()
LONG_INTEGER_BITS = 10_000

MICROSECOND = timedelta(microseconds=1)

# Only these exact types are encoded: a value of a subclass would come back as another type. The set still has the real
# types after freezegun has replaced the names `datetime` and `date` in this module.
EXACT = frozenset({int, float, Markup, Decimal, bytes, datetime, date})
FROZEN = 'freezegun.api'  # the module of freezegun's dates in tests; these are encoded as plain dates


def encode(value: Any, path: str, dbname: str) -> str:
    """Return ``value`` as JSON text that :func:`decode` reads.

    :param value: a value made of the types that a job's arguments may have
    :param str path: the name of the value in errors, such as ``"args"``
    :param str dbname: the database of the job
    :rtype: str
    :raises TypeError: when a part of the value cannot be stored; the message has the path of that part
    """
    try:
        return json.dumps(_pack(value, path, dbname), separators=(',', ':'), allow_nan=False)
    except RecursionError:
        msg = f"{path} cannot be stored: it is nested too deeply, or contains itself"
        raise TypeError(msg) from None


def decode(text: str, env: Environment) -> Any:
    """Return the value that :func:`encode` has encoded.

    :param str text: JSON text
    :param odoo.api.Environment env: the environment of the recordsets inside
    """
    if '{"$' not in text:  # most arguments: this takes a fifth of the time
        return json.loads(text)
    return json.loads(text, object_hook=lambda obj: _unpack(obj, env))


def _pack(value: Any, path: str, dbname: str) -> Any:
    # bool comes first, since it is a subclass of int. The other cases match exact types: see EXACT.
    is_exact = type(value) in EXACT or type(value).__module__ == FROZEN
    match value:
        case None | bool():
            return value
        case fields.Command():
            return value.value
        case int() if is_exact:
            return value if value.bit_length() < LONG_INTEGER_BITS else {'$int': hex(value)}
        case float() if is_exact:
            if math.isfinite(value):
                return value
        case Markup() if is_exact:
            return {'$markup': str(value)}
        case str() if type(value) is str:
            return value
        case list() if type(value) is list:
            return [_pack(item, f'{path}[{i}]', dbname) for i, item in enumerate(value)]
        case tuple() if type(value) is tuple:
            return {'$tuple': [_pack(item, f'{path}[{i}]', dbname) for i, item in enumerate(value)]}
        case set() if type(value) is set:
            return {'$set': [_pack(item, f'an item of {path}', dbname) for item in value]}
        case dict() if type(value) is dict:
            for key in value:
                if type(key) is not str:
                    msg = f"{path}[{describe(key)}] cannot be stored: the keys of a dict must be strings"
                    raise TypeError(msg)
            packed = {key: _pack(item, f'{path}[{key!r}]', dbname) for key, item in value.items()}
            looks_tagged = len(packed) == 1 and next(iter(packed)).startswith('$')
            return {'$dict': list(packed.items())} if looks_tagged else packed
        case datetime() if is_exact:
            text = value.replace(tzinfo=None).isoformat()
            more: list[int | str] = [value.fold] if value.fold else []
            if value.tzinfo is None:
                return {'$datetime': [text, *more] if more else text}
            if isinstance(zone := value.tzinfo, timezone):
                offset, name = zone.utcoffset(value), zone.tzname(value)
                if name != timezone(offset).tzname(None):
                    more = [value.fold, name]
                return {'$instant': [text, offset // MICROSECOND, *more]}
            msg = f"{path} cannot be stored: the time zone of {describe(value)} would be lost; pass it in UTC, without time zone"
            raise TypeError(msg)
        case date() if is_exact and not isinstance(value, datetime):
            return {'$date': value.isoformat()}
        case Decimal() if is_exact:
            if value.is_finite():
                return {'$decimal': str(value)}
        case bytes() if is_exact:
            return {'$bytes': base64.b64encode(value).decode()}
        case BaseModel():
            if value.env.cr.dbname != dbname:
                msg = f"{path} cannot be stored: {describe(value)} is of another database"
                raise TypeError(msg)
            if all(type(id_) is int for id_ in value._ids):
                return {'$records': [value._name, value._ids]}
            msg = f"{path} cannot be stored: {describe(value)} has unsaved records; save them first"
            raise TypeError(msg)
    msg = f"{path} cannot be stored: {describe(value)} is of type {type(value).__name__}" + (
        ", and not a finite number"
        if type(value) in {float, Decimal}
        else "; a job's arguments are made of JSON types, recordsets, datetime, date, Decimal, bytes, tuple and set"
    )
    raise TypeError(msg)


def describe(value: Any) -> str:
    """Return a short text of a value for an error, even if its ``repr()`` raises.

    :rtype: str
    """
    try:
        return reprlib.repr(value)
    except Exception:  # noqa: BLE001 -- an integer with too many digits, or an object of any addon
        return f"<{type(value).__name__}>"


def _unpack(obj: dict[str, Any], env: Environment) -> Any:
    if len(obj) != 1:
        return obj
    [(tag, value)] = obj.items()
    match tag:
        case '$dict':
            return dict(value)
        case '$tuple':
            return tuple(value)
        case '$set':
            return set(value)
        case '$int':
            return int(value, 16)
        case '$markup':
            return Markup(value)  # noqa: S704 -- it was Markup when it was stored
        case '$datetime':
            text, fold = (value, 0) if isinstance(value, str) else value
            return datetime.fromisoformat(text).replace(fold=fold)
        case '$instant':
            text, offset, fold, *name = value if len(value) > 2 else [*value, 0]
            return datetime.fromisoformat(text).replace(tzinfo=timezone(offset * MICROSECOND, *name), fold=fold)
        case '$date':
            return date.fromisoformat(value)
        case '$decimal':
            return Decimal(value)
        case '$bytes':
            return base64.b64decode(value)
        case '$records':
            model, ids = value
            return model_of(env, model).browse(ids)
    return obj


def model_of(env: Environment, name: str) -> BaseModel:
    """Return a model that a job has stored by its name.

    :param odoo.api.Environment env: an environment
    :param str name: the name
    :rtype: odoo.models.BaseModel
    :raises odoo.exceptions.UserError: when there is no such model any more
    """
    if name not in env:
        raise UserError(env._("This database has no model %s any more. Was its module uninstalled?", name))
    return env[name]


class _NoJson(Exception):
    """A part of a result cannot be expressed in JSON."""


class _Raised(Exception):
    """The method raised in an iterator that it had returned."""

    __cause__: Exception


def encode_result(result: Any) -> str:
    """Return the result of a job's method as a payload: JSON text, converted like the answer of an RPC.

    A result that JSON cannot express is left out, so that the work of the method is not lost. The payload is then
    ``{"result": null, "warning": "…"}``, and the log has a warning.

    Iterators run to their end here, as a part of the method. An exception that they raise is an error of the method.

    :rtype: str
    :raises Exception: an exception of an iterator, or an error of the database, after which nothing can be committed
    """
    try:
        return dump_payload({'result': _to_json(result, 'the result')})
    except _Raised as exc:
        raise exc.__cause__ from None
    except psycopg2.Error:
        raise
    except _NoJson as exc:
        reason = str(exc)
    except RecursionError:
        reason = "it is nested too deeply, or contains itself"
    except Exception as exc:  # noqa: BLE001 -- objects of any addon may raise anything
        reason = f"it raised {type(exc).__name__}"
    warning = f"The result was left out, since JSON cannot express it: {reason}"
    _logger.warning("%s", warning)
    return dump_payload({'result': None, 'warning': warning})


def _to_json(value: Any, path: str) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)  # noqa: PLC2801 -- not that of a subclass
        case int():
            if value.bit_length() >= LONG_INTEGER_BITS:
                msg = f"{path} is a number with too many digits"
                raise _NoJson(msg)
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else None
        case Decimal():
            number = float(value) if value.is_finite() else math.nan
            return number if math.isfinite(number) else None
        case BaseModel():
            return value.ids
        case datetime():
            return fields.Datetime.to_string(value)
        case date():
            return fields.Date.to_string(value)
        case bytes() | bytearray() | memoryview():
            return _bytes_to_text(bytes(value))
        case lazy():
            return _to_json(value._value, path)
        case LazyGettext():
            return str(value)
        case Mapping():
            return {_key_to_text(key): _to_json(item, f'{path}[{describe(key)}]') for key, item in value.items()}
        case Iterator():
            return [_to_json(item, f'{path}[{i}]') for i, item in enumerate(_run(value))]
        case Sequence() | AbstractSet() | ValuesView() | fields.Domain():
            return [_to_json(item, f'{path}[{i}]') for i, item in enumerate(value)]
    msg = f"{path} is of type {type(value).__name__}"
    raise _NoJson(msg)


def _run(iterator: Iterator[Any]) -> Generator[Any]:
    try:
        yield from iterator
    except Exception as exc:
        raise _Raised from exc


def _key_to_text(key: Any) -> str:
    match key:
        case str():
            return str.__str__(key)  # noqa: PLC2801 -- not that of a subclass
        case None | bool():
            return json.dumps(key)
        case bytes() | bytearray() | memoryview():
            return _bytes_to_text(bytes(key))
        case datetime():
            return fields.Datetime.to_string(key)
        case date():
            return fields.Date.to_string(key)
    return str(key)


def _bytes_to_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
