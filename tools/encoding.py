"""What a job carries through the database: arguments, exactly; results, as an RPC would answer them.

Arguments are JSON text. What JSON has no word for is an object with one key: ``{"$date": "2026-11-24"}``.
A dict of the user that looks like one is written as pairs: ``{"$dict": [["$date", …]]}``.
"""
from __future__ import annotations

import base64
import json
import math
import reprlib
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum

from markupsafe import Markup

from odoo import fields
from odoo.models import BaseModel
from odoo.tools import lazy
from odoo.tools.translate import LazyGettext

# Python refuses to convert longer numbers from decimal text: sys.get_int_max_str_digits()
LONG_INTEGER_BITS = 10_000

MICROSECOND = timedelta(microseconds=1)


def encode(value, path):
    """Return ``value`` as JSON text, to be read back by :func:`decode`.

    :param value: anything made of the types that a job's arguments may have
    :param str path: what the value is called in errors, e.g. ``"args"``
    :rtype: str
    :raises TypeError: when a part of it cannot be stored; the message names it by its path
    """
    try:
        return json.dumps(_pack(value, path), separators=(',', ':'), allow_nan=False)
    except RecursionError:
        msg = f"{path} cannot be stored: it is nested too deeply, or contains itself"
        raise TypeError(msg) from None


def decode(text, env):
    """Return the value that :func:`encode` was given.

    :param str text: JSON text
    :param odoo.api.Environment env: the environment of the recordsets inside
    """
    if '{"$' not in text:  # as in most: a fifth of the time
        return json.loads(text)
    return json.loads(text, object_hook=lambda obj: _unpack(obj, env))


def _pack(value, path):
    # bool and None are matched first, as bool is an int; str, list… by exact type:
    # a subclass would not come back as what it was.
    match value:
        case None | bool():
            return value
        case int():
            if isinstance(value, Enum):
                value = value.value  # odoo.fields.Command
            return value if value.bit_length() < LONG_INTEGER_BITS else {'$int': hex(value)}
        case float():
            if math.isfinite(value):
                return float(value)
        case Markup():
            return {'$markup': str(value)}
        case str() if type(value) is str:
            return value
        case list() if type(value) is list:
            return [_pack(item, f'{path}[{i}]') for i, item in enumerate(value)]
        case tuple() if type(value) is tuple:
            return {'$tuple': [_pack(item, f'{path}[{i}]') for i, item in enumerate(value)]}
        case set() if type(value) is set:
            return {'$set': [_pack(item, f'an item of {path}') for item in value]}
        case dict() if type(value) is dict:
            for key in value:
                if type(key) is not str:
                    msg = f"{path}[{_show(key)}] cannot be stored: the keys of a dict must be strings"
                    raise TypeError(msg)
            packed = {key: _pack(item, f'{path}[{key!r}]') for key, item in value.items()}
            looks_tagged = len(packed) == 1 and next(iter(packed)).startswith('$')
            return {'$dict': list(packed.items())} if looks_tagged else packed
        case datetime():
            if value.tzinfo is None:
                return {'$datetime': value.isoformat()}
            if isinstance(value.tzinfo, timezone):
                return {'$instant': [value.replace(tzinfo=None).isoformat(), value.utcoffset() // MICROSECOND]}
            msg = f"{path} cannot be stored: the time zone of {value!r} would be lost, pass it in UTC"
            raise TypeError(msg)
        case date():
            return {'$date': value.isoformat()}
        case Decimal():
            if value.is_finite():
                return {'$decimal': str(value)}
        case bytes():
            return {'$bytes': base64.b64encode(value).decode()}
        case BaseModel():
            if all(type(id_) is int for id_ in value._ids):
                return {'$records': [value._name, value._ids]}
            msg = f"{path} cannot be stored: {value!r} has records that are not saved yet"
            raise TypeError(msg)
    msg = f"{path} cannot be stored: {_show(value)} is of type {type(value).__name__}" + (
        ", and not a finite number" if isinstance(value, (float, Decimal)) else
        "; a job's arguments are made of JSON types, recordsets, datetime, date, Decimal, bytes, tuple and set"
    )
    raise TypeError(msg)


def _show(value):
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of too many digits
        return f"of type {type(value).__name__}"


def _unpack(obj, env):
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
            return Markup(value)  # noqa: S704 -- it was one when it was stored
        case '$datetime':
            return datetime.fromisoformat(value)
        case '$instant':
            text, offset = value
            return datetime.fromisoformat(text).replace(tzinfo=timezone(offset * MICROSECOND))
        case '$date':
            return date.fromisoformat(value)
        case '$decimal':
            return Decimal(value)
        case '$bytes':
            return base64.b64decode(value)
        case '$records':
            model, ids = value
            return env[model].browse(ids)
    return obj


def encode_result(result):
    """Return what a job's method returned as JSON text, converted as the answer to an RPC is.

    :rtype: str
    :raises TypeError: when an RPC could not answer it
    """
    try:
        return json.dumps({'result': result}, default=_result_default, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        msg = f"The result of a job must be something that JSON can express: {exc}"
        raise TypeError(msg) from exc


def _result_default(obj):
    match obj:
        case BaseModel():
            return obj.ids
        case datetime():
            return fields.Datetime.to_string(obj)
        case date():
            return fields.Date.to_string(obj)
        case bytes():
            return obj.decode()
        case Mapping():
            return dict(obj)
        case lazy():
            return obj._value
        case LazyGettext():
            return str(obj)
        case fields.Domain():
            return list(obj)
    msg = f"{obj!r} is of type {type(obj).__name__}"
    raise TypeError(msg)
