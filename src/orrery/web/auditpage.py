"""The pages of an audit: what happened by whom, what one person did, and what answered at a time and who let it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orrery.app import Orrery
from orrery.audit.deeds import Deeds
from orrery.audit.served import Served, period
from orrery.timeline.event import Event
from orrery.timeline.kinds import KINDS
from orrery.web.render import Page

SHOWN = 200
"""Events on one page, the newest."""


@dataclass(frozen=True)
class AnchorRow:
    """Where the head of the chain was noted, up to which event and when, and what is wrong there now."""

    place: str
    seq: int
    at: datetime | None
    fault: str


@dataclass(frozen=True, kw_only=True)
class AuditPage(Page):
    """What happened, by whom; for who may audit.

    Parameters
    ----------
    by, kind, since, until : what was asked for.
    kinds : all there are.
    events : the newest that fit.
    more : whether there are older ones; ``before`` is the number of the oldest shown.
    anchors : where the head of the chain was noted.
    """

    template = "audit.html"
    refreshes = False

    by: str
    kind: str
    since: str
    until: str
    kinds: list[str]
    events: list[dict[str, Any]]
    more: bool
    before: int
    anchors: list[AnchorRow]


@dataclass(frozen=True, kw_only=True)
class WhoPage(Page):
    """What one person did; of the events the newest."""

    template = "who.html"
    refreshes = False

    name: str
    since: str
    until: str
    deeds: Deeds | None
    events: list[dict[str, Any]]
    about: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ServedPage(Page):
    """What of a model answered at a time."""

    template = "served.html"
    refreshes = False

    model: str
    at: str
    served: list[Served]


def audit_page(orrery: Orrery, *, by: str, kind: str, since: str, until: str, before: int | None) -> AuditPage:
    """Return the page of what happened."""
    orrery.allow("audit", "")
    begin = period(since)[0] if since else None
    end = period(until)[1] if until else None
    person = orrery.accounts.person
    wanted = person(by).casefold() if by else ""
    known: dict[str, bool] = {}

    def fits(event: Event) -> bool:
        if begin is not None and event.occurred_at < begin:
            return False
        if not wanted:
            return bool(kind) or not event.actor.startswith("orrery/")
        if event.actor not in known:
            known[event.actor] = person(event.actor).casefold() == wanted
        return known[event.actor]

    kinds = (kind,) if kind in KINDS else ()
    found: list[Event] = []
    for event in orrery.timeline.read(kinds=kinds, until=end, before=before, newest_first=True):
        if fits(event):
            found.append(event)
            if len(found) > SHOWN:
                break
    shown = found[:SHOWN]
    return AuditPage(
        title="Audit",
        by=by,
        kind=kind if kinds else "",
        since=since,
        until=until,
        kinds=list(KINDS),
        events=[one.to_json() for one in shown],
        more=len(found) > SHOWN,
        before=shown[-1].seq if shown else 0,
        anchors=_anchors(orrery),
    )


def who_page(orrery: Orrery, name: str, since: str, until: str) -> WhoPage:
    """Return the page of what one person did; without a name only the question."""
    orrery.allow("audit", "")
    begin = period(since)[0] if since else None
    end = period(until)[1] if until else None
    found = orrery.deeds(name, begin, end) if name.strip() else None
    return WhoPage(
        title=f"What {name} did" if found else "What somebody did",
        name=name,
        since=since,
        until=until,
        deeds=found,
        events=[one.to_json() for one in reversed(found.events[-SHOWN:])] if found else [],
        about=[one.to_json() for one in reversed(found.about[-SHOWN:])] if found else [],
    )


def served_page(orrery: Orrery, model: str, at: str) -> ServedPage:
    """Return the page of what answered at a time; without one: now."""
    at = at or f"{orrery.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    return ServedPage(title=f"{model}: what served", model=model, at=at, served=orrery.served(model, at))


def _anchors(orrery: Orrery) -> list[AnchorRow]:
    state = orrery.states.data()
    rows = []
    for place in dict.fromkeys([*orrery.settings.anchors.split(), *state.anchors]):
        last, issue = state.anchors.get(place), state.open_issue(f"anchors:{place}")
        rows.append(AnchorRow(place, last.seq if last else 0, last.at if last else None, issue.why if issue else ""))
    return rows
