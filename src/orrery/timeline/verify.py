"""Checks that a chain of events is what was written: nothing changed, removed, moved or put in between."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orrery.errors import NotUnderstood
from orrery.timeline.event import GENESIS, hash_of


@dataclass(frozen=True)
class Verdict:
    """What a check of the chain found.

    Parameters
    ----------
    events : how many were read.
    head : hash of the last one; compare it with one noted elsewhere to know that nothing was cut off the end.
    faults : a sentence for each place where the chain does not hold; empty where it does.
    """

    events: int
    head: str
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the chain is whole."""
        return not self.faults


def verify(chain: Iterable[dict[str, Any]], *, head: str | None = None, most: int = 20) -> Verdict:
    """Check events in the form of :meth:`orrery.timeline.event.Event.to_json`, from the first one on.

    Parameters
    ----------
    chain : the events, in order.
    head : hash that the last event is known to have; without it a cut at the end cannot be seen.
    most : faults to name before giving up.
    """
    faults: list[str] = []
    count, prev, recorded = 0, GENESIS, ""
    for fields in chain:
        count += 1
        seq = fields.get("seq")
        if seq != count:
            faults.append(f"Event number {count} says it is {seq}: an event was removed, moved or put in.")
            if isinstance(seq, int):
                count = seq
        if fields.get("prev_hash") != prev:
            faults.append(f"Event {seq} does not follow the event before it.")
        if hash_of(fields) != fields.get("hash"):
            faults.append(f"Event {seq} ({fields.get('kind')} of {fields.get('model') or '-'}) was changed.")
        if str(fields.get("recorded_at")) < recorded:
            faults.append(f"Event {seq} was recorded before the event before it.")
        prev, recorded = str(fields.get("hash")), str(fields.get("recorded_at"))
        if len(faults) >= most:
            break
    if head is not None and prev != head and len(faults) < most:
        faults.append(f"The last event is {prev[:12]}, expected {head[:12]}: events were cut off the end, or added.")
    return Verdict(events=count, head=prev, faults=tuple(faults))


def exported(path: Path) -> Iterator[dict[str, Any]]:
    """Read a file with one event a line, as ``orrery timeline --json`` writes it.

    Raises
    ------
    NotUnderstood
        If a line is not a JSON object.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except json.JSONDecodeError as error:
                raise NotUnderstood(f"Line {number} of {path.name} is not JSON: {error}.") from error
            if not isinstance(fields, dict):
                raise NotUnderstood(f"Line {number} of {path.name} is not an event.")
            yield fields
