"""The payload of a job as JSON text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def dump_payload(payload: dict[str, Any], default: Callable[[Any], Any] | None = None) -> str:
    """Return a result or an error as JSON text which every client can read.

    Half a pair of surrogates, such as from a file name that is not UTF-8, has no encoding: Odoo could not send any answer
    with it. So it becomes a question mark.

    :param dict payload: ``{"result": …}`` or ``{"error": …}``
    :param default: returns a value that JSON has, for one that it does not have
    :rtype: str
    :raises TypeError: when a value has no such substitute
    :raises ValueError: when a number is not finite, or a value contains itself
    """
    text = json.dumps(payload, default=default, allow_nan=False, ensure_ascii=False)
    return text.encode(errors='replace').decode()
