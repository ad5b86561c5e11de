"""What a look writes down: an alarm opens one issue, goes on without another, and is closed when its cause is gone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from orrery import spec as specs
from orrery.actions.desk import Desk
from orrery.actions.watch import _written
from orrery.app import Orrery
from orrery.monitors.monitor import Finding
from orrery.monitors.watch import Look
from orrery.settings import Settings
from orrery.timeline.event import Draft
from orrery.workers.action import Action

SPEC = {"model": {"name": "tides", "task": "regression", "target": "height", "owner": "nora"}, "data": {"t": "tides"}}


class Watched:
    """A champion in production, and looks at it one after the other."""

    def __init__(self, settings: Settings) -> None:
        self.orrery = Orrery(settings)
        self.desk = Desk(self.orrery)
        self.looks = 0
        pushed = {"commit": "abc", "message": "m", "author": "ann", "spec": specs.to_dict(specs.from_dict(SPEC))}
        trained = {"run": "r", "commit": "abc", "change": "redesign", "data": {"tides": 1}}
        self.append("pushed", None, pushed)
        self.append("trained", 1, trained)
        self.append("promoted", 1, {}, environment="production")

    def append(self, kind: str, version: int | None, data: dict[str, Any], environment: str = "") -> None:
        about = {"model": "tides", "version": version, "environment": environment}
        self.orrery.append([Draft(kind=kind, actor="t", why="because", data=data, **about)])

    def look(self, *alarmed: str, quiet: tuple[str, ...] = (), twice: bool = False) -> list[str]:
        """Write a look down, and what the loop makes of it; return the kinds of the events."""
        self.looks += 1
        day = 10 + self.looks
        args = {"look": self.looks, "since": f"2026-01-{day}T00:00:00Z", "until": f"2026-01-{day + 1}T00:00:00Z"}
        action = Action(
            key=f"watch:{self.looks}", kind="watch", model="tides", version=1, environment="production", args=args
        )
        findings = {
            name: Finding(
                alarm=name in alarmed, calm=name not in alarmed, statistic=9.0, promise=100, why=f"{name}: 9."
            )
            for name in ("features", "decay")
        }
        found = Look(findings=findings, quiet=list(quiet), metrics={"rmse": 0.5}, states={"features": {"calm": 0}})
        before = self.orrery.timeline.head()[0]
        drafts = _written(self.desk, self.orrery.model("tides"), action, found, 70, 30)
        for _ in range(1 + twice):
            self.orrery.append(drafts)
        for due in self.orrery.due("tides"):
            if due.kind == "record":
                self.orrery.append(due.drafts)
        return [event.kind for event in self.orrery.timeline.read("tides", after=before)]

    def open_issues(self) -> list[str]:
        return [issue.title for issue in self.orrery.model("tides").issues.values() if issue.closed is None]


@pytest.fixture
def watched(home: Settings) -> Watched:
    return Watched(home)


def test_an_alarm_is_told_once_and_its_issue_closes_when_the_cause_is_gone(watched: Watched) -> None:
    assert watched.look() == ["watched"] and watched.open_issues() == []  # the control: a calm look opens nothing
    kinds = watched.look("features")
    assert kinds[:3] == ["watched", "alarmed", "issue_opened"]
    assert watched.open_issues() == ["features: 9."]
    assert watched.look("features") == ["watched"]  # still so: it is known
    assert watched.look() == ["watched"] and len(watched.open_issues()) == 1  # one calm look does not end it
    assert watched.look(quiet=("features",)) == ["watched", "quieted", "issue_closed"]
    assert watched.open_issues() == [] and watched.orrery.model("tides").lane("production").alarms == {}
    assert watched.look(quiet=("features",)) == ["watched"]  # nothing to be quiet about
    assert "alarmed" in watched.look("features") and len(watched.open_issues()) == 1  # a new cause is told again


def test_each_monitor_has_its_own_alarm_and_issue(watched: Watched) -> None:
    watched.look("features")
    kinds = watched.look("features", "decay")
    assert Counter(kinds)["alarmed"] == Counter(kinds)["issue_opened"] == 1
    assert sorted(watched.open_issues()) == ["decay: 9.", "features: 9."]
    watched.look("decay", quiet=("features",))
    assert watched.open_issues() == ["decay: 9."]


def test_an_alarm_that_repeats_while_its_issue_is_open_opens_no_second(watched: Watched) -> None:
    watched.look("features")
    watched.look(quiet=("features",))
    (issue,) = watched.orrery.model("tides").issues
    watched.orrery.reopen_issue("tides", issue, why="I do not believe it.", actor="nora")
    kinds = watched.look("features", "decay")
    assert Counter(kinds)["alarmed"] == 2 and Counter(kinds)["issue_opened"] == 1
    assert sorted(watched.open_issues()) == ["decay: 9.", "features: 9."]
    (linked,) = watched.orrery.timeline.named(watched.orrery.model("tides").issues[issue].events)
    assert (linked.kind, linked.data["look"]) == ("alarmed", 1)


def test_a_look_that_is_written_twice_is_there_once(watched: Watched) -> None:
    kinds = Counter(watched.look("features", twice=True))
    assert kinds["watched"] == kinds["alarmed"] == kinds["issue_opened"] == 1


def test_what_a_look_says(watched: Watched) -> None:
    watched.look("features")
    events = {event.kind: event for event in watched.orrery.timeline.read("tides")}
    assert events["watched"].why == (
        "Look 1: 70 requests and 30 matured labels since 2026-01-11T00:00; features alarmed."
    )
    assert watched.desk.kept(events["watched"].data["state"]) == {"features": {"calm": 0}}
    assert events["alarmed"].actor == "orrery/monitors/features" and events["alarmed"].data["look"] == 1
    assert events["issue_opened"].data["owner"] == "nora"
