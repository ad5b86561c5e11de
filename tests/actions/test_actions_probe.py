"""New data start a training where they differ and a probe says that it pays; else a note says why not, in numbers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from actions.conftest import predicted
from orrery import spec as specs
from orrery.actions.desk import Desk
from orrery.actions.probe import probe
from orrery.app import Orrery
from orrery.settings import SETTINGS, load
from orrery.timeline.event import Draft
from orrery.triggers.due import due
from orrery.types import parse_instant
from orrery.workers.action import Action
from training.conftest import Trainer

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS, A_DAY = 20, 100
PIPELINE = """
    from sklearn.linear_model import LogisticRegression

    def features(rows):
        if rows["x"].mean() > 2.2:
            raise ValueError("more than enough")
        return rows.select("x")

    def model(features, y):
        return LogisticRegression().fit(features, y)
"""
SPEC: dict[str, Any] = {
    "model": {"name": "toy", "task": "binary", "target": "y", "time": "at", "entity": "who", "label_delay": "1d"},
    "data": {"rows": "rows"},
    "gates": {"holdout": "5d"},
    "rollout": {"primary": "brier"},
    "triggers": {"data": True, "cooldown": "7d", "probe": 0.25, "cost": {"error": 0.05, "training_cpu_hour": 0.05}},
}


def rows(first: int, seed: int, shift: float = 0.0, turned: bool = False) -> pl.DataFrame:
    """Twenty days of rows; the label follows x, or its opposite."""
    random = np.random.default_rng(seed)
    count = DAYS * A_DAY
    x = random.normal(shift, 1.0, count)
    chance = 1 / (1 + np.exp((3.0 if turned else -3.0) * (x - shift)))
    at = [START + timedelta(days=first + place // A_DAY, minutes=14 * (place % A_DAY)) for place in range(count)]
    who = [f"w{seed}-{place}" for place in range(count)]
    frame = pl.DataFrame({"who": who, "at": at, "x": x, "y": random.random(count) < chance})
    return frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = Trainer(tmp_path_factory.mktemp("trained"))
    trainer.version(PIPELINE, rows(0, 1), model=SPEC["model"], sections={"gates": SPEC["gates"]})
    return trainer


@pytest.fixture
def desk(trained: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    desk = Desk(Orrery(load(tmp_path / "home")))
    monkeypatch.setattr(desk, "checkout", lambda model, commit: trained.root)
    shutil.copytree(trained.out / "artifact", desk.settings.home / "artifact-1")
    desk.orrery.add_data("rows", rows(0, 1), why="The first rows.", actor="feed")
    about = {"model": "toy", "actor": "t", "why": "because"}
    commit = {"commit": "abc", "message": "m", "author": "ann", "spec": specs.to_dict(specs.from_dict(SPEC))}
    facts = {"commit": "abc", "change": "redesign", "data": {"rows": 1}, "classes": [False, True], "run": "1"}
    facts |= {"artifact": "artifact-1", "cpu_seconds": 36.0, "trained_until": "2024-01-15T23:00:00.000000Z"}
    desk.orrery.timeline.append(
        [
            Draft(kind="pushed", data=commit, **about),
            Draft(kind="built", data={"commit": "abc", "python": sys.executable}, **about),
            Draft(kind="trained", version=1, data=facts, **about),
            Draft(kind="gated", version=1, data={"passed": True, "gates": {}}, **about),
            Draft(kind="promoted", version=1, environment="production", data={"change": "redesign"}, **about),
        ]
    )
    predicted(desk, 700)
    yield desk
    desk.orrery.timeline.engine.dispose()


def arrived(desk: Desk, frame: pl.DataFrame, **triggers: Any) -> Draft:
    """Bring data, and return what the loop makes of them."""
    if triggers:
        spec = {**SPEC, "triggers": {**SPEC["triggers"], **triggers}}
        commit = {"commit": "abd", "message": "m", "author": "ann", "spec": specs.to_dict(specs.from_dict(spec))}
        desk.orrery.model("toy").commits["abc"].spec = commit["spec"]  # type: ignore[assignment]
    desk.orrery.add_data("rows", frame, why="More rows.", actor="feed")
    action = wanted(desk)
    assert action is not None and action.kind == "probe"
    (draft,) = probe(desk, desk.orrery.model("toy"), action)
    desk.orrery.append([draft])
    assert wanted(desk) is None or draft.kind == "triggered"
    return draft


def wanted(desk: Desk) -> Action | None:
    model, data = desk.orrery.model("toy"), desk.orrery.states.data()
    return next((one for one in due(model, data, desk.orrery.clock.now()) if one.kind == "probe"), None)


def test_rows_like_those_before_are_not_even_probed(desk: Desk) -> None:
    draft = arrived(desk, rows(DAYS, 2))
    assert draft.kind == "not_triggered" and "like those before" in draft.why and "Not probed" in draft.why
    until = parse_instant(draft.data["until"])
    assert until - desk.orrery.clock.now() > timedelta(days=6)


def test_a_turned_world_is_worth_a_training_and_the_arithmetic_says_so(desk: Desk) -> None:
    draft = arrived(desk, rows(DAYS, 3, shift=1.5, turned=True))
    assert draft.kind == "triggered" and draft.data["reason"] == "data" and draft.data["data"] == {"rows": 2}
    worth = draft.data["evidence"]
    assert worth["low"] > 0.1 and worth["requests"] == pytest.approx(700)
    assert worth["hours"] == pytest.approx(0.01)
    assert "it pays" in draft.why and "not like those before, most of all in x" in draft.why
    assert desk.orrery.model("toy").runs[draft.data["run"]].change == "refresh"


def test_what_would_bring_less_than_it_costs_is_left(desk: Desk) -> None:
    draft = arrived(desk, rows(DAYS, 3, shift=1.5, turned=True), cost={"error": 0.05, "training_cpu_hour": 1e6})
    assert draft.kind == "not_triggered" and "it does not pay" in draft.why and draft.data["evidence"]["low"] > 0.1


def test_other_rows_that_the_champion_answers_as_well_are_left(desk: Desk) -> None:
    draft = arrived(desk, rows(DAYS, 4).filter(pl.col("x") > -0.5))
    assert draft.kind == "not_triggered" and draft.data["evidence"]["low"] <= 0
    assert "not like those before" in draft.why and "not known to bring anything" in draft.why


def test_a_probe_that_fails_starts_nothing_and_says_why(desk: Desk) -> None:
    draft = arrived(desk, rows(DAYS, 5, shift=3.0))
    assert draft.kind == "not_triggered" and "The probe failed" in draft.why and "more than enough" in draft.why
