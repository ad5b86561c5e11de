"""A contract from reference rows: only what the rows themselves bear out.

A rule that is too strict sets good rows aside, so a rule is inferred only from enough rows, with room around what was
seen, and (for the rules that speak of batches) only where it holds in every part of the reference itself.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl

from orrery.data.rules import Column, as_text, rows_to_expect, type_of
from orrery.data.table import normalise

ENOUGH = 1000
"""Rows that it takes to believe that something never happens."""

_SOME = 100
_ROOM = 2.0  # spans on either side: January's temperatures must not forbid July's
_CATEGORIES = 50
_COUNTING = 0.9
_TOUCHING = 0.001  # share of rows in which a true limit is reached; two columns that never meet are apart by chance
_BY_CHANCE = 0.05
_PARTS = 5


def infer(frame: pl.DataFrame) -> dict[str, Any]:
    """Return the fields of a contract that the rows keep.

    Ranges reach two spans beyond what was seen on either side (a counter, which grows with the rows, has none); text
    of at most 50 values has categories, not closed; a column without a missing value in 1000 rows needs one; two
    numbers are ordered when no row of 1000 contradicts, at least 5 % would if the columns were unrelated, and some rows
    have both equal; a value is expected in every batch when it occurs in each part of the reference as large as such a
    batch.
    """
    rows = normalise(frame)
    columns = {series.name: _column(series) for series in rows.get_columns()}
    ordered = _ordered(rows) if rows.height >= ENOUGH else []
    present = {name: shares for name in rows.columns if (shares := _present(rows, name, columns[name]))}
    return {"columns": columns, "ordered": ordered, "present": present}


def _column(series: pl.Series) -> Column:
    rows, missing = series.len(), series.null_count()
    kind = type_of(series.dtype)
    nulls = (0.0 if missing == 0 else 0.9) if rows >= ENOUGH and missing <= 0.5 * rows else 1.0
    low: float | None = None
    high: float | None = None
    categories: list[str] | None = None
    values = series.drop_nulls()
    counting = kind in ("integer", "number") and _counts(values)
    distinct = values.n_unique()
    if kind in ("integer", "number") and len(values) >= _SOME and distinct > 2 and not counting:
        low, high = _range(values)
    if kind == "string" and 0 < distinct <= _CATEGORIES and len(values) >= 10 * distinct:
        categories = sorted(values.unique().to_list())
    unique = rows >= ENOUGH and distinct == rows and (kind == "string" or (kind == "integer" and counting))
    return Column(type=kind, nulls=nulls, min=low, max=high, categories=categories, unique=unique)


def _range(values: pl.Series) -> tuple[float | None, float | None]:
    finite = values.filter(values.is_finite()) if values.dtype.is_float() else values
    if finite.is_empty():
        return None, None
    numbers = finite.to_numpy()
    low, high = numbers.min(), numbers.max()
    room = _ROOM * (float(high) - float(low))
    return float(f"{low - room:.6g}"), float(f"{high + room:.6g}")


def _counts(values: pl.Series) -> bool:
    """Say whether a column grows with the rows, as ids, years and clocks do: its past says nothing of its limits."""
    if len(values) < _SOME or values.n_unique() < 3:
        return False
    ranks = values.rank().to_numpy()
    return bool(abs(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) > _COUNTING)


def _ordered(rows: pl.DataFrame) -> list[tuple[str, str]]:
    """Find pairs a <= b that hold in every row, and would not if the two columns had nothing to do with each other."""
    numbers = [
        series.name
        for series in rows.get_columns()
        if series.dtype.is_numeric() and series.drop_nulls().n_unique() >= 10 and not _counts(series.drop_nulls())
    ]
    values = {name: rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in numbers}
    pairs = []
    for low, high in itertools.permutations(numbers, 2):
        a, b = values[low], values[high]
        both = ~(np.isnan(a) | np.isnan(b))
        if both.sum() < ENOUGH or not bool((a[both] <= b[both]).all()):
            continue
        shuffled = np.random.default_rng(0).permutation(b[both])
        equal = float((a[both] == b[both]).mean())
        if (a[both] > shuffled).mean() >= _BY_CHANCE and _TOUCHING <= equal < 1:
            pairs.append((low, high))
    return pairs


def _present(rows: pl.DataFrame, name: str, column: Column) -> dict[str, float]:
    """Return the values of a column that every batch should hold, with their shares."""
    if column.type not in ("boolean", "integer", "string"):
        return {}
    values = rows.select(as_text(name)).to_series().drop_nulls()
    counts = values.value_counts()
    if not 2 <= counts.height <= 10:
        return {}
    expected = {}
    for value, count in counts.iter_rows():
        share = count / len(values)
        size = int(rows_to_expect(share)) + 1
        parts = len(values) // size
        if parts < _PARTS:
            continue
        held = (values == value).to_numpy()[: parts * size].reshape(parts, size)
        if bool(held.any(axis=1).all()):
            expected[value] = round(share, 4)
    return dict(sorted(expected.items()))
