"""Metrics against limits, and against the champion on the same untouched rows, with an interval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from orrery.gates.verdict import Evidence, Verdict
from orrery.spec import Limit
from orrery.stats import paired_interval
from orrery.stats.intervals import Interval
from orrery.stats.measure import higher_is_better, metric, row_values

LEAST = 50  # rows below which a metric decides nothing


def judge(name: str, limit: Limit, evidence: Evidence) -> Verdict:
    """Judge one metric.

    Against the champion the candidate is refused when it is worse than the margin *and* the interval of the paired
    difference lies wholly on the wrong side of the margin; a difference that may be chance does not refuse. The
    interval is over independent blocks where the rows come in blocks.
    """
    value = metric(name, evidence.outputs, evidence.labels, evidence.own)
    numbers: dict[str, object] = {"value": value, "rows": len(evidence.labels)}
    if len(evidence.labels) < LEAST or math.isnan(value):
        rows = f"{name} on {len(evidence.labels)} untouched rows"
        few = len(evidence.labels) < LEAST
        return Verdict(
            verdict="insufficient",
            why=f"{rows} says nothing; {LEAST} are asked for."
            if few
            else f"{rows} is undefined: all labels are equal.",
            numbers={"rows": len(evidence.labels)},
        )
    words = f"{name} {value:.4g}"
    refused = []
    if limit.max is not None and value > limit.max:
        refused.append(f"above the limit {limit.max:g}")
    if limit.min is not None and value < limit.min:
        refused.append(f"below the limit {limit.min:g}")
    if limit.versus and evidence.champion is not None:
        gain, comparison = compare(name, evidence)
        numbers |= comparison
        words += f" ({evidence.champion_name} {comparison['champion']:.4g}, {gain_in_words(gain)})"
        if gain.high < -limit.margin:
            refused.append(f"worse than the champion by more than {limit.margin:g}")
    why = f"{words}: {', '.join(refused)}." if refused else f"{words}."
    return Verdict(verdict="refused" if refused else "passed", why=why, numbers=numbers)


def compare(name: str, evidence: Evidence) -> tuple[Interval, dict[str, float]]:
    """Return the gain over the champion (positive is better) with its interval, and the numbers for the record.

    All are in the unit of the metric.
    """
    assert evidence.champion is not None
    asked = (evidence.outputs, evidence.champion)
    mine, theirs = (row_values(name, outputs, evidence.labels, evidence.own) for outputs in asked)
    better = mine - theirs if higher_is_better(name) else theirs - mine
    gain = paired_interval(better, blocks=enough_blocks(evidence.blocks))
    return gain, {"champion": float(theirs.mean()), "gain": gain.estimate, "low": gain.low, "high": gain.high}


def enough_blocks(blocks: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any] | None:
    """Return the blocks where there are at least five: an interval over fewer says nothing."""
    return blocks if blocks is not None and len(np.unique(blocks)) >= 5 else None


def gain_in_words(gain: Interval) -> str:
    """Return a paired difference as people read it."""
    side = "better" if gain.estimate >= 0 else "worse"
    return f"{side} by {abs(gain.estimate):.4g} [{gain.low:.4g}, {gain.high:.4g}]"


def outputs(evidence: Evidence) -> Verdict | None:
    """Refuse a candidate some of whose outputs are no finite numbers, of which no other gate can say anything."""
    broken = int((~np.isfinite(evidence.outputs)).any(axis=1).sum())
    if not broken:
        return None
    rows = len(evidence.outputs)
    why = f"The outputs of {broken} of {rows} rows are no finite numbers."
    return Verdict(verdict="refused", why=why, numbers={"broken": broken, "rows": rows})
