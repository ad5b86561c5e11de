"""The simulations of `make bench-decisions` at a size that can still fail: promises, delays, negative controls."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orrery.stats import MeanDetector, TableSketch

HERE = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a part by its name, as the script does."""
    monkeypatch.syspath_prepend(str(HERE / "decisions"))
    monkeypatch.syspath_prepend(str(HERE / "peers"))
    return importlib.import_module


def test_champion_and_challenger(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    challenger, runs = part("challenger"), 400
    monkeypatch.setattr(challenger, "RUNS", runs)
    looks = np.arange(challenger.EVERY - 1, challenger.PAIRS, challenger.EVERY)
    found = {}
    for label in ("null", "+2 pt"):
        w, lost = (one[:, looks].astype(float) for one in challenger.counts(challenger.GAINS[label], 3))
        found[label] = {
            name: float(challenger.TESTS[name](w, lost, looks + 1).any(axis=1).mean())
            for name in ("McNemar e-process", "betting e-process", "z-test, peeking")
        }
    most = challenger.ALPHA + 3 * math.sqrt(challenger.ALPHA * (1 - challenger.ALPHA) / runs)
    for name in ("McNemar e-process", "betting e-process"):
        assert found["null"][name] <= most and found["+2 pt"][name] > 0.95
    assert found["null"]["z-test, peeking"] > 0.25  # the negative control


def test_detection(part: Any) -> None:
    detection, rng = part("detection"), np.random.default_rng(4)
    before, runs = rng.random((30, detection.ROWS)) < 0.10, 30
    after = np.hstack([before[:, : detection.AT], rng.random((30, detection.AT)) < 0.20])
    ours = detection.Ours(before.astype(np.uint8), {"change": after.astype(np.uint8)}, 0.10)
    arl = ours.tuned(detection.TARGET, runs)
    found = ours.at("change", arl, runs)
    assert found["false"] <= detection.TARGET and found["missed"] == 0 and found["delay"] <= 250
    # the calmest setting finds it later, and one that is too nervous breaks the target: tuning means something
    assert ours.at("change", detection.LENGTHS[-1], runs)["delay"] > found["delay"]
    assert ours.false_alarms(detection.LENGTHS[0], runs) > detection.TARGET * runs * detection.ROWS / 1e5
    rows = 300_000
    edge = rng.random(rows) < 0.10
    alarms = {limit: len(MeanDetector(limit, arl=1000).update(edge)) for limit in (0.10, 0.08)}
    assert alarms[0.10] <= rows / 1000 + 3 * math.sqrt(rows / 1000) < alarms[0.08]  # nothing is promised above a limit


def test_drift(part: Any) -> None:
    drift, days = part("drift"), part("drift_days")
    rows = days.reference(2)
    reference, customary = TableSketch.fit(rows), drift.Customary(rows)
    for kind in ("quiet", "wobble"):
        assert drift.alarms_on(2, kind, 12, reference, customary)["orrery"] == 0
    assert drift.alarms_on(2, "wobble", 4, reference, customary)["KS + Benjamini-Hochberg"] > 0.7  # negative control
    for change, within in (("category swap", 3), ("missing burst", 5), ("0.5 sd shift", 3)):
        assert drift.looks_until(2, change, 1, reference, customary)["orrery"][0] <= within
    assert math.isinf(drift.looks_until(2, "0.1 sd shift", 1, reference, customary)["orrery"][0])


def test_throughput_measures_work_that_was_done(part: Any, tmp_path: Path) -> None:
    throughput = part("throughput")
    found = throughput.ours(tmp_path / "rows.json", 5, 20_000)
    assert "c0" in found["found_more"] and not set(found["found_more"]) - {"c0", "n0"}
    assert found["state"] <= 150_000 and json.loads((tmp_path / "rows.json").read_text()) == found


def test_no_policy_beats_the_oracle(part: Any) -> None:
    """Whatever the models get wrong, what is best in hindsight costs least; and it trains where that is cheap."""
    policies, worlds, rng = part("policies"), part("worlds"), np.random.default_rng(6)
    looks, windows, rows = 60, 3, 100
    lost = rng.random((looks, windows, looks * rows), dtype=np.float32) < np.repeat(
        rng.uniform(0.1, 0.4, (looks, windows, looks)), rows, axis=2
    )
    edges = np.arange(looks + 1) * rows
    about = {"edges": edges, "known": np.maximum(edges - 50, 0), "first": 8, "back": 2, "windows": ("a", "b", "all")}
    for blocks in (None, np.arange(looks * rows) // 20):
        world = worlds.World(lost.astype(np.float16), lost.astype(np.float16), **about, blocks=blocks)
        so_far = world.so_far
        for cost in (1.0, 100.0):
            best = policies.oracle(world, so_far, cost)[0]
            ours = [policies.orrery(world, cost, rule)[0] for rule in (policies.EACH, policies.NOW, policies.PROBED)]
            assert best <= min(policies.calendar(world, so_far, cost)[0], world.never, *ours)
        assert policies.oracle(world, so_far, 1.0)[0] < 0.9 * world.never


def test_a_decay_that_costs_less_than_a_training_is_not_trained_for(part: Any) -> None:
    """A model goes bad at once: it is trained anew where that is cheap, and nothing is paid where it is dear."""
    policies, worlds, rng = part("policies"), part("worlds"), np.random.default_rng(7)
    looks, rows = 80, 100
    edges = np.arange(looks + 1) * rows
    old, new = rng.random((2, looks * rows)) < 0.1
    bad = np.where(np.arange(looks * rows) < 3000, old, rng.random(looks * rows) < 0.4)
    lost = np.repeat(bad[None, None], looks, axis=0)
    lost[36:] = new
    about = {"edges": edges, "known": np.maximum(edges - 50, 0), "first": 8, "back": 4, "windows": ("all",)}
    world = worlds.World(lost.astype(np.float16), lost.astype(np.float16), **about)
    cheap = policies.orrery(world, 10.0, policies.NOW)
    assert cheap == policies.orrery(world, 10.0, policies.EACH) and cheap[0] < 0.7 * world.never
    total, paid, _ = policies.orrery(world, 5000.0, policies.NOW)
    assert (total, paid) == (world.never, 0)
    assert policies.orrery(world, 5000.0, policies.EACH)[1] > 0  # the control
