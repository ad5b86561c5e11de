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

MANY = 16_384
"""Words from which they are counted by their hashes, if fewer are different."""

ScoreOf = Callable[[int], "AnomalyScore | None"]
"""From a version's number to what scores its rows; None: they are not scored."""


def columns_of(frame: pl.DataFrame, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """Return columns as the sketches read them; a column that is not there is all missing."""
    there = set(frame.columns)
    return {name: _array(frame.get_column(name)) if name in there else np.full(len(frame), np.nan) for name in names}


def counted(frame: pl.DataFrame, names: Collection[str]) -> dict[str, Column]:
    """Return columns as a table's sketch counts them fastest: numbers as they are, of words how often each came."""
    words = {name for name, kind in frame.schema.items() if not _numeric(kind)}
    return {
        name: tally(frame.get_column(name).cast(pl.String)) if name in words else columns_of(frame, [name])[name]
        for name in names
    }


def _array(column: pl.Series) -> npt.NDArray[Any]:
    if _numeric(column.dtype):
        return column.cast(pl.Float64).to_numpy()
    return column.cast(pl.String).to_numpy().astype(object)


def tally(words: pl.Series) -> Counter[str | None]:
    """Count how often each word came.

    Where few words come many times their 64-bit hashes are sorted, which takes half of the time of grouping the words;
    two that share a hash, which happens to one pair in 10^19, are counted as one.

    Examples
    --------
    >>> sorted(tally(pl.Series(["JFK", "LGA", "JFK"])).items())
    [('JFK', 2), ('LGA', 1)]
    """
    if len(words) >= MANY:
        hashes = words.hash()
        keys, numbers = np.unique(hashes.to_numpy(), return_counts=True)
        if len(keys) < MANY:
            named = _by_hash(words.head(MANY))
            if rest := set(keys.tolist()) - named.keys():
                named |= _by_hash(words.filter(hashes.is_in(list(rest))))
            return Counter({named[key]: number for key, number in zip(keys.tolist(), numbers.tolist(), strict=True)})
    values, counts = words.value_counts()
    return Counter(dict(zip(values.to_list(), counts.to_list(), strict=True)))


def _by_hash(words: pl.Series) -> dict[int, str | None]:
    different = words.unique()
    return dict(zip(different.hash().to_list(), different.to_list(), strict=True))


def _numeric(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind == pl.Boolean


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
