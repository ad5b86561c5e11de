"""What somebody did: acts, attempts that were denied, sign-ins and reads, under whichever of their names."""

from __future__ import annotations

from datetime import datetime

import msgspec

from orrery.audit.standing import Held, Standings
from orrery.timeline.event import Event
from orrery.timeline.store import Timeline

SIGNED_IN, DENIED, READS = "signed_in", "denied", ("read", "subject_searched")


class Deeds(msgspec.Struct, frozen=True, kw_only=True):
    """What a person did in a period.

    Parameters
    ----------
    name, person : who was asked for, and the person behind the name.
    names : the names under which they acted.
    begin, end : the period; nothing for as long as there is.
    roles : the roles that they held in it.
    signed_in, denied, reads : how often they signed in, were denied something, and read personal data or the chain.
    by_kind : kind of event -> how many.
    events : all of them, oldest first; commits that others pushed for them included.
    about : what others did to their account: roles, keys, passwords.
    """

    name: str
    person: str
    names: list[str]
    begin: datetime | None
    end: datetime | None
    roles: list[Held]
    signed_in: int
    denied: int
    reads: int
    by_kind: dict[str, int]
    events: list[Event]
    about: list[Event]


def deeds(
    timeline: Timeline, standings: Standings, name: str, begin: datetime | None = None, end: datetime | None = None
) -> Deeds:
    """Return what a person did.

    Parameters
    ----------
    timeline : where it is read.
    standings : who was what when.
    name : one of their names.
    begin, end : only what occurred in between.
    """
    person = standings.person(name)
    mine = person.casefold()

    def is_them(other: object) -> bool:
        return isinstance(other, str) and standings.person(other).casefold() == mine

    events, about = [], []
    for event in timeline.read(until=end):
        if begin is not None and event.occurred_at < begin:
            continue
        if is_them(event.actor) or (event.kind == "pushed" and any(map(is_them, event.data.get("authors", [])))):
            events.append(event)
        elif event.kind in ("account", "granted", "key") and is_them(event.data.get("account", "")):
            about.append(event)
    by_kind: dict[str, int] = {}
    for event in events:
        by_kind[event.kind] = by_kind.get(event.kind, 0) + 1
    return Deeds(
        name=name,
        person=person,
        names=sorted({event.actor for event in events if is_them(event.actor)} | {person}),
        begin=begin,
        end=end,
        roles=[one for one in standings.roles(name) if _within(one, begin, end)],
        signed_in=by_kind.get(SIGNED_IN, 0),
        denied=counted(events, DENIED),
        reads=sum(counted(events, kind) for kind in READS),
        by_kind=dict(sorted(by_kind.items())),
        events=events,
        about=about,
    )


def counted(events: list[Event], kind: str) -> int:
    """Return how often something happened that is written down once and then only counted for a while."""
    return sum(1 + int(event.data.get("more", 0)) for event in events if event.kind == kind)


def _within(held: Held, begin: datetime | None, end: datetime | None) -> bool:
    return (end is None or held.since <= end) and (begin is None or held.until is None or held.until >= begin)
