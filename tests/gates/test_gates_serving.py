"""Latency, skew between log and dataset, features that depend on other rows or on the target."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from orrery import spec as specs
from orrery.gates import serving
from orrery.gates.judge import judge, passed
from orrery.gates.verdict import Evidence
from orrery.testing.gate_contract import check_gate, check_verdict

SPEC = specs.from_dict(
    {
        "model": {"name": "tides", "task": "binary", "target": "y"},
        "data": {"tides": "tides"},
        "gates": {"latency": {"p99_ms": 20.0}, "brier": {"max": 1.0}},
    }
)


def evidence(**shown: Any) -> Evidence:
    labels = np.tile([0.0, 1.0], 50)
    return Evidence(spec=SPEC, rows=pl.DataFrame({"x": labels}), labels=labels, outputs=np.full((100, 1), 0.5), **shown)


def answers(n: int, broken: int = 0, absent: tuple[str, ...] = ()) -> tuple[Any, Any, list[str]]:
    known = np.linspace(0.1, 0.9, n)[:, None]
    logged = known + 1e-9
    logged[:broken] += 0.2
    return logged, known, list(absent)


def test_latency() -> None:
    quick = np.full(180, 0.004)
    slow = quick.copy()
    slow[:4] = 0.05
    check_gate(
        serving.latency,
        passing=evidence(latencies=quick),
        refusing=evidence(latencies=slow),
        insufficient=evidence(latencies=quick[:49]),
    )
    once = quick.copy()
    once[0] = 3.0  # one of 180 is no 99th percentile
    assert serving.latency(evidence(latencies=once)).verdict == "passed"
    assert "20 ms" in serving.latency(evidence(latencies=slow)).why
    assert "latency" not in judge(evidence()) and not passed(judge(evidence(latencies=slow)))


def test_skew() -> None:
    check_gate(
        serving.skew,
        passing=evidence(replayed=answers(500, broken=5)),
        refusing=evidence(replayed=answers(500, broken=6)),
        insufficient=evidence(replayed=answers(49)),
        absent=evidence(),
    )


def test_a_leak_is_told_by_the_column_that_requests_lack() -> None:
    verdict = serving.skew(evidence(replayed=answers(300, broken=300, absent=("arr_delay",))))
    assert verdict is not None and verdict.verdict == "refused"
    assert "100% of 300" in verdict.why and "never bring arr_delay" in verdict.why
    assert verdict.numbers["absent"] == ["arr_delay"]
    same = serving.skew(evidence(replayed=answers(300, absent=("tail_number",))))
    assert same is not None and same.verdict == "passed"  # what is absent and not used does no harm


def test_features_of_a_row_alone() -> None:
    check_gate(
        serving.row_wise,
        passing=evidence(row_wise=0.0),
        refusing=evidence(row_wise=0.3),
        insufficient=None,
        absent=evidence(),
    )
    for wrong in (math.inf, math.nan):  # features that are not there, or others: the numbers must still be storable
        verdict = serving.row_wise(evidence(row_wise=wrong))
        assert verdict is not None and verdict.verdict == "refused"
        check_verdict(verdict)


def test_features_made_of_the_target_are_refused_whatever_else_holds() -> None:
    verdict = serving.row_wise(evidence(row_wise=0.0, uses_target=("delay_so_far", "is_late")))
    assert verdict is not None and verdict.verdict == "refused"
    assert "delay_so_far, is_late" in verdict.why
    check_verdict(verdict)
    assert not passed(judge(evidence(uses_target=("is_late",))))
