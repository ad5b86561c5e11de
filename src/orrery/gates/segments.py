"""No important segment may be served badly, or worse than the champion serves it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from orrery.gates.quality import enough_blocks
from orrery.gates.verdict import Evidence, Verdict
from orrery.stats import paired_interval
from orrery.stats.measure import higher_is_better, row_losses, row_values


def judge(evidence: Evidence) -> Verdict | None:
    """Judge every group of the project's segments; None where it names none.

    A group of fewer than ``min_rows`` rows is named as insufficient, never passed in silence. A group is refused when
    its metric is on the wrong side of the limit and its 95 % interval is too, or when it is worse than under the
    champion by more than the margin with certainty at 5 % over all groups together (Bonferroni). Intervals are over
    independent blocks where the rows come in blocks.
    """
    rules = evidence.spec.gates.segments
    columns = [name for name in rules.by if name in evidence.rows.columns]
    if not rules.by:
        return None
    absent = sorted(set(rules.by) - set(columns))
    if absent:
        return Verdict(verdict="refused", why=f"The data have no column {', '.join(absent)} to judge segments by.")
    groups = [(column, value, rows) for column in columns for value, rows in _groups(evidence.rows, column)]
    judged = [group for group in groups if len(group[2]) >= rules.min_rows]
    small = [f"{column}={value} (n={len(rows)})" for column, value, rows in groups if len(rows) < rules.min_rows]
    refused: list[str] = []
    table: list[dict[str, Any]] = []
    for column, value, rows in judged:
        words, facts, undefined = _one(evidence, rows, 0.05 / max(len(judged), 1))
        small += [f"{column}={value} ({metric} undefined)" for metric in undefined]
        table.append({"segment": f"{column}={value}", "rows": len(rows), **facts})
        refused += [f"{column}={value} {word}" for word in words]
    numbers = {"segments": table, "insufficient": small}
    if refused:
        return Verdict(verdict="refused", why=f"{'; '.join(refused[:5])}.", numbers=numbers)
    tail = (
        f" {len(small)} too little to tell: {', '.join(small[:5])}{' ...' if len(small) > 5 else ''}." if small else ""
    )
    if not judged:
        return Verdict(verdict="insufficient", why=f"No segment has {rules.min_rows} rows.{tail}", numbers=numbers)
    worst = max(table, key=lambda row: float(row["loss"]))
    why = f"{len(judged)} segments hold; the worst is {worst['segment']} at {worst['loss']:.4g}.{tail}"
    return Verdict(verdict="passed", why=why, numbers=numbers)


def _groups(rows: pl.DataFrame, column: str) -> list[tuple[str, np.ndarray[Any, Any]]]:
    numbered = rows.select(pl.col(column).cast(pl.String).fill_null("missing").alias("group")).with_row_index("row")
    grouped = numbered.group_by("group", maintain_order=True).agg("row").sort("group")
    return [(value, np.asarray(index)) for value, index in grouped.iter_rows()]


def _one(
    evidence: Evidence, rows: np.ndarray[Any, Any], alpha: float
) -> tuple[list[str], dict[str, float | None], list[str]]:
    """Return why a group is refused, its numbers, and the metrics that are undefined on it."""
    rules, primary = evidence.spec.gates.segments, evidence.spec.rollout.primary
    refused: list[str] = []
    undefined: list[str] = []
    labels, outputs = evidence.labels[rows], evidence.outputs[rows]
    blocks = None if evidence.blocks is None else enough_blocks(evidence.blocks[rows])
    mine = row_losses(primary, outputs, labels, own=evidence.own)
    facts: dict[str, float | None] = {"loss": float(mine.mean())}
    for metric, limit in rules.worst.items():
        values = row_values(metric, outputs, labels, evidence.own)
        if not np.isfinite(values).all():
            undefined.append(metric)
            continue
        over = limit - values if higher_is_better(metric) else values - limit
        if paired_interval(over, blocks=blocks).low > 0:
            sign = "<" if higher_is_better(metric) else ">"
            refused.append(f"{metric} {values.mean():.4g} {sign} {limit:g} (n={len(rows)})")
    if evidence.champion is not None:
        theirs = row_losses(primary, evidence.champion[rows], labels, own=evidence.own)
        gain = paired_interval(theirs - mine, alpha=alpha, blocks=blocks)
        ends = {"low": gain.low, "high": gain.high}
        facts |= {"champion": float(theirs.mean()), "gain": gain.estimate}
        facts |= {name: end if math.isfinite(end) else None for name, end in ends.items()}
        if gain.high < -rules.margin:
            refused.append(f"worse than the champion by {-gain.estimate:.4g} [{-gain.high:.4g}, {-gain.low:.4g}]")
    return refused, facts, undefined
