"""Prediction drift and segment shares: the promise kept on the edge of the tolerance, and the groups that are named."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from orrery import spec as specs
from orrery.monitors.monitor import View
from orrery.monitors.predictions import PredictionMonitor, output_columns
from orrery.monitors.segments import SegmentMonitor
from orrery.monitors.watch import look
from orrery.stats import TableSketch
from orrery.testing.monitor_contract import Simulated, check_finding

ARL, LOOKS, ROWS = 20, 400, 200
GROUPS = ("north", "south", "west", "islet")
TRAINED = np.array([0.4, 0.3, 0.2, 0.1])


def view_of(requests: pl.DataFrame, **fields: Any) -> View:
    view = Simulated(0).view(rows=0)
    whole = specs.to_dict(view.spec)
    whole["monitors"] = {**whole["monitors"], "arl": ARL}
    return msgspec.structs.replace(view, spec=specs.from_dict(whole), requests=requests, **fields)


def asked(rng: np.random.Generator, shares: np.ndarray[Any, Any], rows: int = ROWS) -> pl.DataFrame:
    return pl.DataFrame({"harbour": rng.choice(GROUPS, rows, p=shares).tolist()})


def trained() -> TableSketch:
    rng = np.random.default_rng(0)
    return TableSketch.fit({"harbour": rng.choice(np.array(GROUPS, dtype=object), 50_000, p=TRAINED)})


def alarms_of_segments(moved: float, seed: int) -> int:
    """Alarms where a share of the requests came from another group, its size wobbling from look to look."""
    rng = np.random.default_rng(seed)
    reference = trained()
    first = view_of(asked(rng, TRAINED), segments=reference)
    monitor = SegmentMonitor.resume(first, {})
    alarms = 0
    for _ in range(LOOKS):
        wobble = moved + rng.uniform(-0.02, 0.02)
        shares = TRAINED + np.array([wobble, -wobble, 0, 0])
        alarms += monitor.look(msgspec.structs.replace(first, requests=asked(rng, shares))).alarm
    return alarms


def test_segments_keep_their_promise_on_the_edge_of_the_tolerance() -> None:
    promised = LOOKS / ARL
    assert alarms_of_segments(0.05, 1) <= promised + 3 * math.sqrt(promised)
    assert alarms_of_segments(0.10, 1) > 2 * promised  # the control: beyond the tolerance it does alarm


def test_the_groups_that_stay_away_are_named_first() -> None:
    rng = np.random.default_rng(2)
    view = view_of(asked(rng, TRAINED), segments=trained())
    monitor = SegmentMonitor.resume(view, {})
    gone = msgspec.structs.replace(view, requests=asked(rng, np.array([0.48, 0.32, 0.2, 0.0])))
    finding = next(found for found in (monitor.look(gone) for _ in range(20)) if found.alarm)
    assert finding.why.startswith("Under-represented in the requests: harbour islet "), finding.why
    assert "% (in training 9.8%)." in finding.why and not finding.trains
    check_finding(finding)


def test_groups_that_training_never_had_are_named_where_none_is_missed() -> None:
    rng = np.random.default_rng(3)
    view = view_of(asked(rng, TRAINED), segments=trained())
    monitor = SegmentMonitor.resume(view, {})
    more = pl.concat([asked(rng, TRAINED), pl.DataFrame({"harbour": ["zeebrugge"] * 30})])
    found = [monitor.look(msgspec.structs.replace(view, requests=more)) for _ in range(20)]
    why = next(one.why for one in found if one.alarm)
    assert why.startswith("Over-represented in the requests: harbour unseen ") and "(in training 0.0%)" in why


def test_codes_of_segments_are_groups_and_not_quantities() -> None:
    rng = np.random.default_rng(4)
    reference = TableSketch.fit({"zone": rng.integers(1, 4, 5000).astype(float)}, categories=["zone"])
    requests = pl.DataFrame({"zone": [1.0, 2.0, 2.0, 2.0] * 50})
    view = view_of(requests, segments=reference)
    monitor = SegmentMonitor.resume(view, {})
    why = next(one.why for one in (monitor.look(view) for _ in range(20)) if one.alarm)
    assert "zone 3 0.0% (in training 33" in why or "zone 3 " in why


def answered(rng: np.random.Generator, moved: float) -> pl.DataFrame:
    """Answers of which a share comes from above: in total variation they moved by it."""
    rows = rng.uniform(0, 0.5, ROWS)
    rows = np.where(rng.random(ROWS) < moved, rows + 0.5, rows)
    return pl.DataFrame({"_output": [[value] for value in rows.tolist()]})


def test_predictions_keep_their_promise_on_the_edge_of_the_tolerance() -> None:
    promised = LOOKS / ARL
    reference = TableSketch.fit({"probability": np.random.default_rng(5).uniform(0, 0.5, 50_000)})
    alarms = {}
    for moved in (0.05, 0.15):
        rng = np.random.default_rng(6)
        view = view_of(answered(rng, moved), outputs=reference)
        monitor = PredictionMonitor.resume(view, {})
        looks = [monitor.look(msgspec.structs.replace(view, requests=answered(rng, moved))) for _ in range(LOOKS)]
        alarms[moved] = sum(one.alarm for one in looks)
        whys = [one.why for one in looks if one.alarm]
        assert all("mean probability 0." in why and why.endswith("was 0.2495.") for why in whys)
    assert alarms[0.05] <= promised + 3 * math.sqrt(promised)
    assert alarms[0.15] > 2 * promised


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_answers_of_every_task_are_watched(task: str) -> None:
    rng = np.random.default_rng(7)
    classes = ["a", "b", "c"] if task == "multiclass" else []

    def outputs(shift: float) -> np.ndarray[Any, Any]:
        if task == "regression":
            return rng.normal(5 + shift, 1, (ROWS, 1))
        raw = rng.random((ROWS, 3)) + np.array([shift, 0, 0])
        return raw / raw.sum(axis=1, keepdims=True)

    reference = TableSketch.fit(output_columns(task, np.concatenate([outputs(0) for _ in range(20)]), classes))
    fields = {"model": {"name": "t", "task": task, "target": "y"}, "data": {"t": "t"}, "rollout": {"unit": "row"}}
    spec = specs.from_dict(fields)
    base = msgspec.structs.replace(Simulated(0).view(rows=0), spec=spec, classes=classes, outputs=reference)

    def first_alarm(shift: float) -> int:
        monitor = PredictionMonitor.resume(base, {})
        for number in range(40):
            requests = pl.DataFrame({"_output": outputs(shift).tolist()})
            found = monitor.look(msgspec.structs.replace(base, requests=requests))
            if found.alarm:
                assert ("class a " in found.why) is (task == "multiclass"), found.why
                return number
        return 40

    assert first_alarm(0.0) == 40 and first_alarm(1.0) < 10


def test_a_monitor_that_is_not_wanted_is_not_run() -> None:
    view = Simulated(0).view()
    assert {"predictions", "segments"} <= set(look(view, {}).findings)
    whole = specs.to_dict(view.spec)
    whole["monitors"] = {**whole["monitors"], "off": ["segments"]}
    found = look(msgspec.structs.replace(view, spec=specs.from_dict(whole)), {})
    assert "segments" not in found.findings and "predictions" in found.findings
