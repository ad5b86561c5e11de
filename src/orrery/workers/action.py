"""One next step: what the loop asks for and a worker does."""

from __future__ import annotations

from typing import Any

import msgspec

from orrery.timeline.event import Draft
from orrery.types import digest


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """A step that is due.

    Parameters
    ----------
    key : says which step it is, the same however often it is asked for; the ids of its events are made of it, which
        makes it idempotent.
    kind : what is to be done; ``record`` only writes its drafts down.
    model, version, environment : what it is about.
    args : what it needs to know.
    drafts : the events that a ``record`` writes.
    """

    key: str
    kind: str
    model: str
    version: int | None = None
    environment: str = ""
    args: dict[str, Any] = {}
    drafts: tuple[Draft, ...] = ()

    def event_id(self, name: str = "") -> str:
        """Return the id of the event of this name that the action writes."""
        return digest(f"{self.key}/{name}")


def record(key: str, *drafts: Draft) -> Action:
    """Return the action that writes events down, with ids made of its key."""
    named = tuple(
        msgspec.structs.replace(draft, id=digest(f"{key}/{number}:{draft.kind}")) for number, draft in enumerate(drafts)
    )
    first = drafts[0]
    return Action(
        key=key,
        kind="record",
        model=first.model,
        version=first.version,
        environment=first.environment,
        drafts=named,
    )
