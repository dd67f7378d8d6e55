"""The payload of a job as JSON text."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HALF = re.compile(r'[\ud800-\udfff]')


def dump_payload(payload: dict[str, Any], default: Callable[[Any], Any] | None = None) -> str:
    """Return a result or an error as JSON text which every client can read.

    Half a pair of surrogates, such as from a file name that is not UTF-8, has no encoding: Odoo could not send any answer
    with it. So it becomes the text of its escape, such as ``\\udcf6``.

    :param dict payload: ``{"result": …}`` or ``{"error": …}``
    :param default: returns a value that JSON has, for one that it does not have
    :rtype: str
    :raises TypeError: when a value has no such substitute
    :raises ValueError: when a number is not finite, or a value contains itself
    """
    text = json.dumps(payload, default=default, allow_nan=False, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Two halves of a pair become one character here.
        whole = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'surrogatepass')
        text = HALF.sub(lambda half: f'\\\\u{ord(half[0]):x}', whole)
    return text
