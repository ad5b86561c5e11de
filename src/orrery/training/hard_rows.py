"""Rows that tell two implementations of a model apart: what data seldom holds and requests do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

LEVELS = (1e9, 1e15, 3e38, 1e300)
"""Magnitudes of extreme numbers; the third is nearly the largest of single precision."""
TEXTS = ("", " ", "\u00e9\u4e16\U0001f600", "x" * 5000, "A b-C_1.5e3", "nan", "None", "0", "unseen", "a\x00b")
KNOWN = 200
"""So many texts of a column are tried one by one."""
NEAR = 12
"""Beside so many of the data's values, and of the model's thresholds, values are tried in each column."""


@dataclass(frozen=True)
class Tag:
    """What makes a row hard."""

    kind: str
    """``null``, ``nulls`` (all), ``unseen``, ``known``, ``infinite``, ``large`` or ``near``."""
    column: str = ""
    level: float = 0.0


def hard_rows(
    real: pl.DataFrame,
    columns: list[str],
    texts: dict[str, list[str]],
    thresholds: npt.NDArray[np.float64],
    seed: int,
    most: int = 60,
) -> tuple[pl.DataFrame, list[Tag]]:
    """Make hard rows out of real ones, each changed in one way.

    Parameters
    ----------
    real
        At least one row; the others' values are taken from them in turn.
    columns
        The columns to change: numbers, booleans and texts.
    texts
        Known texts of each column.
    thresholds
        What a model of trees compares to, of any column; the first are tried.
    most
        In so many columns other values than null are tried.
    """
    random = np.random.default_rng(seed)
    changes: list[tuple[Tag, dict[str, Any]]] = [(Tag("nulls"), dict.fromkeys(columns))]
    changes += [(Tag("null", name), {name: None}) for name in columns]
    for name in columns[:most]:
        dtype = real.schema[name]
        if dtype.is_float():
            changes += [(Tag("infinite", name), {name: sign * math.inf}) for sign in (1, -1)]
            for level in LEVELS:
                changes += [(Tag("large", name, level), {name: sign * level}) for sign in (1, -1)]
            small = [0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e-45, 1.0, -1.0]
            changes += [(Tag("near", name), {name: value}) for value in small]
            changes += [(Tag("near", name), {name: value}) for value in _beside(real[name], thresholds, random)]
        elif dtype.is_integer():
            changes += [(Tag("near", name), {name: value}) for value in _whole_ends(real[name])]
            changes += [(Tag("large", name, float(value)), {name: value}) for value in _whole_large(dtype)]
        elif dtype == pl.Boolean:
            changes += [(Tag("near", name), {name: value}) for value in (True, False)]
        elif dtype == pl.String:
            changes += [(Tag("unseen", name), {name: value}) for value in TEXTS]
            changes += [(Tag("known", name), {name: value}) for value in texts.get(name, [])[:KNOWN]]
    take = np.arange(len(changes)) % real.height
    base = real[random.permutation(real.height)[take].tolist()]
    changed = {}
    for name in columns:
        values = base[name].to_list()
        for row, (_, change) in enumerate(changes):
            if name in change:
                values[row] = change[name]
        changed[name] = pl.Series(name, values, dtype=real.schema[name])
    return base.with_columns(**changed), [tag for tag, _ in changes]


def _beside(column: pl.Series, thresholds: npt.NDArray[np.float64], random: np.random.Generator) -> list[float]:
    """Values, those in the middle of two, and thresholds; each as it is, a step beside, and rounded."""
    seen = np.unique(column.drop_nulls().cast(pl.Float64).to_numpy())
    seen = seen[np.isfinite(seen)]
    if not len(seen):
        return []
    middles = (seen[:-1] + seen[1:]) / 2
    inside = thresholds[(thresholds >= seen[0]) & (thresholds <= seen[-1])]
    between = random.permutation(np.concatenate([middles, seen]))
    chosen = np.concatenate([seen[[0, -1]], between[:NEAR], inside[:NEAR]])
    with np.errstate(over="ignore"):
        rounded = chosen.astype(np.float32)
        up, down = np.nextafter(rounded, np.float32(np.inf)), np.nextafter(rounded, np.float32(-np.inf))
    found = [chosen, np.nextafter(chosen, np.inf), np.nextafter(chosen, -np.inf)]
    found += [each.astype(np.float64) for each in (rounded, up, down)]
    values = np.unique(np.concatenate(found))
    return [float(value) for value in values[np.isfinite(values)]]


def _whole_ends(column: pl.Series) -> list[int]:
    known = column.drop_nulls()
    if not len(known):
        return [0, 1]
    low, high = int(known.min()), int(known.max())  # type: ignore[arg-type]
    info = np.iinfo(str(column.dtype).lower())
    return [value for value in (0, 1, -1, low, high, low - 1, high + 1) if info.min <= value <= info.max]


def _whole_large(dtype: pl.DataType) -> list[int]:
    info = np.iinfo(str(dtype).lower())
    levels = [10**6, 10**9, 2**31, 2**53]
    return [value for level in levels for value in (level, -level) if info.min <= value <= info.max]
