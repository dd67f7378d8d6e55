"""Extensions by other addons of a controller of Odoo whose work a job does instead."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NoReturn

from odoo import http
from odoo.tools import config

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from odoo.api import Environment


class _Touched(Exception):
    """An extension has read the request or the answer of a call."""


def find_extension(
    controller: type,
    env: Environment,
    calls: dict[str, dict[str, Any]],
    members: Iterable[str] = (),
) -> str | None:
    """Return an extension of a controller that affects given calls of its methods.

    An extension does not affect a call if it passes the call on to Odoo's method and returns the answer, both unchanged. An
    extension that adds another format is such a one. An extension that looks at the request or the answer affects the call.
    To find out, the calls are made with a stand-in for Odoo's method.

    :param type controller: the class of Odoo
    :param odoo.api.Environment env: any environment of the database
    :param dict calls: the keyword arguments of the calls, by the name of the method
    :param members: names of attributes that no extension may redefine
    :return: the module and name of the extension; None if no installed addon affects the calls
    :rtype: str | None
    """
    for name in calls:
        if (module := getattr(controller, name).__module__) != controller.__module__:
            return f'{module}.{name}'  # a patch has replaced the method
    leaves = _leaves(controller, env.registry._init_modules | set(config['server_wide_modules']))
    if not leaves:
        return None
    mro = _bare_class(leaves).__mro__
    extensions = mro[1 : mro.index(controller)]
    for extension in extensions:
        for member in members:
            if member in vars(extension):
                return _label(extension, member)
    for name, kwargs in calls.items():
        for extension in extensions:
            if name in vars(extension):
                if not _passes(controller, leaves, name, kwargs):
                    return _label(extension, name)
                break
    return None


def _label(extension: type, member: str) -> str:
    return f'{extension.__module__}.{extension.__name__}.{member}'


def _leaves(controller: type, modules: Iterable[str]) -> list[type]:
    """Return the last extensions of a controller by installed addons, found as Odoo finds them."""
    leaves: dict[type, None] = {}
    subclasses: list[type] = controller.__subclasses__()
    for cls in subclasses:
        path = cls.__module__.split('.')
        if path[:2] == ['odoo', 'addons'] and path[2] in modules:
            leaves.update(dict.fromkeys(_leaves(cls, modules) or [cls]))
    return list(leaves)


def _bare_class(bases: Sequence[type], **attributes: Any) -> type:
    """Return a class that Odoo does not register as a controller."""
    return type('Bare', tuple(reversed(bases)), {'__module__': __name__.replace('odoo.addons.', ''), **attributes})


def _passes(controller: type, leaves: list[type], name: str, kwargs: dict[str, Any]) -> bool:
    """Try out whether a call and its answer pass through all extensions unchanged."""
    touches, calls = [], []

    def touch(*args: Any, **kwargs: Any) -> NoReturn:
        touches.append(args)
        raise _Touched

    # Only an extension would read the attributes of these two.
    answer: Any = object.__new__(type('Answer', (http.Response,), {
        '__getattribute__': touch, '__setattr__': touch, '__bool__': touch, '__call__': touch, '__eq__': touch, '__hash__': None}))  # fmt: skip
    request = type('Request', (), {'__getattr__': touch, '__setattr__': touch, '__bool__': touch})()
    signature = inspect.signature(getattr(controller, name))

    def bind(*args: Any, **kwargs: Any) -> list[tuple[str, Any]]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return list(bound.arguments.items())[1:]

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        calls.append(bind(*args, **kwargs))
        return answer

    # The stand-in is the last base, so it comes after all extensions and before the controller that they extend.
    routes = [member for member in vars(controller) if hasattr(getattr(controller, member), 'original_routing')]
    stand_in_class = _bare_class([controller], **(dict.fromkeys(routes, touch) | {name: stand_in}))
    probe = _bare_class([stand_in_class, *leaves])()
    for cls in type(probe).__mro__:
        if (routing := getattr(vars(cls).get(name), 'original_routing', None)) is not None:
            routing.setdefault('type', 'http')  # as Odoo does when it builds the routing map
    http._request_stack.push(request)
    try:
        result = getattr(probe, name)(**kwargs)
    except Exception:  # noqa: BLE001 -- an extension may raise anything
        return False
    finally:
        http._request_stack.pop()
    return result is answer and not touches and calls == [bind(None, **kwargs)]
