"""A repair is fitted to what the champion said and what came of it, through all repairs before it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.special import expit, logit

from orrery import spec as specs
from orrery.actions.desk import Desk
from orrery.actions.repair import LEAST_DAYS, SHRINKAGE, repair
from orrery.app import Orrery
from orrery.data.predictions import LabelTable, PredictionLog
from orrery.pipeline.artifact import read_manifest
from orrery.pipeline.predictor import Predictor
from orrery.settings import Settings
from orrery.settings import load as load_settings
from orrery.stats import apply_platt
from orrery.timeline.clock import ReplayClock
from orrery.timeline.event import Draft
from training.conftest import SAYING, Trainer

TRAINED = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SPEC: dict[str, Any] = {
    "model": {
        "name": "toy",
        "task": "binary",
        "target": "y",
        "time": "at",
        "label_delay": "1d",
        "segments": ["origin"],
    },
    "data": {"rows": "rows"},
    "rollout": {"primary": "brier"},
}


class Production:
    """A real artifact of a model that says what stands in its rows, and a world that may not agree."""

    def __init__(self, trainer: Trainer, settings: Settings) -> None:
        self.random = np.random.default_rng(0)
        settings.home.joinpath("clock").write_text("2013-01-29T00:00:00Z")
        self.desk = Desk(Orrery(load_settings(home=settings.home)))
        self.orrery = self.desk.orrery
        self.spec = specs.from_dict(SPEC)
        frame = self.rows(TRAINED, 28, 40)
        artifact = trainer.version(SAYING, frame, model=SPEC["model"], sections={"gates": {"refit": False}})
        shutil.copytree(artifact, settings.home / "artifact-1")
        evidence = self.desk.evidence("toy", "run-1")
        evidence.mkdir(parents=True)
        for name in ("holdout.parquet", "probe_output.npy"):
            shutil.copy(trainer.out / name, evidence / name)
        pushed = {"commit": "abc", "message": "m", "author": "ann", "spec": specs.to_dict(self.spec)}
        self.append("pushed", None, **pushed)
        self.enter(1, "redesign", "artifact-1", None, {"trained_until": "2013-01-28T00:00:00Z"})
        self.logged = 0

    def append(self, kind: str, version: int | None, environment: str = "", **data: Any) -> None:
        about = {"model": "toy", "version": version, "environment": environment}
        self.orrery.timeline.append([Draft(kind=kind, actor="t", why="because", data=data, **about)])

    def enter(self, number: int, change: str, artifact: str, parent: int | None, facts: dict[str, Any]) -> None:
        known = {"run": f"run-{number}", "commit": "abc", "change": change, "data": {"rows": 1}, "parent": parent}
        self.append("trained", number, classes=[0, 1], artifact=artifact, **(known | facts))
        self.append("promoted", number, "production")

    def rows(self, first: datetime, days: int, each: int, shift: float = 0.0, slope: float = 1.0) -> pl.DataFrame:
        said = np.clip(self.random.beta(2, 3, days * each), 0.02, 0.98)
        truth = expit(slope * logit(said) + shift)
        return pl.DataFrame(
            {
                "said": said,
                "at": [first + number * DAY / each for number in range(days * each)],
                "origin": ["JFK", "LGA"] * (days * each // 2),
                "y": (self.random.random(days * each) < truth).astype(int),
            },
            schema_overrides={"at": pl.Datetime("us", "UTC")},
        )

    def serve(
        self, version: int, first: datetime, days: int, shift: float, slope: float = 1.0, each: int = 100
    ) -> None:
        """Answer some days with a version; all labels are final two days later, and that is now."""
        rows = self.rows(first, days, 100, shift, slope)
        said = rows["said"].to_numpy()
        if version > 1:
            said = apply_platt(said, *self.orrery.model("toy").versions[version].facts["repair"])
        names = [f"e{number}" for number in range(self.logged, self.logged + len(rows))]
        self.logged += len(rows)
        PredictionLog(self.orrery.lake, "toy").append(
            pl.DataFrame(
                {
                    "_id": names,
                    "_at": rows["at"],
                    "_environment": ["production"] * len(rows),
                    "_version": [version] * len(rows),
                    "_role": ["champion"] * len(rows),
                    "_entity": names,
                    "_output": [[value] for value in said.tolist()],
                    "origin": rows["origin"],
                }
            )
        )
        known = pl.DataFrame({"entity": names, "label": rows["y"], "at": rows["at"] + timedelta(hours=5)})
        LabelTable(self.orrery.lake, "toy").append(known)
        clock = self.orrery.clock
        assert isinstance(clock, ReplayClock)
        clock.set(first + (days + 1) * DAY)

    def repair(self, number: int) -> dict[str, Any] | str:
        return repair(self.desk, self.orrery.model("toy"), self.spec, self.desk.evidence("toy", f"run-{number}"))

    def repaired(self, number: int) -> tuple[float, float]:
        """Repair, and let the repaired version answer from now on; returns its two numbers without the shrinkage."""
        champion = self.orrery.model("toy").champion()
        result = self.repair(number)
        assert isinstance(result, dict) and champion is not None, result
        folder = self.desk.evidence("toy", f"run-{number}") / "artifact"
        self.enter(number, "repair", str(folder.relative_to(self.desk.settings.home)), champion.number, result)
        weight = result["params"]["days"] / (result["params"]["days"] + SHRINKAGE)
        slope, intercept = result["repair"]
        return 1 + (slope - 1) / weight, intercept / weight

    def answers(self, number: int, said: list[float]) -> list[float]:
        version = self.orrery.model("toy").versions[number]
        rows = pl.DataFrame({"said": said, "at": [TRAINED] * len(said), "origin": ["JFK"] * len(said)})
        found: list[float] = Predictor.load(self.desk.artifact(version)).predict(rows)[:, 0].tolist()
        return found


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    folder = tmp_path / "training"
    folder.mkdir()
    return Trainer(folder)


@pytest.fixture
def production(trainer: Trainer, home: Settings) -> Production:
    return Production(trainer, home)


MARCH = datetime(2013, 3, 1, tzinfo=UTC)  # the untouched rows of January are older than the window then


@pytest.mark.parametrize(("shift", "slope"), [(0.8, 1.0), (-0.6, 1.0), (0.0, 0.5)])
def test_what_the_world_does_is_what_the_repair_says(production: Production, shift: float, slope: float) -> None:
    production.serve(1, MARCH, 28, shift, slope)
    assert production.repaired(2) == (pytest.approx(slope, abs=0.12), pytest.approx(shift, abs=0.12))
    two = production.orrery.model("toy").versions[2].facts
    assert production.answers(2, [0.2, 0.7]) == pytest.approx(apply_platt([0.2, 0.7], *two["repair"]).tolist())
    assert two["params"]["days"] == 28 and two["params"]["rows"] == 2800


def test_the_judged_rows_are_the_newest_and_both_sides_are_asked(production: Production) -> None:
    production.serve(1, MARCH, 20, 0.8)
    result = production.repair(2)
    assert isinstance(result, dict)
    folder = production.desk.evidence("toy", "run-2")
    held = pl.read_parquet(folder / "holdout.parquet")
    outputs, champion = np.load(folder / "probe_output.npy"), np.load(folder / "champion_output.npy")
    assert len(held) == len(outputs) == len(champion) == 600 and held["_at"].min() >= MARCH + 14 * DAY
    assert {"y", "origin", "_at"} <= set(held.columns)
    truth = held["y"].to_numpy()
    assert ((outputs[:, 0] - truth) ** 2).mean() < ((champion[:, 0] - truth) ** 2).mean()
    assert result["metrics"]["brier"] == pytest.approx(((outputs[:, 0] - truth) ** 2).mean())


def test_repairs_before_it_are_taken_back(production: Production) -> None:
    production.serve(1, MARCH, 28, 0.8)
    production.repaired(2)
    production.serve(2, MARCH + 30 * DAY, 28, 0.8)
    same = production.repair(3)
    assert isinstance(same, str) and "it would change a probability by" in same  # what is repaired stays so
    production.serve(2, MARCH + 60 * DAY, 28, -0.6)
    slope, intercept = production.repaired(4)
    assert (slope, intercept) == (pytest.approx(1.0, abs=0.12), pytest.approx(-0.6, abs=0.12))
    manifest = read_manifest(production.desk.artifact(production.orrery.model("toy").versions[4]))
    assert manifest.repair is not None
    numbers = production.orrery.model("toy").versions[4].facts["repair"]
    assert [manifest.repair.slope, manifest.repair.intercept] == pytest.approx(numbers)
    assert production.answers(4, [0.3]) == pytest.approx(apply_platt([0.3], *numbers).tolist())


def test_versions_deleted_since_do_not_stand_in_the_way(production: Production) -> None:
    production.serve(1, MARCH, 28, 0.8)
    production.repaired(2)
    production.serve(2, MARCH + 30 * DAY, 10, -0.6)
    production.repaired(3)
    production.serve(3, MARCH + 41 * DAY, 18, -0.6)
    for number in (1, 2):
        shutil.rmtree(production.desk.artifact(production.orrery.model("toy").versions[number]))
        production.append("deleted", number, artifact="")
    slope, intercept = production.repaired(4)
    assert (slope, intercept) == (pytest.approx(1.0, abs=0.15), pytest.approx(-0.6, abs=0.15))
    numbers = production.orrery.model("toy").versions[4].facts["repair"]
    assert production.answers(4, [0.3]) == pytest.approx(apply_platt([0.3], *numbers).tolist())


def test_a_calibrated_champion_is_left_alone(production: Production) -> None:
    production.serve(1, MARCH, 28, 0.0)
    said = production.repair(2)
    assert isinstance(said, str) and said.startswith("Nothing repaired: it would change a probability by 0.")
    assert not production.desk.evidence("toy", "run-2").exists()


def test_few_days_say_nothing(production: Production) -> None:
    production.serve(1, MARCH, LEAST_DAYS - 1, 0.8)
    assert production.repair(2) == f"Nothing repaired: {LEAST_DAYS - 1} days of matured labels, 7 are asked for."


def test_soon_after_the_training_the_untouched_rows_count_too(production: Production) -> None:
    production.serve(1, TRAINED + 28 * DAY, 14, 1.2)
    result = production.repair(2)
    assert isinstance(result, dict)
    assert result["params"]["days"] >= 20 and result["params"]["rows"] == 1400 + len(
        pl.read_parquet(production.desk.evidence("toy", "run-1") / "holdout.parquet")
    )
    assert 0.3 < result["repair"][1] < 1.2  # between a month that was right and a fortnight that was not
