"""The state of a model, folded from its events one by one.

A fold has no other input than the events. Unknown kinds are passed over, so that an older orrery can read a newer log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from orrery.timeline.event import Event
from orrery.timeline.state import (
    Anchored,
    Approval,
    Challenger,
    Commit,
    Dataset,
    DataState,
    Erasure,
    Issue,
    Lane,
    ModelState,
    Run,
    Version,
)
from orrery.types import parse_instant

PROVING = ("shadow", "arm")
"""Roles in which a challenger is compared with the champion to be proven better."""


def fold(state: ModelState, events: Iterable[Event]) -> ModelState:
    """Apply events in order and return the same, changed state."""
    for event in events:
        handler = _HANDLERS.get(event.kind)
        if handler is not None:
            handler(state, event)
        state.seq = event.seq
    return state


def fold_data(state: DataState, events: Iterable[Event]) -> DataState:
    """Apply the events of datasets in order and return the same, changed state."""
    for event in events:
        name = event.data.get("dataset")
        if name:
            dataset = state.datasets.setdefault(name, Dataset(name=name))
            if event.kind == "data_added":
                dataset.version = max(dataset.version, event.data["version"])
                dataset.rows += event.data["rows"]
                dataset.at = event.occurred_at
                dataset.digest = event.data.get("digest", "")
            elif event.kind == "quarantined":
                dataset.quarantined += event.data["rows"]
            elif event.kind == "contract_changed":
                dataset.contract = event.data["contract"]
            elif event.kind == "expired":
                dataset.lost += max(0, dataset.rows - event.data["left"])
                dataset.rows = event.data["left"]
                dataset.expired = {"at": event.occurred_at, "removed": event.data["removed"]}
        elif event.kind in ("erasure_asked", "erased"):
            _fold_privacy(state, event)
        elif event.kind == "anchored":
            at = parse_instant(event.data["at"])
            state.anchors[event.data["target"]] = Anchored(seq=event.data["seq"], hash=event.data["hash"], at=at)
        elif event.kind in _OF_ISSUES:
            _OF_ISSUES[event.kind](state, event)
        state.seq = event.seq
    return state


def _fold_privacy(state: DataState, event: Event) -> None:
    data = event.data
    if event.kind == "erasure_asked":
        for grave in (data["grave"], *data.get("keys", ())):
            state.erased[grave] = event.occurred_at
        state.erasures += 1
        wish = Erasure(grave=data["grave"], at=event.occurred_at, by=event.actor, why=event.why)
        before = state.asked.get(data["grave"], wish)
        wish.held, wish.rows, wish.versions = data.get("held", {}), before.rows, before.versions
        state.asked[data["grave"]] = wish
    elif event.kind == "erased":
        for name, left in data["datasets"].items():
            if dataset := state.datasets.get(name):
                dataset.lost += max(0, dataset.rows - left)
                dataset.rows = left
        if asked := state.asked.get(data["grave"]):
            asked.done, asked.proof, asked.versions = event.occurred_at, data["proof"], data["versions"]
            asked.rows += sum(one["rows"] for one in data["tables"])


def _lane(state: ModelState, event: Event) -> Lane:
    return state.lanes.setdefault(event.environment, Lane(environment=event.environment))


def _pushed(state: ModelState, event: Event) -> None:
    data = event.data
    if data["commit"] not in state.commits:
        state.commits[data["commit"]] = Commit(
            sha=data["commit"],
            at=event.occurred_at,
            author=data.get("author") or event.actor,
            message=data.get("message", ""),
            branch=data.get("branch", "main"),
            spec=data["spec"],
            pushed_by=event.actor,
            authors=data.get("authors", []),
        )


def _built(state: ModelState, event: Event) -> None:
    if commit := state.commits.get(event.data["commit"]):
        commit.built = event.data


def _tested(state: ModelState, event: Event) -> None:
    if commit := state.commits.get(event.data["commit"]):
        commit.tested = {**commit.tested, event.environment: True}


def _failed(state: ModelState, event: Event) -> None:
    """End what failed for good, so that the loop goes on without it."""
    if event.data.get("stage") == "serving" and event.version is not None:
        lane = _lane(state, event)
        lane.unfit = {**lane.unfit, event.version: event.why}
    if not event.data.get("final", True):
        return
    stage, error = event.data.get("stage", ""), str(event.data.get("error", event.why))
    words, version = f"{stage}: {error}", state.versions.get(event.version or 0)
    commit = state.commits.get(event.data.get("commit", ""))
    if stage in ("build", "tests") and commit is not None:
        if event.environment in ("", "development"):
            commit.failed = words
        else:
            commit.tested = {**commit.tested, event.environment: False}
    elif stage == "training" and (run := state.runs.get(event.data.get("run", ""))):
        run.failed = words
    elif stage == "gates" and version is not None:
        version.failed = words
    elif stage == "registry" and version is not None:
        version.purged = True
    elif stage == "monitors":
        lane = _lane(state, event)
        lane.looks, lane.watched_until = event.data["look"], parse_instant(event.data["until"])
    elif stage == "rollout" and (challenger := _lane(state, event).challengers.get(event.version or 0)):
        challenger.compared_until = parse_instant(event.data["until"])


def _triggered(state: ModelState, event: Event) -> None:
    data = event.data
    state.runs[data["run"]] = Run(
        id=data["run"],
        at=event.occurred_at,
        reason=data["reason"],
        change=data["change"],
        commit=data["commit"],
        data=data["data"],
        why=event.why,
        by=event.actor,
        mark=data.get("mark", ""),
        params=data.get("params", {}),
        window=data.get("window", ""),
    )
    if data["reason"] == "push" and data["commit"] in state.commits:
        state.commits[data["commit"]].run = data["run"]


def _not_triggered(state: ModelState, event: Event) -> None:
    cause = event.data.get("cause", "")
    if commit := state.commits.get(event.data.get("commit", "")):
        commit.waiting = event.why
    state.held = {**state.held, cause: parse_instant(event.data.get("until") or event.occurred_at)}


def _not_trained(state: ModelState, event: Event) -> None:
    if run := state.runs.get(event.data["run"]):
        run.needless = event.why


def _trained(state: ModelState, event: Event) -> None:
    data, number = event.data, event.version
    assert number is not None
    state.versions[number] = Version(
        number=number,
        at=event.occurred_at,
        run=data["run"],
        commit=data["commit"],
        change=data["change"],
        data=data["data"],
        parent=data.get("parent"),
        why=event.why,
        facts=data,
    )
    if run := state.runs.get(data["run"]):
        run.version = number


def _of_version(change: Callable[[Version, Event], None]) -> Callable[[ModelState, Event], None]:
    def handle(state: ModelState, event: Event) -> None:
        version = state.versions.get(event.version or 0)
        if version is not None:
            change(version, event)

    return handle


def _gated(version: Version, event: Event) -> None:
    version.passed = event.data["passed"]
    version.gates = event.data["gates"]


def _requested(version: Version, event: Event) -> None:
    request = f"{event.environment}:{event.data.get('role', '')}"
    if request not in version.requested:
        version.requested = [*version.requested, request]
    version.asked = {**version.asked, request: event.occurred_at}
    if event.actor != "orrery" and not event.actor.startswith("orrery/"):
        version.requested_by = [*version.requested_by, event.actor]


def _approved(version: Version, event: Event) -> None:
    approval = Approval(
        actor=event.actor,
        why=event.why,
        at=event.occurred_at,
        environment=event.environment,
        role=event.data.get("role", ""),
        gate=event.data.get("gate", ""),
        evidence=event.data.get("evidence", ""),
    )
    version.approvals = [*version.approvals, approval]


def _changes_requested(version: Version, event: Event) -> None:
    request = f"{event.environment}:{event.data.get('role', '')}"
    version.questions = {**version.questions, request: event.data["issue"]}


def _reminded(version: Version, event: Event) -> None:
    request = f"{event.environment}:{event.data.get('role', '')}"
    version.reminded = {**version.reminded, request: event.occurred_at}


def _overridden(version: Version, event: Event) -> None:
    made = [
        Approval(
            actor=event.actor,
            why=event.why,
            at=event.occurred_at,
            environment=event.environment,
            role=role,
            evidence=event.data.get("evidence", ""),
            emergency=True,
        )
        for role in event.data["roles"]
    ]
    version.approvals = [*version.approvals, *made]


def _rejected(version: Version, event: Event) -> None:
    version.rejected = event.why


def _deleted(version: Version, event: Event) -> None:
    version.deleted = {"by": event.actor, "why": event.why, "at": event.occurred_at}


def _purged(version: Version, event: Event) -> None:
    version.purged = True


def _challenged(state: ModelState, event: Event) -> None:
    number = event.version
    assert number is not None
    lane = _lane(state, event)
    challenger = Challenger(
        version=number,
        role=event.data["role"],
        since=event.occurred_at,
        until=parse_instant(event.data["until"]),
        change=event.data.get("change", ""),
        share=event.data.get("share", 0.0),
        steps=event.data.get("steps", []),
        unit=event.data.get("unit", ""),
        moved=event.occurred_at,
        shares=[(event.occurred_at, event.data.get("share", 0.0))],
    )
    _begin_trial(lane, challenger)
    lane.challengers = {**lane.challengers, number: challenger}


def _begin_trial(lane: Lane, challenger: Challenger) -> None:
    """Count a comparison that is to prove something: against each champion it is another one."""
    if challenger.role in PROVING:
        lane.trials += 1
        challenger.trial, challenger.proven, challenger.won = lane.trials, lane.proven, False


def _shifted(state: ModelState, event: Event) -> None:
    challenger = _lane(state, event).challengers.get(event.version or 0)
    if challenger is not None:
        challenger.share, challenger.moved, challenger.service = event.data["share"], event.occurred_at, {}
        challenger.shares = [*challenger.shares, (event.occurred_at, challenger.share)]


def _compared(state: ModelState, event: Event) -> None:
    challenger = _lane(state, event).challengers.get(event.version or 0)
    if challenger is not None:
        challenger.looks += 1
        challenger.compared_until = parse_instant(event.data["until"])
        challenger.decision = event.data["decision"]
        challenger.evidence = {name: event.data.get(name) for name in ("n", "effect", "interval", "evidence")}
        if broken := event.data.get("broken"):
            challenger.evidence["broken"] = broken
        challenger.state = event.data.get("state", {})
        challenger.service = event.data.get("service", {})
        if challenger.trial and challenger.decision == "promote" and not challenger.won:
            challenger.won = True
            _lane(state, event).proven += 1


def _promoted(state: ModelState, event: Event) -> None:
    number = event.version
    assert number is not None
    lane = _lane(state, event)
    _end_tenure(lane, event.occurred_at)
    lane.champion, lane.since, lane.why, lane.by = number, event.occurred_at, event.why, event.actor
    lane.former = event.data.get("previous") if event.kind == "promoted" else None
    lane.tenures = [*lane.tenures, (number, event.occurred_at, None)]
    lane.unfit = {key: why for key, why in lane.unfit.items() if key != number}
    lane.challengers = {key: one for key, one in lane.challengers.items() if key != number}
    for challenger in lane.challengers.values():
        # Evidence was against the former champion: it says nothing about this one.
        challenger.looks, challenger.decision, challenger.state = 0, "undecided", {}
        challenger.compared_until = challenger.moved = event.occurred_at
        challenger.shares = [(event.occurred_at, challenger.share)]
        challenger.service = {}
        _begin_trial(lane, challenger)
    lane.alarms, lane.monitors = {}, ""
    version = state.versions[number]
    version.entered = {**version.entered, event.environment: event.occurred_at}
    version.left = {key: why for key, why in version.left.items() if key != event.environment}


def _retired(state: ModelState, event: Event) -> None:
    lane = _lane(state, event)
    number = event.version or 0
    lane.challengers = {key: one for key, one in lane.challengers.items() if key != number}
    if lane.champion == number:
        _end_tenure(lane, event.occurred_at)
        lane.champion, lane.since, lane.why, lane.by = None, None, event.why, event.actor
    if version := state.versions.get(number):
        version.left = {**version.left, event.environment: event.why}


def _watched(state: ModelState, event: Event) -> None:
    lane = _lane(state, event)
    lane.looks = event.data["look"]
    lane.watched_until = parse_instant(event.data["until"])
    if event.version == lane.champion:  # a look that a promotion overtook says nothing of the new champion
        lane.monitors = event.data.get("state", "")
        lane.alarms = {name: _longer(fact, event, name) for name, fact in lane.alarms.items()}
        since = parse_instant(event.data.get("since") or event.data["until"])
        days = (lane.watched_until - since) / timedelta(days=1)
        lane.daily = event.data.get("rows", 0) / days if days > 0 else 0.0
    lane.metrics = event.data.get("metrics", {})


def _longer(alarm: dict[str, Any], look: Event, monitor: str) -> dict[str, Any]:
    """Return an alarm with the losses of one more look in its mean, where it is one of losses."""
    seen = (look.data.get("monitors") or {}).get(monitor) or {}
    if "excess" not in seen or "excess" not in alarm:
        return alarm
    losses = alarm["losses"] + seen["losses"]
    excess = (alarm["excess"] * alarm["losses"] + seen["excess"] * seen["losses"]) / losses
    return {**alarm, "excess": excess, "losses": losses}


def _alarmed(state: ModelState, event: Event) -> None:
    lane = _lane(state, event)
    fact = {"at": event.occurred_at, "why": event.why, "seq": event.seq, **event.data}
    lane.alarms = {**lane.alarms, event.data["monitor"]: fact}


def _quieted(state: ModelState, event: Event) -> None:
    lane = _lane(state, event)
    lane.alarms = {name: fact for name, fact in lane.alarms.items() if name != event.data["monitor"]}


def _issue_opened(state: ModelState | DataState, event: Event) -> None:
    state.issues[event.data["issue"]] = Issue(
        id=event.data["issue"],
        at=event.occurred_at,
        title=event.data.get("title", event.why),
        owner=event.data.get("owner", ""),
        version=event.version,
        opened_by=event.actor,
        why=event.why,
        cause=event.data.get("cause", ""),
        versions=[event.version] if event.version is not None else [],
        events=event.data.get("events", []),
    )


def _of_issue(change: Callable[[Issue, Event], None]) -> Callable[[ModelState | DataState, Event], None]:
    def handle(state: ModelState | DataState, event: Event) -> None:
        issue = state.issues.get(event.data["issue"])
        if issue is not None:
            change(issue, event)

    return handle


def _issue_commented(issue: Issue, event: Event) -> None:
    issue.comments += 1
    more = [] if event.version is None or event.version in issue.versions else [event.version]
    issue.versions = [*issue.versions, *more]
    issue.events = [*issue.events, *(one for one in event.data.get("events", []) if one not in issue.events)]


def _issue_assigned(issue: Issue, event: Event) -> None:
    issue.owner = event.data["owner"]


def _issue_closed(issue: Issue, event: Event) -> None:
    issue.closed, issue.closed_by, issue.closed_why = event.occurred_at, event.actor, event.why


def _issue_reopened(issue: Issue, event: Event) -> None:
    issue.closed, issue.closed_by, issue.closed_why, issue.kept = None, "", "", True


def _end_tenure(lane: Lane, at: datetime) -> None:
    if lane.tenures and lane.tenures[-1][2] is None:
        number, since, _ = lane.tenures[-1]
        lane.tenures = [*lane.tenures[:-1], (number, since, at)]


_OF_ISSUES: dict[str, Callable[[ModelState | DataState, Event], None]] = {
    "issue_opened": _issue_opened,
    "issue_commented": _of_issue(_issue_commented),
    "issue_assigned": _of_issue(_issue_assigned),
    "issue_closed": _of_issue(_issue_closed),
    "issue_reopened": _of_issue(_issue_reopened),
}


def _erased(state: ModelState, event: Event) -> None:
    state.unlearn = {**state.unlearn, **{number: event.seq for number in event.data["versions"]}}


_HANDLERS: dict[str, Callable[[ModelState, Event], None]] = {
    "pushed": _pushed,
    "built": _built,
    "tested": _tested,
    "failed": _failed,
    "triggered": _triggered,
    "not_triggered": _not_triggered,
    "not_trained": _not_trained,
    "trained": _trained,
    "gated": _of_version(_gated),
    "review_requested": _of_version(_requested),
    "approved": _of_version(_approved),
    "rejected": _of_version(_rejected),
    "changes_requested": _of_version(_changes_requested),
    "review_reminded": _of_version(_reminded),
    "review_overridden": _of_version(_overridden),
    "deleted": _of_version(_deleted),
    "purged": _of_version(_purged),
    "challenged": _challenged,
    "compared": _compared,
    "shifted": _shifted,
    "promoted": _promoted,
    "rolled_back": _promoted,
    "retired": _retired,
    "watched": _watched,
    "alarmed": _alarmed,
    "quieted": _quieted,
    **_OF_ISSUES,
    "erased": _erased,
}
