"""One thing that happened, and how it is chained to what happened before."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import datetime
from typing import Any

import msgspec

from orrery.errors import Damaged, NotUnderstood
from orrery.types import format_instant

GENESIS = "0" * 64
"""The previous hash of the first event."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is not on the timeline yet.

    ``id`` makes appending idempotent: a draft whose id is on the timeline already is not written again.
    """

    kind: str
    actor: str
    why: str
    model: str = ""
    version: int | None = None
    environment: str = ""
    data: dict[str, Any] = {}
    occurred_at: datetime | None = None
    id: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened.

    Parameters
    ----------
    seq : place in the chain, from 1, without gaps.
    id : what the writer calls it; unique.
    occurred_at : when it happened in the world (UTC).
    recorded_at : when it was written down (UTC); never before the event before it.
    model : whose timeline it stands on; empty where it concerns no single model (a dataset, say).
    version : version of the model, if one.
    environment : environment, if one.
    kind : one of :data:`orrery.timeline.kinds.KINDS`.
    actor : who did it: a person's name, or the part of orrery that did, such as ``orrery/gates``.
    why : the reason, in a sentence for somebody who was not there.
    data : the numbers and names that belong to the kind.
    prev_hash, hash : SHA-256 of the event before, and of this one over all other fields.
    """

    seq: int
    id: str
    occurred_at: datetime
    recorded_at: datetime
    model: str
    version: int | None
    environment: str
    kind: str
    actor: str
    why: str
    data: dict[str, Any]
    prev_hash: str
    hash: str

    def to_json(self) -> dict[str, Any]:
        """Return the event as scripts read it: one flat object, instants as text."""
        return {
            "seq": self.seq,
            "id": self.id,
            "occurred_at": format_instant(self.occurred_at),
            "recorded_at": format_instant(self.recorded_at),
            "model": self.model,
            "version": self.version,
            "environment": self.environment,
            "kind": self.kind,
            "actor": self.actor,
            "why": self.why,
            "data": self.data,
            "prev_hash": self.prev_hash,
            "hash": self.hash,
        }


def canonical(value: Any) -> str:
    """Write a value the one way that hashes are made of.

    Raises
    ------
    NotUnderstood
        If it holds something that JSON cannot (NaN and infinities included).
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NotUnderstood(f"This cannot stand on a timeline: {error}.") from error


def hash_of(fields: dict[str, Any]) -> str:
    """Return the hash of an event's fields as :meth:`Event.to_json` gives them, ``hash`` left out."""
    body = canonical({name: value for name, value in fields.items() if name != "hash"})
    return hashlib.sha256(body.encode()).hexdigest()


def seal(draft: Draft, *, seq: int, recorded_at: datetime, prev_hash: str) -> Event:
    """Give a draft its place in the chain.

    Raises
    ------
    NotUnderstood
        If a field cannot be written as JSON.
    """
    data = json.loads(canonical(draft.data))
    event = Event(
        seq=seq,
        id=draft.id,
        occurred_at=draft.occurred_at or recorded_at,
        recorded_at=recorded_at,
        model=draft.model,
        version=draft.version,
        environment=draft.environment,
        kind=draft.kind,
        actor=draft.actor,
        why=draft.why,
        data=data,
        prev_hash=prev_hash,
        hash="",
    )
    return msgspec.structs.replace(event, hash=hash_of(event.to_json()))


def from_json(fields: dict[str, Any]) -> Event:
    """Read an event back from what :meth:`Event.to_json` gave.

    Raises
    ------
    Damaged
        If a field is missing or of another type.
    """
    try:
        return msgspec.convert(fields, Event)
    except msgspec.ValidationError as error:
        raise Damaged(f"This is not an event: {error}.") from error
