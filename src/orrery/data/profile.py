"""A look at a dataset: what each column holds, in numbers for a page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import polars as pl

from orrery.data.rules import Type, type_of

_TOP = 10


@dataclass(frozen=True)
class ColumnProfile:
    """What one column holds.

    Parameters
    ----------
    name, type : the column.
    missing : share of rows without a value.
    distinct : number of different values.
    min, mean, max : of numbers (booleans count 0 and 1); of dates and instants min and max, as text.
    top : the most frequent values and their shares, of text and booleans.
    """

    name: str
    type: Type
    missing: float
    distinct: int
    min: float | str | None = None
    mean: float | None = None
    max: float | str | None = None
    top: tuple[tuple[str, float], ...] = ()


def profile(frame: pl.DataFrame) -> list[ColumnProfile]:
    """Describe every column of a dataset version, as ``lake.read(name, version).polars()`` gives it.

    Examples
    --------
    >>> profile(pl.DataFrame({"a": [1, 3, None]}))[0].mean
    2.0
    """
    return [_column(series) for series in frame.get_columns()]


def summary(frame: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Return share missing and mean of each column of numbers: what the timeline keeps of a batch."""
    found = {}
    for series in frame.get_columns():
        entry = {"missing": round(series.null_count() / max(1, series.len()), 6)}
        if series.dtype.is_numeric() or series.dtype == pl.Boolean:
            mean = _finite(series.drop_nulls().cast(pl.Float64).mean())
            if mean is not None:
                entry["mean"] = float(f"{mean:.6g}")
        found[series.name] = entry
    return found


def _column(series: pl.Series) -> ColumnProfile:
    rows = max(1, series.len())
    kind = type_of(series.dtype)
    values = series.drop_nulls()
    limits: dict[str, Any] = {}
    if kind in ("integer", "number", "boolean"):
        numbers = values.cast(pl.Float64)
        limits = {"min": _finite(numbers.min()), "mean": _finite(numbers.mean()), "max": _finite(numbers.max())}
    elif kind in ("date", "instant") and len(values):
        limits = {"min": str(values.min()), "max": str(values.max())}
    top: tuple[tuple[str, float], ...] = ()
    if kind in ("string", "boolean"):
        counts = values.cast(pl.String).alias("value").value_counts().sort(["count", "value"], descending=[True, False])
        top = tuple((value, count / rows) for value, count in counts.head(_TOP).iter_rows())
    distinct = 0 if series.dtype.is_nested() else values.n_unique()
    return ColumnProfile(series.name, kind, series.null_count() / rows, distinct, top=top, **limits)


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
