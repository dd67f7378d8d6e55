"""Texts of exceptions for the log and the payload, even of exceptions that raise when they are read."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

from .payload import dump_payload

if TYPE_CHECKING:
    from threading import Thread
    from types import TracebackType


def tame(exc: BaseException) -> BaseException:
    """Return an exception, or another one in its place if reading its attributes raises.

    :param BaseException exc: the exception of a method
    :rtype: BaseException
    """
    try:
        isinstance(exc, Exception)
        hash(exc)
        f"{type(exc).__module__}{type(exc).__qualname__}{type(exc).__name__}"
        for name in (
            '__class__',
            'args',
            '__traceback__',
            '__cause__',
            '__context__',
            '__notes__',
            'context',
            'pgcode',
        ):
            getattr(exc, name, None)
    except BaseException as error:  # noqa: BLE001 -- the code of a method may raise anything
        return RuntimeError(f"{name_of(exc)}, whose attributes raised {name_of(error)}").with_traceback(
            traceback_of(exc)
        )
    return exc


def name_of(exc: BaseException) -> str:
    """Return the name of the class of an exception, without code of its metaclass.

    :rtype: str
    """
    return type.__dict__['__name__'].__get__(type(exc))


def traceback_of(exc: BaseException) -> TracebackType | None:
    """Return the traceback of an exception, without code of its class.

    :rtype: types.TracebackType | None
    """
    return BaseException.__dict__['__traceback__'].__get__(exc)


def safe_text(exc: BaseException) -> str:
    """Return the text of an exception, or a substitute if its ``str()`` raises.

    :param BaseException exc: the exception
    :rtype: str
    """
    try:
        return ''.join([str(exc), ''])  # a plain str, even if `str()` returned an object of a subclass
    except BaseException as error:  # noqa: BLE001 -- the code of a method may raise anything
        return f"{name_of(exc)}, whose text raised {name_of(error)}"


def first_line(exc: BaseException) -> str:
    """Return the first line of the text of an exception.

    :rtype: str
    """
    return next(iter(safe_text(exc).splitlines()), name_of(exc))


def safe_traceback(exc: BaseException) -> str:
    """Return the text of an exception with as much of its traceback as can be read.

    :param BaseException exc: the exception
    :rtype: str
    """
    try:
        return ''.join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    except BaseException:  # noqa: BLE001 -- the code of a method may raise anything
        try:
            return f"{''.join(traceback.format_tb(traceback_of(exc)))}{safe_text(exc)}"
        except BaseException:  # noqa: BLE001 -- so may the code that finds its source
            return safe_text(exc)


def minimal_payload(exc: BaseException) -> str:
    """Return the error of a job as JSON, for a failure that could not be recorded in full.

    :rtype: str
    """
    data = {
        'name': name_of(exc),
        'message': safe_text(exc),
        'arguments': [],
        'context': {},
        'debug': safe_traceback(exc),
    }
    return dump_payload({'error': {'code': 0, 'message': "Odoo Server Error", 'data': data}})


def where_it_is(thread: Thread) -> str | None:
    """Return the stack of a thread as text.

    :param threading.Thread thread: the thread
    :rtype: str | None
    """
    frame = sys._current_frames().get(thread.ident or 0)
    return f"Where it was (most recent call last):\n{''.join(traceback.format_stack(frame))}" if frame else None
