"""What answered at a time, who let it, and on what evidence: every line names the event that says so."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import msgspec

from orrery.audit.standing import Standings
from orrery.timeline.event import Event
from orrery.timeline.state import Lane, ModelState, Version
from orrery.timeline.states import States
from orrery.types import parse_instant

SAID = ("approved", "review_overridden", "changes_requested", "rejected")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What a person said of a version before, or while, it answered.

    Parameters
    ----------
    kind : ``approved``, ``review_overridden``, ``changes_requested`` or ``rejected``.
    actor, person, known : the name that was said, who is behind it, and whether there was an account of them.
    roles : what they were when they said it.
    role, gate, environment : of what review, or which refused gate they overrode, for where.
    why, at : the reason, and when.
    evidence, stands : digest of what they saw, and whether that is what answered.
    event, hash : the event.
    """

    kind: str
    actor: str
    person: str
    known: bool
    roles: list[str]
    role: str
    gate: str
    environment: str
    why: str
    at: datetime
    evidence: str
    stands: bool
    event: int
    hash: str


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate said, and who overrode it."""

    name: str
    verdict: str
    why: str
    overridden_by: str = ""


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a dataset that a version learned from, and the digest of its rows."""

    dataset: str
    version: int
    digest: str = ""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One version that answered.

    Parameters
    ----------
    model, environment, version : what answered where.
    since, until : from when to when; nothing while it does.
    why, by, by_roles : by what decision, of whom, and what they were then.
    event, hash : the event of that decision.
    change, cause, run : what kind of version it is, why it was trained, and the run.
    commit, author, pushed_by, message : the code.
    data : what it learned from.
    evidence : digest of the version and its verdicts, which approvals are bound to.
    passed, gates : what the gates said.
    needs : what the policy asked for before the environment.
    said : what people said of it.
    beside : versions that ran beside it at the end of the time asked for.
    deleted : who deleted it since and why; nothing if nobody did.
    """

    model: str
    environment: str
    version: int
    since: datetime
    until: datetime | None
    why: str
    by: str
    by_roles: list[str]
    event: int
    hash: str
    change: str
    cause: str
    run: str
    commit: str
    author: str
    pushed_by: str
    message: str
    data: list[Learned]
    evidence: str
    passed: bool | None
    gates: list[Gate]
    needs: list[str]
    said: list[Word]
    beside: list[str]
    deleted: dict[str, Any] | None


def period(text: str) -> tuple[datetime, datetime]:
    """Return the first and the last instant that a text names: a day is all of it.

    Examples
    --------
    >>> [one.isoformat() for one in period("2026-03-03")]
    ['2026-03-03T00:00:00+00:00', '2026-03-03T23:59:59.999999+00:00']
    >>> begin, end = period("2026-03-03T12:00Z")
    >>> begin == end
    True
    """
    begin = parse_instant(text)
    whole = _DAY.fullmatch(text.strip())
    return begin, begin + timedelta(days=1, microseconds=-1) if whole else begin


def served(states: States, standings: Standings, name: str, at: str, environment: str = "") -> list[Served]:
    """Return what of a model answered at an instant, or on a day, oldest first.

    Parameters
    ----------
    states : where it is read.
    standings : who was what when.
    name : of the model.
    at : an instant or a day.
    environment : only there; empty for everywhere.
    """
    begin, end = period(at)
    then, now = states.at(name, end), states.model(name)
    reader = _Reader(states, standings, then, now)
    found = [
        reader.read(lane, number, since, until, end)
        for lane in then.lanes.values()
        if environment in ("", lane.environment)
        for number, since, until in lane.tenures
        if since <= end and (until is None or until > begin)
    ]
    return sorted(found, key=lambda one: (one.environment, one.since))


class _Reader:
    def __init__(self, states: States, standings: Standings, then: ModelState, now: ModelState) -> None:
        self._timeline, self._standings, self._then, self._now = states.timeline, standings, then, now

    def read(self, lane: Lane, number: int, since: datetime, until: datetime | None, end: datetime) -> Served:
        version = self._then.versions[number]
        decision = self._decision(lane.environment, number, since)
        commit, run = self._then.commits.get(version.commit), self._then.runs.get(version.run)
        said = [
            self._word(one, version) for one in self._said(number, end) if one.environment in ("", lane.environment)
        ]
        policy = self._then.spec_of(version.commit).environments.get(lane.environment) if commit else None
        beside = [] if until is not None else [f"v{one.version} ({one.standing})" for one in lane.challengers.values()]
        return Served(
            model=self._then.name,
            environment=lane.environment,
            version=number,
            since=since,
            until=until,
            why=decision.why,
            by=decision.actor,
            by_roles=self._standings.then(decision.actor, decision.seq),
            event=decision.seq,
            hash=decision.hash,
            change=version.change,
            cause=run.why if run else version.why,
            run=version.run,
            commit=version.commit,
            author=commit.author if commit else "",
            pushed_by=commit.pushed_by if commit else "",
            message=commit.message if commit else "",
            data=[self._learned(dataset, at) for dataset, at in sorted(version.data.items())],
            evidence=version.evidence,
            passed=version.passed,
            gates=_gates(version, said),
            needs=list(policy.needs) if policy else [],
            said=said,
            beside=beside,
            deleted=self._now.versions[number].deleted,
        )

    def _decision(self, environment: str, number: int, since: datetime) -> Event:
        kinds = ("promoted", "rolled_back")
        events = self._timeline.read(self._then.name, kinds=kinds, version=number, until=since, newest_first=True)
        return next(one for one in events if one.environment == environment and one.occurred_at == since)

    def _said(self, number: int, end: datetime) -> list[Event]:
        return list(self._timeline.read(self._then.name, kinds=SAID, version=number, until=end))

    def _word(self, event: Event, version: Version) -> Word:
        evidence = str(event.data.get("evidence", ""))
        roles = event.data.get("roles") or [event.data.get("role", "")]
        return Word(
            kind=event.kind,
            actor=event.actor,
            person=self._standings.person(event.actor),
            known=self._standings.known(event.actor, event.seq),
            roles=self._standings.then(event.actor, event.seq),
            role=", ".join(str(one) for one in roles),
            gate=str(event.data.get("gate", "")),
            environment=event.environment,
            why=event.why,
            at=event.occurred_at,
            evidence=evidence,
            stands=not evidence or evidence == version.evidence,
            event=event.seq,
            hash=event.hash,
        )

    def _learned(self, dataset: str, number: int) -> Learned:
        for event in self._timeline.read("", kinds=("data_added",), newest_first=True):
            if event.data.get("dataset") == dataset and event.data.get("version") == number:
                return Learned(dataset=dataset, version=number, digest=str(event.data.get("digest", "")))
        return Learned(dataset=dataset, version=number)


def _gates(version: Version, said: list[Word]) -> list[Gate]:
    over = {one.gate: one.actor for one in said if one.gate and one.kind == "approved" and one.stands}
    return [
        Gate(
            name=name,
            verdict=str(verdict.get("verdict", "")),
            why=str(verdict.get("why", "")),
            overridden_by=over.get(name, ""),
        )
        for name, verdict in version.gates.items()
    ]
