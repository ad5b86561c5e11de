"""Who asks for a prediction: the one place that says so."""

from __future__ import annotations

from orrery.errors import NotUnderstood
from orrery.serving.passes import Guest
from orrery.serving.requests import MAX_ID, Fields

HEADER = "x-caller"


def caller_of(fields: Fields, guest: Guest) -> str:
    """Return who asks: whose token was shown, else by the header (or metadata) ``X-Caller``; nothing if nobody says so.

    Who has shown a token has that name and no other: who probes would give another one each time.

    Raises
    ------
    NotUnderstood
        If it is not a short text.

    Examples
    --------
    >>> from orrery.serving.passes import ANYBODY
    >>> said = {"x-caller": "app-7"}
    >>> caller_of(said, ANYBODY), caller_of({}, ANYBODY), caller_of(said, Guest(None, "mara"))
    ('app-7', '', 'mara')
    """
    if guest.account:
        return guest.account
    given: str = fields.get(HEADER, "")
    if given and (len(given) > MAX_ID or not (given.isascii() and given.isprintable())):
        raise NotUnderstood(f"A caller's name is an ASCII text of at most {MAX_ID} characters.")
    return given
