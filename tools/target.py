"""The method that a job will call, and the stack of the code that enqueues it."""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from odoo.models import BaseModel

from .encoding import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    _Frame = tuple[str, int, str]  # filename, line, function

STACK_DEPTH = 16  # frames of the enqueuing code to keep, for the error of a failed job
ENQUEUING_FILE = str(Path(__file__).parents[1] / 'models' / 'ir_async_call.py')


class Target(NamedTuple):
    """The parts that a worker needs to call a method."""

    records: BaseModel
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def check_target(target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target:
    """Return the parts that a worker needs to call ``target(*args, **kwargs)``.

    :rtype: Target
    :raises TypeError: when a worker could not call it
    """
    records = getattr(target, '__self__', None)
    if not inspect.ismethod(target) or not isinstance(records, BaseModel):
        msg = f"the target must be a method bound to a recordset, as in call(self.method); got {describe(target)}"
        raise TypeError(msg)
    function = target.__func__
    name = _find_name(type(records), function)
    if not name:
        msg = (
            f"no worker could call {describe(target)}: it looks the method up by its name in the model {records._name}. "
            f"Pass a method of the model: not one of super(), no lambda and no wrapper"
        )
        raise TypeError(msg)
    *wrapping, signature = _signatures(function)
    if not args and kwargs:
        args, kwargs = _unpack_thread_style(signature, kwargs)
    try:
        for each in (*wrapping, signature):
            each.bind(records, *args, **kwargs)
    except TypeError as exc:
        msg = f"{records._name}.{name}(): {exc}"
        raise TypeError(msg) from None
    return Target(records, name, args, kwargs)


def _find_name(model_class: type, function: Callable[..., Any]) -> str | None:
    """Return a name by which a class has a function, or None. The function's own name comes first."""
    name = getattr(function, '__name__', None)
    if name and getattr(model_class, name, None) is function:
        return name
    # Addons replace methods, as automation rules do. The new function may keep the name of its own definition.
    names = (name for parent in model_class.__mro__ for name, value in vars(parent).items() if value is function)
    return next((name for name in names if getattr(model_class, name, None) is function), None)


@functools.lru_cache(maxsize=1024)
def _signatures(function: Callable[..., Any]) -> list[inspect.Signature]:
    """Return the signature of a function; if it is a wrapper, then also that of the function it wraps. A call meets both."""
    signatures = [inspect.signature(function, follow_wrapped=False)]
    return [*signatures, inspect.signature(function)] if hasattr(function, '__wrapped__') else signatures


def _unpack_thread_style(
    signature: inspect.Signature,
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call in the style of threads: ``call(target, args=[…], kwargs={…})``."""
    args_list, kwargs_dict = kwargs.get('args'), kwargs.get('kwargs')
    named = {
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    if (
        kwargs.keys() <= {'args', 'kwargs'}
        and not named & {'args', 'kwargs'}
        and (args_list is None or isinstance(args_list, (list, tuple)))
        and (kwargs_dict is None or isinstance(kwargs_dict, dict))
    ):
        return tuple(args_list or ()), dict(kwargs_dict or {})
    return (), kwargs


def caller_stack() -> list[_Frame]:
    """Return the innermost frames of the code that enqueues a job, as (filename, line, function).

    This does not use :func:`traceback.extract_stack`: it reads the source lines, and that takes longer than the rest of a call.

    :rtype: list[tuple]
    """
    frame: FrameType | None = sys._getframe(1)
    while frame and frame.f_code.co_filename == ENQUEUING_FILE:
        frame = frame.f_back
    frames: list[_Frame] = []
    while frame and len(frames) < STACK_DEPTH:
        frames.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return frames[::-1]


def format_stack(frames: Sequence[_Frame]) -> str:
    """Return the frames of :func:`caller_stack` as the text of a traceback.

    :rtype: str
    """
    return ''.join(
        traceback.format_list(
            [traceback.FrameSummary(filename, line, name, lookup_line=False) for filename, line, name in frames]
        )
    )
