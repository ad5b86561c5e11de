"""Groups that nobody named: a hidden one is found and confirmed, and chance is not."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from orrery import spec as specs
from orrery.gates import search
from orrery.gates.verdict import Evidence
from orrery.testing.gate_contract import check_gate


def evidence_of(
    seed: int, *, hidden: bool, count: int = 4000, searched: bool = True, days: int = 0, noise: float = 0.12
) -> Evidence:
    """A candidate that differs from the champion by noise; hidden: and is bad for old people in Rome."""
    random = np.random.default_rng(seed)
    age = random.normal(45, 15, count)
    city = random.choice(["Paris", "Rome", "Oslo", "Bonn"], count)
    wealth = random.normal(size=count)
    truth = 1 / (1 + np.exp(-wealth))
    labels = (random.random(count) < truth).astype(float)
    outputs = np.clip(truth + random.normal(0, noise, count), 0.01, 0.99)
    champion = np.clip(truth + random.normal(0, noise, count), 0.01, 0.99)
    if hidden:
        outputs = np.where((city == "Rome") & (age > 55), 1 - truth, outputs)
    model = {"name": "tides", "task": "binary", "target": "y", "entity": "who"}
    gates = {"segments": {"search": searched, "min_rows": 40, "margin": 0.0}}
    spec = specs.from_dict({"model": model, "data": {"t": "t"}, "gates": gates, "rollout": {"primary": "brier"}})
    frame = pl.DataFrame(
        {"who": [f"w{n}" for n in range(count)], "age": age, "city": city, "wealth": wealth, "y": labels}
    )
    frame = frame.with_columns(city=pl.when(pl.int_range(count) % 50 == 0).then(None).otherwise("city"))
    blocks = np.arange(count) * days // count if days else None
    return Evidence(
        spec=spec, rows=frame, labels=labels, outputs=outputs[:, None], champion=champion[:, None], blocks=blocks
    )


def test_the_gate_passes_refuses_and_cannot_tell() -> None:
    check_gate(
        search.judge,
        passing=evidence_of(0, hidden=False),
        refusing=evidence_of(0, hidden=True),
        insufficient=evidence_of(0, hidden=False, count=60),
        absent=evidence_of(0, hidden=True, searched=False),
    )


@pytest.mark.parametrize("days", [0, 10, 20])
def test_the_hidden_group_is_named_by_its_conditions(days: int) -> None:
    verdict = search.judge(evidence_of(1, hidden=True, days=days))
    assert verdict is not None and verdict.verdict == "refused"
    first: dict[str, Any] = verdict.numbers["segments"][0]
    assert "city=Rome" in first["segment"] and "age" in first["segment"] and first["high"] < 0
    assert "w1" not in verdict.why  # an entity is no group


def test_what_no_request_brings_describes_no_group() -> None:
    evidence = evidence_of(1, hidden=True)
    told = (np.zeros((1, 1)), np.zeros((1, 1)), ["city"])
    verdict = search.judge(msgspec.structs.replace(evidence, replayed=told))
    assert verdict is not None and not any("city" in one["segment"] for one in verdict.numbers["segments"])
    found = search.judge(evidence)
    assert found is not None and any("city" in one["segment"] for one in found.numbers["segments"])  # the control


def test_chance_refuses_seldom_and_without_the_other_half_often() -> None:
    refused = looked = 0
    for seed in range(60):
        evidence = evidence_of(100 + seed, hidden=False, count=1500)
        verdict = search.judge(evidence)
        assert verdict is not None
        refused += verdict.verdict == "refused"
        # the negative control: the group that looks worst, judged where it was found
        assert evidence.champion is not None
        gains = (evidence.champion[:, 0] - evidence.labels) ** 2 - (evidence.outputs[:, 0] - evidence.labels) ** 2
        everything = np.ones(len(gains), dtype=bool)
        worst = search._ranked(list(search._conditions(evidence, everything)), -gains, everything, 40)[0]
        looked += worst.score > 1.645
    allowed = 60 * 0.05 + 3 * np.sqrt(60 * 0.05 * 0.95)
    assert refused <= allowed < looked


def stormy(seed: int, days: int, blocked: bool = True) -> Evidence:
    """No model is better; but on each day one of them is lucky, and a day has one pressure."""
    random, evidence = np.random.default_rng(seed), evidence_of(seed, hidden=False, count=100 * days)
    day = np.arange(100 * days) // 100
    lucky = random.normal(0, 0.3, days)[day]
    assert evidence.champion is not None
    nearer = evidence.labels[:, None] - evidence.outputs
    outputs = np.clip(evidence.outputs + nearer * np.maximum(lucky, 0)[:, None], 0.01, 0.99)
    champion = np.clip(evidence.champion + nearer * np.maximum(-lucky, 0)[:, None], 0.01, 0.99)
    rows = evidence.rows.with_columns(pressure=pl.Series(random.normal(1013, 8, days)[day]))
    blocks = day if blocked else None
    return msgspec.structs.replace(evidence, rows=rows, outputs=outputs, champion=champion, blocks=blocks)


def test_a_few_bad_days_are_no_group_whatever_the_weather_was() -> None:
    """Twenty seeds; the control: with rows that count as independent the same evidence refuses often."""

    def refused(blocked: bool) -> int:
        found = (search.judge(stormy(seed, 12, blocked)) for seed in range(20))
        return sum(one is not None and one.verdict == "refused" for one in found)

    assert refused(blocked=True) <= 3 and refused(blocked=False) >= 10


def test_a_week_is_too_short_to_find_groups_in() -> None:
    verdict = search.judge(stormy(1, 7))
    assert verdict is not None and verdict.verdict == "insufficient" and "7 independent blocks; 10" in verdict.why
