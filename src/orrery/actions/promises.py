"""The contract of requests, kept by frames: what the inference server finds in the same rows, at the speed of columns.

The finding itself is done by the server's own :class:`~orrery.serving.contract.Checker`. Here is only decided, by
column, that it would find nothing, so that it is shown the few columns in which it may.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from orrery.serving.contract import Broken, Checker


class Promises:
    """Finds and masks the values of a frame that break a contract.

    Parameters
    ----------
    contract : as of :class:`~orrery.serving.contract.Checker`.

    Examples
    --------
    >>> promises = Promises({"columns": {"age": {"type": "number", "min": 0, "max": 120}}})
    >>> promises.broken(pl.DataFrame({"age": [40, 400]}))
    [[], ['age']]
    """

    def __init__(self, contract: Mapping[str, Any] | None) -> None:
        contract = contract or {}
        self._rules: Mapping[str, Mapping[str, Any]] = contract.get("columns", {})
        self._ordered = [(low, high) for low, high in contract.get("ordered", ())]
        self._checker = Checker(contract)

    def broken(self, frame: pl.DataFrame) -> Broken | None:
        """Return the broken columns of each row, or nothing when all rows keep the contract."""
        names = set(frame.columns)
        doubted = {name for name, rule in self._rules.items() if name in names and not _kept(frame[name], rule)}
        for low, high in self._ordered:
            if {low, high} <= names and not _in_order(frame[low], frame[high]):
                doubted |= {low, high}
        if not doubted:
            return None
        return self._checker.broken({name: plain(frame[name]) for name in doubted}, frame.height)


def masked(frame: pl.DataFrame, broken: Broken) -> pl.DataFrame:
    """Return the frame with null in place of every broken value."""
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(broken):
        for name in names:
            rows.setdefault(name, []).append(row)
    columns = []
    for name, places in rows.items():
        hidden = np.zeros(frame.height, dtype=bool)
        hidden[places] = True
        columns.append(pl.when(pl.lit(pl.Series(hidden))).then(None).otherwise(pl.col(name)).alias(name))
    return frame.with_columns(columns)


def plain(series: pl.Series) -> list[Any]:
    """Return the values as a request in JSON would hold them: dates and instants as ISO 8601 texts."""
    if series.dtype.is_temporal():
        return [None if value is None else value.isoformat() for value in series]
    if isinstance(series.dtype, pl.Categorical | pl.Enum):
        series = series.cast(pl.String)
    return series.to_list()


def _kept(series: pl.Series, rule: Mapping[str, Any]) -> bool:
    """Whether every value surely keeps its rule; no is no more than a doubt."""
    kind, dtype = rule.get("type"), series.dtype
    if rule.get("nulls", 1) == 0 and series.null_count():
        return False
    if series.null_count() == series.len():
        return True
    text = isinstance(dtype, pl.String | pl.Categorical | pl.Enum)
    fits = {
        "integer": dtype.is_integer(),
        "number": dtype.is_integer() or dtype.is_float(),
        "boolean": dtype == pl.Boolean,
        "string": text,
        "date": text or dtype == pl.Date,
        "instant": text or isinstance(dtype, pl.Datetime),
    }
    if not fits.get(str(kind), True):
        return False
    if rule.get("closed"):
        known = set(rule.get("categories") or ())
        return not dtype.is_float() and known.issuperset(plain(series.drop_nulls().unique()))
    low, high = rule.get("min"), rule.get("max")
    if (low is None and high is None) or not dtype.is_numeric():
        return True
    if dtype.is_float() and series.is_nan().any():
        return False
    least, most = series.min(), series.max()
    return bool((low is None or least >= low) and (high is None or most <= high))


def _in_order(low: pl.Series, high: pl.Series) -> bool:
    return low.dtype == high.dtype and not (low > high).any() and not (low.dtype.is_float() and _nan(low, high))


def _nan(low: pl.Series, high: pl.Series) -> bool:
    return bool(low.is_nan().any() or high.is_nan().any())
