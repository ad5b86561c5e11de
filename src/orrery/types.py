"""Words that every part of orrery shares: instants, durations, digests and the few closed sets of names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import msgspec

from orrery.errors import NotUnderstood

Task = Literal["binary", "multiclass", "regression"]
Change = Literal["redesign", "refresh", "repair"]
"""Kind of change: *redesign* new code, *refresh* same code and newer data, *repair* the champion recalibrated."""
Reason = Literal["push", "schedule", "data", "drift", "decay", "erasure", "hand"]
MonitorName = Literal[
    "features",
    "calibration",
    "decay",
    "predictions",
    "segments",
    "estimated",
    "fairness",
    "joint",
    "anomalies",
    "probing",
]
Role = Literal["champion", "canary", "arm", "shadow", "guard", "standby"]
"""What a version does in an environment: answers; answers a share, in steps or to be compared; runs beside as a
challenger; is the former champion on watch; or answers in place of a version that failed."""

CHANGES: tuple[str, ...] = get_args(Change)
PRODUCTION = "production"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str) -> timedelta:
    """Read a length of time such as ``"90s"``, ``"1d"`` or ``"1d 12h"``.

    Raises
    ------
    NotUnderstood
        If the text is anything else.

    Examples
    --------
    >>> parse_duration("1d 12h")
    datetime.timedelta(days=1, seconds=43200)
    """
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise NotUnderstood(f"{text!r} is not a length of time.", todo="Write 90s, 15m, 12h, 7d or 2w.")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))


def parse_share(text: str) -> float:
    """Read a part of a whole such as ``"5%"`` or ``"0.05"``.

    Raises
    ------
    NotUnderstood
        If the text is anything else, nothing, or more than the whole.

    Examples
    --------
    >>> parse_share("5%"), parse_share("0.25")
    (0.05, 0.25)
    """
    try:
        share = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise NotUnderstood(f"{text!r} is not a share.", todo="Write 5% or 0.05; more than 0%, at most 100%.")
    return share


def percent(share: float) -> str:
    """Write a share the way people read it.

    Examples
    --------
    >>> percent(0.05), percent(0.125)
    ('5 %', '12.5 %')
    """
    return f"{100 * share:.3g} %"


def parse_instant(text: str | datetime) -> datetime:
    """Read an ISO 8601 instant; one without an offset is UTC.

    Raises
    ------
    NotUnderstood
        If the text is not an instant.

    Examples
    --------
    >>> parse_instant("2013-06-10")
    datetime.datetime(2013, 6, 10, 0, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        value = text if isinstance(text, datetime) else datetime.fromisoformat(text.strip())
    except ValueError:
        raise NotUnderstood(
            f"{text!r} is not a date or time.", todo="Write 2013-06-10 or 2013-06-10T05:00:00Z."
        ) from None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def format_instant(value: datetime) -> str:
    """Write an instant the one way that hashes are made of: UTC, microseconds, ``Z``.

    Examples
    --------
    >>> format_instant(parse_instant("2013-06-10T07:00:00+02:00"))
    '2013-06-10T05:00:00.000000Z'
    """
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def check_name(name: str, what: str = "name") -> str:
    """Return the name, or say why it cannot be one (it becomes a path, an address and a table).

    Raises
    ------
    NotUnderstood
        If the name is not lower-case letters, digits and hyphens, at most 63 of them.
    """
    if not NAME.fullmatch(name):
        raise NotUnderstood(
            f"{name!r} cannot be a {what}.",
            todo="Use lower-case letters, digits and hyphens, beginning with a letter or digit; 63 at most.",
        )
    return name


def address_mark(address: str) -> str:
    """Return what stands for a mail address on the timeline, which holds none.

    Examples
    --------
    >>> address_mark("Mara@Example.org") == address_mark("mara@example.org")
    True
    """
    return f"mail:{digest(address.strip().casefold())}"


def digest(value: bytes | str | Mapping[str, Any] | list[Any]) -> str:
    """Return 32 hexadecimal digits that stand for the content.

    Examples
    --------
    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    if isinstance(value, str):
        value = value.encode()
    elif not isinstance(value, bytes):
        value = msgspec.json.encode(value, order="deterministic")
    return hashlib.blake2b(value, digest_size=16).hexdigest()
