"""Notes the head of the chain outside: by hand, and again and again while events come.

What a place or an authority does wrong is an issue of orrery itself, closed when it works again; the timeline never
waits for any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orrery.audit.places import STAMPS, checked, place
from orrery.audit.stamps import stamp
from orrery.errors import NotFound, OrreryError
from orrery.timeline.anchor import Anchor
from orrery.timeline.event import Draft, Event
from orrery.timeline.state import DataState
from orrery.timeline.store import Timeline
from orrery.types import digest, format_instant

ACTOR = "orrery/anchors"
FOLDER = "anchors"
"""Folder of the home with the clones that anchors are pushed from."""


@dataclass(frozen=True)
class Outcome:
    """What came of one address: the event that tells of the anchor, or why there is none."""

    address: str
    event: Event | None
    fault: str = ""


class Anchoring:
    """Notes the head of one timeline.

    Parameters
    ----------
    timeline : whose head.
    state : returns what the events of no model add up to.
    work : folder for clones.
    """

    def __init__(self, timeline: Timeline, state: Callable[[], DataState], work: Path) -> None:
        self._timeline, self._state, self._work = timeline, state, work

    def due(self, addresses: Sequence[str], now: datetime, every: float) -> list[str]:
        """Return the addresses where the head is to be noted: it moved, and the last time is long enough ago."""
        last = self._state().anchors
        waits = (one for one in addresses if one not in last or (now - last[one].at).total_seconds() >= every)
        return [one for one in waits if self._moved(last[one].seq if one in last else 0)]

    def failing(self, address: str) -> bool:
        """Say whether an address did not take part the last time."""
        return self._state().open_issue(cause(address)) is not None

    def anchor(self, addresses: Sequence[str], *, actor: str = ACTOR, why: str = "") -> list[Outcome]:
        """Note the head at each address.

        Time stamps are asked for first, so that every place gets them with the anchor.

        Raises
        ------
        NotFound
            If nothing ever happened.
        NotUnderstood
            If an address cannot be one, or holds a password: then it is written nowhere.
        """
        for address in addresses:
            checked(address)
        head = next(self._timeline.read(newest_first=True, limit=1), None)
        if head is None:
            raise NotFound("There is nothing to anchor: the timeline is empty.")
        now = self._timeline.clock.now()
        authorities = [one for one in addresses if one.startswith(STAMPS)]
        stamps, faults = {}, {}
        for address in authorities:
            try:
                stamps[address] = stamp(address, head)
            except OrreryError as error:
                faults[address] = error.what
        anchor = Anchor(seq=head.seq, hash=head.hash, at=now, stamps=stamps)
        for address in addresses:
            if address not in authorities:
                try:
                    place(address, self._work).put(anchor)
                except OrreryError as error:
                    faults[address] = error.what
        return [self._told(address, anchor, faults.get(address, ""), actor, why) for address in addresses]

    def _moved(self, since: int) -> bool:
        """Say whether anything happened since but anchors themselves."""
        return any(event.kind != "anchored" for event in self._timeline.read(after=since))

    def _told(self, address: str, anchor: Anchor, fault: str, actor: str, why: str) -> Outcome:
        """Write down what came of an address."""
        known = self._state().open_issue(cause(address))
        if fault:
            if known is None:
                self._timeline.append([_opened(address, anchor, fault)])
            return Outcome(address, None, fault)
        stamps = {address: anchor.stamps[address]} if address in anchor.stamps else anchor.stamps
        data = {"target": address, "seq": anchor.seq, "hash": anchor.hash, "at": format_instant(anchor.at)}
        words = why or f"The chain had {anchor.seq} events; whoever cuts or rewrites it contradicts this."
        drafts = [Draft(kind="anchored", actor=actor, why=words, data={**data, "stamps": stamps})]
        if known is not None:
            closed = {"issue": known.id}
            drafts.append(Draft(kind="issue_closed", actor=ACTOR, why=f"{address} takes part again.", data=closed))
        return Outcome(address, self._timeline.append(drafts)[0])


def cause(address: str) -> str:
    """Return the cause of the issue that an address has while it does not take part."""
    return f"anchors:{address}"


def _opened(address: str, anchor: Anchor, fault: str) -> Draft:
    issue = digest(f"{cause(address)}/{format_instant(anchor.at)}")[:8]
    data = {"issue": issue, "title": f"No anchors are put to {address}", "owner": "", "cause": cause(address)}
    why = f"{fault} It is tried again; until then a cut or rewritten chain is not found by this one."
    return Draft(kind="issue_opened", actor=ACTOR, why=why, data=data)


def told(timeline: Timeline) -> Iterator[Event]:
    """Yield the events that tell of anchors, oldest first."""
    yield from timeline.read("", kinds=("anchored",))
