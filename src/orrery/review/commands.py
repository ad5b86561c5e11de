"""Approval and rejection: pure functions from the state to the events that a person's word becomes."""

from __future__ import annotations

from orrery.errors import NotAllowed, NotFound
from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState, Version
from orrery.types import PRODUCTION, digest


def approve(
    model: ModelState, number: int, *, why: str, actor: str, environment: str = "", role: str = "", gate: str = ""
) -> list[Draft]:
    """Return the events of an approval, or of the override of a refused gate.

    Parameters
    ----------
    environment, role : what is approved; empty is all that was asked for.
    gate : name of a gate that refused and is overridden.

    Raises
    ------
    NotFound
        If there is no such version, or no such refused gate.
    NotAllowed
        If the version was rejected or deleted, or nobody asked.
    """
    version = _open(model, number)
    facts: dict[str, object]
    if gate:
        verdict = version.gates.get(gate, {})
        if verdict.get("verdict") != "refused":
            refused = [name for name, one in version.gates.items() if one.get("verdict") == "refused"]
            raise NotFound(f"The gate {gate!r} did not refuse version {number}.", todo=f"Refused: {refused or 'none'}.")
        return [_draft("approved", model, number, "", why, actor, {"gate": gate, "verdict": verdict.get("why", "")})]
    asked = [(place, who) for one, place, who in model.waiting() if one.number == number]
    asked = [(place, who) for place, who in asked if environment in ("", place) and role in ("", who)]
    if not asked:
        if version.passed is None:
            raise NotAllowed(f"Version {number} is not judged by the gates yet.", todo="Wait for the gates.")
        if not version.released:
            raise NotAllowed(
                f"The gates refused version {number}.", todo="Override with --gate NAME, or push a better one."
            )
        raise NotAllowed(f"No review of version {number} is waiting.", todo="`orrery status` shows what waits.")
    drafts = []
    for place, who in asked:
        facts = {"role": who}
        drafts.append(_draft("approved", model, number, place, why, actor, facts))
    return drafts


def reject(model: ModelState, number: int, *, why: str, actor: str) -> list[Draft]:
    """Return the events of a rejection: it ends the version's way and opens an issue to the author.

    Raises
    ------
    NotFound
        If there is no such version.
    NotAllowed
        If the version was rejected or deleted already, or answers somewhere.
    """
    version = _open(model, number)
    if model.lane(PRODUCTION).champion == number:
        raise NotAllowed(f"Version {number} answers in production.", todo="Roll back or retire it instead.")
    commit = model.commits[version.commit]
    owner = str(commit.spec["model"].get("owner") or commit.author)
    issue = digest(f"{model.name}/{number}/rejected")[:12]
    title = f"Version {number} was rejected by {actor}: {why}"
    drafts = [_draft("rejected", model, number, "", why, actor, {"role": ""})]
    for lane in model.lanes.values():
        if lane.champion == number or number in lane.challengers:
            words = f"Rejected by {actor}: {why}"
            role = "champion" if lane.champion == number else lane.challengers[number].role
            drafts.append(_draft("retired", model, number, lane.environment, words, actor, {"role": role}))
    facts: dict[str, object] = {"issue": issue, "title": title, "owner": owner}
    drafts.append(_draft("issue_opened", model, number, "", title, "orrery/review", facts))
    return drafts


def _open(model: ModelState, number: int) -> Version:
    version = model.versions.get(number)
    if version is None:
        raise NotFound(f"{model.name} has no version {number}.", todo=f"It has: {list(model.versions) or 'none'}.")
    if version.deleted:
        raise NotAllowed(f"Version {number} was deleted: {version.deleted['why']}")
    if version.rejected:
        raise NotAllowed(f"Version {number} was rejected: {version.rejected}")
    return version


def _draft(
    kind: str, model: ModelState, number: int, environment: str, why: str, actor: str, data: dict[str, object]
) -> Draft:
    return Draft(kind=kind, actor=actor, why=why, model=model.name, version=number, environment=environment, data=data)
