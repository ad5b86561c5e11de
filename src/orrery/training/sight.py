"""What a compiled version is asked with: whole requests, or what its model step sees of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery.pipeline.compiled import Compiled, Unproven
from orrery.pipeline.manifest import FloatArray
from orrery.pipeline.predictor import Predictor, arrays_of
from orrery.pipeline.verdict import EXACT, Column
from orrery.training.convert import by_name
from orrery.training.refusal import NotConvertible

ROWS = 2048
"""So many untouched rows are compared at most."""


@dataclass(frozen=True)
class Sight:
    """What the model is compared on: requests, or what its step sees of them."""

    whole: bool
    real: pl.DataFrame
    """Untouched rows."""
    columns: list[Column]
    hidden: str
    own: Callable[[pl.DataFrame], FloatArray]
    """Ask the version itself."""
    compiled: Callable[[Compiled, pl.DataFrame], FloatArray]


def sight_of(predictor: Predictor, rows: pl.DataFrame) -> Sight:
    """Find out what the graph will be asked with.

    Raises
    ------
    NotConvertible
        If the model sees something that is no table.
    """
    places = np.unique(np.linspace(0, rows.height - 1, min(ROWS, rows.height)).astype(int))
    some = rows[places.tolist()]
    manifest = predictor.manifest
    accepted = predictor.columns.accepted
    given = predictor.features(some)
    table = table_of(given)
    if _from_request(predictor, table):
        fitted = predictor.columns.of_frame(some).frame
        hidden = manifest.target if manifest.target in fitted.columns else ""
        real = fitted.select(list(accepted))
        columns = [_column(name, dtype) for name, dtype in accepted.items()]
        if manifest.live and table is not None:
            columns = [one if one.name in table.columns else msgspec.structs.replace(one, group="") for one in columns]
        return Sight(True, real, columns, hidden, lambda frame: _asked(predictor, frame), _requested)
    if table is None:
        raise NotConvertible(f"its features are a {type(given).__name__}, and only tables can be given to a graph")
    columns = [_column(name, dtype) for name, dtype in table.schema.items()]
    return Sight(
        False,
        table,
        columns,
        "",
        lambda frame: _told(predictor, like(given, frame), frame.height),
        lambda compiled, frame: compiled.of_features(arrays_of(like(given, frame)), frame.height),
    )


def _from_request(predictor: Predictor, seen: pl.DataFrame | None) -> bool:
    """Whether the model sees the columns of a request as they come: all of them, or those that a step selects.

    The graph has a request's columns in the order of training: where the step turns it round, the model must know them
    by their names.
    """
    if not predictor.only_selects():
        return False
    if not predictor.manifest.live:
        return predictor.manifest.features == predictor.manifest.rows_input
    accepted = list(predictor.columns.accepted)
    if seen is None or not set(seen.columns) <= set(accepted):
        return False
    return seen.columns == [name for name in accepted if name in seen.columns] or by_name(predictor.model)


def _asked(predictor: Predictor, frame: pl.DataFrame) -> FloatArray:
    return predictor.predict_rows(predictor.columns.of_values(plain(frame), frame.height))


def _told(predictor: Predictor, given: Any, count: int) -> FloatArray:
    with predictor.active():
        return predictor.of_features(given, count)


def _requested(compiled: Compiled, frame: pl.DataFrame) -> FloatArray:
    return compiled.predict(plain(frame), frame.height)


def plain(frame: pl.DataFrame) -> dict[str, list[Any]]:
    """Rows as a request's JSON brings them: instants as texts."""
    found = {}
    for name, dtype in frame.schema.items():
        values = frame[name].to_list()
        if isinstance(dtype, pl.Datetime | pl.Date):
            values = [None if value is None else value.isoformat() for value in values]
        found[name] = values
    return found


def table_of(given: Any) -> pl.DataFrame | None:
    """What a model sees as a frame; None if it is no table."""
    if isinstance(given, pl.DataFrame):
        return given
    if isinstance(given, np.ndarray) and given.ndim == 2 and given.dtype.kind in "fiub":
        return pl.DataFrame(given, schema=[str(place) for place in range(given.shape[1])])
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        return pl.from_pandas(given)
    return None


def like(given: Any, frame: pl.DataFrame) -> Any:
    """A table in the form in which the model was given its features."""
    if isinstance(given, pl.DataFrame):
        return frame
    if isinstance(given, np.ndarray):
        return frame.to_numpy().astype(given.dtype, copy=False)
    pandas = frame.to_pandas()
    pandas.columns = given.columns
    try:
        return pandas.astype(given.dtypes.to_dict())
    except (TypeError, ValueError) as error:
        raise Unproven(f"No features can hold this: {error}") from None


def _column(name: str, dtype: pl.DataType) -> Column:
    return msgspec.structs.replace(_kind_of(name, dtype), type=str(dtype))


def _kind_of(name: str, dtype: pl.DataType) -> Column:
    if dtype == pl.Float64:
        return Column(name=name, kind="number", group="numbers")
    if dtype == pl.Float32:
        return Column(name=name, kind="single", group="numbers")
    if dtype.is_integer():
        info = np.iinfo(str(dtype).lower()) if str(dtype) not in ("Int128", "UInt128") else np.iinfo("int64")
        ends = (max(int(info.min), -EXACT), min(int(info.max), EXACT))
        return Column(name=name, kind="whole", group="numbers", range=ends)
    if dtype == pl.Boolean:
        return Column(name=name, kind="flag", group="numbers")
    if dtype == pl.String:
        return Column(name=name, kind="text", group="texts")
    return Column(name=name, kind="instant" if isinstance(dtype, pl.Datetime | pl.Date) else "nothing")
