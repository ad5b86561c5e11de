"""The page of one version: what it is made of, what was decided about it and why; and the page of a commit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orrery.access.roles import Permission
from orrery.app import Orrery
from orrery.errors import NotFound
from orrery.review.deadlines import overdue
from orrery.timeline.event import Event
from orrery.timeline.standing import standing
from orrery.timeline.state import Approval, Issue, ModelState, Version
from orrery.web import wire
from orrery.web.reading import TELLING, newest, version_answers
from orrery.web.render import Page

DONE = {
    "approve": "Approved.",
    "reject": "Rejected; the author has an issue now.",
    "ask": "The author has a question to answer; the review waits for it.",
    "override": "Overridden. Everybody who reviews is told, and an issue asks for the review afterwards.",
    "promote": "Promoted.",
    "retire": "Retired.",
    "delete": "Deleted; the record stays.",
    "rollback": "Rolled back.",
    "train": "A training is asked for.",
    "event": "Noted.",
    "issue": "The issue is open.",
    "comment": "Said.",
    "assign": "Assigned.",
    "close": "Closed.",
    "reopen": "Open again.",
}
"""Order -> what a page says when it came back from it."""

OF_ORDER: dict[str, Permission] = {
    "approve": "review",
    "override gate": "review",
    "reject": "review",
    "override": "override",
    "promote": "release",
    "retire": "release",
    "delete": "delete",
}
"""Order of a version -> the permission without which its form is not shown; the command itself asks again."""


@dataclass(frozen=True)
class Gate:
    """What one gate said."""

    name: str
    verdict: str
    why: str
    numbers: list[tuple[str, Any]]
    overridden: str


@dataclass(frozen=True)
class Standing:
    """What a version is, or was, in an environment."""

    environment: str
    role: str
    since: datetime | None
    left: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class VersionPage(Page):
    """One version."""

    template = "version.html"
    refreshes = False

    model: str
    number: int
    version: wire.VersionAnswer
    status: str
    standings: list[Standing]
    gates: list[Gate]
    segments: list[dict[str, Any]]
    insufficient: list[str]
    approvals: list[Approval]
    waiting: list[tuple[str, str]]
    mine: list[tuple[str, str]]
    """Those of them that who looks may answer."""
    overdue: list[tuple[str, str]]
    questions: list[Issue]
    unlearn: bool
    """Whether it learned from rows of a subject that was erased since."""
    facts: dict[str, Any]
    params: dict[str, Any]
    metrics: dict[str, float]
    steps: list[dict[str, Any]]
    warnings: list[str]
    compiled: str
    contained: str
    """How its training was contained: ``namespaces``, or ``limits only`` and why; empty for versions of before."""
    tests_contained: str
    build_contained: str
    run_url: str
    events: list[dict[str, Any]]
    environments: list[str]
    can: list[str]
    done: str


@dataclass(frozen=True, kw_only=True)
class CommitPage(Page):
    """One commit of the project."""

    template = "commit.html"

    model: str
    sha: str
    at: datetime
    author: str
    branch: str
    message: str
    failed: str
    built: dict[str, Any]
    tests: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    spec: dict[str, Any]


def version_page(orrery: Orrery, name: str, number: int, done: str = "") -> VersionPage:
    """Return the page of one version."""
    model = orrery.model(name)
    version = model.versions.get(number)
    if version is None:
        raise NotFound(f"{name} has no version {number}.", todo=f"It has {len(model.versions)}.")
    facts = version.facts
    segments = (version.gates.get("segments") or {}).get("numbers") or {}
    events = newest(orrery, name, TELLING, version=number, limit=100)
    waiting = [(place, role) for one, place, role in model.waiting() if one.number == number]
    return VersionPage(
        title=f"{name} v{number}",
        model=name,
        number=number,
        version=next(one for one in version_answers(model) if one.number == number),
        status=standing(model, version),
        standings=_standings(model, version),
        gates=[_gate(version, gate, verdict) for gate, verdict in version.gates.items()],
        segments=list(segments.get("segments") or []),
        insufficient=list(segments.get("insufficient") or []),
        approvals=[one for one in version.approvals if version.stands(one)],
        waiting=waiting,
        mine=[(place, role) for place, role in waiting if orrery.principal.may_sign(role, name)],
        overdue=[(place, role) for one, place, role in overdue(model, orrery.clock.now()) if one.number == number],
        questions=[asked for one in model.unreviewed() if one[0] is version and (asked := model.question(*one))],
        unlearn=number in model.unlearn,
        facts=_facts(facts),
        params=dict(facts.get("params") or {}),
        metrics=dict(facts.get("metrics") or {}),
        steps=[one for one in facts.get("steps") or [] if isinstance(one, dict)],
        warnings=[str(one) for one in facts.get("warnings") or []],
        compiled=str((facts.get("compiled") or {}).get("sentence", "")),
        contained=str(facts.get("contained", "")),
        tests_contained=_tests_contained(orrery, name, version.commit),
        build_contained=str((model.commits[version.commit].built or {}).get("contained", "")),
        run_url=_run_url(facts.get("tracking_run")),
        events=[event.to_json() for event in events],
        environments=[lane.environment for lane in model.lanes.values() if lane.environment],
        can=[one for one in _can(model, version) if orrery.principal.may(OF_ORDER[one], name)],
        done=DONE.get(done, ""),
    )


def _facts(facts: dict[str, Any]) -> dict[str, Any]:
    found = {key: facts.get(key) for key in ("rows", "cpu_seconds", "seconds", "expected_loss", "trained_until")}
    until = found["trained_until"]
    return {**found, "trained_until": until[:16].replace("T", " ") if isinstance(until, str) else None}


def _tests_contained(orrery: Orrery, name: str, commit: str) -> str:
    """Return how the tests of a commit were contained when they last passed."""
    found = orrery.timeline.read(name, kinds=["tested"], newest_first=True, limit=100)
    return next((str(one.data.get("contained", "")) for one in found if one.data.get("commit") == commit), "")


def _run_url(run: Any) -> str:
    from urllib.parse import quote

    return f"/mlflow/#/experiments/0/runs/{quote(str(run), safe='')}" if run else ""


def _standings(model: ModelState, version: Version) -> list[Standing]:
    from orrery.rollout.moves import evidence_in_words
    from orrery.rollout.shares import service_in_words

    found = []
    for lane in model.lanes.values():
        number, environment = version.number, lane.environment
        beside = lane.challengers.get(number)
        if lane.champion == number:
            found.append(Standing(environment, "champion", lane.since, "", lane.why))
        elif beside is not None:
            words = f"{service_in_words(beside)} " if beside.share else ""
            words += evidence_in_words(beside)
            found.append(Standing(environment, beside.standing, beside.since, "", words))
        elif environment in version.left or environment in version.entered:
            since = version.entered.get(environment)
            found.append(Standing(environment, "", since, version.left.get(environment, ""), ""))
    return found[::-1]


def _gate(version: Version, name: str, verdict: dict[str, Any]) -> Gate:
    numbers = [
        (key, value) for key, value in (verdict.get("numbers") or {}).items() if not isinstance(value, list | dict)
    ]
    over = next(
        (f"{one.actor}: {one.why}" for one in version.approvals if one.gate == name and version.stands(one)), ""
    )
    return Gate(name, str(verdict.get("verdict", "")), str(verdict.get("why", "")), numbers, over)


def _can(model: ModelState, version: Version) -> list[str]:
    """Return the orders that make sense for a version now."""
    if version.deleted:
        return []
    used = [lane for lane in model.lanes.values() if version.number in (lane.champion, *lane.challengers)]
    answers = any(lane.champion == version.number for lane in model.lanes.values())
    found = []
    if not version.rejected:
        if any(one.number == version.number for one, _, _ in model.waiting()):
            found.append("approve")
        if version.passed is False and not version.released:
            found.append("override gate")
        policy = model.policy()
        places = [place for one, place, _ in model.unreviewed() if one.number == version.number]
        if policy and any(policy.environments[place].emergency for place in places if place in policy.environments):
            found.append("override")
        if not answers:
            found.append("reject")
        if version.released:
            found.append("promote")
    if used:
        found.append("retire")
    else:
        found.append("delete")
    return found


def commit_page(orrery: Orrery, name: str, sha: str) -> CommitPage:
    """Return the page of one commit, named by its id or the beginning of it."""
    model = orrery.model(name)
    fits = [one for one in model.commits.values() if len(sha) >= 7 and one.sha.startswith(sha)]
    if len(fits) != 1:
        raise NotFound(f"{name} has no commit {sha[:40]!r}.", todo="Name it by at least seven digits of its id.")
    commit = fits[0]
    mine = [
        event
        for event in newest(orrery, name, ("tested", "failed"), limit=400)
        if event.data.get("commit") == commit.sha
    ]
    return CommitPage(
        title=f"{name} @ {commit.sha[:7]}",
        model=name,
        sha=commit.sha,
        at=commit.at,
        author=commit.author,
        branch=commit.branch,
        message=commit.message,
        failed=commit.failed,
        built=dict(commit.built or {}),
        tests=[_output(event) for event in mine if event.kind == "tested"],
        failures=[_output(event) for event in mine if event.kind == "failed"],
        runs=[
            {
                "id": run.id,
                "at": run.at,
                "reason": run.reason,
                "change": run.change,
                "version": run.version,
                "failed": run.failed,
                "why": run.why,
                "by": run.by,
            }
            for run in model.runs.values()
            if run.commit == commit.sha
        ],
        spec=commit.spec,
        running=["builds" if commit.built is None else "tests"] if not commit.failed and not commit.tested else [],
    )


def _output(event: Event) -> dict[str, Any]:
    return {
        "at": event.occurred_at,
        "environment": event.environment,
        "why": event.why,
        "passed": event.data.get("passed"),
        "seconds": event.data.get("seconds"),
        "output": str(event.data.get("output", "")),
    }
