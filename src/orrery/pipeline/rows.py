"""Rows of a request, made to fit the columns that the model was trained with, or refused with column and row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from orrery.errors import NotUnderstood


class RowRefused(NotUnderstood):
    """A value of a request does not fit its column."""

    def __init__(self, what: str, *, column: str = "", row: int | None = None) -> None:
        self.column = column
        self.row = row
        super().__init__(what, todo="Send values of the type that `columns` of the model names, or null.")


@dataclass(frozen=True)
class Rows:
    """A request in the training schema."""

    frame: pl.DataFrame
    """All columns of the training data, in their order and types; those that nobody sent are null."""
    missing: tuple[str, ...]
    """Columns that were expected and not sent."""
    extra: tuple[str, ...]
    """Columns that were sent and ignored."""


class Columns:
    """The columns of the training data, and how a request is made to fit them.

    Parameters
    ----------
    schema
        Column to type, in the order of training.
    hidden
        The target: always null here, even if it was sent, for a model must not see it.

    Examples
    --------
    >>> columns = Columns(pl.Schema({"a": pl.Float64(), "b": pl.String(), "y": pl.Int64()}), hidden="y")
    >>> columns.of_values({"a": [1, None]}, 2).missing
    ('b',)
    """

    def __init__(self, schema: Mapping[str, pl.DataType], hidden: str = "") -> None:
        self.accepted = {name: dtype for name, dtype in schema.items() if name != hidden}
        self._nulls = {name: pl.Series(name, [None], dtype=dtype) for name, dtype in schema.items()}
        self._hidden = hidden

    def of_frame(self, given: pl.DataFrame) -> Rows:
        """Bring a frame to the training schema.

        Integers become floats, whole floats integers, ISO 8601 texts instants, absent columns null.

        Raises
        ------
        RowRefused
            If a value does not fit; text is never read as a number.
        """
        sent = given.columns
        fitted = {name: _fit(given.get_column(name), self.accepted[name]) for name in sent if name in self.accepted}
        return self._rows(fitted, sent, given.height)

    def of_values(self, given: Mapping[str, Sequence[Any]], count: int) -> Rows:
        """Bring lists of plain values (of a JSON or MessagePack body) to the training schema, as a frame.

        Raises
        ------
        RowRefused
            If a value does not fit, or a list has another length than `count`.
        """
        fitted = {}
        for name, values in given.items():
            if name in self.accepted:
                if not isinstance(values, list | tuple):
                    raise RowRefused(f"Column {name!r} holds no list of values.", column=name)
                if len(values) != count:
                    raise RowRefused(f"Column {name!r} has {len(values)} values for {count} rows.", column=name)
                fitted[name] = _from_values(name, values, self.accepted[name])
        return self._rows(fitted, list(given), count)

    def _rows(self, fitted: Mapping[str, pl.Series], sent: Sequence[str], count: int) -> Rows:
        absent = [name for name in self._nulls if name not in fitted]
        nulls = {name: self._nulls[name] for name in absent}
        if count != 1:
            nulls = {name: null.new_from_index(0, count) for name, null in nulls.items()}
        return Rows(
            pl.DataFrame([fitted[name] if name in fitted else nulls[name] for name in self._nulls]),
            missing=tuple(name for name in absent if name != self._hidden),
            extra=tuple(name for name in sent if name not in self._nulls),
        )


_PLAIN: dict[Any, tuple[type, ...]] = {
    pl.Float64: (float, int),
    pl.Float32: (float, int),
    pl.Int64: (int,),
    pl.Int32: (int,),
    pl.String: (str,),
    pl.Boolean: (bool,),
}


def _from_values(name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    # The common case, a few values of the very types: one pass in Python is quicker than to infer and to cast.
    types = _PLAIN.get(type(dtype))
    if types is not None and all(value is None or type(value) in types for value in values):
        if float in types:
            values = [None if value is None else float(value) for value in values]
        try:
            return pl.Series(name, values, dtype=dtype)
        except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
            raise _refused(name, values, dtype) from error
    try:
        series = pl.Series(name, values, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        if dtype.is_float() and all(value is None or type(value) in (int, float) for value in values):
            series = pl.Series(name, [None if value is None else float(value) for value in values])
        else:
            raise _refused(name, values, dtype) from error
    return _fit(series, dtype)


def _refused(name: str, values: Sequence[Any], dtype: pl.DataType) -> RowRefused:
    """Find the first value that does not fit by trying each alone."""
    for row, value in enumerate(values):
        try:
            _fit(pl.Series(name, [value], strict=True), dtype)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError, RowRefused):
            return _refusal(name, row, value, dtype)
    return RowRefused(f"Column {name!r} holds values that are no {dtype}.", column=name)


def _refusal(name: str, row: int, value: Any, dtype: pl.DataType) -> RowRefused:
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return RowRefused(f"Column {name!r}, row {row}: {text} is no {dtype}.", column=name, row=row)


def _fit(series: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Cast a column where nothing is lost or guessed."""
    have = series.dtype
    if have == dtype:
        return series
    if have == pl.Null:
        return series.cast(dtype)
    if not _compatible(have, dtype):
        filled = series.is_not_null().arg_true()
        if not len(filled):
            return pl.Series(series.name, [None], dtype=dtype).new_from_index(0, len(series))
        row = int(filled[0])
        raise _refusal(series.name, row, series[row], dtype)
    fitted = _instants(series, dtype) if dtype.is_temporal() else series.cast(dtype, strict=False)
    lost = fitted.is_null() & series.is_not_null()
    if have.is_float() and dtype.is_integer():
        lost = lost | (series != series.floor()).fill_null(False)
    if lost.any():
        row = int(lost.arg_true()[0])
        raise _refusal(series.name, row, series[row], dtype)
    return fitted


def _compatible(have: pl.DataType, want: pl.DataType) -> bool:
    if want.is_numeric():
        return have.is_numeric()
    text = (pl.String, pl.Categorical, pl.Enum)
    if isinstance(want, text):
        return isinstance(have, text)
    if isinstance(want, pl.Datetime | pl.Date):
        return isinstance(have, pl.Datetime | pl.Date | pl.String)
    if isinstance(want, pl.Time | pl.Duration):
        return isinstance(have, type(want))
    return want.is_nested() and have.is_nested()


def _instants(series: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Dates and times from their ISO 8601 texts, or from other units and time zones. Without an offset: UTC."""
    if series.dtype == pl.String:
        series = pl.Series(series.name, [_instant(text) for text in series], dtype=pl.Datetime("us", "UTC"))
    zone = getattr(dtype, "time_zone", None)
    if isinstance(series.dtype, pl.Date) and zone:
        series = series.cast(pl.Datetime("us"))
    if isinstance(series.dtype, pl.Datetime):
        if series.dtype.time_zone is None:
            series = series.dt.replace_time_zone("UTC")
        series = series.dt.convert_time_zone(zone or "UTC")
        if zone is None:
            series = series.dt.replace_time_zone(None)
    return series.cast(dtype, strict=False)


def _instant(text: str | None) -> datetime | None:
    """None for what is not an instant; the caller sees that it was something before."""
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
