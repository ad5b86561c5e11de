"""The page of one model: its versions as lanes over time, its measured loss, and every event with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orrery.access.secrets import Secret
from orrery.app import Orrery
from orrery.errors import NotUnderstood
from orrery.review.deadlines import overdue
from orrery.timeline.event import Event
from orrery.timeline.kinds import KINDS
from orrery.timeline.state import Approval, ModelState, Version
from orrery.types import PRODUCTION, format_instant, parse_instant
from orrery.web.lanes import MARKS, Lanes, instants, lanes
from orrery.web.overview import Place, place
from orrery.web.pictures import Chart, Points, Scale, chart, scale_of
from orrery.web.reading import TELLING, lanes_of, newest, running
from orrery.web.render import Page

LOOKS = 400
"""Looks that the curves show, the newest."""
PAGE = 40
"""Events of one page of the list."""


@dataclass(frozen=True)
class Served:
    """Who served in an environment at an instant, and the chain of reasons."""

    environment: str
    champion: int | None
    since: datetime | None
    why: str
    by: str
    trained_why: str
    deleted: str
    beside: list[tuple[int, str]]


@dataclass(frozen=True)
class Look:
    """What one look at production measured."""

    at: datetime
    version: int | None
    loss: float | None
    promised: float | None
    said: float | None
    seen: float | None
    labelled: int


@dataclass(frozen=True)
class Alarm:
    """A monitor that fired, and whose cause is not gone."""

    environment: str
    monitor: str
    at: datetime
    why: str


@dataclass(frozen=True)
class Watch:
    """What a monitor of production found at the newest look."""

    monitor: str
    standing: str
    """``alarm`` until its cause is gone; ``insufficient data``; else ``quiet``, or what it says of all looks so far."""
    why: str
    statistic: float
    promise: int


@dataclass(frozen=True, kw_only=True)
class ModelPage(Page):
    """One model."""

    template = "model.html"

    name: str
    objective: str
    owner: str
    task: str
    metric: str
    now: datetime
    places: list[Place]
    alarms: list[Alarm]
    waiting: list[tuple[int, str, str]]
    overdue: list[tuple[int, str, str]]
    emergencies: list[Approval]
    issues: int
    versions: int
    at: datetime | None
    served: list[Served]
    scale: Scale | None
    lanes: Lanes | None
    signs: dict[str, str]
    looks: list[Look]
    watches: list[Watch]
    charts: list[Chart]
    events: list[dict[str, Any]]
    kind: str
    kinds: list[str]
    older: int | None
    before: int | None


@dataclass(frozen=True, kw_only=True)
class OrdersPage(Page):
    """What can be ordered of one model."""

    template = "orders.html"
    refreshes = False

    name: str
    champions: list[Place]
    earlier: dict[str, list[int]]
    secrets: list[Secret]
    needed: dict[str, tuple[str, ...]]
    """Secrets that the newest commit declares -> the actions that get them."""
    done: str


def model_page(orrery: Orrery, name: str, *, at: str = "", kind: str = "", before: int | None = None) -> ModelPage:
    """Return the page of one model.

    Parameters
    ----------
    at : an instant: what served then is shown as well.
    kind : only events of this kind; ``all`` is all, looks included.
    before : only events before this one.
    """
    model, now = orrery.model(name), orrery.clock.now()
    if kind not in ("", "all") and kind not in KINDS:
        raise NotUnderstood(f"{kind!r} is not a kind of event.", todo=f"Known: {', '.join(KINDS)}.")
    kinds = TELLING if not kind else tuple(KINDS) if kind == "all" else (kind,)
    events = newest(orrery, name, kinds, before=before, limit=PAGE + 1)
    instant = parse_instant(at) if at else None
    known = instants(model)
    scale = scale_of([*known, max(now, *known)]) if known else None
    policy = model.policy()
    metric = policy.rollout.primary if policy else ""
    looks = _looks(orrery, model, metric)
    return ModelPage(
        title=name,
        name=name,
        objective=policy.model.objective if policy else "",
        owner=policy.model.owner if policy else "",
        task=policy.model.task if policy else "",
        metric=metric,
        now=now,
        places=[place(lane) for lane in lanes_of(model)],
        alarms=_alarms(model),
        waiting=[(version.number, environment, role) for version, environment, role in model.waiting()],
        overdue=[(version.number, environment, role) for version, environment, role in overdue(model, now)],
        emergencies=_emergencies(model),
        issues=sum(issue.closed is None for issue in model.issues.values()),
        versions=len(model.versions),
        at=instant,
        served=_served(orrery, name, instant) if instant else [],
        scale=scale,
        lanes=lanes(orrery, model, scale, max(now, *known)) if scale else None,
        signs=MARKS,
        looks=looks,
        watches=_watches(orrery, model),
        charts=_charts(looks, metric, scale) if scale else [],
        events=[_row(event) for event in events[:PAGE]],
        kind=kind,
        kinds=list(KINDS),
        older=events[PAGE - 1].seq if len(events) > PAGE else None,
        before=before,
        running=running(orrery, name),
    )


def orders_page(orrery: Orrery, name: str, done: str) -> OrdersPage:
    """Return the page of what can be ordered of a model."""
    model = orrery.model(name)
    earlier = {
        lane.environment: sorted({number for number, _, _ in lane.tenures if number != lane.champion}, reverse=True)
        for lane in model.lanes.values()
    }
    champions = [place(lane) for lane in lanes_of(model) if lane.champion is not None]
    newest_commit = next(reversed(model.commits), None)
    return OrdersPage(
        title=f"{name}: orders",
        name=name,
        champions=champions,
        earlier=earlier,
        secrets=orrery.secrets.all(name),
        needed=dict(model.spec_of(newest_commit).secrets) if newest_commit else {},
        done=done,
    )


def _alarms(model: ModelState) -> list[Alarm]:
    return [
        Alarm(
            lane.environment,
            name,
            fact["at"] if isinstance(fact["at"], datetime) else parse_instant(fact["at"]),
            fact["why"],
        )
        for lane in model.lanes.values()
        for name, fact in sorted(lane.alarms.items())
    ]


def _emergencies(model: ModelState) -> list[Approval]:
    """Return the overrides by which a version answers now that nobody reviewed."""
    champions = [(lane.environment, model.versions[lane.champion]) for lane in model.lanes.values() if lane.champion]
    said = [(place, one) for place, version in champions for one in version.approvals if one.emergency]
    return list({one.at: one for place, one in said if one.environment == place}.values())


def _served(orrery: Orrery, name: str, instant: datetime) -> list[Served]:
    then = orrery.states.at(name, instant)
    today = orrery.model(name)
    found = []
    for lane in lanes_of(then):
        version = then.versions.get(lane.champion or 0)
        gone = today.versions[version.number].deleted if version else None
        found.append(
            Served(
                environment=lane.environment,
                champion=lane.champion,
                since=lane.since,
                why=lane.why,
                by=lane.by,
                trained_why=version.why if version else "",
                deleted=f"deleted by {gone['by']}: {gone['why']}" if gone else "",
                beside=sorted((one.version, one.standing) for one in lane.challengers.values()),
            )
        )
    return found


def _looks(orrery: Orrery, model: ModelState, metric: str) -> list[Look]:
    found = []
    for event in reversed(newest(orrery, model.name, ("watched",), limit=LOOKS)):
        metrics = event.data.get("metrics", {})
        version = model.versions.get(event.version or 0)
        found.append(
            Look(
                at=event.occurred_at,
                version=event.version,
                loss=metrics.get(metric),
                promised=_promised(version),
                said=metrics.get("said"),
                seen=metrics.get("seen"),
                labelled=event.data.get("labelled", 0),
            )
        )
    return found


def _watches(orrery: Orrery, model: ModelState) -> list[Watch]:
    lane = model.lane(PRODUCTION)
    looks = newest(orrery, model.name, ("watched",), version=lane.champion, limit=1) if lane.champion else []
    found = []
    for name, one in looks[0].data.get("monitors", {}).items() if looks else ():
        standing = "insufficient data" if one["insufficient"] else one.get("outcome") or "quiet"
        standing = "alarm" if name in lane.alarms else standing
        found.append(Watch(name, standing, one.get("why", ""), one["statistic"], one["promise"]))
    return found


def _promised(version: Version | None) -> float | None:
    value = version.facts.get("expected_loss") if version else None
    return float(value) if isinstance(value, int | float) else None


def _charts(looks: list[Look], metric: str, scale: Scale) -> list[Chart]:
    def points(name: str) -> Points:
        return [(look.at, getattr(look, name)) for look in looks if getattr(look, name) is not None]

    if not points("loss"):
        return []
    words = metric.replace("_", " ")
    drawn = [
        chart(
            metric,
            f"{words} of the champion on the labels of each look, lower is better; dashed: what the version promised",
            scale,
            [("promised", "step", points("promised")), (words, "line", points("loss"))],
            height=170,
        ),
        chart(
            "calibration",
            "what the champion said on average, and what then came true",
            scale,
            [("seen", "second", points("seen")), ("said", "line", points("said"))],
            height=130,
        ),
    ]
    return [one for one in drawn if one is not None]


def _row(event: Event) -> dict[str, Any]:
    fields = event.to_json()
    fields["occurred_at"] = format_instant(event.occurred_at)
    return fields
