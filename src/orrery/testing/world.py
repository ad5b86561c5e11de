"""A world that obeys the loop: every action ends as its event, people, monitors and data do as a test pleases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from orrery import spec as specs
from orrery.loop import decide
from orrery.review import commands as review
from orrery.timeline.event import GENESIS, Draft, Event, seal
from orrery.timeline.fold import fold, fold_data
from orrery.timeline.state import DataState, ModelState
from orrery.triggers.due import Cause, by_hand, trigger
from orrery.types import digest, format_instant
from orrery.workers.action import Action

PROJECT = """
[model]
name = "tides"
task = "regression"
target = "height"
time = "at"
owner = "nora"
[data]
tides = "tides"
[environments.staging]
needs = ["tests", "gates"]
[environments.production]
needs = ["staging", "review:quality"]
[triggers]
schedule = "0 0 1 * *"
cooldown = "2d"
[triggers.budget]
trainings_per_month = 4
[monitors]
every = "1d"
"""
START = datetime(2013, 1, 1, tzinfo=UTC)


class World:
    """A timeline in memory, and workers whose every action succeeds.

    Parameters
    ----------
    refuse : versions that the gates refuse.
    pays : whether the probe of new data finds that a training pays.
    """

    def __init__(self, refuse: set[int] | None = None, pays: bool = False) -> None:
        self.now = START
        self.events: list[Event] = []
        self.ids: dict[str, Event] = {}
        self.model = ModelState(name="tides")
        self.data = DataState()
        self.done: list[str] = []
        self.refuse = refuse or set()
        self.pays = pays
        self.verdicts: dict[int, str] = {}
        self.services: dict[int, dict[str, Any]] = {}
        self.seen: dict[str, Any] = {}
        self.begun = 0
        """Trainings until a champion answered and nothing was due."""

    def append(self, drafts: list[Draft]) -> None:
        """Append events, each once by its id."""
        for draft in drafts:
            if draft.id in self.ids:
                continue
            prev = self.events[-1].hash if self.events else GENESIS
            event = seal(draft, seq=len(self.events) + 1, recorded_at=self.now, prev_hash=prev)
            self.events.append(event)
            self.ids[draft.id] = event
            fold(self.model, [event]) if event.model else fold_data(self.data, [event])

    def push(self, commit: str, project: str = PROJECT) -> None:
        """Push a commit; of the same commit nothing is new."""
        facts = {
            "commit": commit,
            "message": f"work {commit}",
            "author": "ann",
            "spec": specs.to_dict(specs.parse(project)),
        }
        self.append([Draft(kind="pushed", actor="ann", why="a push", model="tides", data=facts, id=f"push-{commit}")])

    def add_data(self, version: int) -> None:
        """Say that the dataset has a version."""
        facts = {"dataset": "tides", "version": version, "rows": 10}
        self.append([Draft(kind="data_added", actor="ann", why="new rows", data=facts)])

    def settle(self, most: int = 200) -> None:
        """Do what is due, the most urgent first, until nothing is."""
        for _ in range(most):
            due = decide(self.model, self.data, self.now)
            if not due:
                return
            later = decide(self.model, self.data, self.now + timedelta(microseconds=1))
            assert due[0].key in {action.key for action in later}, "a worker would never find it again"
            self.do(due[0])
        raise AssertionError(f"the loop does not settle: {[action.key for action in due]}")

    def do(self, action: Action) -> None:
        """Do one action, which must change something and is done once."""
        before = len(self.events)
        self.append(list(self.outcome(action)))
        assert len(self.events) > before, f"{action.key} is due but changes nothing"
        assert action.key not in self.done, f"{action.key} was done twice"
        self.done.append(action.key)

    def outcome(self, action: Action) -> Iterator[Draft]:
        """Yield what an action ends as."""
        if action.kind == "record":
            yield from action.drafts
            return
        about: dict[str, Any] = {
            "model": "tides",
            "version": action.version,
            "environment": action.environment,
            "actor": "orrery",
        }
        facts: dict[str, Any] = dict(action.args)
        kind = {"build": "built", "test": "tested", "gate": "gated", "watch": "watched", "purge": "purged"}.get(
            action.kind
        )
        if action.kind == "train":
            run = self.model.runs[action.args["run"]]
            about["version"] = len(self.model.versions) + 1
            facts |= {"commit": run.commit, "change": run.change, "data": run.data, "cpu_seconds": 60.0}
            kind = "trained"
        elif action.kind == "gate":
            passed = action.version not in self.refuse
            verdict = {"verdict": "passed" if passed else "refused", "why": "numbers"}
            facts |= {"passed": passed, "gates": {"absolute_error": verdict}}
        elif action.kind == "compare":
            kind = "compared"
            facts |= {"decision": self.verdicts.get(action.version or 0, "undecided"), "effect": 0.01, "n": 9}
            facts["service"] = self.services.get(action.version or 0, {})
        elif action.kind == "probe":
            if self.pays:
                cause = Cause(
                    "data", "refresh", "New rows are unlike those before, and a probe pays.", action.args["mark"]
                )
                name = digest(f"tides/{cause.mark}/{len(self.model.runs)}")[:12]
                commit = self.model.versions[action.version or 0].commit
                yield from trigger("tides", name, commit, cause, action.args["data"]).drafts
                return
            kind = "not_triggered"
            until = format_instant(self.now + timedelta(days=7))
            facts = {"cause": action.args["mark"], "reason": "data", "until": until}
        elif action.kind == "watch":
            facts |= self.seen
        elif action.kind == "build":
            facts |= {"lock": "x", "python": "python"}
        assert kind is not None
        yield Draft(kind=kind, why="done", data=facts, id=action.event_id(), **about)

    def approve(self, version: int, who: str = "mara") -> None:
        """Approve a version for every environment."""
        self.append(review.approve(self.model, version, why="looks right", actor=who))

    def train(self, change: str = "refresh", why: str = "I want to know.") -> None:
        """Ask for a training by hand."""
        self.append(by_hand(self.model, self.data, why=why, actor="ann", change=change, params={}))

    def erase(self) -> None:
        """Erase a subject that every version so far has learned from."""
        facts = {"versions": sorted(self.model.versions), "grave": "g"}
        self.append([Draft(kind="erased", actor="dora", why="A subject is gone.", model="tides", data=facts)])

    def alarm(self, **facts: Any) -> None:
        """Let a monitor alarm."""
        lane = self.model.lane("production")
        data = {"monitor": "calibration", "reason": "drift", "answer": "repair", **facts}
        draft = Draft(
            kind="alarmed",
            actor="m",
            why="says .2, is .3",
            model="tides",
            version=lane.champion,
            environment="production",
            data=data,
        )
        self.append([draft])

    def pass_days(self, days: int) -> None:
        """Let days pass, one after the other."""
        for _ in range(days):
            self.now += timedelta(days=1)
            self.settle()

    def pass_hours(self, hours: int) -> None:
        """Let hours pass, one after the other."""
        for _ in range(hours):
            self.now += timedelta(hours=1)
            self.settle()

    def first_champion(self, project: str = PROJECT) -> None:
        """Bring data and a commit, whose version answers in production."""
        self.add_data(1)
        self.push("aaa", project)
        self.settle()
        self.approve(1)
        self.settle()
        assert self.model.lane("production").champion == 1
        self.begun = len(self.model.runs)
