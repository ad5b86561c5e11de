"""Groups that nobody named: rows that one or two conditions describe, and that the candidate serves worse.

Looking through thousands of groups always finds one that is worse by chance. So they are looked for in one half of the
untouched rows, and the few that look worst are judged in the other half, which had no part in finding them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery.gates.verdict import Evidence, Verdict
from orrery.stats import paired_interval
from orrery.stats.checks import FloatArray
from orrery.stats.measure import row_losses

CATEGORIES, BINS = 20, 4
"""Most frequent categories of a text, and bins of a number with as many rows each."""
BEAM = 24
"""Groups of one condition that are looked at together with a second one."""
CONFIRMED = 5
"""Groups that are judged in the other half."""
ALPHA = 0.05
SEED = 0
BLOCKS = 10
"""So many blocks can be halved, and both halves say something."""
LEAST_BLOCKS = 5
"""Blocks of a group in the other half below which it is not judged: it may be two bad days, whatever describes it."""

Mask = np.ndarray[Any, Any]


class _Group(msgspec.Struct, frozen=True):
    """Rows that fulfil one or two conditions."""

    names: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Mask
    score: float


def judge(evidence: Evidence) -> Verdict | None:
    """Judge groups that are found by themselves; None where the project does not ask, or nothing answers yet.

    Refused is a candidate that is worse than the champion by more than the margin in one of the groups that were found,
    on the rows that had no part in finding it, with certainty at 5 % over all of these groups together. Groups have at
    least ``min_rows`` rows in each half. Where rows come in blocks the halves are of whole ones, of which ten are asked
    for, and a group is judged on five at least: rows of two stormy days have much in common, such as the pressure.
    """
    rules = evidence.spec.gates.segments
    if not rules.search or evidence.champion is None:
        return None
    days = BLOCKS if evidence.blocks is None else len(np.unique(evidence.blocks))
    if days < BLOCKS:
        why = (
            f"The untouched rows are of {days} independent blocks; {BLOCKS} are asked for to find groups by themselves."
        )
        return Verdict(verdict="insufficient", why=why, numbers={"groups": 0})
    primary = evidence.spec.rollout.primary
    gains = row_losses(primary, evidence.champion, evidence.labels, own=evidence.own)
    gains = np.asarray(gains - row_losses(primary, evidence.outputs, evidence.labels, own=evidence.own))
    found_in = _half(len(gains), evidence.blocks)
    conditions = list(_conditions(evidence, found_in))
    worse = -(gains + rules.margin)
    singles = _ranked(conditions, worse, found_in, rules.min_rows)
    pairs = (
        _Group((*one.names, *two.names), (*one.columns, *two.columns), one.rows & two.rows, 0.0)
        for place, one in enumerate(singles[:BEAM])
        for two in (*singles[:place], *conditions)
        if not set(one.columns) & set(two.columns)
    )
    doubles = _ranked(list(pairs), worse, found_in, rules.min_rows)
    looked_at = len(singles) + len(doubles)
    if not looked_at:
        why = f"No group has {rules.min_rows} rows in half of the {len(gains)} untouched rows."
        return Verdict(verdict="insufficient", why=why, numbers={"groups": 0})
    chosen = list(islice(_distinct(sorted(singles + doubles, key=lambda group: -group.score)), CONFIRMED))
    table, refused = [], []
    for group in chosen:
        rows = np.flatnonzero(group.rows & ~found_in)
        blocks = None if evidence.blocks is None else evidence.blocks[rows]
        if len(rows) < rules.min_rows or (blocks is not None and len(np.unique(blocks)) < LEAST_BLOCKS):
            continue
        gain = paired_interval(gains[rows], alpha=ALPHA / len(chosen), blocks=blocks)
        name = " and ".join(group.names)
        ends = {"low": gain.low, "high": gain.high}
        ends_told = {key: end if np.isfinite(end) else None for key, end in ends.items()}
        table.append({"segment": name, "rows": len(rows), "gain": gain.estimate, **ends_told})
        if gain.high < -rules.margin:
            span = f"[{-gain.high:.4g}, {-gain.low:.4g}]"
            refused.append(f"{name}: worse than the champion by {-gain.estimate:.4g} {span} (n={len(rows)})")
    numbers = {"groups": looked_at, "segments": table}
    if refused:
        return Verdict(verdict="refused", why=f"{'; '.join(refused)}.", numbers=numbers)
    why = (
        f"{looked_at:,} groups of one or two conditions were looked at in half of the rows; of the {len(table)} that "
        "looked worst, none is worse in the other half."
    )
    return Verdict(verdict="passed", why=why, numbers=numbers)


def _half(count: int, blocks: Mask | None) -> Mask:
    """Return which rows groups are found in: every other block, or where each row is one half of them by lot."""
    if blocks is not None:
        return np.asarray(np.searchsorted(np.unique(blocks), blocks) % 2 == 0)
    return np.asarray(np.random.default_rng(SEED).random(count) < 0.5)


def _conditions(evidence: Evidence, found_in: Mask) -> Iterator[_Group]:
    """Yield the rows of each category and of each bin; edges are of the half in which groups are found.

    What requests do not bring is no condition: a column that is known only afterwards describes no group.
    """
    model = evidence.spec.model
    _, _, absent = evidence.replayed or (None, None, ())
    for series in evidence.rows.get_columns():
        name = series.name
        if name in (model.target, model.entity, model.time, *absent) or name.startswith("_"):
            continue
        missing = series.is_null().to_numpy()
        if series.dtype.is_numeric() and series.n_unique() > CATEGORIES:
            values = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
            known = values[found_in & np.isfinite(values)]
            if not len(known):
                continue
            edges = [-np.inf, *np.quantile(known, np.arange(1, BINS) / BINS), np.inf]
            for low, high in pairwise(edges):
                if low < high:
                    rows = (values > low) & (values <= high)
                    yield _Group((_span(name, low, high),), (name,), rows, 0.0)
        elif series.dtype.is_numeric() or series.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
            texts = series.cast(pl.String)
            counts = texts.drop_nulls().value_counts(sort=True).head(CATEGORIES)
            if series.n_unique() > len(series) / 2:
                continue  # names of things, no groups
            for value in counts[name].to_list():
                yield _Group((f"{name}={value}",), (name,), (texts == value).fill_null(False).to_numpy(), 0.0)
        if missing.any():
            yield _Group((f"{name} missing",), (name,), missing, 0.0)


def _span(name: str, low: float, high: float) -> str:
    """Write a bin.

    Examples
    --------
    >>> _span("temp", -np.inf, 40.0), _span("temp", 40.0, 55.5), _span("temp", 55.5, np.inf)
    ('temp <= 40', '40 < temp <= 55.5', 'temp > 55.5')
    """
    if not np.isfinite(low):
        return f"{name} <= {high:.4g}"
    return f"{low:.4g} < {name} <= {high:.4g}" if np.isfinite(high) else f"{name} > {low:.4g}"


def _ranked(groups: list[_Group], worse: FloatArray, found_in: Mask, least: int) -> list[_Group]:
    """Return the groups with enough rows, the one that looks worst first: by its mean in units of its error."""
    ranked = []
    for group in groups:
        inside = group.rows & found_in
        count = int(inside.sum())
        if count < least:
            continue
        values = worse[inside]
        error = max(float(values.std()), 1e-12) / np.sqrt(count)
        ranked.append(_Group(group.names, group.columns, group.rows, float(values.mean()) / error))
    return sorted(ranked, key=lambda group: -group.score)


def _distinct(groups: list[_Group]) -> Iterator[_Group]:
    """Yield groups of which none is nearly another one: not more than four fifths of their rows are the same."""
    taken: list[Mask] = []
    for group in groups:
        same = ((group.rows & other).sum() / max((group.rows | other).sum(), 1) for other in taken)
        if all(share <= 0.8 for share in same):
            taken.append(group.rows)
            yield group
