"""The latency gate times what will answer: the compiled form where there is one, else the version's own Python."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from orrery import spec as specs
from orrery.actions.desk import Desk
from orrery.actions.gate import TIMED_ROWS, gate
from orrery.app import Orrery
from orrery.pipeline.verdict import GRAPH, VERDICT
from orrery.settings import SETTINGS, load
from orrery.timeline.event import Draft
from orrery.workers.action import Action
from training.conftest import Trainer

WHOLE = """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def model(rows, y):
        return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, y)
"""
STEPPED = """
    from sklearn.linear_model import LogisticRegression

    def features(rows):
        return rows.select(rows["a"], twice=rows["b"] * 2)

    def model(features, y):
        return LogisticRegression().fit(features, y)
"""
PYTHON = WHOLE.replace("return ", "fitted = ") + "        return lambda rows: fitted.predict_proba(rows)\n"
SPEC: dict[str, Any] = {
    "model": {"name": "toy", "task": "binary", "target": "y"},
    "data": {"rows": "rows"},
    "gates": {"latency": {"p99_ms": 10000.0}},
}


def rows(count: int = 1200) -> pl.DataFrame:
    random = np.random.default_rng(3)
    a, b = random.normal(size=count), random.normal(size=count)
    return pl.DataFrame({"a": a, "b": b, "y": a + random.normal(size=count) > 0})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each project's training leaves."""
    found = {}
    for name, text in {"whole": WHOLE, "stepped": STEPPED, "python": PYTHON}.items():
        trainer = Trainer(tmp_path_factory.mktemp(name))
        trainer.version(text, rows())
        found[name] = trainer.out
    return found


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    desk = Desk(Orrery(load(tmp_path / "home")))
    yield desk
    desk.orrery.timeline.engine.dispose()


def latency(desk: Desk, outs: list[Path]) -> dict[str, Any]:
    """Gate the last of some versions, the first of which is champion if there are two; the gate's verdict."""
    about = {"model": "toy", "actor": "t", "why": "because"}
    commit = {"commit": "abc", "message": "m", "author": "ann", "spec": specs.to_dict(specs.from_dict(SPEC))}
    drafts = [
        Draft(kind="pushed", data=commit, **about),
        Draft(kind="built", data={"commit": "abc", "python": sys.executable}, **about),
    ]
    for number, out in enumerate(outs, 1):
        shutil.copytree(out / "artifact", desk.settings.home / f"artifact-{number}")
        shutil.copytree(out, desk.evidence("toy", str(number)), ignore=shutil.ignore_patterns("artifact"))
        facts = {"commit": "abc", "change": "redesign", "data": {"rows": 1}, "classes": [False, True]}
        facts |= {"run": str(number), "artifact": f"artifact-{number}"}
        drafts.append(Draft(kind="trained", version=number, data=facts, **about))
    if len(outs) > 1:
        drafts.append(Draft(kind="promoted", version=1, environment="production", data={"change": "redesign"}, **about))
    desk.orrery.timeline.append(drafts)
    action = Action(key="gate/toy", kind="gate", model="toy", version=len(outs))
    (gated, *_) = gate(desk, desk.orrery.model("toy"), action)
    found: dict[str, Any] = gated.data["gates"]["latency"]
    assert found["verdict"] == "passed" and found["numbers"]["rows"] == TIMED_ROWS
    return found


def test_a_compiled_version_is_timed_compiled(desk: Desk, trained: dict[str, Path]) -> None:
    found = latency(desk, [trained["whole"]])
    assert (found["numbers"]["timed"], found["numbers"]["left"]) == ("compiled", 0)
    assert ", compiled; the limit" in found["why"]


def test_features_in_python_are_timed_with_the_compiled_model(desk: Desk, trained: dict[str, Path]) -> None:
    found = latency(desk, [trained["stepped"]])
    assert found["numbers"]["timed"] == "features in python"
    assert "its features in Python and the model compiled" in found["why"]


def test_a_version_that_is_not_compiled_is_timed_by_its_own_python(desk: Desk, trained: dict[str, Path]) -> None:
    found = latency(desk, [trained["python"]])
    assert found["numbers"]["timed"] == "python" and "compiled" not in found["why"]


def test_a_version_from_before_there_was_a_verdict_is_timed_by_its_own_python(
    desk: Desk, trained: dict[str, Path], tmp_path: Path
) -> None:
    old = shutil.copytree(trained["whole"], tmp_path / "old")
    (old / "artifact" / VERDICT).unlink()
    assert latency(desk, [old])["numbers"]["timed"] == "python"


def test_what_cannot_be_served_compiled_is_not_timed_as_if_it_were(
    desk: Desk, trained: dict[str, Path], tmp_path: Path
) -> None:
    bad = shutil.copytree(trained["whole"], tmp_path / "bad")
    (bad / "artifact" / GRAPH).write_bytes(b"nothing")
    found = latency(desk, [bad])
    assert found["numbers"]["left"] == TIMED_ROWS
    assert f"{TIMED_ROWS} of {TIMED_ROWS} rows left to its own Python" in found["why"]


def test_after_the_timing_the_champion_is_asked_as_before(desk: Desk, trained: dict[str, Path]) -> None:
    found = latency(desk, [trained["python"], trained["whole"]])
    assert found["numbers"]["timed"] == "compiled"
