"""Who asks for a prediction: the one place that says so."""

from __future__ import annotations

from orrery.errors import NotUnderstood
from orrery.serving.requests import MAX_ID, Fields

HEADER = "x-caller"


def caller_of(fields: Fields) -> str:
    """Return who asks, by the header (or metadata) ``X-Caller``; nothing where nobody says so.

    It is a name that the caller gives itself. Where callers prove who they are, that name comes from here, too.

    Raises
    ------
    NotUnderstood
        If it is not a short text.

    Examples
    --------
    >>> caller_of({"x-caller": "app-7"}), caller_of({})
    ('app-7', '')
    """
    given: str = fields.get(HEADER, "")
    if given and (len(given) > MAX_ID or not (given.isascii() and given.isprintable())):
        raise NotUnderstood(f"A caller's name is an ASCII text of at most {MAX_ID} characters.")
    return given
