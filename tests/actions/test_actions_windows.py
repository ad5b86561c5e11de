"""Which rows a refresh learns from: few after a change, all where nothing changed; and both in words."""

from __future__ import annotations

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
from orrery.actions import train as train_module
from orrery.actions.desk import Desk
from orrery.actions.probe import probe
from orrery.actions.train import train
from orrery.actions.windows import try_windows, windows_of
from orrery.app import Orrery
from orrery.settings import SETTINGS, load
from orrery.timeline.event import Draft
from orrery.timeline.state import Run
from orrery.timeline.why import chain
from orrery.triggers.due import due
from orrery.triggers.windows import ALPHA, pick
from orrery.workers.action import Action

START = datetime(2024, 1, 1, tzinfo=UTC)
PIPELINE = """
import numpy as np
from sklearn.linear_model import LogisticRegression


def features(rows):
    return rows.select("x")


def model(features, y):
    if len(features) < 12:
        raise ValueError("twelve rows at least")
    return LogisticRegression().fit(features, y)
"""
SPEC: dict[str, Any] = {
    "model": {"name": "toy", "task": "binary", "target": "y", "time": "at", "entity": "who", "label_delay": "1d"},
    "data": {"rows": "rows"},
    "gates": {"holdout": "7d"},
    "rollout": {"primary": "brier"},
    "triggers": {"data": True, "cooldown": "7d", "probe": 0.5, "windows": ["10d", "all"]},
}


def rows(days: int, a_day: int, turned_from: int | None = None, seed: int = 0) -> pl.DataFrame:
    """A row follows x, until a day from which on it follows its opposite."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), a_day)
    sign = np.where(day >= (days if turned_from is None else turned_from), -1.0, 1.0)
    x = random.normal(0.0, 1.0, len(day))
    at = [START + timedelta(days=int(one), minutes=place % a_day) for place, one in enumerate(day)]
    frame = pl.DataFrame({"who": [f"w{seed}-{place}" for place in range(len(day))], "at": at, "x": x})
    frame = frame.with_columns(y=pl.Series(random.random(len(day)) < 1 / (1 + np.exp(-3.0 * sign * x))))
    return frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    desk = Desk(Orrery(load(tmp_path / "home")))
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "pipeline.py").write_text(PIPELINE)
    monkeypatch.setattr(desk, "checkout", lambda model, commit: tmp_path / "checkout")
    yield desk
    desk.orrery.timeline.engine.dispose()


def pushed(desk: Desk, spec: dict[str, Any] = SPEC) -> None:
    commit = {"commit": "abc", "message": "m", "author": "ann", "spec": specs.to_dict(specs.from_dict(spec))}
    about = {"model": "toy", "actor": "ann", "why": "because"}
    built = {"commit": "abc", "python": sys.executable}
    desk.orrery.append([Draft(kind="pushed", data=commit, **about), Draft(kind="built", data=built, **about)])


def arrived(desk: Desk, frame: pl.DataFrame) -> int:
    desk.orrery.add_data("rows", frame, why="Rows.", actor="feed")
    return desk.orrery.states.data().datasets["rows"].version


def asked(desk: Desk, data: int, change: str = "refresh", run: str = "r1", **facts: Any) -> Run:
    facts |= {"run": run, "reason": "hand", "change": change, "commit": "abc", "data": {"rows": data}}
    draft = Draft(kind="triggered", model="toy", actor="ann", why="Somebody asked.", data=facts)
    desk.orrery.append([draft])
    return desk.orrery.model("toy").runs[run]


def chosen(desk: Desk, frame: pl.DataFrame, **triggers: Any) -> Any:
    """Probe the windows of a refresh on some rows."""
    spec = {**SPEC, "triggers": {**SPEC["triggers"], **triggers}}
    pushed(desk, spec)
    run = asked(desk, arrived(desk, frame))
    return try_windows(desk, desk.orrery.model("toy"), run, specs.from_dict(spec))[0]


def test_after_an_abrupt_change_the_short_window_is_learnt_from(desk: Desk) -> None:
    choice = chosen(desk, rows(60, 40, turned_from=45))
    every, short = choice.tried
    assert choice.window == "10d" and (every.window, short.window) == ("all", "10d") and choice.judged == 7 * 40
    assert short.rows < every.rows / 4 and short.low > 0.1 and every.loss > short.loss + 0.1
    assert "10d" in choice.sentence() and "better than all" in choice.sentence()


def test_where_nothing_changed_all_rows_are_learnt_from(desk: Desk) -> None:
    choice = chosen(desk, rows(60, 8), windows=["all", "30d", "10d"])
    assert choice.window == "all" and [one.window for one in choice.tried] == ["all", "30d", "10d"]
    assert not any((one.low or -1.0) > 0 for one in choice.tried)
    assert choice.sentence().count("not known to be better than all") == 2


def test_a_window_that_fails_is_out_and_says_why(desk: Desk) -> None:
    choice = chosen(desk, rows(30, 4, turned_from=12), windows=["all", "5d"])  # the half of five days is ten rows
    assert choice.window == "all" and "twelve rows at least" in choice.tried[1].failed
    assert "5d failed" in choice.sentence()


def test_where_every_probe_fails_the_longest_is_left(desk: Desk) -> None:
    choice = chosen(desk, rows(20, 4), windows=["all", "5d"], probe=0.1)
    assert choice.window == "all" and choice.judged == 0 and "no probe worked" in choice.sentence()


def test_untouched_rows_from_all_times_do_not_speak_for_the_past(desk: Desk) -> None:
    """With a fifth of all rows untouched, most of them are older than the change: they would keep all rows."""
    frame = rows(60, 40, turned_from=45)
    spec = {**SPEC, "gates": {"holdout": "0.2"}}
    pushed(desk, spec)
    run = asked(desk, arrived(desk, frame))
    choice, sample = try_windows(desk, desk.orrery.model("toy"), run, specs.from_dict(spec))
    assert choice.window == "10d" and sample is not None
    assert choice.judged < len(sample.rows) / 3
    assert ((sample.outputs[:, 0] - sample.labels) ** 2).mean() > 0.4  # on all untouched rows it is the worse one


def test_windows_that_hold_the_same_rows_are_one(desk: Desk) -> None:
    """Thirty days, of which the newest seven are untouched: 23 are left to learn from."""
    frame = rows(30, 4)
    for windows, differ in (
        (["all", "90d", "24d", "22d"], ["all", "22d"]),
        (["90d", "60d", "23d"], ["90d"]),
    ):
        spec = {**SPEC, "triggers": {**SPEC["triggers"], "windows": windows}}
        pushed(desk, spec)
        run = asked(desk, arrived(desk, frame), run=f"r{len(windows)}")
        assert windows_of(desk, run, specs.from_dict(spec)) == differ
    window, choice = train_module._window(desk, desk.orrery.model("toy"), run, specs.from_dict(spec))
    assert (window, choice) == ("90d", None)  # nothing was probed: there is nothing to choose


@pytest.mark.slow
def test_a_refresh_says_which_window_it_learned_from_and_why(desk: Desk) -> None:
    pushed(desk)
    data = arrived(desk, rows(60, 40, turned_from=45))
    for change, run in (("redesign", "r1"), ("refresh", "r2")):
        asked(desk, data, change, run)
        args = {"run": run}
        train(desk, desk.orrery.model("toy"), Action(key=f"train:{run}", kind="train", model="toy", args=args))
    first, second = desk.orrery.timeline.read("toy", kinds=["trained"])
    assert first.data["window"] == "0s" and first.data["rows"] == 2400 and "windows" not in first.data
    assert second.data["window"] == "10d" and second.data["rows"] == 400
    assert "better than all by" in second.why and second.data["windows"]["tried"][1]["low"] > 0.1
    assert not list(desk.evidence("toy", "").glob("probe-*"))
    told = next(
        link for link in chain(desk.orrery.timeline, desk.orrery.model("toy"), 2).links if link.what == "training"
    )
    assert "400 rows of the window 10d" in told.says and "better than all by" in told.says
    assert [one["window"] for one in told.numbers["windows"]] == ["all", "10d"]


@pytest.mark.slow
def test_what_new_data_decided_is_not_decided_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed(desk)
    data = arrived(desk, rows(40, 40))
    asked(desk, data, "redesign")
    train(desk, desk.orrery.model("toy"), Action(key="train:r1", kind="train", model="toy", args={"run": "r1"}))
    about = {"model": "toy", "actor": "t", "why": "because", "version": 1}
    promoted = Draft(kind="promoted", environment="production", data={"change": "redesign"}, **about)
    desk.orrery.append([Draft(kind="gated", data={"passed": True, "gates": {}}, **about), promoted])
    predicted(desk, 500)
    newer = rows(60, 40, turned_from=45, seed=1).filter(pl.col("at") >= START + timedelta(days=40))
    arrived(desk, newer.with_columns(x=pl.col("x") + 0.8))
    model, states = desk.orrery.model("toy"), desk.orrery.states.data()
    action = next(one for one in due(model, states, desk.orrery.clock.now()) if one.kind == "probe")
    desk.orrery.append(probe(desk, model, action))
    run = list(desk.orrery.model("toy").runs.values())[-1]
    assert run.reason == "data" and run.window == "10d" and "better than all by" in run.why and "it pays" in run.why
    monkeypatch.setattr("orrery.actions.train.try_windows", None)  # would be called, were it decided again
    train(desk, desk.orrery.model("toy"), Action(key="t2", kind="train", model="toy", args={"run": run.id}))
    trained = list(desk.orrery.timeline.read("toy", kinds=["trained"]))[-1]
    assert trained.data["window"] == "10d" and trained.data["rows"] == 400


def test_luck_takes_a_shorter_window_as_seldom_as_it_says() -> None:
    """Three windows that are all the same; days that are good or bad for each, so that rows are not independent."""
    random, taken, runs = np.random.default_rng(7), 0, 1000
    blocks = np.repeat(np.arange(7), 100)
    naive = 0
    for _ in range(runs):
        losses = {
            name: random.normal(0.2, 0.05, 700) + np.repeat(random.normal(0.0, 0.02, 7), 100)
            for name in ("all", "90d", "31d")
        }
        taken += pick(losses, dict.fromkeys(losses, 1), "brier", blocks).window != "all"
        naive += pick(losses, dict.fromkeys(losses, 1), "brier").window != "all"
    spread = 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5
    assert taken / runs <= ALPHA + spread
    assert naive / runs > 0.3  # the negative control: as if the rows of a day were independent


def test_a_window_has_to_beat_the_one_that_stands() -> None:
    even = np.linspace(0.0, 0.1, 100)
    losses = {"all": 0.3 + even, "90d": 0.2 + even, "31d": 0.2 + even[::-1] - 0.001}
    choice = pick(losses, dict.fromkeys(losses, 1), "brier")
    assert choice.window == "90d" and choice.tried[2].against == "90d"
