"""A loss that the project defines decides, where orrery's own would decide otherwise; in the project's process only."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

from acceptance.support import wait
from orrery import spec as specs
from orrery.actions.desk import Desk
from orrery.actions.gate import gate
from orrery.actions.losses import own_losses
from orrery.actions.train import train
from orrery.app import Orrery
from orrery.errors import ProjectFailed
from orrery.monitors.decay import DecayMonitor
from orrery.monitors.monitor import NOTHING, View
from orrery.rollout.compare import Comparison, look
from orrery.settings import SETTINGS, load
from orrery.stats.measure import row_losses
from orrery.timeline.event import Draft
from orrery.workers.action import Action
from training.conftest import SAYING, Trainer

LOSSES = """
    import os

    def missed(label, output):
        acts = output >= 0.3
        if label and not acts:
            return 10.0
        return 1.0 if acts and not label else 0.0

    def process(label, output):
        return os.getpid()

    def broken(label, output):
        return 1 / 0

    def wide(label, output):
        return 20.0

    def words(label, output):
        return None
"""
SPEC: dict[str, Any] = {
    "model": {"name": "toy", "task": "binary", "target": "y"},
    "data": {"rows": "rows"},
    "losses": {
        "missed": {"function": "losses:missed", "bound": 10.0},
        "process": {"function": "losses:process", "bound": 1e9},
        "broken": {"function": "losses:broken", "bound": 1.0},
        "wide": {"function": "losses:wide", "bound": 10.0},
        "words": {"function": "losses:words", "bound": 10.0},
        "absent": {"function": "losses:absent", "bound": 10.0},
    },
    "rollout": {"primary": "missed", "unit": "row"},
    "gates": {"latency": {"p99_ms": 10000.0}},
}
START = datetime(2024, 1, 1, tzinfo=UTC)
CHANCE, WARY, CALIBRATED = 0.2, 0.4, 0.2
"""One row of five comes true. Who says 0.4 acts on all; who says what is true acts on none, and misses them."""


def labels(count: int, seed: int = 3) -> list[bool]:
    found: list[bool] = (np.random.default_rng(seed).random(count) < CHANCE).tolist()
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """Two models that say the same of every row: the wary one and the calibrated one."""
    found = {}
    for said in (WARY, CALIBRATED):
        trainer = Trainer(tmp_path_factory.mktemp("trained"))
        text = SAYING.replace('rows["said"].to_numpy()', f"np.full(len(rows), {said})")
        frame = pl.DataFrame({"x": np.arange(1500.0), "y": labels(1500)})
        trainer.version(text, frame, files={"losses.py": LOSSES})
        found[said] = trainer.out
    return found


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: dict[float, Path]) -> Iterator[Desk]:
    """Version 1, in production, is the wary model; version 2 the calibrated one."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    desk = Desk(Orrery(load(tmp_path / "home")))
    pushed(desk, "abc", SPEC)
    monkeypatch.setattr(desk, "checkout", lambda model, commit: desk.settings.home / "artifact-1" / "code")
    about = {"model": "toy", "actor": "t", "why": "because"}
    for number, out in enumerate(trained.values(), 1):
        shutil.copytree(out / "artifact", desk.settings.home / f"artifact-{number}")
        shutil.copytree(out, desk.evidence("toy", str(number)), ignore=shutil.ignore_patterns("artifact"))
        facts = {"commit": "abc", "change": "redesign", "data": {"rows": 1}, "classes": [False, True]}
        facts |= {"run": str(number), "artifact": f"artifact-{number}"}
        desk.orrery.append([Draft(kind="trained", version=number, data=facts, **about)])
    promoted = Draft(kind="promoted", version=1, environment="production", data={"change": "redesign"}, **about)
    desk.orrery.append([promoted])
    yield desk
    desk.orrery.timeline.engine.dispose()


def pushed(desk: Desk, sha: str, spec: dict[str, Any]) -> None:
    about = {"model": "toy", "actor": "t", "why": "because"}
    commit = {"commit": sha, "message": "m", "author": "ann", "spec": specs.to_dict(specs.from_dict(spec))}
    built = {"commit": sha, "python": sys.executable}
    desk.orrery.append([Draft(kind="pushed", data=commit, **about), Draft(kind="built", data=built, **about)])


@pytest.mark.parametrize(("primary", "verdict"), [("brier", "passed"), ("missed", "refused")])
def test_the_gate_is_turned_around(desk: Desk, primary: str, verdict: str) -> None:
    spec = {**SPEC, "rollout": {"primary": primary, "unit": "row"}}
    model = desk.orrery.model("toy")
    model.commits["abc"].spec = specs.to_dict(specs.from_dict(spec))
    (gated, *_) = gate(desk, model, Action(key="gate/toy", kind="gate", model="toy", version=2))
    found = gated.data["gates"][primary]
    assert found["verdict"] == verdict, found["why"]
    if primary == "missed":
        assert found["numbers"]["champion"] == pytest.approx(0.8, abs=0.1) and found["numbers"]["value"] > 1.5


@pytest.mark.parametrize(("primary", "decision"), [("brier", "promote"), ("missed", "abort")])
def test_the_comparison_is_turned_around(desk: Desk, primary: str, decision: str) -> None:
    spec = specs.from_dict({**SPEC, "rollout": {"primary": primary, "unit": "row"}})
    model, state, found = desk.orrery.model("toy"), {}, None
    with own_losses(desk, model, "abc", [False, True]) as own:
        for number in range(20):
            found = look(state, pairs(200, number), spec, [False, True], START + timedelta(days=number), own=own)
            state = found.state
            if found.decision != "undecided":
                break
    assert isinstance(found, Comparison) and found.decision == decision


def pairs(count: int, seed: int) -> pl.DataFrame:
    columns: dict[str, Any] = {
        "at": pl.Series([START + timedelta(days=seed)] * count, dtype=pl.Datetime("us", "UTC")),
        "champion": [[WARY]] * count,
        "challenger": [[CALIBRATED]] * count,
        "label": labels(count, seed + 10),
    }
    return pl.DataFrame(columns)


@pytest.mark.parametrize("primary", ["brier", "missed"])
def test_decay_is_told_by_the_project_s_loss(desk: Desk, primary: str) -> None:
    """Rows of which one in two came true become rows of which one in five does: easier, and it pays to be wary."""
    spec = specs.from_dict({**SPEC, "rollout": {"primary": primary, "unit": "row"}})
    model, state, alarm = desk.orrery.model("toy"), {}, False
    with own_losses(desk, model, "abc", [False, True]) as own:
        promised = float(row_losses(primary, np.full((2, 1), 0.5), np.array([0.0, 1.0]), own=own).mean())
        for number in range(40):
            columns = {"output": [[CALIBRATED]] * 100, "label": labels(100, number)}
            matured = pl.DataFrame(columns)
            shown = View(
                spec=spec,
                requests=pl.DataFrame(),
                matured=matured,
                classes=[False, True],
                reference=NOTHING,
                expected_loss=promised,
                own=own,
            )
            monitor = DecayMonitor.resume(shown, state)
            alarm = alarm or monitor.look(shown).alarm
            state = monitor.to_state()
    assert alarm == (primary == "missed")


def test_it_is_computed_in_another_process_and_given_labels_as_they_are(desk: Desk) -> None:
    model = desk.orrery.model("toy")
    with own_losses(desk, model, "abc", [False, True]) as own:
        outputs, codes = np.array([[0.1], [0.5], [0.5]]), np.array([1.0, 0.0, 1.0])
        assert row_losses("missed", outputs, codes, own=own).tolist() == [10.0, 1.0, 0.0]
        (process,) = set(row_losses("process", outputs, codes, own=own).tolist())
        assert process not in (os.getpid(), os.getppid()) and "losses" not in sys.modules
        assert len(row_losses("missed", np.empty((0, 1)), np.empty(0), own=own)) == 0


def test_the_process_stays_between_looks_and_is_replaced_when_it_is_gone(desk: Desk) -> None:
    pushed(desk, "def", {**SPEC, "resources": {"memory_gb": 1.5}})
    model, outputs, codes = desk.orrery.model("toy"), np.array([[0.5]]), np.array([1.0])

    def asked(commit: str = "abc") -> int:
        with own_losses(desk, model, commit, [False, True]) as own:
            row_losses("process", outputs, codes, own=own)
        running: Any = desk.losses(model, commit)._process
        return int(running.pid)  # as we see it; within walls it has another number

    first = asked()
    assert asked() == first
    os.kill(first, signal.SIGKILL)
    wait(lambda: not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE)
    second = asked()
    assert second != first, "nobody's fault, and no reason for a look to fail"
    other = asked("def")
    assert other != second and not psutil.pid_exists(second), "one at a time"
    desk.let_go(unused=3600.0)
    assert asked("def") == other
    desk.let_go()
    assert not psutil.pid_exists(other)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "ZeroDivisionError"),
        ("wide", "gave 20 for the label True"),
        ("words", "gave nan"),
        ("absent", "has no attribute 'absent'"),
    ],
)
def test_a_loss_that_fails_or_leaves_its_range_is_no_number(desk: Desk, name: str, words: str) -> None:
    model = desk.orrery.model("toy")
    with own_losses(desk, model, "abc", [False, True]) as own, pytest.raises(ProjectFailed, match=words):
        row_losses(name, np.array([[0.1]]), np.array([1.0]), own=own)


@pytest.mark.slow
def test_a_training_promises_the_loss_of_its_own_commit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.orrery.add_data("rows", pl.DataFrame({"x": np.arange(1500.0), "y": labels(1500)}), why="Rows.", actor="feed")
    for sha, cost in (("c10", "10.0"), ("c2", "2.0")):
        folder = desk.settings.home / sha
        folder.mkdir()
        text = SAYING.replace('rows["said"].to_numpy()', "np.full(len(rows), 0.2)")
        own = f"\ndef cost(label, output):\n    return {cost} if label and output < 0.3 else 0.0\n"
        (folder / "pipeline.py").write_text(text)
        (folder / "losses.py").write_text(own)
        spec = {**SPEC, "losses": {"cost": {"bound": 10.0}}, "rollout": {"primary": "cost"}}
        pushed(desk, sha, spec)
        facts = {"run": sha, "reason": "push", "change": "redesign", "commit": sha, "data": {"rows": 1}}
        desk.orrery.append([Draft(kind="triggered", model="toy", actor="ann", why="Pushed.", data=facts)])
    monkeypatch.setattr(desk, "checkout", lambda model, commit: desk.settings.home / commit)
    for sha in ("c10", "c2"):
        train(desk, desk.orrery.model("toy"), Action(key=f"train:{sha}", kind="train", model="toy", args={"run": sha}))
    ten, two = list(desk.orrery.timeline.read("toy", kinds=["trained"]))[-2:]
    assert ten.data["metrics"]["cost"] == pytest.approx(5 * two.data["metrics"]["cost"]) != 0
    assert ten.data["expected_loss"] > ten.data["metrics"]["cost"] > two.data["expected_loss"]
