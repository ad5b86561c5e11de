"""A look at a real prediction log: what it is compared with is made once for a version, from what training left."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import orrery
from orrery import spec as specs
from orrery.actions.desk import Desk
from orrery.actions.watch import watch
from orrery.app import Orrery
from orrery.data.journal import FOLDER, Journal
from orrery.data.predictions import LabelTable, PredictionLog
from orrery.monitors.watch import MONITORS
from orrery.pipeline.artifact import SCORE
from orrery.settings import Settings
from orrery.timeline.event import Draft
from orrery.workers.action import Action
from training.conftest import SAYING, Trainer

START = datetime(2013, 3, 1, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "model": {
        "name": "toy",
        "task": "binary",
        "target": "y",
        "entity": "id",
        "segments": ["zone"],
        "protected": ["zone", "sex"],
    },
    "data": {"rows": "rows"},
    "rollout": {"primary": "brier", "unit": "row"},
    "monitors": {"arl": 100},
}


class World:
    """A version that was really trained, and requests that are really logged."""

    def __init__(self, trainer: Trainer, home: Settings) -> None:
        self.random = np.random.default_rng(0)
        self.desk = Desk(Orrery(home))
        self.orrery = self.desk.orrery
        frame = self.rows(4000)
        self.orrery.add_data("rows", frame, why="the first rows", actor="feed")
        artifact = trainer.version(SAYING, frame, model=SPEC["model"], sections={"gates": {"refit": False}})
        shutil.copytree(artifact, home.home / "artifact-1")
        evidence = self.desk.evidence("toy", "run-1")
        evidence.mkdir(parents=True)
        for name in ("holdout.parquet", "probe_output.npy"):
            shutil.copy(trainer.out / name, evidence / name)
        spec = specs.to_dict(specs.from_dict(SPEC))
        self.append("pushed", None, commit="abc", message="m", author="ann", spec=spec)
        trained = {"run": "run-1", "commit": "abc", "change": "redesign", "data": {"rows": 1}, "parent": None}
        self.append("trained", 1, classes=[0, 1], artifact="artifact-1", expected_loss=0.25, **trained)
        self.append("promoted", 1, "production")
        self.looks, self.version = 0, 1

    def append(self, kind: str, version: int | None, environment: str = "", **data: Any) -> None:
        about = {"model": "toy", "version": version, "environment": environment}
        self.orrery.timeline.append([Draft(kind=kind, actor="t", why="because", data=data, **about)])

    def rows(self, count: int, zones: tuple[float, ...] = (0.5, 0.3, 0.2)) -> pl.DataFrame:
        said = np.clip(self.random.beta(2, 3, count), 0.02, 0.98)
        return pl.DataFrame(
            {
                "id": [f"{number}" for number in range(count)],
                "said": said,
                "zone": self.random.choice([1, 2, 3], count, p=zones),
                "y": (self.random.random(count) < said).astype(int),
            }
        )

    def look(self, count: int, zones: tuple[float, ...] = (0.5, 0.3, 0.2), **changed: Any) -> dict[str, Any]:
        """Answer a day's requests with their labels, and look; returns what the monitors found."""
        self.looks += 1
        since, until = START + timedelta(days=self.looks), START + timedelta(days=self.looks + 1)
        rows = (
            self.rows(count, zones)
            .with_columns(**changed)
            .with_columns(_entity=pl.format("{}-{}", pl.lit(self.looks), "id"))
        )
        if count:
            names = rows["_entity"].to_list()
            at = [round((since + timedelta(hours=1)).timestamp() * 1e6)] * count
            answers = {"_id": names, "_entity": names, "_at": at, "_output": [[one] for one in rows["said"].clip(0, 1)]}
            inputs = {name: rows[name].to_list() for name in ("said", "zone")}
            with Journal(self.orrery.settings.folder(FOLDER), "test") as journal:
                journal.append(
                    "toy", "production", {**answers, **inputs}, {"_version": self.version, "_role": "champion"}
                )
            known = rows.select(entity="_entity", label="y", at=pl.lit(since + timedelta(hours=5)))
            LabelTable(self.orrery.lake, "toy").append(known)
        args = {"look": self.looks, "since": since.isoformat(), "until": until.isoformat()}
        action = Action(
            key=f"watch:toy:{self.looks}",
            kind="watch",
            model="toy",
            version=self.version,
            environment="production",
            args=args,
        )
        drafts = watch(self.desk, self.orrery.model("toy"), action)
        self.orrery.append(drafts)
        found: dict[str, Any] = next(draft.data for draft in drafts if draft.kind == "watched")["monitors"]
        return found


@pytest.fixture
def world(tmp_path: Path, home: Settings) -> World:
    folder = tmp_path / "training"
    folder.mkdir()
    return World(Trainer(folder), home)


def test_every_monitor_looks_at_a_real_log_and_names_the_zone_that_stays_away(world: World) -> None:
    first = world.look(0)  # nothing was asked: there is nothing to compare
    assert set(first) == {"calibration", "decay", "estimated", "fairness", "anomalies", "probing"}
    assert all(one["insufficient"] for one in first.values())
    for _ in range(3):
        quiet = world.look(300)
    assert set(quiet) == {kind.name for kind in MONITORS}
    assert not any(one["insufficient"] for one in quiet.values()), quiet
    assert quiet["fairness"]["outcome"] == "insufficient data", "no group has a thousand rows yet"
    folder = world.desk.settings.folder("references")
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    for _ in range(6):
        found = world.look(300, (0.75, 0.25, 0.0))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made, "made once for a version"
    lane = world.orrery.model("toy").lane("production")
    assert "zone 3 " in lane.alarms["segments"]["why"] and lane.alarms["segments"]["trains"] is False
    assert "predictions" not in lane.alarms and found["predictions"]["insufficient"] is False
    assert [issue.title for issue in world.orrery.model("toy").issues.values() if "zone 3 " in issue.title]
    due = [action for action in world.orrery.due("toy") if action.key.startswith("trigger")]
    assert all("segments" not in action.drafts[0].why for action in due)


def test_a_repair_is_compared_with_what_the_version_learned_from_that_it_repairs(world: World) -> None:
    """Its run names the newest data, of which it learned nothing of the inputs."""
    world.look(300)
    folder = world.desk.settings.folder("references")
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    world.orrery.add_data("rows", world.rows(4000).with_columns(zone=pl.lit(3)), why="other rows", actor="feed")
    about = {
        "run": "run-1",
        "commit": "abc",
        "change": "repair",
        "data": {"rows": 2},
        "parent": 1,
        "repair": [1.1, 0.0],
    }
    world.append("trained", 2, classes=[0, 1], artifact="artifact-1", expected_loss=0.25, **about)
    world.append("promoted", 2, "production")
    world.version = 2
    found = world.look(300)
    assert found["features"]["insufficient"] is False and found["joint"]["insufficient"] is False
    now = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name: now[name] for name in made} == made
    assert {path.rpartition(".")[2] for path in now.keys() - made.keys()} == {"outputs", "untouched"}
    for _ in range(8):
        world.look(300, (0.0, 0.0, 1.0))
    assert "segments" in world.orrery.model("toy").lane("production").alarms, "what the newest data hold is no excuse"


def test_each_logged_request_has_a_score_and_strange_ones_open_an_issue_that_names_the_column(world: World) -> None:
    world.look(300)
    log = orrery.predictions("toy", home=str(world.orrery.settings.home)).polars()
    score = world.orrery.anomaly_scores("toy", 1)
    assert score is not None and score.columns == ("said",), "nothing else changes an answer"
    assert log["_anomaly"].null_count() == 0 and len(log) == 300
    assert (log["_anomaly"] >= 2).mean() < 0.05
    for _ in range(4):
        found = world.look(300, said=pl.when(pl.int_range(pl.len()) % 8 == 0).then(40.0).otherwise("said"))
    lane = world.orrery.model("toy").lane("production")
    assert "To blame: said (100%)" in lane.alarms["anomalies"]["why"] and lane.alarms["anomalies"]["trains"] is False
    assert found["anomalies"]["severity"]["strange"] == pytest.approx(1 / 8, abs=0.01)
    log = orrery.predictions("toy", home=str(world.orrery.settings.home)).polars()
    assert log.filter(pl.col("said") == 40.0)["_anomaly"].min() == pytest.approx(score.highest)


def test_a_version_without_a_score_is_served_logged_and_watched_as_ever(world: World) -> None:
    (world.orrery.settings.home / "artifact-1" / SCORE).write_bytes(b"something else")
    found = world.look(300)
    assert world.orrery.anomaly_scores("toy", 1) is None
    assert "features" in found and not {"anomalies", "probing"} & set(found)
    log = PredictionLog(world.orrery.lake, "toy").rows("production", None, None).collect()
    assert len(log) == log["_anomaly"].null_count() == 300
    assert world.orrery.anomaly_scores("toy", 9) is None and world.orrery.anomaly_scores("nobody", 1) is None
