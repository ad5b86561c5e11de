"""The prediction log of a model: every prediction with inputs, version and request id; its files divided by month."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import Any

import polars as pl
from deltalake import DeltaTable

from orrery.data.arrays import ScoreOf, scored
from orrery.data.lake import Lake
from orrery.data.table import Table, Write, schema_of, within
from orrery.errors import NotUnderstood
from orrery.types import digest

FOLDER = "predictions"
INSTANT = pl.Datetime("us", "UTC")
MONTH = "_month"

COLUMNS: dict[str, pl.DataType] = {
    "_id": pl.String(),  # of the request and row, such as "req-3#17"
    "_at": INSTANT,
    "_day": pl.Date(),  # of _at
    MONTH: pl.Date(),  # first day of it; divides the files
    "_environment": pl.String(),
    "_version": pl.Int32(),
    "_role": pl.String(),  # who answered: champion, canary, arm, standby; who saw it: shadow, guard; batch
    "_entity": pl.String(),  # joins to the label
    "_output": pl.List(pl.Float64()),  # [p1] binary, [p0, p1, ...] multiclass, [y] regression
    "_latency": pl.Float64(),  # seconds
    "_broken": pl.List(pl.String()),  # columns that broke the contract
    "_anomaly": pl.Float64(),  # 3: one in a thousand untouched rows is as strange; null where nothing was learned
    "_caller": pl.String(),  # who asked, as the request says; null where it does not
}
"""Columns of every log. The request's own columns stand beside them, under their own names, in the champion's rows."""

_NEEDED = ("_id", "_at", "_environment", "_version", "_role")


@dataclass(frozen=True)
class Piece:
    """One frame of a journal: rows, and where in which segment they end."""

    segment: str
    end: int
    environment: str
    columns: Mapping[str, Sequence[Any]]


class PredictionLog:
    """The log of one model.

    Parameters
    ----------
    lake, model : where, and whose.

    Notes
    -----
    A request's number is stored as a 64-bit float whether it came as ``35`` or ``35.5``, and a value that is not of its
    column's type as null: a log must take what the world sends. ``_broken`` says which columns were wrong.
    """

    def __init__(self, lake: Lake, model: str) -> None:
        self.model = model
        self.table: Table = lake.table(FOLDER, model)
        self._group = lake.group(self.table.uri, self._commit)

    def append(self, frame: pl.DataFrame, key: str | None = None) -> int:
        """Add rows; on return they are on disk. The same key again adds nothing. Returns the number of rows added.

        Raises
        ------
        NotUnderstood
            If one of the columns ``_id _at _environment _version _role`` is not there.
        """
        for name in _NEEDED:
            if name not in frame.columns:
                raise NotUnderstood(f"A row of the prediction log needs the column {name}.")
        counted: int = self._group.submit((frame, key))
        return counted - 1

    def advance(self, source: str, start: int, frame: pl.DataFrame) -> int:
        """Add the rows of a source that come after those that are there; return how many that were.

        However often and in whatever portions a source's rows are handed in, each is added exactly once, as long as
        they come in order.

        Parameters
        ----------
        source : what the rows are numbered by.
        start : number of the frame's first row, from 0.
        """
        added = 0

        def decide(table: DeltaTable | None) -> Write | None:
            nonlocal added
            seen = self.table.version(_source(source)) or 0
            fresh = frame.slice(max(0, seen - start))
            added = fresh.height
            if not added:
                return None
            return Write(_fitted(fresh, schema_of(table)), {"rows": added}, {_source(source): start + frame.height})

        self.table.write(decide)
        return added

    def ship(
        self,
        pieces: Sequence[Piece],
        score_of: ScoreOf = lambda version: None,
        kept: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame,
    ) -> int:
        """Add frames of journals, each exactly once however often it is handed in; return the number of rows added.

        Each row gets its anomaly score here, and not while somebody waits for the answer; and here those are left out
        that may not be ``kept``.
        """
        added = 0

        def decide(table: DeltaTable | None) -> Write | None:
            nonlocal added
            added = 0
            names = {piece.segment for piece in pieces}
            seen = {name: self.table.version(_segment(name)) or 0 for name in names}
            fresh = [piece for piece in pieces if piece.end > seen[piece.segment]]
            if not fresh:
                return None
            ends = {_segment(piece.segment): piece.end for piece in sorted(fresh, key=lambda piece: piece.end)}
            frame = scored(kept(_from_pieces(fresh, schema_of(table))), score_of)
            added = frame.height
            return Write(frame, {"rows": added}, ends)

        self.table.write(decide)
        return added

    def rows(
        self, environment: str | None, first: date | None, last: date | None, entities: pl.Series | None = None
    ) -> pl.LazyFrame:
        """Return the rows of an environment and of days, both included; files of other days are not opened.

        Nor are those that hold none of the entities, where one can tell.
        """
        limits = [f"_day >= '{first}'" if first else "", f"_day <= '{last}'" if last else ""]
        limits.append((within(entities.alias("_entity")) or "") if entities is not None else "")
        found = self.table.scan(" AND ".join(limit for limit in limits if limit) or None)
        schema = found.collect_schema()
        if not schema:
            return pl.LazyFrame(schema=COLUMNS)
        # A log that is older than a column holds nothing in it.
        found = found.with_columns(
            pl.lit(None, kind).alias(name) for name, kind in COLUMNS.items() if name not in schema
        )
        chosen = [pl.col("_day") >= first] if first else []
        chosen += [pl.col("_day") <= last] if last else []
        chosen += [pl.col("_environment") == environment] if environment is not None else []
        return found.filter(*chosen) if chosen else found

    def first_days(self, entities: pl.Series, since: date) -> dict[str, date]:
        """Return the first day on which each entity was predicted; entities never predicted are not in it.

        Most labels follow their prediction soon: days from ``since`` on are read first, older ones only for entities
        that are not there.
        """
        found: dict[str, date] = {}
        for first, last in ((since, None), (None, since)):
            wanted = entities.filter(~entities.is_in(list(found))) if found else entities
            if not wanted.is_empty():
                rows = self.rows(None, first, last, wanted).filter(pl.col("_entity").is_in(wanted.implode()))
                days = rows.group_by("_entity").agg(pl.col("_day").min()).collect()
                found.update(days.iter_rows())
        return found

    def _commit(self, batches: Sequence[tuple[pl.DataFrame, str | None]]) -> list[int | Exception]:
        results: list[int | Exception] = []

        def decide(table: DeltaTable | None) -> Write | None:
            results.clear()
            schema = schema_of(table)
            frames, keys = [], {}
            for frame, key in batches:
                name = f"key:{digest(key)}" if key is not None else None
                known = name is not None and (name in keys or self.table.version(name) is not None)
                # Counted from 1: a result of nothing must still be a result.
                results.append(1 if known else frame.height + 1)
                if not known:
                    frames.append(_fitted(frame, schema))
                    if name is not None:
                        keys[name] = 1
            rows = pl.concat(frames, how="diagonal_relaxed") if frames else None
            if rows is None or rows.height == 0:
                return None
            return Write(rows, {"rows": rows.height}, keys)

        self.table.write(decide)
        return results


def _source(name: str) -> str:
    return f"rows:{digest(name)}"


def _segment(name: str) -> str:
    return f"journal:{name}"


def _from_pieces(pieces: Sequence[Piece], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    values: dict[str, list[Any]] = {}
    height = 0
    for piece in pieces:
        rows = max((len(column) for column in piece.columns.values()), default=0)
        columns = {"_environment": [piece.environment] * rows, **piece.columns}
        for name, column in columns.items():
            held = values.setdefault(name, [])
            if len(held) < height:
                held.extend([None] * (height - len(held)))
            held.extend(column)
        height += rows
    series = []
    for name, held in values.items():
        held.extend([None] * (height - len(held)))
        if isinstance(kind := COLUMNS.get(name), pl.List):
            series.append(_lists(name, held, kind))
        elif kind is not None:
            series.append(pl.Series(name, held, dtype=pl.Int64 if name == "_at" else kind, strict=False))
        elif (made := _input(name, held, schema.get(name))) is not None:
            series.append(made)
    return _fitted(pl.DataFrame(series), schema)


def _lists(name: str, values: list[Any], kind: pl.List) -> pl.Series:
    """Make a column of lists; Polars makes a series for each, so that lists of one length are made as one.

    Of others each is made once: which columns were broken is the same in many rows.
    """
    if all(value is None for value in values):
        return pl.repeat(None, len(values), dtype=kind, eager=True).alias(name)
    lengths = {-1 if value is None else len(value) for value in values}
    if len(lengths) == 1 and (length := lengths.pop()) > 0:
        flat = pl.Series(name, list(chain.from_iterable(values)), dtype=kind.inner, strict=False)
        return flat.reshape((-1, length)).arr.to_list()
    known: dict[Any, int] = {}
    places = [known.setdefault(None if value is None else tuple(value), len(known)) for value in values]
    return pl.Series(name, list(known), dtype=kind, strict=False).gather(places)


def _input(name: str, values: list[Any], wanted: pl.DataType | None) -> pl.Series | None:
    """Make a column of a request's values, of the type it has in the log; None where nothing says which that is."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds and wanted is None:
        return None
    if wanted is None:
        numbers = kinds <= {int, float, bool}
        wanted = pl.Boolean() if kinds == {bool} else pl.Float64() if numbers else pl.String()
    if wanted == pl.String and not kinds <= {str}:
        values = [
            value if value is None or isinstance(value, str) else json.dumps(value, default=str) for value in values
        ]
    elif not kinds <= {int, float, bool} and wanted != pl.String:
        values = [value if isinstance(value, int | float) else None for value in values]
    return pl.Series(name, values, dtype=wanted, strict=False)


def _fitted(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Bring a frame to the types of the log, its day and its missing columns filled in."""
    columns = {series.name: series for series in frame.get_columns()}
    columns["_at"] = _instants(columns["_at"])
    columns["_day"] = columns["_at"].dt.date().alias("_day")
    columns[MONTH] = columns["_day"].dt.truncate("1mo").alias(MONTH)
    for name, kind in COLUMNS.items():
        if name not in columns:
            columns[name] = pl.Series(name, [None] * frame.height, dtype=kind)
        elif columns[name].dtype != kind:
            columns[name] = columns[name].cast(kind)
    inputs = [_stored(series, schema.get(name)) for name, series in columns.items() if name not in COLUMNS]
    return pl.DataFrame([*(columns[name] for name in COLUMNS), *(series for series in inputs if series is not None)])


def _instants(series: pl.Series) -> pl.Series:
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is None:
        return series.dt.replace_time_zone("UTC").dt.cast_time_unit("us")
    return series.cast(INSTANT)


def _stored(series: pl.Series, wanted: pl.DataType | None) -> pl.Series | None:
    if wanted is not None:
        return series if series.dtype == wanted else series.cast(wanted, strict=False)
    if series.dtype == pl.Null:
        return None
    if series.dtype.is_numeric():
        return series.cast(pl.Float64)
    if isinstance(series.dtype, pl.Categorical | pl.Enum):
        return series.cast(pl.String)
    return _instants(series) if isinstance(series.dtype, pl.Datetime) else series
