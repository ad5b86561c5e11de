"""A version that answers a share of the traffic: a canary that grows in steps, or an arm of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from orrery.spec import Burden, Spec, values_wait
from orrery.timeline.event import Draft
from orrery.timeline.state import Challenger, Lane, ModelState, Version
from orrery.types import format_instant, parse_duration, parse_share, percent

SHARING = ("canary", "arm")
"""Roles that answer a share."""


def first_role(burden: Burden) -> str:
    """Return how a version is tried first: ``shadow``, ``arm`` or ``canary``; empty where it need not be."""
    return "shadow" if burden.shadow else "arm" if burden.ab else "canary" if burden.canary else ""


def taken(lane: Lane, role: str) -> bool:
    """Say whether another version answers a share in this role: one after the other, so that each is told apart."""
    return role in SHARING and any(one.role == role for one in lane.challengers.values())


def steps_of(burden: Burden, above: float = 0.0) -> list[float]:
    """Return the shares that a canary goes through before it answers everything."""
    return [share for text in burden.canary if above < (share := parse_share(text)) < 1]


def begun(
    model: ModelState,
    version: Version,
    lane: Lane,
    policy: Spec,
    role: str,
    steps: list[float],
    why: str,
    now: datetime,
) -> Draft:
    """Return the event with which a version begins to be tried in a role."""
    burden = getattr(policy.rollout, version.change)
    facts: dict[str, object] = {
        "role": role,
        "until": format_instant(now + parse_duration(burden.max)),
        "change": version.change,
    }
    if role in SHARING:
        share = parse_share(burden.ab) if role == "arm" else steps[0]
        facts |= {"share": share, "steps": [] if role == "arm" else steps, "unit": policy.rollout.sticky}
    return Draft(
        kind="challenged",
        actor="orrery/rollout",
        why=why,
        model=model.name,
        version=version.number,
        environment=lane.environment,
        data=facts,
    )


def next_share(challenger: Challenger) -> float:
    """Return the share that follows the present one; 1 after the last step."""
    return next((share for share in challenger.steps if share > challenger.share), 1.0)


def step_done(challenger: Challenger, policy: Spec, now: datetime) -> bool:
    """Say whether a canary has answered enough, for long enough, at its present share; never where a person set it.

    Where business metrics guard it, what its first answers brought must have been looked at, too.
    """
    rules, since = policy.rollout.probation, challenger.moved or challenger.since
    enough = challenger.service.get("requests", 0) >= rules.requests
    waits = values_wait(policy, challenger.change)
    looked = not waits or (challenger.compared_until or since) >= since + parse_duration(rules.time) + waits
    return bool(challenger.steps) and enough and looked and now >= since + parse_duration(rules.time)


def look_due(challenger: Challenger, policy: Spec, now: datetime) -> bool:
    """Say whether a version that answers a share is to be looked at: after a step's time, then ever more seldom."""
    since = challenger.moved or challenger.since
    last = max(challenger.compared_until or since, since)
    time = parse_duration(policy.rollout.probation.time)
    planned = last + max(time, (last - since) / 2, timedelta(seconds=1))
    decides = since + time + values_wait(policy, challenger.change)
    return now >= (min(planned, decides) if last < decides else planned)


def service_in_words(challenger: Challenger) -> str:
    """Return how a version that answers a share behaves, in a sentence."""
    facts, at = challenger.service, percent(challenger.share)
    if not facts:
        return f"At {at}: not looked at yet."
    parts = [f"{facts['requests']:,} requests", f"{facts['failures']:,} failures"]
    if facts.get("latency") is not None:
        parts.append(f"median latency {facts['latency']:.1f} times the champion's")
    if facts.get("agreement") is not None:
        parts.append(f"{percent(facts['agreement'])} of the answers are the champion's")
    return f"At {at}: {', '.join(parts)}."


def breach_of(challenger: Challenger) -> str:
    """Return which limit a version that answers a share breaks; empty while it keeps all."""
    return str(challenger.service.get("breach") or "")


def retired(model: ModelState, lane: Lane, challenger: Challenger, why: str) -> Iterator[Draft]:
    """Yield the events after which a version answers no share any more, with an issue where it broke a limit."""
    about = {
        "actor": "orrery/rollout",
        "why": why,
        "model": model.name,
        "version": challenger.version,
        "environment": lane.environment,
    }
    yield Draft(kind="retired", data={"role": challenger.role}, **about)  # type: ignore[arg-type]
    if breach_of(challenger):
        commit = model.commits[model.versions[challenger.version].commit]
        issue = f"{model.name}-{challenger.version}-{lane.environment}-{challenger.since:%Y%m%d%H%M%S}"
        owner = str(commit.spec["model"].get("owner") or commit.author)
        facts = {"issue": issue, "title": why, "owner": owner, "cause": f"breach:{issue}"}
        yield Draft(kind="issue_opened", data=facts, **about)  # type: ignore[arg-type]
