"""Segments: a bad group is found, chance refuses rarely, and what is too small is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from orrery import spec as specs
from orrery.gates import segments
from orrery.gates.verdict import Evidence
from orrery.testing.gate_contract import check_gate, check_verdict


def evidence_of(
    outputs: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    groups: Any,
    champion: np.ndarray[Any, Any] | None = None,
    blocks: np.ndarray[Any, Any] | None = None,
    column: str = "origin",
    **rules: Any,
) -> Evidence:
    model = {"name": "tides", "task": "binary", "target": "y"}
    gates = {"segments": {"by": [column], **rules}}
    spec = specs.from_dict({"model": model, "data": {"t": "t"}, "gates": gates, "rollout": {"primary": "brier"}})
    return Evidence(
        spec=spec,
        rows=pl.DataFrame({"origin": groups}),
        labels=labels,
        outputs=outputs[:, None],
        champion=None if champion is None else champion[:, None],
        blocks=blocks,
    )


def rows(n: int, groups: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[str]]:
    """True probabilities, labels, and groups of equal size."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(2, 3, n)
    return truth, (rng.random(n) < truth).astype(float), [f"g{number % groups}" for number in range(n)]


def test_the_gate_passes_refuses_and_cannot_tell() -> None:
    truth, labels, groups = rows(1000, 4)
    bad = np.where(np.array(groups) == "g2", 1 - truth, truth)
    check_gate(
        segments.judge,
        passing=evidence_of(truth, labels, groups, worst={"brier": 0.25}),
        refusing=evidence_of(bad, labels, groups, worst={"brier": 0.25}),
        insufficient=evidence_of(truth, labels, groups, min_rows=251),
    )
    nothing = specs.from_dict({"model": {"name": "t", "task": "binary", "target": "y"}, "data": {"t": "t"}})
    spared = Evidence(spec=nothing, rows=pl.DataFrame({"a": [1.0]}), labels=labels[:1], outputs=truth[:1, None])
    assert segments.judge(spared) is None


def test_the_bad_group_is_named_with_its_numbers() -> None:
    truth, labels, groups = rows(1000, 4)
    bad = np.where(np.array(groups) == "g2", 1 - truth, truth)
    verdict = segments.judge(evidence_of(bad, labels, groups, champion=truth, worst={"brier": 0.25}))
    assert verdict is not None and verdict.verdict == "refused"
    assert "origin=g2 brier" in verdict.why and "worse than the champion" in verdict.why and "g1" not in verdict.why
    (row,) = [row for row in verdict.numbers["segments"] if row["segment"] == "origin=g2"]
    assert row["rows"] == 250 and row["gain"] < -0.05 and row["high"] < 0


@pytest.mark.parametrize(("metric", "limit"), [("accuracy", 0.55), ("auc", 0.55)])
def test_a_limit_on_a_metric_that_should_be_high_is_a_floor(metric: str, limit: float) -> None:
    truth, labels, groups = rows(2000, 4)
    bad = np.where(np.array(groups) == "g2", 1 - truth, truth)
    good = segments.judge(evidence_of(truth, labels, groups, worst={metric: limit}))
    assert good is not None and good.verdict == "passed"
    refused = segments.judge(evidence_of(bad, labels, groups, worst={metric: limit}))
    assert refused is not None and refused.verdict == "refused"
    assert f"origin=g2 {metric}" in refused.why and f"< {limit:g}" in refused.why


def test_a_metric_that_is_undefined_on_a_group_is_not_passed_in_silence() -> None:
    truth, labels, groups = rows(1000, 4)
    labels = np.where(np.array(groups) == "g1", 0.0, labels)
    verdict = segments.judge(evidence_of(truth, labels, groups, worst={"auc": 0.5}))
    assert verdict is not None and "origin=g1 (auc undefined)" in verdict.why


def test_a_limit_is_not_broken_by_chance_alone() -> None:
    truth, labels, groups = rows(400, 4)
    loss = float(((truth - labels) ** 2).mean())
    verdict = segments.judge(evidence_of(truth, labels, groups, worst={"brier": 0.97 * loss}))
    assert verdict is not None and verdict.verdict == "passed"  # above it, and its interval is not


def test_small_groups_are_named_and_missing_values_are_a_group() -> None:
    truth, labels, _ = rows(300, 1)
    groups = ["JFK"] * 150 + [None] * 120 + ["HA"] * 30
    verdict = segments.judge(evidence_of(truth, labels, groups))
    assert verdict is not None and verdict.verdict == "passed"
    assert "origin=HA (n=30)" in verdict.why and verdict.numbers["insufficient"] == ["origin=HA (n=30)"]
    assert {row["segment"] for row in verdict.numbers["segments"]} == {"origin=JFK", "origin=missing"}


def test_a_column_that_is_not_there_is_refused() -> None:
    truth, labels, groups = rows(300, 2)
    verdict = segments.judge(evidence_of(truth, labels, groups, column="carrier"))
    assert verdict is not None and verdict.verdict == "refused" and "no column carrier" in verdict.why


def test_numbers_of_the_smallest_group_can_be_stored() -> None:
    truth, labels, _ = rows(3, 1)
    verdict = segments.judge(evidence_of(truth, labels, ["a", "b", "c"], champion=truth, min_rows=1))
    assert verdict is not None
    check_verdict(verdict)


def nulls(
    groups: int, alpha_of_each: float | None = None, blocks: bool = False, told: bool = True, runs: int = 150
) -> int:
    """How many of equal candidates are refused over many groups; with days, each day favours one of the two."""
    refused = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        truth, labels, names = rows(groups * 120, groups, seed)
        day = (np.arange(len(truth)) // groups) % 12
        sway = rng.normal(0, 0.15, 12)[day] if blocks else rng.normal(0, 0.1, len(truth))
        one = np.clip(truth + np.where(labels == 1, 1, -1) * sway, 0.01, 0.99)
        other = np.clip(truth - np.where(labels == 1, 1, -1) * sway, 0.01, 0.99)
        evidence = evidence_of(one, labels, names, champion=other, blocks=day if blocks and told else None, margin=0.0)
        if alpha_of_each is None:
            verdict = segments.judge(evidence)
            assert verdict is not None
            refused += verdict.verdict == "refused"
        else:
            everyone = np.arange(len(truth))
            refused += any(
                segments._one(evidence, everyone[np.array(names) == f"g{number}"], alpha_of_each)[0]
                for number in range(groups)
            )
    return refused


def test_many_groups_do_not_add_up_to_a_refusal() -> None:
    """2.5 % over all groups together: of 150 nulls at most 10 (three standard errors); each at 5 % it is far more."""
    assert nulls(12) <= 10
    assert nulls(12, alpha_of_each=0.05) > 20


def test_a_bad_day_is_one_observation_not_a_thousand() -> None:
    assert nulls(4, blocks=True, runs=100) <= 8
    assert nulls(4, blocks=True, told=False, runs=100) > 12
