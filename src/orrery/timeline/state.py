"""What the timeline adds up to: the state of one model, folded from its events one by one.

A fold has no other input than the events. It forgets nothing that a decision may need and keeps nothing that grows with
the traffic. Unknown kinds are passed over, so that an older orrery can read a newer log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from orrery import spec as specs
from orrery.spec import Spec
from orrery.timeline.event import Event
from orrery.types import PRODUCTION, parse_instant, percent

FORM = 3
"""Raise it when the meaning of a stored state changes: older ones are then folded anew."""


class Commit(msgspec.Struct, kw_only=True):
    """A commit of the project and how far it came."""

    sha: str
    at: datetime
    author: str
    message: str
    branch: str
    spec: dict[str, Any]
    built: dict[str, Any] | None = None
    tested: dict[str, bool] = {}
    failed: str = ""
    run: str = ""
    waiting: str = ""


class Run(msgspec.Struct, kw_only=True):
    """One training, from the trigger to a version or a failure."""

    id: str
    at: datetime
    reason: str
    change: str
    commit: str
    data: dict[str, int]
    why: str
    by: str
    mark: str = ""
    params: dict[str, Any] = {}
    version: int | None = None
    failed: str = ""
    needless: str = ""

    @property
    def open(self) -> bool:
        """Whether it has not ended yet."""
        return self.version is None and not self.failed and not self.needless


class Approval(msgspec.Struct, kw_only=True):
    """A person's yes."""

    actor: str
    why: str
    at: datetime
    environment: str = ""
    role: str = ""
    gate: str = ""


class Version(msgspec.Struct, kw_only=True):
    """A version of the model: what it is made of and what people and gates said of it."""

    number: int
    at: datetime
    run: str
    commit: str
    change: str
    data: dict[str, int]
    parent: int | None
    why: str
    facts: dict[str, Any] = {}
    passed: bool | None = None
    gates: dict[str, Any] = {}
    requested: list[str] = []
    approvals: list[Approval] = []
    rejected: str = ""
    failed: str = ""
    entered: dict[str, datetime] = {}
    left: dict[str, str] = {}
    deleted: dict[str, Any] | None = None
    purged: bool = False

    @property
    def released(self) -> bool:
        """Whether the gates let it pass, by themselves or because a person overrode each refusal."""
        if self.passed is not False:
            return bool(self.passed)
        refused = {name for name, verdict in self.gates.items() if verdict.get("verdict") == "refused"}
        return bool(refused) and refused <= {approval.gate for approval in self.approvals}

    def approved(self, environment: str, role: str) -> Approval | None:
        """Return the approval for an environment in a role, if there is one."""
        fits = (one for one in self.approvals if not one.gate and one.environment in ("", environment))
        return next((one for one in fits if role in ("", one.role)), None)


class Challenger(msgspec.Struct, kw_only=True):
    """A version beside the champion: a candidate in shadow or with a share, or the former champion on guard."""

    version: int
    role: str
    since: datetime
    until: datetime
    change: str
    looks: int = 0
    compared_until: datetime | None = None
    decision: str = "undecided"
    evidence: dict[str, Any] = {}
    state: dict[str, Any] = {}
    share: float = 0.0
    steps: list[float] = []
    unit: str = ""
    moved: datetime | None = None
    service: dict[str, Any] = {}

    @property
    def standing(self) -> str:
        """What it does, in words: its role, and the share that it answers."""
        return f"{self.role}, {percent(self.share)}" if self.share else self.role


class Lane(msgspec.Struct, kw_only=True):
    """One environment of the model."""

    environment: str
    champion: int | None = None
    since: datetime | None = None
    why: str = ""
    by: str = ""
    former: int | None = None
    """The champion before this one, where a promotion replaced it; nothing after a rollback."""
    unfit: dict[int, str] = {}
    """Versions that could not answer here, and why, until they are promoted again."""
    challengers: dict[int, Challenger] = {}
    tenures: list[tuple[int, datetime, datetime | None]] = []
    looks: int = 0
    watched_until: datetime | None = None
    monitors: str = ""
    metrics: dict[str, Any] = {}
    alarms: dict[str, dict[str, Any]] = {}


class Issue(msgspec.Struct, kw_only=True):
    """Something that waits for a person."""

    id: str
    at: datetime
    title: str
    owner: str
    version: int | None
    opened_by: str = ""
    closed: datetime | None = None


class ModelState(msgspec.Struct, kw_only=True):
    """Everything that is known of one model."""

    name: str
    seq: int = 0
    commits: dict[str, Commit] = {}
    runs: dict[str, Run] = {}
    versions: dict[int, Version] = {}
    lanes: dict[str, Lane] = {}
    issues: dict[str, Issue] = {}
    held: dict[str, datetime] = {}

    def lane(self, environment: str) -> Lane:
        """Return the environment's lane, an empty one if nothing was there yet."""
        return self.lanes.get(environment) or Lane(environment=environment)

    def champion(self, environment: str = PRODUCTION) -> Version | None:
        """Return the version that answers in an environment."""
        number = self.lane(environment).champion
        return None if number is None else self.versions[number]

    def trained(self, version: Version) -> Version:
        """Return the trained version under a chain of repairs; a version that is no repair is its own."""
        while version.change == "repair" and version.parent in self.versions:
            version = self.versions[version.parent or 0]
        return version

    def spec_of(self, commit: str) -> Spec:
        """Return what the project file said in a commit."""
        return _spec(msgspec.json.encode(self.commits[commit].spec))

    def policy(self) -> Spec | None:
        """Return the project file in force: that of production's champion, before there is one the newest."""
        champion = self.champion()
        if champion is not None:
            return self.spec_of(champion.commit)
        return self.spec_of(next(reversed(self.commits))) if self.commits else None

    def waiting(self) -> list[tuple[Version, str, str]]:
        """Return what waits for a review: version, environment, role."""
        found = []
        for version in self.versions.values():
            for request in version.requested:
                environment, _, role = request.partition(":")
                over = version.rejected or version.deleted or environment in version.left
                if not over and environment not in version.entered and not version.approved(environment, role):
                    found.append((version, environment, role))
        return found


class Dataset(msgspec.Struct, kw_only=True):
    """What the timeline knows of one dataset."""

    name: str
    version: int = 0
    rows: int = 0
    quarantined: int = 0
    at: datetime | None = None
    contract: dict[str, Any] | None = None
    digest: str = ""


class DataState(msgspec.Struct, kw_only=True):
    """All datasets; folded from the events that belong to no model."""

    seq: int = 0
    datasets: dict[str, Dataset] = {}


@lru_cache(maxsize=256)
def _spec(encoded: bytes) -> Spec:
    return specs.from_dict(msgspec.json.decode(encoded))


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
        state.seq = event.seq
    return state


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


def _approved(version: Version, event: Event) -> None:
    approval = Approval(
        actor=event.actor,
        why=event.why,
        at=event.occurred_at,
        environment=event.environment,
        role=event.data.get("role", ""),
        gate=event.data.get("gate", ""),
    )
    version.approvals = [*version.approvals, approval]


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
    lane.challengers = {
        **lane.challengers,
        number: Challenger(
            version=number,
            role=event.data["role"],
            since=event.occurred_at,
            until=parse_instant(event.data["until"]),
            change=event.data.get("change", ""),
            share=event.data.get("share", 0.0),
            steps=event.data.get("steps", []),
            unit=event.data.get("unit", ""),
            moved=event.occurred_at,
        ),
    }


def _shifted(state: ModelState, event: Event) -> None:
    challenger = _lane(state, event).challengers.get(event.version or 0)
    if challenger is not None:
        challenger.share, challenger.moved, challenger.service = event.data["share"], event.occurred_at, {}


def _compared(state: ModelState, event: Event) -> None:
    challenger = _lane(state, event).challengers.get(event.version or 0)
    if challenger is not None:
        challenger.looks += 1
        challenger.compared_until = parse_instant(event.data["until"])
        challenger.decision = event.data["decision"]
        challenger.evidence = {name: event.data.get(name) for name in ("n", "effect", "interval", "evidence")}
        challenger.state = event.data.get("state", {})
        challenger.service = event.data.get("service", {})


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
        challenger.service = {}
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
    lane.metrics = event.data.get("metrics", {})


def _alarmed(state: ModelState, event: Event) -> None:
    lane = _lane(state, event)
    fact = {"at": event.occurred_at, "why": event.why, "seq": event.seq, **event.data}
    lane.alarms = {**lane.alarms, event.data["monitor"]: fact}


def _quieted(state: ModelState, event: Event) -> None:
    lane = _lane(state, event)
    lane.alarms = {name: fact for name, fact in lane.alarms.items() if name != event.data["monitor"]}


def _issue_opened(state: ModelState, event: Event) -> None:
    state.issues[event.data["issue"]] = Issue(
        id=event.data["issue"],
        at=event.occurred_at,
        title=event.data.get("title", event.why),
        owner=event.data.get("owner", ""),
        version=event.version,
        opened_by=event.actor,
    )


def _issue_closed(state: ModelState, event: Event) -> None:
    if issue := state.issues.get(event.data["issue"]):
        issue.closed = event.occurred_at


def _end_tenure(lane: Lane, at: datetime) -> None:
    if lane.tenures and lane.tenures[-1][2] is None:
        number, since, _ = lane.tenures[-1]
        lane.tenures = [*lane.tenures[:-1], (number, since, at)]


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
    "issue_opened": _issue_opened,
    "issue_closed": _issue_closed,
}
