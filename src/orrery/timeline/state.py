"""What the timeline adds up to: the state of one model, and that of all datasets.

Only :mod:`orrery.timeline.fold` changes them. They hold all that a decision may need, and nothing that grows with the
traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from orrery import spec as specs
from orrery.spec import Spec
from orrery.types import PRODUCTION, digest, percent

FORM = 9
"""Raise it when the meaning of a stored state changes: older ones are then folded anew."""


class Commit(msgspec.Struct, kw_only=True):
    """A commit of the project and how far it came."""

    sha: str
    at: datetime
    author: str
    message: str
    branch: str
    spec: dict[str, Any]
    pushed_by: str = ""
    authors: list[str] = []
    """Who wrote what the push brought: names, and what stands for addresses (see :func:`orrery.types.address_mark`)."""
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
    window: str = ""
    """Which rows it learns from, where that was decided before it began."""
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
    evidence: str = ""
    """Of what was approved (:attr:`Version.evidence`); older ones do not say."""
    emergency: bool = False
    """Whether nobody reviewed: an operator said that it cannot wait."""


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
    """Reviews, as ``environment:role``."""
    asked: dict[str, datetime] = {}
    """Review -> when it was asked for, the last time."""
    reminded: dict[str, datetime] = {}
    """Review -> when its reviewers were reminded, the last time."""
    questions: dict[str, str] = {}
    """Review -> the issue in which the reviewer asked for changes, the last one."""
    requested_by: list[str] = []
    """People who asked for the release."""
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
        return bool(refused) and refused <= {approval.gate for approval in self.approvals if self.stands(approval)}

    @property
    def evidence(self) -> str:
        """What stands for this very version and what the gates found: an approval is of that, and of nothing else."""
        facts = {name: self.facts.get(name) for name in ("artifact", "metrics", "params", "repair")}
        return digest({"commit": self.commit, "run": self.run, "data": self.data, "gates": self.gates, **facts})

    def stands(self, approval: Approval) -> bool:
        """Say whether what was approved is still what this version is."""
        return not approval.evidence or approval.evidence == self.evidence

    def approved(self, environment: str, role: str, *, emergency: bool = True) -> Approval | None:
        """Return the approval for an environment in a role, if there is one; ``emergency``: an override counts too."""
        fits = (one for one in self.approvals if not one.gate and one.environment in ("", environment))
        fits = (one for one in fits if emergency or not one.emergency)
        return next((one for one in fits if role in ("", one.role) and self.stands(one)), None)


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
    shares: list[tuple[datetime, float]] = []
    """Which share it answered since when, since it is compared with this champion."""
    service: dict[str, Any] = {}
    trial: int = 0
    """Which of the trials in its environment this is, from 1; 0 where nothing is to be proven."""
    proven: int = 0
    """How many of the trials before it were won."""
    won: bool = False

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
    trials: int = 0
    """How often a challenger began to be compared with a champion, to be proven better."""
    proven: int = 0
    """How often it was."""
    tenures: list[tuple[int, datetime, datetime | None]] = []
    looks: int = 0
    watched_until: datetime | None = None
    monitors: str = ""
    metrics: dict[str, Any] = {}
    alarms: dict[str, dict[str, Any]] = {}
    daily: float = 0.0
    """Answers of the champion in a day, at the rate of the last look."""


class Issue(msgspec.Struct, kw_only=True):
    """Something that waits for a person."""

    id: str
    at: datetime
    title: str
    owner: str
    version: int | None
    opened_by: str = ""
    why: str = ""
    cause: str = ""
    """What it is about, for a program: while an issue of a cause is open, there is no second."""
    versions: list[int] = []
    events: list[str] = []
    """Ids of events that it is linked to."""
    comments: int = 0
    closed: datetime | None = None
    closed_by: str = ""
    closed_why: str = ""
    kept: bool = False
    """Whether a person opened it again: then only a person closes it."""


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
    unlearn: dict[int, int] = {}
    """Version that learned from rows of a subject that was erased since -> the event of that, the newest."""

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

    def open_issue(self, cause: str) -> Issue | None:
        """Return the open issue of a cause, if there is one."""
        return open_issue(self.issues, cause)

    def question(self, version: Version, environment: str, role: str) -> Issue | None:
        """Return the open question to the author that a review waits for, if there is one."""
        issue = self.issues.get(version.questions.get(f"{environment}:{role}", ""))
        return issue if issue is not None and issue.closed is None else None

    def waiting(self) -> list[tuple[Version, str, str]]:
        """Return what waits for a reviewer: version, environment, role."""
        return [one for one in self.unreviewed() if self.question(*one) is None]

    def unreviewed(self) -> list[tuple[Version, str, str]]:
        """Return the same and what waits for an answer of the author."""
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
    lost: int = 0
    """Rows that were erased, or whose time was up."""
    expired: dict[str, Any] | None = None
    """When rows were removed last because their time was up, and how many."""


class Erasure(msgspec.Struct, kw_only=True):
    """What became of the wish to be erased of one subject."""

    grave: str
    at: datetime
    by: str
    why: str
    held: dict[str, list[int]] = {}
    """Dataset -> the first version with a row of it, and the newest then."""
    done: datetime | None = None
    rows: int = 0
    proof: dict[str, Any] = {}
    versions: dict[str, list[int]] = {}
    """Model -> versions that learned from it."""

    @property
    def clean(self) -> bool:
        """Whether a search of every file found nothing of it."""
        return bool(self.proof.get("clean"))


class Anchored(msgspec.Struct, kw_only=True):
    """What was noted outside last: the number of the event, its hash, and when."""

    seq: int
    hash: str
    at: datetime


class DataState(msgspec.Struct, kw_only=True):
    """All datasets, and what concerns orrery itself; folded from the events that belong to no model."""

    seq: int = 0
    datasets: dict[str, Dataset] = {}
    erased: dict[str, datetime] = {}
    """What says of a subject that it was erased, and when; the subject cannot be told from it."""
    erasures: int = 0
    """How often an erasure was asked for."""
    asked: dict[str, Erasure] = {}
    """By grave of the subject."""
    anchors: dict[str, Anchored] = {}
    """Where the head of the chain was noted -> the last time that it was."""
    issues: dict[str, Issue] = {}
    """Issues of orrery itself, which concern no single model."""

    def open_issue(self, cause: str) -> Issue | None:
        """Return the open issue of a cause, if there is one."""
        return open_issue(self.issues, cause)


def open_issue(issues: Mapping[str, Issue], cause: str) -> Issue | None:
    """Return the open issue of a cause, if there is one."""
    fits = (one for one in issues.values() if cause and one.cause == cause and one.closed is None)
    return next(fits, None)


@lru_cache(maxsize=256)
def _spec(encoded: bytes) -> Spec:
    return specs.from_dict(msgspec.json.decode(encoded))
