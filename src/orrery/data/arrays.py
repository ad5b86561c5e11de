"""Columns of a frame as the statistics read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

if TYPE_CHECKING:
    from orrery.stats.anomaly import AnomalyScore
    from orrery.stats.table import Column

WITHOUT_INPUTS = ("shadow", "guard")
"""Roles whose rows in the log have no inputs: the champion's of the same request have them."""

ScoreOf = Callable[[int], "AnomalyScore | None"]
"""From a version's number to what scores its rows; None: they are not scored."""


def columns_of(frame: pl.DataFrame, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """Return columns as the sketches read them; a column that is not there is all missing."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        if name not in frame.columns:
            columns[name] = np.full(len(frame), np.nan)
        elif _numeric(frame[name]):
            columns[name] = frame[name].cast(pl.Float64).to_numpy()
        else:
            columns[name] = frame[name].cast(pl.String).to_numpy().astype(object)
    return columns


def counted(frame: pl.DataFrame, names: Collection[str]) -> dict[str, Column]:
    """Return columns as a table's sketch counts them fastest: numbers as they are, of words how often each came."""
    columns: dict[str, Column] = {}
    for name in names:
        if name not in frame.columns or _numeric(frame[name]):
            columns |= columns_of(frame, [name])
        else:
            values, counts = frame[name].cast(pl.String).value_counts()
            columns[name] = Counter(dict(zip(values.to_list(), counts.to_list(), strict=True)))
    return columns


def _numeric(column: pl.Series) -> bool:
    return column.dtype.is_numeric() or column.dtype == pl.Boolean


def as_trained(requests: pl.DataFrame, numbers: Collection[str]) -> pl.DataFrame:
    """Return requests in which whatever is no number is missing, where the training data have numbers."""
    kinds = {name: requests.schema[name] for name in numbers if name in requests.columns}
    words = [name for name, kind in kinds.items() if kind == pl.String]
    others = [name for name, kind in kinds.items() if not (kind.is_numeric() or kind in (pl.Boolean, pl.String))]
    return requests.with_columns(
        pl.col(words).cast(pl.Float64, strict=False), *(pl.lit(None, pl.Float64).alias(name) for name in others)
    )


def inputs_of(requests: pl.DataFrame, score: AnomalyScore) -> dict[str, npt.NDArray[Any]]:
    """Return the columns that a score looks at."""
    return columns_of(as_trained(requests, score.numbers), score.columns)


def scored(rows: pl.DataFrame, score_of: ScoreOf) -> pl.DataFrame:
    """Return rows of the prediction log, with their inputs, and the score of each in ``_anomaly``."""
    found = np.full(len(rows), np.nan)
    asked = ~rows["_role"].is_in(WITHOUT_INPUTS)
    for version in rows.filter(asked)["_version"].unique().to_list():
        score = None if version is None else score_of(version)
        if score is not None:
            places = np.flatnonzero((asked & (rows["_version"] == version)).to_numpy())
            found[places] = score.scores(inputs_of(rows[places], score))
    return rows.with_columns(pl.Series("_anomaly", found).fill_nan(None))
