"""Intervals cover, losses are what their names say, recalibration finds what was done to the probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

import orrery.stats
from orrery.errors import NotUnderstood
from orrery.stats import (
    absolute_error,
    apply_platt,
    brier,
    log_loss,
    paired_interval,
    platt,
    squared_error,
    wilson,
    zero_one,
)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_wilson_covers_where_the_textbook_interval_fails(share: float) -> None:
    hits = np.random.default_rng(1).binomial(30, share, 1000)
    intervals = {k: wilson(k, 30) for k in range(31)}
    covered = np.mean([not intervals[k].excludes(share) for k in hits])
    assert covered > 0.92
    if share == 0.02:  # negative control: the normal interval is empty at 0 of 30
        p = hits / 30
        assert np.mean(abs(p - share) <= 1.96 * np.sqrt(p * (1 - p) / 30)) < 0.8


def test_wilson_knows_nothing_without_rows_and_refuses_impossible_counts() -> None:
    estimate, low, high = wilson(0, 0)
    assert math.isnan(estimate) and (low, high) == (0, 1)
    assert wilson(5, 5).high == 1.0 and wilson(0, 5).low == 0.0
    with pytest.raises(NotUnderstood):
        wilson(6, 5)


def test_blocks_keep_the_coverage_that_rows_lose() -> None:
    rng = np.random.default_rng(2)
    runs, days, rows = 300, 20, 50
    blocks = np.repeat(np.arange(days), rows)
    by_rows = by_blocks = 0
    for _ in range(runs):
        d = np.repeat(rng.normal(0, 1, days), rows) + rng.normal(0, 1, days * rows)
        by_rows += not paired_interval(d).excludes(0)
        by_blocks += not paired_interval(d, blocks=blocks).excludes(0)
    assert by_blocks / runs > 0.91
    assert by_rows / runs < 0.5


def test_blocks_of_equal_size_are_the_interval_of_their_means() -> None:
    d = np.random.default_rng(3).normal(size=(12, 7))
    blocks = np.repeat([f"day {i}" for i in range(12)], 7)
    assert paired_interval(d.ravel(), blocks=blocks) == pytest.approx(paired_interval(d.mean(axis=1)))
    assert paired_interval(d.ravel()) == pytest.approx(paired_interval(d.ravel(), blocks=np.arange(84)))


@pytest.mark.parametrize("d", [[], [0.3]])
def test_too_few_rows_leave_the_interval_open(d: list[float]) -> None:
    assert paired_interval(d)[1:] == (-math.inf, math.inf)


def test_missing_labels_are_refused_rather_than_averaged() -> None:
    for call in (lambda: paired_interval([0.1, math.nan]), lambda: brier([0.5], [math.nan])):
        with pytest.raises(NotUnderstood, match="not a number"):
            call()


def test_losses_row_by_row() -> None:
    assert brier([[0.2, 0.8], [1.0, 0.0]], [1, 1]) == pytest.approx(brier([0.8, 0.0], [1, 1]))
    assert brier([[0.0, 0.0, 1.0]], [0]) == pytest.approx([1.0])
    assert log_loss([0.0, 0.25], [1, 1], clip=1e-3) == pytest.approx([math.log(1000), math.log(4)])
    assert zero_one([1, 0, 1], [1, 1, 1]).tolist() == [0, 1, 0]
    assert absolute_error([1, 5], [2, 2]).tolist() == [1, 3]
    assert squared_error([1, 5], [2, 2], cap=4).tolist() == [1, 4]


@pytest.mark.parametrize(("p", "y"), [([0.5, 0.5], [1]), ([1.5], [1]), ([0.5], [2]), ([[0.5, 0.5]], [2])])
def test_losses_refuse_what_does_not_fit(p: list[float], y: list[int]) -> None:
    with pytest.raises(NotUnderstood):
        brier(p, y)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -0.7), (1.6, 0.4)])
def test_recalibration_finds_slope_and_intercept(slope: float, intercept: float) -> None:
    rng = np.random.default_rng(4)
    p = special.expit(rng.normal(-1, 1.5, 40_000))
    y = (rng.random(40_000) < apply_platt(p, slope, intercept)).astype(float)
    found = platt(p, y)
    assert found == pytest.approx((slope, intercept), abs=0.06)
    repaired = brier(apply_platt(p, *found), y).mean()
    assert repaired <= brier(p, y).mean() + 1e-9
    if slope != 1:
        assert paired_interval(brier(p, y) - brier(apply_platt(p, *found), y)).low > 0


def test_few_rows_hardly_move_the_probabilities() -> None:
    slope, intercept = platt([0.4, 0.6], [1, 1])
    assert 0.5 < slope < 1.5 and 0 < intercept < 1


@pytest.mark.parametrize("y", [[1, 1, 1, 1], [0, 0, 1, 1]])
def test_one_sided_or_separable_labels_stay_finite(y: list[int]) -> None:
    p = [0.0, 0.4, 0.6, 1.0]
    for ridge in (1.0, 0.0):
        assert np.isfinite(platt(p, y, ridge)).all()


def test_public_surface_is_small_and_whole() -> None:
    assert len(orrery.stats.__all__) <= 24
    assert all(hasattr(orrery.stats, name) for name in orrery.stats.__all__)
