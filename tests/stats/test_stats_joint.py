"""Joint drift: the promise kept whatever the classifier learns, and pairs found that each alone look as they did."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from orrery.errors import Damaged, NotUnderstood
from orrery.stats import FeatureDrift, TableSketch
from orrery.stats.joint import JointDrift, JointReference

Day = dict[str, np.ndarray[Any, Any]]
NAMES = [f"x{number}" for number in range(8)]
PORTS = np.array(["north", "south", "west"], dtype=object)


def day(rng: np.random.Generator, n: int = 300, rho: float = 0.0, wobble: float = 0.03) -> Day:
    """Eight numbers and a category; x0 and x1 go together by `rho`, each alone stays as it was; means wobble."""
    found: Day = {name: rng.normal(0, 1, n) for name in NAMES}
    found["x1"] = rho * found["x0"] + math.sqrt(1 - rho**2) * found["x1"]
    for name in NAMES:
        found[name] = found[name] + rng.normal(0, wobble)
    return {**found, "port": rng.choice(PORTS, n)}


@pytest.fixture(scope="module")
def reference() -> JointReference:
    found = JointReference.fit(day(np.random.default_rng(0), 20_000, wobble=0.0))
    assert found is not None
    return found


def test_quiet_days_that_wobble_stay_quiet_and_a_pair_that_each_alone_hides_is_found(reference: JointReference) -> None:
    rng = np.random.default_rng(1)
    joint = JointDrift(reference, arl=100)
    alone = FeatureDrift(TableSketch.fit(day(np.random.default_rng(0), 20_000, wobble=0.0)), arl=100)
    assert not any(joint.update(day(rng)).alarm for _ in range(300))
    for _ in range(15):
        changed = day(rng, rho=0.6)
        found = joint.update(changed)
        assert not alone.update(alone.reference.empty_like().add(changed)).alarm, "no feature by itself moved"
        if found.alarm:
            break
    assert found.alarm
    assert found.most == "x0 and x1" and {name for name, _ in found.blame[:2]} == {"x0", "x1"}
    assert sum(share for _, share in found.blame) == pytest.approx(1) and 0.05 < found.apart < 0.5


def alarms(reference: JointReference, moved: float, looks: int, arl: float) -> int:
    """Alarms where a share of the rows is somewhere else: in total variation the days moved by just that."""
    rng = np.random.default_rng(2)
    drift = JointDrift(reference, tolerance=0.05, arl=arl)
    found = 0
    for _ in range(looks):
        rows = day(rng, wobble=0.0)
        rows["x3"] = np.where(rng.random(300) < moved, 3.0, rows["x3"])
        found += drift.update(rows).alarm
    return found


def test_the_promise_holds_on_the_edge_of_the_tolerance(reference: JointReference) -> None:
    looks, arl = 300, 20
    promised = looks / arl
    assert alarms(reference, 0.05, looks, arl) <= promised + 3 * math.sqrt(promised)
    assert alarms(reference, 0.20, looks, arl) > 2 * promised  # the control: beyond it, it alarms


def test_rows_that_move_together_keep_the_promise_only_as_units(reference: JointReference) -> None:
    rng = np.random.default_rng(3)
    found = {"rows": 0, "day": 0}
    drifts = {name: JointDrift(reference, arl=100) for name in found}
    weather = np.zeros(8)
    for _ in range(150):
        weather = 0.8 * weather + rng.normal(0, 0.4, 8)  # weather lasts: a classifier that saw yesterday knows today
        rows = day(rng, 100) | {name: rng.normal(weather[number], 0.7, 100) for number, name in enumerate(NAMES)}
        for name, units in (("rows", None), ("day", 1.0)):
            found[name] += drifts[name].update(rows, units).alarm
    assert found["rows"] > 20 and found["day"] <= 6


def test_the_scores_are_those_of_the_terms(reference: JointReference) -> None:
    rng = np.random.default_rng(4)
    weights = rng.normal(size=len(reference.names))
    encoded = reference.encode(day(rng, 50))
    assert reference.scores(encoded, weights) == pytest.approx(reference.terms(encoded) @ weights)


def test_missing_new_and_constant_columns_are_read() -> None:
    rng = np.random.default_rng(5)
    columns = day(rng, 2000) | {"always": np.full(2000, 7.0), "some": np.where(rng.random(2000) < 0.3, np.nan, 1.0)}
    columns["some"][0] = 2.0
    reference = JointReference.fit(columns)
    assert reference is not None and "always" not in reference.columns
    assert "some missing" in reference.names and "port north" in reference.names
    new = {"port": np.array(["zeebrugge", None], dtype=object), "x0": np.array([np.nan, 1e9])}
    encoded = reference.encode(new)
    assert np.isfinite(encoded).all() and np.isfinite(reference.terms(encoded)).all()
    drift = JointDrift(reference)
    gone = {name: values for name, values in day(rng, 300).items() if name != "port"}  # it stays away
    assert any(drift.update({**gone, "some": np.full(300, np.nan)}).alarm for _ in range(10))


def test_too_little_to_learn_from_is_none() -> None:
    rng = np.random.default_rng(6)
    assert JointReference.fit(day(rng, 199)) is None
    assert JointReference.fit({"x": rng.normal(size=500), "always": np.ones(500)}) is None
    assert JointReference.fit({}) is None


def test_it_goes_on_after_a_restart_and_refuses_another_reference(reference: JointReference) -> None:
    kept = JointReference.from_bytes(reference.to_bytes())
    lived, woken = JointDrift(kept), JointDrift(kept)
    rng = np.random.default_rng(7)
    for number in range(8):
        rows = day(rng, rho=0.5 if number > 4 else 0.0)
        assert lived.update(rows) == woken.update(rows)
        state = json.dumps(woken.to_state(), allow_nan=False)
        woken = JointDrift.from_state(json.loads(state), JointReference.from_bytes(reference.to_bytes()))
    assert len(state) < 5_000
    other = JointReference.fit({"a": rng.normal(size=500), "b": rng.normal(size=500)})
    assert other is not None
    with pytest.raises(NotUnderstood, match="another reference"):
        JointDrift.from_state(json.loads(state), other)
    with pytest.raises(Damaged):
        JointReference.from_bytes(b"something else")
    with pytest.raises(NotUnderstood, match="units"):
        lived.update(day(rng, 10), units=11)
