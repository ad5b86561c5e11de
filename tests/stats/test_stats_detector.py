"""The promises of the detectors on one stream: few false alarms, short delay."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from orrery.errors import NotUnderstood
from orrery.stats import CalibrationDrift, MeanDetector


def test_false_alarms_stay_under_the_promise_on_the_edge_of_the_null() -> None:
    looks, arl = 200_000, 1000
    errors = np.random.default_rng(1).random(looks) < 0.2
    most = looks / arl + 3 * math.sqrt(looks / arl)
    assert 0 < len(MeanDetector(limit=0.15, tolerance=0.05, arl=arl).update(errors)) <= most
    # negative control: the last 100 rows tested at p < .05, begun anew after an alarm
    share = np.convolve(errors, np.ones(100) / 100, mode="valid")
    over = np.flatnonzero((share - 0.2) / math.sqrt(0.2 * 0.8 / 100) > special.ndtri(0.95))
    alarms, free_from = 0, 0
    for at in over:
        if at >= free_from:
            alarms, free_from = alarms + 1, at + 100
    assert alarms > most


@pytest.mark.parametrize(("rate", "delay"), [(0.15, 800), (0.20, 280)])
def test_delay_is_short_at_a_long_run_length(rate: float, delay: int) -> None:
    """Median over 20 seeds, errors .10 -> rate after 5000 rows; 1 false alarm in 100 000 rows is promised."""
    delays, false = [], 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        alarms = MeanDetector(0.1, arl=1e5).update(np.append(rng.random(5000) < 0.1, rng.random(5000) < rate))
        false += sum(at < 5000 for at in alarms)
        delays.append(next((at - 5000 for at in alarms if at >= 5000), 10**9))
    assert np.median(delays) <= delay and false <= 2


def test_counts_are_a_look_with_many_units() -> None:
    rng = np.random.default_rng(2)
    quiet, moved = rng.binomial(500, 0.1, 200) / 500, rng.binomial(500, 0.16, 20) / 500
    detector = MeanDetector(limit=0.1, tolerance=0.01, arl=1000)
    assert detector.update(quiet, counts=np.full(200, 500)) == []
    assert detector.update(moved, counts=np.full(20, 500))[0] < 5
    assert MeanDetector(limit=0.1, tolerance=0.01, arl=1000).update(moved) == []  # 20 units alone prove nothing


def test_independent_units_of_a_look_are_bets_of_their_own() -> None:
    """The statistic is the recursion over looks, each the product of its rows' bets; and the promise is in looks."""
    rng = np.random.default_rng(8)
    detector, sr = MeanDetector(0.4, arl=1e9, n_bets=3), np.zeros(3)
    for _ in range(20):
        rows = rng.random(30)
        detector.look(rows)
        sr = np.prod(1 + np.geomspace(0.01, 0.9, 3)[:, None] / 0.4 * (rows - 0.4), axis=1) * (sr + 1)
    assert detector.statistic == pytest.approx(sr.mean(), rel=1e-9) and not detector.look([])
    looks, arl = 4000, 50
    edge = rng.random((looks, 40)) < 0.2
    alone, together = MeanDetector(0.2, arl=arl), MeanDetector(0.2, arl=arl)
    assert 0 < sum(alone.look(rows) for rows in edge) <= looks / arl + 3 * math.sqrt(looks / arl)
    # negative control: rows that share their day's luck are no units of their own
    luck = (np.clip(rng.normal(0.2, 0.12, looks), 0, 1)[:, None] > rng.random((looks, 40))).astype(float)
    assert sum(together.look(rows) for rows in luck) > looks / arl + 3 * math.sqrt(looks / arl)


streams = st.lists(st.floats(0, 1), max_size=120)


@settings(max_examples=60, deadline=None)
@given(streams, st.integers(1, 50))
def test_batches_and_a_restart_do_not_change_the_detector(x: list[float], size: int) -> None:
    whole, parts = MeanDetector(0.3, arl=37.123), MeanDetector(0.3, arl=37.123)
    alarms: list[int] = []
    for start in range(0, len(x), size):
        alarms += [start + at for at in parts.update(x[start : start + size])]
        parts = MeanDetector.from_state(json.loads(json.dumps(parts.to_state(), allow_nan=False)))
    assert alarms == whole.update(x)
    assert parts.statistic == pytest.approx(whole.statistic, rel=1e-6, abs=1e-9)


def test_the_statistic_is_the_recursion() -> None:
    x = np.random.default_rng(3).random(300) * 0.6
    detector = MeanDetector(0.4, arl=1e9, n_bets=3)
    detector.update(x)
    sr = np.zeros(3)
    for value in x:
        sr = (1 + np.geomspace(0.01, 0.9, 3) / 0.4 * (value - 0.4)) * (sr + 1)
    assert detector.statistic == pytest.approx(sr.mean(), rel=1e-9)


def test_overwhelming_evidence_does_not_overflow() -> None:
    detector = MeanDetector(0.1, arl=1e300)
    assert detector.update([1.0], counts=[1e9]) == [0]
    assert math.isfinite(detector.statistic)


@pytest.mark.parametrize(("limit", "tolerance"), [(0.0, 0.0), (0.9, 0.2), (0.5, -0.1)])
def test_limits_that_cannot_be_tested_are_refused(limit: float, tolerance: float) -> None:
    with pytest.raises(NotUnderstood):
        MeanDetector(limit, tolerance)


def days(n: int, seed: int, shift: float = 0.0, wobble: float = 0.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Days of 300 rows whose event rates share the day's luck (`wobble`), and are off by `shift`."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(n):
        p = rng.beta(2, 8, 300)
        truth = np.clip(p + shift + rng.normal(0, wobble), 0, 1)
        result.append((p, (rng.random(300) < truth).astype(float)))
    return result


def test_calibration_is_quiet_on_true_probabilities_though_days_differ() -> None:
    quiet = days(600, seed=4, wobble=0.06)
    detector = CalibrationDrift(tolerance=0.02, arl=100)
    assert sum(detector.update(p, y) for p, y in quiet) <= 1  # 6 are promised at most
    # negative control: a z-test of each day that takes its rows for independent
    z = [(y - p).sum() / math.sqrt((p * (1 - p)).sum()) for p, y in quiet]
    assert np.mean(np.abs(z) > 1.96) > 0.3


@pytest.mark.parametrize(("shift", "direction"), [(0.1, "under-predicted"), (-0.1, "over-predicted")])
def test_calibration_drift_is_found_in_both_directions(shift: float, direction: str) -> None:
    detector = CalibrationDrift(tolerance=0.02, arl=100)
    found = [detector.update(p, y) for p, y in days(100, seed=5, shift=shift, wobble=0.03)]
    assert any(found) and detector.direction == direction
    assert math.copysign(1, detector.residual) == math.copysign(1, shift)


def test_calibration_false_alarms_stay_under_the_promise_on_the_edge_of_the_null() -> None:
    rng = np.random.default_rng(6)
    detector = CalibrationDrift(tolerance=0.1, arl=50)
    alarms = sum(detector.update([0.3], [float(rng.random() < 0.4)]) for _ in range(10_000))
    assert 0 < alarms <= 10_000 / 50


def test_calibration_goes_on_after_a_restart() -> None:
    whole, parts = CalibrationDrift(arl=20), CalibrationDrift(arl=20)
    for p, y in days(60, seed=7, shift=0.06):
        alarm = whole.update(p, y)
        assert parts.update(p, y) == alarm
        parts = CalibrationDrift.from_state(json.loads(json.dumps(parts.to_state(), allow_nan=False)))
        assert (parts.statistic, parts.direction) == (whole.statistic, whole.direction)


def test_an_empty_block_is_no_look_and_certain_probabilities_are_survived() -> None:
    detector = CalibrationDrift(tolerance=0.0)
    assert not detector.update([], []) and detector.statistic == 0
    assert not detector.update([0.0, 0.0], [0, 0])
    assert any(detector.update([0.0, 0.0], [0, 1]) for _ in range(50))
    assert any(detector.update([1.0, 1.0], [0, 1]) for _ in range(50))
