"""The loop: what is due next, as a pure function of what has happened.

Nothing here reads a clock, a file or a database. Whoever calls it gives the folded state and the time, and gets the
actions that are due; doing them makes events; the events change the state; and the loop is asked again. A crash loses
nothing, because what is due follows from what is written down.

    push -> build -> test -> trigger -> train -> gate -> release and review -> shadow or promotion -> watch
      ^                         |                                                                       |
      |                         +<------------------- drift, decay, data, schedule <--------------------+
      +-- a person
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from orrery.review.deadlines import reminders
from orrery.review.issues import settled
from orrery.rollout.moves import next_moves
from orrery.rollout.shares import look_due
from orrery.timeline.state import DataState, ModelState
from orrery.triggers.due import due
from orrery.types import PRODUCTION, format_instant, parse_duration
from orrery.workers.action import Action


def decide(model: ModelState, data: DataState, now: datetime) -> list[Action]:
    """Return the actions that are due, the most urgent first.

    Parameters
    ----------
    model : folded state of one model.
    data : folded state of the datasets.
    now : the time, UTC.
    """
    return [
        *next_moves(model, now),
        *_commits(model),
        *due(model, data, now),
        *_trainings(model),
        *_judgements(model),
        *_looks(model, now),
        *_comparisons(model),
        *_canaries(model, now),
        *_purges(model),
        *settled(model),
        *reminders(model, now),
    ]


def _commits(model: ModelState) -> Iterator[Action]:
    """Every commit is built, then tested."""
    for commit in model.commits.values():
        if commit.failed:
            continue
        if commit.built is None:
            yield _action("build", model, commit.sha, args={"commit": commit.sha})
        elif "development" not in commit.tested:
            yield _action(
                "test", model, f"{commit.sha}:development", environment="development", args={"commit": commit.sha}
            )


def _trainings(model: ModelState) -> Iterator[Action]:
    """Every trigger becomes one training."""
    for run in model.runs.values():
        if run.open:
            yield _action("train", model, run.id, args={"run": run.id})


def _judgements(model: ModelState) -> Iterator[Action]:
    """Every version is judged by the gates."""
    for version in model.versions.values():
        if version.passed is None and not (version.failed or version.rejected or version.deleted):
            yield _action("gate", model, str(version.number), version=version.number)


def _looks(model: ModelState, now: datetime) -> Iterator[Action]:
    """Production is looked at in the rhythm of the policy; time that was slept through is one look."""
    lane, policy = model.lane(PRODUCTION), model.policy()
    if lane.champion is None or lane.since is None or policy is None:
        return
    since = lane.watched_until or lane.since
    if now - since >= parse_duration(policy.monitors.every):
        args = {"since": format_instant(since), "until": format_instant(now), "look": lane.looks + 1}
        yield _action("watch", model, str(lane.looks + 1), version=lane.champion, environment=PRODUCTION, args=args)


def _comparisons(model: ModelState) -> Iterator[Action]:
    """After each look every challenger is compared with the champion on what became known."""
    for lane in model.lanes.values():
        for challenger in lane.challengers.values():
            if challenger.role == "canary":
                continue
            since = challenger.compared_until or challenger.since
            if lane.champion is not None and lane.watched_until is not None and since < lane.watched_until:
                args = {"since": format_instant(since), "until": format_instant(lane.watched_until)}
                name = f"{challenger.version}:{lane.champion}:{challenger.since.timestamp():.0f}:{args['until']}"
                yield _action(
                    "compare", model, name, version=challenger.version, environment=lane.environment, args=args
                )


def _canaries(model: ModelState, now: datetime) -> Iterator[Action]:
    """A canary is looked at in its own rhythm: its next step does not wait for the monitors."""
    policy = model.policy()
    if policy is None:
        return
    for lane in model.lanes.values():
        for challenger in lane.challengers.values():
            if challenger.role == "canary" and lane.champion is not None and look_due(challenger, policy, now):
                since = challenger.compared_until or challenger.since
                args = {"since": format_instant(since), "until": format_instant(now)}
                # Named by what was looked at last: a name that changes with the time would never be taken.
                name = f"{challenger.version}:{lane.champion}:{challenger.since.timestamp():.0f}:{args['since']}"
                yield _action(
                    "compare", model, name, version=challenger.version, environment=lane.environment, args=args
                )


def _purges(model: ModelState) -> Iterator[Action]:
    """What was deleted leaves the disk."""
    for version in model.versions.values():
        if version.deleted and not version.purged:
            yield _action("purge", model, str(version.number), version=version.number)


def _action(
    kind: str,
    model: ModelState,
    name: str,
    *,
    version: int | None = None,
    environment: str = "",
    args: Mapping[str, object] | None = None,
) -> Action:
    return Action(
        key=f"{kind}:{model.name}:{name}",
        kind=kind,
        model=model.name,
        version=version,
        environment=environment,
        args=dict(args or {}),
    )
