"""Checks that a chain of events is what was written: nothing changed, removed, moved or put in between.

A chain proves that it fits together, and nothing more: one that was cut off at its end, or written anew from the first
event on, fits as well. What was noted of it elsewhere (:class:`orrery.timeline.anchor.Anchor`) finds both.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orrery.errors import NotUnderstood
from orrery.timeline.anchor import Anchor, of_event
from orrery.timeline.event import GENESIS, hash_of
from orrery.types import format_instant


@dataclass(frozen=True)
class Verdict:
    """What a check of the chain found.

    Parameters
    ----------
    events : how many were read.
    head : hash of the last one; compare it with one noted elsewhere to know that nothing was cut off the end.
    faults : a sentence for each place where the chain does not hold; empty where it does.
    anchored : number of the newest event that an anchor is known of; 0 where none is.
    told : the anchors that the chain itself tells of.
    """

    events: int
    head: str
    faults: tuple[str, ...]
    anchored: int = 0
    told: tuple[Anchor, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the chain is whole."""
        return not self.faults


def verify(
    chain: Iterable[dict[str, Any]],
    *,
    head: str | None = None,
    anchors: Sequence[Anchor] = (),
    sources: Collection[str] = (),
    most: int = 20,
) -> Verdict:
    """Check events in the form of :meth:`orrery.timeline.event.Event.to_json`, from the first one on.

    Parameters
    ----------
    chain : the events, in order.
    head : hash that the last event is known to have; without it or an anchor a cut at the end cannot be seen.
    anchors : what was noted of the chain elsewhere: it must have every one of them.
    sources : where those come from: the anchors that the chain says it put there must be among them.
    most : faults to name before giving up.
    """
    faults: list[str] = []
    noted: dict[int, list[Anchor]] = {}
    for anchor in anchors:
        noted.setdefault(anchor.seq, []).append(anchor)
    told: list[Anchor] = []
    there = {(anchor.seq, anchor.hash) for anchor in anchors}
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
        faults += [_rewritten(one) for one in noted.pop(count, ()) if one.hash != prev]
        if fields.get("kind") == "anchored":
            faults += _told(fields, told, there, sources)
        if len(faults) >= most:
            break
    else:
        faults += [_cut(one, count) for ones in noted.values() for one in ones]
    if head is not None and prev != head and len(faults) < most:
        faults.append(f"The last event is {prev[:12]}, expected {head[:12]}: events were cut off the end, or added.")
    newest = max((one.seq for one in anchors), default=0)
    return Verdict(count, prev, tuple(faults), anchored=newest, told=tuple(told))


def _told(
    fields: dict[str, Any], told: list[Anchor], there: set[tuple[int, str]], sources: Collection[str]
) -> Iterator[str]:
    """Take down an anchor that the chain tells of; yield that it is not where it was put, if it is not."""
    data = fields.get("data")
    try:
        anchor = of_event(data if isinstance(data, dict) else {})
    except NotUnderstood:
        yield f"Event {fields.get('seq')} tells of an anchor that cannot be read."
        return
    told.append(anchor)
    target = data.get("target") if isinstance(data, dict) else ""
    if target in sources and (anchor.seq, anchor.hash) not in there:
        yield (
            f"Event {fields.get('seq')} says that an anchor of event {anchor.seq} was put to {target}, "
            "and it is not there: it was removed."
        )


def _rewritten(anchor: Anchor) -> str:
    when = format_instant(anchor.at)[:19]
    return f"Event {anchor.seq} is not what was anchored on {when}: the chain was written anew."


def _cut(anchor: Anchor, count: int) -> str:
    when = format_instant(anchor.at)[:19]
    return f"Event {anchor.seq} was anchored on {when}, and the chain ends at {count}: events were cut off the end."


def exported(path: Path) -> Iterator[dict[str, Any]]:
    """Read a file with one event a line, as ``orrery timeline --json`` writes it.

    Raises
    ------
    NotUnderstood
        If a line is not a JSON object, or says a field twice: people and programs would read it in two ways.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line, object_pairs_hook=_once)
            except ValueError as error:
                raise NotUnderstood(f"Line {number} of {path.name} is not JSON: {error}.") from error
            if not isinstance(fields, dict):
                raise NotUnderstood(f"Line {number} of {path.name} is not an event.")
            yield fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return fields
