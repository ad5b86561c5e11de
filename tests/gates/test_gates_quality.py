"""Metrics against limits and against the champion: what may be chance never refuses, what is clear always does."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery import spec as specs
from orrery.errors import NotUnderstood
from orrery.gates import quality
from orrery.gates.judge import in_words, judge, passed
from orrery.gates.verdict import Evidence, Verdict
from orrery.stats.measure import metric, row_losses, row_values
from orrery.testing.gate_contract import check_gate, check_verdict

LIMITS: dict[str, dict[str, Any]] = {
    "log_loss": {"max": 0.65},
    "brier": {"max": 0.3},
    "zero_one": {"max": 0.4},
    "accuracy": {"min": 0.6},
    "auc": {"min": 0.6},
}


def spec_of(task: str = "binary", **gates: Any) -> specs.Spec:
    model = {"name": "tides", "task": task, "target": "y"}
    return specs.from_dict({"model": model, "data": {"tides": "tides"}, "gates": gates})


def evidence_of(
    outputs: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    champion: np.ndarray[Any, Any] | None = None,
    spec: specs.Spec | None = None,
    **more: Any,
) -> Evidence:
    columns = [values if values is None or values.ndim == 2 else values[:, None] for values in (outputs, champion)]
    return Evidence(
        spec=spec or spec_of(),
        rows=pl.DataFrame({"row": np.arange(len(labels))}),
        labels=labels.astype(np.float64),
        outputs=columns[0],
        champion=columns[1],
        **more,
    )


def flights(n: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """True probabilities and labels."""
    rng = np.random.default_rng(seed)
    chance = rng.beta(2, 3, n)
    return chance, (rng.random(n) < chance).astype(float)


@pytest.mark.parametrize("name", LIMITS)
def test_every_metric_passes_refuses_and_cannot_tell(name: str) -> None:
    truth, labels = flights(2000)
    limit = specs.Limit(**LIMITS[name])
    check_gate(
        lambda evidence: quality.judge(name, limit, evidence),
        passing=evidence_of(truth, labels),
        refusing=evidence_of(1 - truth, labels),
        insufficient=evidence_of(truth[:49], labels[:49]),
    )


def test_worse_by_chance_passes_and_clearly_worse_is_refused() -> None:
    limit = specs.Limit(versus="champion")
    refused = 0
    for seed in range(200):
        truth, labels = flights(300, seed)
        rng = np.random.default_rng(seed + 1000)
        one, other = (np.clip(truth + rng.normal(0, 0.05, 300), 0.01, 0.99) for _ in range(2))
        refused += quality.judge("brier", limit, evidence_of(one, labels, other)).verdict == "refused"
    assert refused <= 13  # 2.5 % of 200, and three standard errors
    truth, labels = flights(2000)
    worse = evidence_of(np.full(2000, 0.4), labels, truth)
    verdict = quality.judge("brier", limit, worse)
    assert verdict.verdict == "refused" and "worse than the champion" in verdict.why
    assert quality.judge("brier", specs.Limit(versus="champion", margin=0.2), worse).verdict == "passed"


def test_half_of_all_equal_candidates_would_be_refused_by_the_bare_mean() -> None:
    worse = 0
    for seed in range(200):
        truth, labels = flights(300, seed)
        rng = np.random.default_rng(seed + 1000)
        one, other = (np.clip(truth + rng.normal(0, 0.05, 300), 0.01, 0.99)[:, None] for _ in range(2))
        worse += metric("brier", one, labels) > metric("brier", other, labels)
    assert worse > 60


def test_rows_of_one_day_are_no_independent_witnesses() -> None:
    rng = np.random.default_rng(1)
    days = np.repeat(np.arange(10), 200)
    bad_day = np.repeat(rng.normal(0, 0.06, 10), 200)
    labels = (rng.random(2000) < 0.5).astype(float)
    champion = np.full(2000, 0.5)
    candidate = np.clip(0.5 + np.where(labels == 1, 1, -1) * (bad_day - 0.02), 0.01, 0.99)
    limit = specs.Limit(versus="champion")
    alone = quality.judge("brier", limit, evidence_of(candidate, labels, champion))
    together = quality.judge("brier", limit, evidence_of(candidate, labels, champion, blocks=days))
    assert alone.numbers["gain"] == together.numbers["gain"]
    width = [verdict.numbers["high"] - verdict.numbers["low"] for verdict in (alone, together)]
    assert width[1] > 3 * width[0]
    few = quality.judge("brier", limit, evidence_of(candidate, labels, champion, blocks=days // 5))
    assert few.numbers["high"] == alone.numbers["high"]  # of two blocks nothing could be said


@pytest.mark.parametrize("name", ["auc", "accuracy"])
def test_a_gain_is_in_the_unit_of_its_metric(name: str) -> None:
    truth, labels = flights(3000)
    noisy = np.clip(truth + np.random.default_rng(5).normal(0, 0.3, 3000), 0.01, 0.99)
    verdict = quality.judge(name, specs.Limit(versus="champion"), evidence_of(noisy, labels, truth))
    assert verdict.verdict == "refused"
    assert verdict.numbers["value"] - verdict.numbers["champion"] == pytest.approx(verdict.numbers["gain"])
    squeezed = quality.judge("auc", specs.Limit(versus="champion"), evidence_of(truth / 9, labels, truth))
    assert squeezed.verdict == "passed" and squeezed.numbers["gain"] == pytest.approx(0)  # the order is the same


@pytest.mark.parametrize("unit", [0.001, 1.0, 1000.0])
def test_the_margin_of_r2_does_not_depend_on_the_unit_of_the_target(unit: float) -> None:
    rng = np.random.default_rng(2)
    heights = rng.normal(0, unit, 1000)
    good, bad = heights + rng.normal(0, 0.3 * unit, 1000), heights + rng.normal(0, 0.6 * unit, 1000)
    worse = evidence_of(bad, heights, good, spec_of("regression"))
    assert quality.judge("r2", specs.Limit(versus="champion", margin=0.02), worse).verdict == "refused"
    assert quality.judge("r2", specs.Limit(versus="champion", margin=0.5), worse).verdict == "passed"
    gain = quality.judge("r2", specs.Limit(versus="champion"), worse).numbers["gain"]
    assert gain == pytest.approx(metric("r2", bad[:, None], heights) - metric("r2", good[:, None], heights))


def test_the_interval_of_an_area_holds_what_it_promises() -> None:
    """Of 300 samples about 5 % of the intervals miss the area of the whole; DeLong's is the same formula."""
    truth, labels = flights(20_000, 7)
    area = metric("auc", truth[:, None], labels)
    from orrery.stats import paired_interval

    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(300):
        some = rng.choice(20_000, 250)
        missed += paired_interval(row_values("auc", truth[some, None], labels[some])).excludes(area)
    assert 4 <= missed <= 28


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=2, max_size=40))
def test_an_area_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 10 for score, _ in rows])
    labels = np.array([float(label) for _, label in rows])
    yes, no = scores[labels == 1], scores[labels == 0]
    found = metric("auc", scores[:, None], labels)
    if not len(yes) or not len(no):
        assert math.isnan(found)
    else:
        pairs = (yes[:, None] > no).mean() + (yes[:, None] == no).mean() / 2
        assert found == pytest.approx(pairs)


def test_what_is_no_loss_is_not_taken_for_one() -> None:
    truth, labels = flights(100)
    with pytest.raises(NotUnderstood, match="'auc' is no loss"):
        row_losses("auc", truth[:, None], labels)


def test_an_undefined_metric_says_why() -> None:
    truth, _ = flights(100)
    verdict = quality.judge("auc", specs.Limit(min=0.5), evidence_of(truth, np.zeros(100)))
    assert verdict.verdict == "insufficient" and "all labels are equal" in verdict.why
    check_verdict(verdict)


def test_nothing_that_can_tell_is_a_refusal() -> None:
    truth, labels = flights(20)
    verdicts = judge(evidence_of(truth, labels, truth))
    assert not passed(verdicts) and verdicts["log_loss"].verdict == "refused"
    assert "20 untouched rows" in in_words(verdicts)
    both = spec_of(brier={"max": 0.5}, auc={"min": 0.1})
    some = judge(evidence_of(*flights(200), spec=both))
    assert passed(some) and "Passed 2 of 2" in in_words(some)
    one = judge(evidence_of(np.full(60, 0.1), np.zeros(60), spec=both))
    assert passed(one) and "Insufficient data: auc." in in_words(one)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_outputs_that_are_no_numbers_are_refused(wrong: float) -> None:
    truth, labels = flights(200)
    truth[17] = wrong
    verdicts = judge(evidence_of(truth, labels))
    assert not passed(verdicts) and list(verdicts) == ["output"] and "1 of 200" in verdicts["output"].why
    check_verdict(verdicts["output"])


def test_a_verdict_without_numbers_does_not_pass_the_suite() -> None:
    with pytest.raises(AssertionError):
        check_verdict(Verdict(verdict="passed", why="Fine."))
    with pytest.raises(ValueError, match="JSON"):
        check_verdict(Verdict(verdict="passed", why="It is 1.", numbers={"x": math.inf}))
    assert msgspec.structs.asdict(Verdict(verdict="passed", why="It is 1."))["numbers"] == {}
