"""Reads from the timeline that cost the same however long it is."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from orrery.app import Orrery
from orrery.review.deadlines import deadline
from orrery.timeline.event import Event
from orrery.timeline.kinds import KINDS
from orrery.timeline.state import Lane, ModelState
from orrery.web import wire

LOOKS = ("watched", "compared")
"""Kinds that come with every look: many, and folded away unless asked for."""
TELLING = tuple(kind for kind in KINDS if kind not in LOOKS)


def newest(
    orrery: Orrery,
    model: str,
    kinds: Iterable[str],
    *,
    before: int | None = None,
    version: int | None = None,
    limit: int = 50,
) -> list[Event]:
    """Return the newest events of some kinds, newest first.

    Each kind is a short walk through the index of kinds, so that a rare kind does not mean reading the whole log.
    """
    read = orrery.timeline.read
    streams = (
        list(read(model, kinds=(kind,), before=before, version=version, newest_first=True, limit=limit))
        for kind in kinds
    )
    merged = heapq.merge(*streams, key=lambda event: -event.seq)
    return [event for event, _ in zip(merged, range(limit), strict=False)]


def running(orrery: Orrery, name: str) -> list[str]:
    """Return in words what is due, or being done, for a model."""
    words = []
    for action in orrery.due(name):
        if action.kind != "record":
            words.append(f"{action.kind} version {action.version}" if action.version else action.kind)
    return sorted(set(words))


def lane_answer(lane: Lane) -> wire.LaneAnswer:
    """Return one environment as the API has it."""
    return wire.LaneAnswer(
        environment=lane.environment,
        champion=lane.champion,
        since=lane.since,
        why=lane.why,
        by=lane.by,
        challengers=[
            wire.ChallengerAnswer(
                version=one.version,
                role=one.role,
                share=one.share,
                since=one.since,
                until=one.until,
                decision=one.decision,
                looks=one.looks,
                evidence=one.evidence,
                service=one.service,
            )
            for one in lane.challengers.values()
        ],
        alarms=sorted(lane.alarms),
        metrics=lane.metrics,
        watched_until=lane.watched_until,
    )


def model_answer(orrery: Orrery, model: ModelState) -> wire.ModelAnswer:
    """Return the state of a model in short."""
    policy = model.policy()
    return wire.ModelAnswer(
        name=model.name,
        seq=model.seq,
        task=policy.model.task if policy else "",
        objective=policy.model.objective if policy else "",
        owner=policy.model.owner if policy else "",
        primary=policy.rollout.primary if policy else "",
        environments=[lane_answer(lane) for lane in lanes_of(model)],
        versions=len(model.versions),
        waiting=len(model.waiting()),
        issues=sum(issue.closed is None for issue in model.issues.values()),
        running=running(orrery, model.name),
    )


def lanes_of(model: ModelState) -> list[Lane]:
    """Return the environments of a model, production first, those of its policy even where nothing was there yet."""
    policy = model.policy()
    names = list(policy.environments) if policy else []
    names += [name for name in model.lanes if name not in names]
    return [model.lane(name) for name in reversed(names) if name]


def version_answers(model: ModelState) -> list[wire.VersionAnswer]:
    """Return all versions of a model in short, oldest first."""
    return [
        wire.VersionAnswer(
            number=one.number,
            at=one.at,
            change=one.change,
            commit=one.commit,
            run=one.run,
            data=one.data,
            parent=one.parent,
            why=one.why,
            passed=one.passed,
            metrics=one.facts.get("metrics") or {},
            rejected=one.rejected,
            failed=one.failed,
            deleted=one.deleted is not None,
            entered=one.entered,
            left=one.left,
        )
        for one in model.versions.values()
    ]


def reviews(orrery: Orrery, names: Sequence[str] | None = None) -> list[wire.ReviewAnswer]:
    """Return what waits for a person, the longest wait first."""
    found = []
    for name in orrery.models() if names is None else names:
        model = orrery.model(name)
        for version, environment, role in model.waiting():
            until = deadline(model, version, environment, role)
            found.append(
                wire.ReviewAnswer(
                    model=name,
                    version=version.number,
                    environment=environment,
                    role=role,
                    since=version.asked.get(f"{environment}:{role}", version.at),
                    until=until,
                    overdue=until is not None and until <= orrery.clock.now(),
                    change=version.change,
                    why=version.why,
                )
            )
    return sorted(found, key=lambda one: one.since)


def data_versions(orrery: Orrery, name: str, limit: int = 500) -> list[wire.DataVersion]:
    """Return the versions of a dataset, newest first."""
    found: list[wire.DataVersion] = []
    for event in orrery.timeline.read("", kinds=("data_added",), newest_first=True):
        if event.data.get("dataset") == name:
            found.append(
                wire.DataVersion(
                    version=event.data["version"],
                    at=event.occurred_at,
                    rows=event.data["rows"],
                    quarantined=event.data.get("quarantined", 0),
                    digest=event.data.get("digest", ""),
                    actor=event.actor,
                    why=event.why,
                )
            )
            if len(found) == limit:
                break
    return found
