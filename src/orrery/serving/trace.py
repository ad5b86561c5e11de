"""The trace that a request belongs to: ``traceparent`` of the W3C's Trace Context, level 1."""

from __future__ import annotations

import os
import re

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


def joined(traceparent: str | None) -> str | None:
    """Return the ``traceparent`` of this server's part of a trace; nothing if there is none, or none that can be read.

    Examples
    --------
    >>> joined("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")[:36]
    '00-4bf92f3577b34da6a3ce929d0e0e4736-'
    >>> joined("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01") is None
    True
    """
    found = _FORM.fullmatch(traceparent.strip()) if traceparent else None
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return f"00-{trace}-{os.urandom(8).hex()}-{flags}"
