"""What is noted of the chain elsewhere, so that cutting its end off, or writing all of it anew, is found."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from orrery.errors import NotUnderstood


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The head of the chain as it was once.

    Parameters
    ----------
    seq : number of the last event, which is how many there were.
    hash : of that event.
    at : when this was noted.
    stamps : address of a time-stamp authority -> its answer (RFC 3161, base64): that the hash existed by then.
    """

    seq: int
    hash: str
    at: datetime
    stamps: dict[str, str] = {}

    def to_line(self) -> str:
        """Return the anchor as one line of JSON, always the same one."""
        return msgspec.json.encode(self, order="deterministic").decode()


def from_line(line: str | bytes) -> Anchor:
    """Read an anchor back.

    Raises
    ------
    NotUnderstood
        If the line is none.
    """
    try:
        return msgspec.json.decode(line, type=Anchor)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotUnderstood(f"This is not an anchor: {error}.") from error


def of_event(data: dict[str, Any]) -> Anchor:
    """Return the anchor that an event ``anchored`` tells of.

    Raises
    ------
    NotUnderstood
        If it tells of none.
    """
    try:
        return msgspec.convert({name: data.get(name) for name in ("seq", "hash", "at", "stamps")}, Anchor)
    except msgspec.ValidationError as error:
        raise NotUnderstood(f"This is not an anchor: {error}.") from error
