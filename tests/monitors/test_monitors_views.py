"""What each monitor makes of units, absent columns, new categories and labels; and when a cause counts as gone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from orrery import spec as specs
from orrery.data.arrays import columns_of
from orrery.monitors.calibration import CalibrationMonitor
from orrery.monitors.decay import DecayMonitor
from orrery.monitors.features import FeatureMonitor
from orrery.monitors.monitor import View
from orrery.monitors.watch import CALM_LOOKS, MONITORS, look
from orrery.stats import TableSketch
from orrery.testing.monitor_contract import Simulated, check_finding

DAY = datetime(2013, 1, 5, tzinfo=UTC)


def with_policy(view: View, **sections: dict[str, Any]) -> View:
    fields = specs.to_dict(view.spec)
    for section, values in sections.items():
        fields[section] = {**fields[section], **values}
    return msgspec.structs.replace(view, spec=specs.from_dict(json.loads(json.dumps(fields))))


def feature_view(requests: pl.DataFrame, reference: TableSketch, unit: str = "row") -> View:
    view = with_policy(Simulated(0).view(rows=0), rollout={"unit": unit})
    return msgspec.structs.replace(view, requests=requests, reference=reference)


def looks_until_alarm(view: View, most: int = 40) -> int:
    monitor = FeatureMonitor.resume(view, {})
    for number in range(1, most + 1):
        if monitor.look(view).alarm:
            return number
    return most + 1


def test_rows_that_are_one_unit_are_less_evidence() -> None:
    """The same requests, moved: as single rows an alarm at once, as users later, as one day later still."""
    rng = np.random.default_rng(0)
    reference = TableSketch.fit({"wind": rng.normal(0, 1, 5000)})
    requests = pl.DataFrame(
        {
            "wind": rng.normal(1.0, 1, 240),
            "user": [f"u{number % 24}" for number in range(240)],
            "_at": [DAY + timedelta(minutes=5 * number) for number in range(240)],
        },
        schema_overrides={"_at": pl.Datetime("us", "UTC")},
    )
    found = {
        unit: looks_until_alarm(feature_view(requests, reference, unit))
        for unit in ("row", "user", "hour", "day", "nobody")
    }
    assert found["row"] < found["user"] < found["day"] <= 40
    assert found["row"] < found["hour"] < found["day"]
    assert found["nobody"] == found["row"]  # a column that requests do not bring says nothing of units


def test_a_column_that_stays_away_is_drift_and_is_blamed() -> None:
    rng = np.random.default_rng(1)
    columns = {"wind": rng.normal(0, 1, 5000), "harbour": rng.choice(["a", "b"], 5000).astype(object)}
    reference = TableSketch.fit(columns)
    full = pl.DataFrame({name: values[:300].tolist() for name, values in columns.items()})
    for gone in ("wind", "harbour"):
        view = feature_view(full.drop(gone), reference)
        monitor = FeatureMonitor.resume(view, {})
        finding = next(found for found in (monitor.look(view) for _ in range(20)) if found.alarm)
        assert finding.blame[0][0] == gone and gone in finding.why and not finding.calm
        check_finding(finding)
    quiet = FeatureMonitor.resume(feature_view(full, reference), {})
    for _ in range(40):  # other rows at each look: the same ones again would be no independent evidence
        rows = pl.DataFrame({"wind": rng.normal(0, 1, 300), "harbour": rng.choice(["a", "b"], 300)})
        assert not quiet.look(feature_view(rows, reference)).alarm


def test_new_categories_are_drift() -> None:
    rng = np.random.default_rng(2)
    reference = TableSketch.fit({"harbour": rng.choice(["a", "b"], 5000).astype(object)})
    new = pl.DataFrame({"harbour": ["a"] * 100 + ["b"] * 100 + ["zeebrugge"] * 60})
    view = feature_view(new, reference)
    assert looks_until_alarm(view) < 10
    assert FeatureMonitor.resume(view, {}).look(view).severity["harbour"] > 0.2
    few = pl.DataFrame({"harbour": ["a"] * 130 + ["b"] * 128 + ["zeebrugge"] * 2})
    assert looks_until_alarm(feature_view(few, reference)) == 41  # within the tolerance


def test_words_in_a_column_of_numbers_are_missing_values() -> None:
    reference = TableSketch.fit({"wind": np.random.default_rng(3).normal(0, 1, 5000)})
    view = feature_view(pl.DataFrame({"wind": ["0.3", "calm", None] * 100}), reference)
    assert looks_until_alarm(view) < 10


def test_columns_are_read_as_sketches_need_them() -> None:
    frame = pl.DataFrame({"n": [1, None], "b": [True, None], "s": ["x", None], "f": [0.5, None]})
    found = columns_of(frame, ["n", "b", "s", "f", "gone"])
    assert found["n"][0] == found["b"][0] == 1.0 and np.isnan([found["n"][1], found["b"][1], found["f"][1]]).all()
    assert found["s"].tolist() == ["x", None] and np.isnan(found["gone"]).all()


@pytest.mark.parametrize("rows", [25, 60, 400])
def test_quiet_days_are_calm_however_small(rows: int) -> None:
    world = Simulated(5, rows)
    monitor = FeatureMonitor.resume(world.view(), {})
    assert sum(monitor.look(world.view()).calm for _ in range(30)) >= 28
    assert sum(monitor.look(world.view("inputs")).calm for _ in range(10)) <= (5 if rows == 25 else 0)


def test_calibration_names_what_was_said_and_what_came() -> None:
    world = Simulated(6)
    monitor = CalibrationMonitor.resume(world.view(), {})
    finding = next(found for found in (monitor.look(world.view("base rate")) for _ in range(40)) if found.alarm)
    assert "no longer come true: said 0." in finding.why and finding.answer == "repair" and finding.reason == "drift"
    check_finding(finding)
    assert not CalibrationMonitor.applies(with_policy(world.view(), model={"task": "multiclass"}))


def test_calibration_reads_labels_in_words() -> None:
    world = Simulated(7)
    first, second = (CalibrationMonitor.resume(world.view(), {}) for _ in range(2))
    for _ in range(20):
        plain = world.view("base rate")
        labels = plain.matured["label"].replace_strict({0.0: "on time", 1.0: "late"}, return_dtype=pl.String)
        worded = msgspec.structs.replace(
            plain, matured=plain.matured.with_columns(label=labels), classes=["on time", "late"]
        )
        assert first.look(worded) == second.look(plain)


def test_decay_compares_with_what_was_promised() -> None:
    world = Simulated(8)
    view = world.view()
    assert not DecayMonitor.applies(msgspec.structs.replace(view, expected_loss=float("nan")))
    monitor = DecayMonitor.resume(view, {})
    finding = next(found for found in (monitor.look(world.view("noise")) for _ in range(60)) if found.alarm)
    assert "has decayed" in finding.why and f"promised {view.expected_loss:.4g}" in finding.why
    assert finding.excess is not None and finding.excess > 0.02 and finding.losses == len(view.matured)
    assert finding.reason == "decay" and finding.answer == "refresh"
    patient = with_policy(view, monitors={"decay_tolerance": 0.5})
    tolerant = DecayMonitor.resume(patient, {})
    worse = [tolerant.look(msgspec.structs.replace(world.view("noise"), spec=patient.spec)) for _ in range(60)]
    assert not any(found.alarm for found in worse) and all(found.calm for found in worse)


def test_decay_is_found_sooner_where_rows_are_units() -> None:
    def looks(unit: str) -> int:
        world = Simulated(8)
        policy = with_policy(world.view(), rollout={"primary": "brier", "unit": unit}).spec
        monitor = DecayMonitor.resume(msgspec.structs.replace(world.view(), spec=policy), {})
        for _ in range(10):
            assert not monitor.look(msgspec.structs.replace(world.view(), spec=policy)).alarm
        changed = (monitor.look(msgspec.structs.replace(world.view("noise"), spec=policy)) for _ in range(60))
        return 1 + next(number for number, found in enumerate(changed) if found.alarm)

    assert looks("row") < looks("day") / 2


@pytest.mark.parametrize("expected", [0.0, 0.97, 5.0])
def test_decay_watches_perfect_and_hopeless_models_too(expected: float) -> None:
    """A promise of nothing, and one above the largest loss that counts, are still promises."""
    world = Simulated(9)
    view = with_policy(msgspec.structs.replace(world.view(), expected_loss=expected), monitors={"decay_tolerance": 0.0})
    monitor = DecayMonitor.resume(view, {})
    found = [monitor.look(msgspec.structs.replace(world.view("noise"), spec=view.spec)) for _ in range(40)]
    assert any(finding.alarm for finding in found) is (expected == 0.0)


def test_regressions_decay_in_any_unit() -> None:
    for factor in (0.01, 1000.0):
        spec = specs.from_dict(
            {
                "model": {"name": "t", "task": "regression", "target": "y"},
                "data": {"t": "t"},
                "monitors": {"arl": 100, "decay_tolerance": 0.0},
            }
        )
        rng = np.random.default_rng(4)

        def view(worse: float, factor: float = factor, spec: Any = spec, rng: Any = rng) -> View:
            truth = rng.normal(5, 1, 60) * factor
            said = truth + rng.normal(0, worse * factor, 60)
            matured = pl.DataFrame(
                {"output": pl.Series([[value] for value in said.tolist()]), "label": truth, "at": [DAY] * 60}
            )
            return View(
                spec=spec,
                requests=pl.DataFrame({"x": truth}),
                matured=matured,
                classes=[],
                reference=TableSketch({}),
                expected_loss=0.5 * factor,
                scale=3.0 * factor,
            )

        monitor = DecayMonitor.resume(view(0.5), {})
        assert not any(monitor.look(view(0.5)).alarm for _ in range(40))
        assert any(monitor.look(view(1.0)).alarm for _ in range(40))


def run(world: Simulated, changes: list[str]) -> list[Any]:
    states: dict[str, Any] = {}
    found = []
    for change in changes:
        view = world.view(change)
        found.append(look(view, states))
        states = json.loads(json.dumps(found[-1].states))
    return found


def test_a_cause_counts_as_gone_after_some_calm_looks() -> None:
    found = run(Simulated(10, 300), [""] * 5 + ["inputs"] * 5 + [""] * 6)
    quiet = ["features" in one.quiet for one in found]
    assert quiet[:2] == [False] * 2 and quiet[CALM_LOOKS - 1]
    assert not any(quiet[5:10]), "while the inputs are changed nothing is quiet"
    assert any(one.findings["features"].alarm for one in found[5:10])
    assert quiet[10:].index(True) >= CALM_LOOKS - 1 and quiet[-1]


def test_a_look_that_says_nothing_neither_calms_nor_alarms() -> None:
    world = Simulated(11, 2000)
    states: dict[str, Any] = {}
    for rows in (2000, 2000, 0, 0, 0, 0):
        found = look(world.view(rows=rows), states)
        states = found.states
        assert not found.quiet
    assert set(look(world.view(), states).quiet) == {kind.name for kind in MONITORS}
    assert look(world.view(rows=0), {}).metrics == {}


def test_metrics_of_the_three_tasks() -> None:
    binary = look(Simulated(12).view(), {})
    assert {"log_loss", "brier", "zero_one", "accuracy", "auc", "said", "seen"} == set(binary.metrics)
    assert binary.metrics["accuracy"] == pytest.approx(1 - binary.metrics["zero_one"])

    def of(task: str, outputs: list[list[float]], labels: list[Any], classes: list[Any]) -> Any:
        spec = specs.from_dict({"model": {"name": "t", "task": task, "target": "y"}, "data": {"t": "t"}})
        matured = pl.DataFrame({"output": outputs, "label": labels, "at": [DAY] * len(labels)})
        view = View(
            spec=spec,
            requests=pl.DataFrame({"x": [1.0]}),
            matured=matured,
            classes=classes,
            reference=TableSketch({}),
            expected_loss=float("nan"),
        )
        return look(view, {})

    many = of("multiclass", [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], ["a", "b"], ["a", "b", "c"])
    assert many.findings == {} and many.metrics["accuracy"] == 0.5 and "auc" not in many.metrics
    line = of("regression", [[1.0], [2.0], [4.0]], [1.0, 2.0, 3.0], [])
    assert line.metrics == {"absolute_error": pytest.approx(1 / 3), "squared_error": pytest.approx(1 / 3), "r2": 0.5}
    one_class = of("binary", [[0.2], [0.4]], [0, 0], [0, 1])
    assert "auc" not in one_class.metrics and one_class.metrics["seen"] == 0.0
