"""Champion against challenger on the same requests: one look of an e-process that may be looked at any time."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl

from orrery.spec import Spec
from orrery.stats import PairedTest
from orrery.stats.measure import bound_of, encode, row_losses
from orrery.types import parse_duration, parse_instant


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at a challenger found.

    Parameters
    ----------
    n : independent blocks so far; ``rows`` labelled pairs so far.
    effect : mean of champion's loss minus challenger's (positive: the challenger is better), with its interval.
    evidence : e-value for the challenger; ``counter`` against it.
    decision : promote, abort or undecided.
    guardrails : for each guardrail the evidence that the challenger's loss is higher by less than its margin.
    state : to go on from at the next look.
    """

    n: int
    rows: int
    effect: float | None
    interval: tuple[float, float] | None
    evidence: float
    counter: float
    decision: str
    guardrails: dict[str, float]
    state: dict[str, Any]


def look(
    state: dict[str, Any], pairs: pl.DataFrame, spec: Spec, classes: list[Any], until: datetime, *, scale: float = 1.0
) -> Comparison:
    """Take in the pairs whose labels became final since the last look.

    Parameters
    ----------
    state : of the last look; empty at the first.
    pairs : columns ``at``, ``champion`` and ``challenger`` (lists of outputs), ``label`` and, where the unit of the
        policy is a column, ``unit``.
    spec : the policy.
    classes : of the model, in the order of its outputs.
    until : time of this look; a block ends a label delay after its last instant.
    scale : largest error that counts, for regressions.
    """
    primary = spec.rollout.primary
    bound = bound_of(primary, scale)
    by_row = spec.rollout.unit == "row"
    kind: Literal["loss", "zero_one"] = "zero_one" if by_row and primary == "zero_one" else "loss"
    test = (
        PairedTest.from_state(state["test"])
        if state
        else PairedTest(kind, spec.rollout.margin, spec.rollout.alpha, bound)
    )
    blocks: dict[str, list[float]] = {key: list(sums) for key, sums in state.get("blocks", {}).items()}
    rows = int(state.get("rows", 0)) + len(pairs)
    rails = {
        name: PairedTest.from_state(state["rails"][name])
        if name in state.get("rails", {})
        else PairedTest("loss", margin, spec.rollout.alpha, bound_of(name, scale))
        for name, margin in spec.rollout.guardrails.items()
    }
    if len(pairs):
        labels = encode(pairs["label"].to_list(), classes)
        sides = [np.asarray(pairs[side].to_list(), dtype=np.float64) for side in ("champion", "challenger")]
        champion, challenger = (row_losses(primary, side, labels, cap=bound) for side in sides)
        for name in spec.rollout.guardrails:
            cap = bound_of(name, scale)
            better = row_losses(name, sides[0], labels, cap=cap) - row_losses(name, sides[1], labels, cap=cap)
            units = _units(pairs, spec.rollout.unit) if not by_row else []
            rails[name].update(_means(units, better) if units else better)
        if by_row:
            test.update(champion - challenger)
        else:
            _collect(blocks, _units(pairs, spec.rollout.unit), champion - challenger)
    if not by_row:
        closed = [key for key in sorted(blocks) if _over(key, spec, until)]
        if closed:
            test.update([blocks[key][0] / blocks[key][1] for key in closed])
        blocks = {key: sums for key, sums in blocks.items() if key not in closed}
    guardrails = {name: min(rail.evidence, 1e12) for name, rail in rails.items()}
    decision: str = test.decision
    if decision == "promote" and any(rail.decision != "promote" for rail in rails.values()):
        decision = "undecided"  # better on the primary loss, not yet shown to keep every guardrail
    if any(rail.decision == "abort" for rail in rails.values()):
        decision = "abort"
    interval = test.interval() if test.n else None
    return Comparison(
        n=test.n,
        rows=rows,
        effect=interval.estimate if interval else None,
        interval=(interval.low, interval.high) if interval and math.isfinite(interval.low) else None,
        evidence=min(test.evidence, 1e12),
        counter=min(test.counter_evidence, 1e12),
        decision=decision,
        guardrails=guardrails,
        state={
            "test": test.to_state(),
            "blocks": blocks,
            "rows": rows,
            "rails": {name: rail.to_state() for name, rail in rails.items()},
        },
    )


def _units(pairs: pl.DataFrame, unit: str) -> list[str]:
    if unit in ("day", "hour"):
        pattern = "%Y-%m-%d" if unit == "day" else "%Y-%m-%dT%H"
        return pairs["at"].dt.strftime(pattern).to_list()
    return pairs["unit"].cast(pl.String).fill_null("missing").to_list()


def _collect(blocks: dict[str, list[float]], units: list[str], differences: np.ndarray[Any, Any]) -> None:
    for unit, difference in zip(units, differences.tolist(), strict=True):
        sums = blocks.setdefault(unit, [0.0, 0.0])
        sums[0] += difference
        sums[1] += 1


def _means(units: list[str], differences: np.ndarray[Any, Any]) -> list[float]:
    """Return the mean of each unit that occurs in this look."""
    sums: dict[str, list[float]] = {}
    _collect(sums, units, differences)
    return [total / n for total, n in sums.values()]


def _over(unit: str, spec: Spec, until: datetime) -> bool:
    """Say whether nothing more can come of a block: it has ended, and its labels are final."""
    if spec.rollout.unit not in ("day", "hour"):
        return True
    start = parse_instant(unit if spec.rollout.unit == "day" else f"{unit}:00:00")
    length = timedelta(days=1) if spec.rollout.unit == "day" else timedelta(hours=1)
    return start + length + parse_duration(spec.model.label_delay) <= until
