"""Checking rows against a contract, in one pass of Polars expressions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from orrery.data.rules import POLARS, Column, Rules, as_text, rows_to_expect
from orrery.data.table import normalise
from orrery.errors import NotUnderstood

WHY = "_why"
"""Column of the rows set aside: what is wrong with each."""

Flags = npt.NDArray[Any]

_BATCH = 100
_TRUE = ["true", "True", "TRUE", "1"]
_FALSE = ["false", "False", "FALSE", "0"]


@dataclass(frozen=True)
class Checked:
    """What a contract makes of a batch.

    Parameters
    ----------
    good : rows that keep it, their columns of the promised types.
    bad : rows that break it, as they came, and the column ``_why``.
    reasons : reason -> number of rows; a row can have several.
    """

    good: pl.DataFrame
    bad: pl.DataFrame
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Finding:
    """A row rule that some rows break."""

    reason: str
    columns: tuple[str, ...]
    rows: list[int]


def check(rules: Rules, frame: pl.DataFrame) -> Checked:
    """Part the rows that keep the rules from those that break them.

    A column that is promised and not there is one without values; a column that is there and not promised is fine. Text
    that says a number is one.

    Raises
    ------
    NotUnderstood
        If the frame has a column ``_why``.
    """
    if WHY in frame.columns:
        raise NotUnderstood(f"A column cannot be called {WHY}.", todo="Rename it.")
    given = normalise(frame)
    typed, findings = _typed(rules, given)
    reasons: Counter[str] = Counter()
    why: dict[int, list[str]] = {}
    for finding in [*findings, *_broken(rules, typed, findings)]:
        reasons[finding.reason] += len(finding.rows)
        for row in finding.rows:
            why.setdefault(row, []).append(finding.reason)
    batch = list(_batch_reasons(rules, typed))
    for reason in batch:
        reasons[reason] += frame.height
    if not why and not batch:
        return Checked(_promised(typed, given), _with_why(frame.clear(), []), {})
    broken = [bool(batch) or row in why for row in range(frame.height)]
    mask = pl.Series(broken, dtype=pl.Boolean)
    texts = ["; ".join([*why.get(row, []), *batch]) for row in range(frame.height) if broken[row]]
    return Checked(_promised(typed, given).filter(~mask), _with_why(frame.filter(mask), texts), dict(reasons))


def broken_columns(rules: Rules, frame: pl.DataFrame) -> list[list[str]]:
    """Return, per row, the columns that break a row rule; a column that is not there breaks nothing."""
    typed, findings = _typed(rules, normalise(frame))
    broken: list[list[str]] = [[] for _ in range(frame.height)]
    given = set(frame.columns)
    for finding in [*findings, *_broken(rules, typed, findings)]:
        if given.issuperset(finding.columns):
            for row in finding.rows:
                broken[row].extend(name for name in finding.columns if name not in broken[row])
    return broken


def _typed(rules: Rules, given: pl.DataFrame) -> tuple[pl.DataFrame, list[_Finding]]:
    """Give every promised column its type; what cannot be read as that becomes null, and is found broken."""
    columns = {series.name: series for series in given.get_columns()}
    findings = []
    for name, column in rules.columns.items():
        wanted = POLARS.get(column.type)
        series = columns.get(name)
        if series is None:
            columns[name] = pl.Series(name, [None] * given.height, dtype=wanted or pl.Null)
        elif wanted is not None and series.dtype != wanted:
            columns[name] = _read_as(series, wanted)
            lost = _rows(columns[name].is_null() & series.is_not_null())
            if lost:
                findings.append(_Finding(f"{name} is not {_article(column.type)}", (name,), lost))
    return pl.DataFrame(list(columns.values())), findings


def _read_as(series: pl.Series, wanted: pl.DataType) -> pl.Series:
    if wanted == pl.Int64 and series.dtype == pl.Float64:
        return series.set(series != series.round(), None).cast(pl.Int64, strict=False)
    if wanted == pl.Boolean and series.dtype in (pl.String, pl.Int64, pl.Float64):
        text = series.cast(pl.Int64, strict=False).cast(pl.String) if series.dtype.is_numeric() else series
        known = pl.when(text.is_in(_TRUE)).then(True).when(text.is_in(_FALSE)).then(False)
        return pl.select(known.alias(series.name)).to_series()
    if wanted.is_temporal() and series.dtype == pl.String:
        day = wanted == pl.Date
        return series.str.to_date(strict=False) if day else series.str.to_datetime(strict=False, time_zone="UTC")
    if series.dtype == pl.Boolean and wanted.is_numeric():
        return pl.Series(series.name, [None] * len(series), dtype=wanted)
    return series.cast(wanted, strict=False)


def _broken(rules: Rules, typed: pl.DataFrame, unreadable: list[_Finding]) -> Iterator[_Finding]:
    """Find what breaks the row rules: in NumPy, which for few rows is faster than a query plan of 60 parts."""
    lost = {finding.columns[0]: set(finding.rows) for finding in unreadable}
    numbers: dict[str, Flags] = {}
    for name, column in rules.columns.items():
        series = typed[name]
        if column.type in ("integer", "number"):
            numbers[name] = series.to_numpy()
        for reason, flags in _column_flags(series, column, numbers.get(name)):
            rows = [row for row in flags.nonzero()[0].tolist() if row not in lost.get(name, ())]
            if rows:
                yield _Finding(f"{name} {reason}", (name,), rows)
    for low, high in rules.ordered:
        # A missing value is NaN here, of which nothing is true: it breaks no order and no range.
        if rows := (numbers[low] > numbers[high]).nonzero()[0].tolist():
            yield _Finding(f"{low} is above {high}", (low, high), rows)


def _column_flags(series: pl.Series, column: Column, values: Flags | None) -> Iterator[tuple[str, Flags]]:
    if column.nulls == 0:
        if values is not None and values.dtype.kind == "f":
            yield "is missing", np.isnan(values)
        elif series.null_count():
            yield "is missing", series.is_null().to_numpy()
    if values is not None and column.min is not None:
        yield f"is below {column.min:g}", values < column.min
    if values is not None and column.max is not None:
        yield f"is above {column.max:g}", values > column.max
    if column.closed and column.categories:
        outside = ~series.cast(pl.String).is_in(column.categories) & series.is_not_null()
        yield "is none of its categories", outside.to_numpy()
    if column.unique and series.drop_nulls().n_unique() < series.len() - series.null_count():
        yield "occurs twice", (~series.is_first_distinct() & series.is_not_null()).to_numpy()


def _rows(flags: pl.Series) -> list[int]:
    return flags.arg_true().to_list()


def _batch_reasons(rules: Rules, typed: pl.DataFrame) -> Iterator[str]:
    rows = typed.height
    if rows >= _BATCH:
        for name, column in rules.columns.items():
            if 0 < column.nulls < 1:
                share = typed[name].null_count() / rows
                if share > column.nulls:
                    yield f"{name} is missing in {share:.0%} of the rows, and at most {column.nulls:.0%} is fine"
    for name, shares in rules.present.items():
        values = typed.select(as_text(name)).to_series().drop_nulls()
        seen = set(values.unique().to_list())
        for value, share in shares.items():
            if value not in seen and len(values) > rows_to_expect(share):
                yield f"{name} is {value} in none of {len(values)} rows, and in {share:.0%} of the reference"


def _promised(typed: pl.DataFrame, given: pl.DataFrame) -> pl.DataFrame:
    """Return the given columns, typed; those that were promised and not given stay away."""
    return typed.select(name for name in given.columns)


def _with_why(frame: pl.DataFrame, texts: list[str]) -> pl.DataFrame:
    return frame.with_columns(pl.Series(WHY, texts, dtype=pl.String))


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
