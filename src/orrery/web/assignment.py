"""What the inference servers are to serve, as the timeline says; and what they say of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace

from orrery.access.denials import STRANGER
from orrery.app import Orrery
from orrery.build.environment import moved
from orrery.rollout import moves
from orrery.rollout.shares import SHARING
from orrery.serving.assignment import Assignment, Pass, Probation, Slot, certificate_mark
from orrery.serving.contract import promised
from orrery.spec import Spec
from orrery.timeline.event import Draft
from orrery.timeline.state import DataState, Lane, ModelState
from orrery.timeline.store import events
from orrery.types import Role, digest, format_instant, parse_duration

ACTOR = "orrery/serving"
MOVES = ("promoted", "rolled_back", "retired", "challenged", "shifted", "deleted", "contract_changed", "erasure_asked")
"""Kinds of events after which another version may answer, or the same one to another contract."""
MOST = 100
"""Servers that are remembered; beyond it, those that fell silent are forgotten."""
ALWAYS = datetime(2100, 1, 1, tzinfo=UTC)
"""A certificate runs out by itself."""
NEW = timedelta(days=1)
"""Time after which a champion is no longer on probation, however little it was asked."""
RECENT = 5.0
"""Seconds after which a silent server no longer counts."""


def assignment_of(orrery: Orrery, before: Assignment | None = None, read: int = 0) -> Assignment:
    """Return who answers where: a slot for every champion and for what runs beside it.

    Parameters
    ----------
    before, read : an older assignment, and the seq up to which the timeline was read for it; only later events are
        looked at for its seq then.
    """
    data, now = orrery.states.data(), orrery.clock.now()
    slots = [slot for name in orrery.models() for slot in _slots(orrery, orrery.model(name), data, now)]
    newest = _newest_move(orrery) if before is None else max(before.seq, _newest_move_after(orrery, read))
    return Assignment(
        seq=newest, slots=slots, passes=tuple(_passes(orrery)), erasures=data.erasures, graves=frozenset(data.erased)
    )


def _passes(orrery: Orrery) -> Iterator[Pass]:
    """Yield what opens the inference servers, each with the models that its account may ask.

    These are tokens, and the names of certificates where clients show such.
    """
    if orrery.settings.access != "required":
        return
    now, models = datetime.now(UTC), orrery.models()

    def of(hash_: str, account: str, project: str, until: datetime) -> Iterator[Pass]:
        principal = orrery.accounts.principal(account, project=project)
        if principal is not None and principal.anywhere("predict"):
            whole = not project and principal.may("predict")
            mine = None if whole else tuple(name for name in models if principal.may("predict", name))
            yield Pass(hash=hash_, until=min(until, principal.until or until).timestamp(), models=mine, account=account)

    for key in orrery.keys.all():
        if "inference" in key.scopes and key.holds(now):
            yield from of(key.hash, key.account, key.project, key.until)
    for one in orrery.accounts.all() if orrery.settings.serving_clients else ():
        yield from of(certificate_mark(one.name), one.name, "", ALWAYS)


def _slots(orrery: Orrery, model: ModelState, data: DataState, now: datetime) -> Iterator[Slot]:
    policy = model.policy()
    for lane in model.lanes.values():
        if lane.champion is None:
            continue
        champion = _slot(orrery, model, lane, lane.champion, "champion", data)
        if champion is None or lane.since is None or policy is None:
            continue  # a challenger without a champion has nothing to stand beside
        keeps, age = _probation(policy), now - lane.since
        before = moves.way_back(model, lane) if lane.former is not None and age < NEW else None
        probation = None if before is None else replace(keeps, before=before)
        yield replace(champion, since=format_instant(lane.since), probation=probation)
        if before is not None and before not in lane.challengers and age.total_seconds() < keeps.time:
            standby = _slot(orrery, model, lane, before, "standby", data)
            if standby is not None:
                yield standby
        for one in lane.challengers.values():
            slot = _slot(orrery, model, lane, one.version, one.role, data)  # type: ignore[arg-type]
            if slot is not None and one.role in SHARING:
                salt = f"{slot.key}/{one.role}"
                slot = replace(slot, share=one.share, salt=salt, unit=one.unit, probation=keeps)
            if slot is not None:
                yield replace(slot, since=format_instant(one.since))


def _probation(policy: Spec) -> Probation:
    rules = policy.rollout.probation
    seconds = parse_duration(rules.time).total_seconds()
    return Probation(requests=rules.requests, time=seconds, failures=rules.failures, latency=rules.latency)


def _slot(orrery: Orrery, model: ModelState, lane: Lane, number: int, role: Role, data: DataState) -> Slot | None:
    version = model.versions[number]
    built, artifact, repair = model.commits[version.commit].built, version.facts.get("artifact"), None
    trained = model.trained(version)
    if version.facts.get("repair") and not trained.deleted:
        # The process of the version that is repaired answers; two numbers make the repaired answer of it.
        artifact, repair = trained.facts.get("artifact"), tuple(version.facts["repair"])
    if version.deleted or built is None or not artifact:
        return None
    spec = model.spec_of(version.commit)
    dataset = data.datasets.get(next(iter(spec.data.values())))
    contract = promised(dataset.contract if dataset else None, spec.model.target)
    return Slot(
        model=model.name,
        environment=lane.environment,
        version=number,
        role=role,
        artifact=str(orrery.settings.home / artifact),
        python=moved(str(built["python"]), orrery.settings.home / "environments"),
        task=spec.model.task,
        broken=spec.serving.broken,  # type: ignore[arg-type]
        timeout=parse_duration(spec.serving.timeout).total_seconds(),
        memory=int(spec.resources.memory_gb * 2**30),
        entity=spec.model.entity,
        columns=_types(contract),
        contract=contract,
        personal={name: mark for name, mark in orrery.personal(spec).items() if mark != "plain"},
        repair=repair,
    )


def _types(contract: dict[str, Any] | None) -> dict[str, str]:
    """Return the columns that a request may have; what is encrypted no model has seen."""
    columns = (contract or {}).get("columns", {})
    return {name: rule.get("type", "other") for name, rule in columns.items() if rule.get("personal") != "encrypted"}


def _newest_move(orrery: Orrery) -> int:
    newest = 0
    with orrery.timeline.reading() as connection:
        for name in ("", *orrery.models()):
            for kind in MOVES:  # each of them is one step in the index
                of_kind = (events.c.model == name) & (events.c.kind == kind)
                found = connection.execute(sa.select(sa.func.max(events.c.seq)).where(of_kind)).scalar()
                newest = max(newest, found or 0)
    return newest


def _newest_move_after(orrery: Orrery, seq: int) -> int:
    query = sa.select(sa.func.max(events.c.seq)).where(events.c.seq > seq, events.c.kind.in_(MOVES))
    with orrery.timeline.reading() as connection:
        return connection.execute(query).scalar() or 0


@dataclass
class Server:
    """An inference server as it last reported; ``seen`` is a monotonic time."""

    name: str
    seen: float
    applied: int = -1
    failed: dict[str, str] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)


class Assigner:
    """Hands the assignment to the servers and takes their reports; safe to share between threads.

    Parameters
    ----------
    orrery : whose assignment.
    """

    def __init__(self, orrery: Orrery) -> None:
        self._orrery = orrery
        self._lock = threading.Lock()
        self._head: tuple[int, str] | None = None
        self._assignment = Assignment(seq=0)
        self._body, self._etag = b"", ""
        self.servers: dict[str, Server] = {}

    def current(self) -> tuple[Assignment, bytes, str]:
        """Return the assignment, as JSON too, and its tag; made anew only when the timeline has grown."""
        with self._lock:
            head = self._orrery.timeline.head()
            if head != self._head:
                before = self._assignment if self._head is not None else None
                self._assignment = assignment_of(self._orrery, before, self._head[0] if self._head else 0)
                self._body = msgspec.json.encode(self._assignment)
                self._etag = f'"{self._assignment.seq}-{digest(self._body)[:16]}"'
                self._head = head
            return self._assignment, self._body, self._etag

    def seen(self, name: str, applied: int) -> None:
        """Note that a server asked, and what it has carried out."""
        with self._lock:
            now = time.monotonic()
            server = self.servers.setdefault(name, Server(name, 0.0))
            server.seen, server.applied = now, applied
            if len(self.servers) > MOST:
                self.servers = {key: one for key, one in self.servers.items() if now - one.seen < RECENT}

    def report(
        self,
        name: str,
        applied: int,
        failed: dict[str, str],
        served: dict[str, int],
        taken: dict[str, tuple[str, str, str]],
        denied: Sequence[tuple[str, str, int]] = (),
    ) -> None:
        """Take a report; a version that fails is written down once, and gives way.

        Parameters
        ----------
        name, applied : which server, and what it has carried out.
        failed : slots that cannot be started, and why.
        served : rows that each slot has predicted.
        taken : slots that the server took back by itself: since when they were tried, in which role, and why not.
        denied : account, model and number of requests that were denied; no account where what was shown opens nothing.
        """
        self.seen(name, applied)
        if (server := self.servers.get(name)) is not None:
            server.failed, server.served = failed, served
        slots = {slot.key: slot for slot in self.current()[0].slots}
        for key, error in failed.items():
            if key in slots:
                self._failed(slots[key], error)
        for key, (since, role, why) in taken.items():
            slot = slots.get(key)
            if slot is not None and (slot.since, slot.role) == (since, role):
                self._failed(slot, why, taken_back=True)
        there = set(self._orrery.timeline.models()) if denied else set()
        for account, model, times in denied:
            who, where = account or STRANGER, f" for {model}" if model in there else ""
            shown = "that is not for it" if account else "that opens nothing"
            why = f"A request to the inference server{where} with a token {shown}."
            project = model if model in there else ""
            self._orrery.denials.note(who, "inference", why, project=project, of_model=bool(project), times=times)

    def recent(self) -> list[Server]:
        """Return the servers that were heard of in the last seconds."""
        now = time.monotonic()
        return [server for server in list(self.servers.values()) if now - server.seen < RECENT]

    def applied(self) -> bool:
        """Say whether every server that is there has carried the assignment out."""
        seq = self.current()[0].seq
        return all(server.applied == seq for server in self.recent())

    def _failed(self, slot: Slot, error: str, *, taken_back: bool = False) -> None:
        orrery = self._orrery
        state = orrery.model(slot.model)
        what = "was taken back" if taken_back else "cannot be served"
        words = f"Version {slot.version} {what} in {slot.environment} ({slot.role}): {error}"
        draft = Draft(
            id=digest(f"serving/{slot.model}/{slot.key}/{slot.role}/{slot.since}"),
            kind="failed",
            actor=ACTOR,
            why=words,
            model=slot.model,
            version=slot.version,
            environment=slot.environment,
            data={
                "stage": "serving",
                "error": error[:4000],
                "final": slot.role != "champion",
                "role": slot.role,
                "taken_back": taken_back,
            },
        )
        commit = state.commits[state.versions[slot.version].commit]
        issue = {
            "issue": draft.id[:12],
            "title": words,
            "owner": str(commit.spec["model"].get("owner") or commit.author),
            "cause": f"failed:serving:{slot.environment}:{slot.version}",
            "events": [draft.id],
        }
        opened = msgspec.structs.replace(draft, id=digest(f"issue/{draft.id}"), kind="issue_opened", data=issue)

        def told(model: ModelState) -> list[Draft]:
            issue = [] if model.open_issue(opened.data["cause"]) else [opened]
            return [draft, *issue, *self._give_way(model, slot, words)]

        orrery.order(slot.model, told)

    def _give_way(self, model: ModelState, slot: Slot, words: str) -> list[Draft]:
        """Return the events after which another version is in the place of one that cannot be served.

        A challenger leaves; for a champion the newest earlier one comes back that is not known to fail as well. One
        step back and no further: where that fails too, the cause is the machine, and the issue asks for a person.
        """
        lane = model.lane(slot.environment)
        if slot.version in lane.challengers:
            return moves.order_retirement(model, slot.version, slot.environment, words, ACTOR)
        if lane.champion != slot.version or lane.by == ACTOR:
            return []
        before = moves.way_back(model, lane)
        return [] if before is None else moves.order_rollback(model, slot.environment, before, words, ACTOR)
