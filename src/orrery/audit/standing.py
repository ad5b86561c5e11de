"""Who somebody was when they acted: the person behind a name, and the roles that they held then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache

import msgspec

from orrery.access.roles import EVERYWHERE
from orrery.timeline.event import Event
from orrery.timeline.store import Timeline

PersonOf = Callable[[str], str]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A role, from when to when.

    Parameters
    ----------
    role, place : which, and where it held.
    since, by, why, event : who gave it when, why, and the number of the event.
    until, taken_by, taken : who took it back when, and the number of the event; nothing while it holds.
    """

    role: str
    place: str
    since: datetime
    by: str
    why: str
    event: int
    until: datetime | None = None
    taken_by: str = ""
    taken: int | None = None

    @property
    def says(self) -> str:
        """The role in words."""
        return self.role if self.place == EVERYWHERE else f"{self.role} of {self.place}"


class Standings:
    """Who held which role when, read from the chain once.

    Parameters
    ----------
    timeline : where roles were given and taken.
    person : from a name to the person behind it.
    """

    def __init__(self, timeline: Timeline, person: PersonOf) -> None:
        self.person: PersonOf = cache(person)
        self._held: dict[str, list[Held]] = {}
        self._known: dict[str, int] = {}
        for event in timeline.read("", kinds=("account", "granted")):
            self._take(event)

    def roles(self, name: str) -> list[Held]:
        """Return all roles that a person ever held, in the order in which they were given."""
        return self._held.get(self.person(name).casefold(), [])

    def then(self, name: str, seq: int) -> list[str]:
        """Return in words the roles that a person held when an event was written."""
        held = (one for one in self.roles(name) if one.event < seq and (one.taken is None or one.taken > seq))
        return [one.says for one in held]

    def known(self, name: str, seq: int) -> bool:
        """Say whether there was an account of the person when an event was written; else the name is what was said."""
        return self._known.get(self.person(name).casefold(), seq) < seq

    def _take(self, event: Event) -> None:
        account = str(event.data.get("account", ""))
        who = self.person(account).casefold()
        if event.kind == "account":
            self._known.setdefault(who, event.seq)
            return
        if not account:  # a project became one of a team
            return
        role, place = str(event.data["role"]), str(event.data["place"])
        held = self._held.setdefault(who, [])
        if event.data.get("given"):
            fresh = Held(
                role=role, place=place, since=event.occurred_at, by=event.actor, why=event.why, event=event.seq
            )
            held.append(fresh)
            return
        for number, one in enumerate(held):
            if (one.role, one.place) == (role, place) and one.taken is None:
                ended = {"until": event.occurred_at, "taken_by": event.actor, "taken": event.seq}
                held[number] = msgspec.structs.replace(one, **ended)
