"""The life of every version as a lane over time: where it served, and what happened to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from orrery.app import Orrery
from orrery.timeline.event import Event
from orrery.timeline.state import ModelState
from orrery.types import PRODUCTION, percent
from orrery.web.pictures import Scale
from orrery.web.reading import newest

ROWS = 24
"""Versions that a picture shows, the newest."""
PITCH, TOP = 30.0, 34.0
MOVES = ("challenged", "shifted", "retired", "promoted", "rolled_back")
MARKS = {
    "pushed": "a commit arrived",
    "triggered": "a training was asked for",
    "not_triggered": "a trigger was held back",
    "trained": "trained",
    "gated": "judged by the gates",
    "approved": "approved",
    "rejected": "rejected",
    "promoted": "became champion",
    "rolled_back": "came back",
    "shifted": "answers another share",
    "deleted": "deleted",
    "alarmed": "a monitor fired",
    "quieted": "its cause is gone",
    "failed": "a step failed",
    "business": "business event",
}
OF_DATA = ("quarantined", "contract_changed")
LOOP, DATA = "loop", "data"


@dataclass(frozen=True)
class Bar:
    """A time in which a version was somewhere, in a role or with a share; ``until`` is None while it is."""

    environment: str
    role: str
    since: datetime
    until: datetime | None
    x: float
    width: float

    @property
    def style(self) -> str:
        """How it is drawn: ``champion``, ``beside`` or ``staging``."""
        if self.environment != PRODUCTION:
            return "staging"
        return "champion" if self.role == "champion" else "beside"


@dataclass(frozen=True)
class Mark:
    """Something that happened, as a sign on a lane."""

    kind: str
    good: bool
    at: datetime
    why: str
    seq: int
    x: float


@dataclass(frozen=True)
class Row:
    """One lane: a version's, the loop's or the data's."""

    name: str
    version: int | None
    change: str
    y: float
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Lanes:
    """The picture: its lanes from top to bottom, and what happened in the world around."""

    rows: tuple[Row, ...]
    flags: tuple[Mark, ...]
    height: float
    left_out: int


def instants(model: ModelState) -> list[datetime]:
    """Return the first and last instants that are known of a model."""
    found = [commit.at for commit in model.commits.values()] + [version.at for version in model.versions.values()]
    return found + [lane.watched_until for lane in model.lanes.values() if lane.watched_until]


def lanes(orrery: Orrery, model: ModelState, scale: Scale, now: datetime) -> Lanes:
    """Draw the lanes of a model."""
    numbers = list(model.versions)[-ROWS:]
    events = newest(orrery, model.name, MARKS, limit=240)
    marks: dict[object, list[Mark]] = {}
    judged = {event.version for event in events if event.kind == "gated"}
    for event in reversed(events):
        if _said_already(event, judged):
            continue
        place: object = event.version if event.version in model.versions else LOOP
        place = "flag" if event.kind == "business" else place
        marks.setdefault(place, []).append(_mark(event, scale))
    bars = _bars(orrery, model, scale, now)
    rows: list[Row] = []
    for number in numbers:
        version = model.versions[number]
        y = TOP + PITCH * len(rows)
        rows.append(
            Row(f"v{number}", number, version.change, y, tuple(bars.get(number, ())), tuple(marks.get(number, ())))
        )
    rows.append(Row(LOOP, None, "", TOP + PITCH * len(rows), (), tuple(marks.get(LOOP, ()))))
    aside = tuple(_mark(event, scale) for event in _of_data(orrery, model))
    if aside:
        rows.append(Row(DATA, None, "", TOP + PITCH * len(rows), (), aside))
    height = TOP + PITCH * len(rows) + 24
    return Lanes(tuple(rows), tuple(marks.get("flag", ())), height, len(model.versions) - len(numbers))


def _said_already(event: Event, judged: set[int | None]) -> bool:
    """Say whether another sign, or a bar, tells the same: the push, the verdict, the line of staging."""
    if event.kind in ("promoted", "rolled_back"):
        return event.environment != PRODUCTION
    if event.kind == "trained":
        return event.version in judged
    return event.kind == "triggered" and event.data.get("reason") == "push"


def _of_data(orrery: Orrery, model: ModelState) -> Iterable[Event]:
    policy = model.policy()
    mine = set(policy.data.values()) if policy else set()
    since = min(instants(model), default=None)
    for event in reversed(newest(orrery, "", OF_DATA, limit=200)):
        if event.data.get("dataset") in mine and (since is None or event.occurred_at >= since - timedelta(days=1)):
            yield event


def _mark(event: Event, scale: Scale) -> Mark:
    good = event.kind not in ("rejected", "failed", "alarmed", "quarantined", "deleted", "not_triggered")
    if event.kind == "gated":
        good = bool(event.data.get("passed"))
    return Mark(event.kind, good, event.occurred_at, event.why, event.seq, scale.x(event.occurred_at))


def _bars(orrery: Orrery, model: ModelState, scale: Scale, now: datetime) -> dict[int, list[Bar]]:
    found: dict[int, list[Bar]] = {}

    def add(number: int, environment: str, role: str, since: datetime, until: datetime | None) -> None:
        x = scale.x(since)
        width = max(scale.x(until or now) - x, 1.5)
        found.setdefault(number, []).append(Bar(environment, role, since, until, x, round(width, 1)))

    for lane in model.lanes.values():
        for number, since, until in lane.tenures:
            add(number, lane.environment, "champion", since, until)
    beside: dict[tuple[str, int], Event] = {}
    for event in reversed(newest(orrery, model.name, MOVES, limit=240)):
        key = (event.environment, event.version or 0)
        if (began := beside.pop(key, None)) is not None:
            add(key[1], key[0], _role(began), began.occurred_at, event.occurred_at)
        if event.kind in ("challenged", "shifted"):
            beside[key] = event
    for (environment, number), began in beside.items():
        add(number, environment, _role(began), began.occurred_at, None)
    return found


def _role(event: Event) -> str:
    share = event.data.get("share")
    return f"{event.data['role']}, {percent(share)}" if share else str(event.data["role"])
