"""What the rows of a version are like: learned beside its model, so that a strange request can be told."""

from __future__ import annotations

import numpy as np
import polars as pl

from orrery.data.arrays import columns_of
from orrery.errors import OrreryError
from orrery.pipeline.predictor import Predictor
from orrery.stats.anomaly import FITTED, RANKED, AnomalyScore

_ASKED, _ALL = 64, 4096
"""Rows whose values are exchanged to find out which columns an answer depends on: at most, and of all columns."""
_EQUAL = 1e-9


def learn_score(predictor: Predictor, learned: pl.DataFrame, untouched: pl.DataFrame) -> AnomalyScore | None:
    """Learn to tell strange rows; None where there are too few.

    Parameters
    ----------
    predictor
        The version.
    learned
        Rows in the order of time.
    untouched
        Others, among which rows are ranked.
    """
    names = columns_read(predictor, untouched)
    return AnomalyScore.fit(columns_of(learned.tail(FITTED), names), columns_of(untouched.tail(RANKED), names))


def columns_read(predictor: Predictor, rows: pl.DataFrame) -> list[str]:
    """Return the columns that answers depend on; neither keys nor times, nor what is known only afterwards.

    A dataset has columns that no request brings. So the version is asked with the values of one column after the other
    exchanged among some rows: where no answer changes, the column does not count. One that never varies there does.
    """
    manifest = predictor.manifest
    names = [
        name
        for name in manifest.columns
        if name not in (manifest.entity, manifest.time, manifest.target) and _counts(rows.schema[name])
    ]
    count = min(rows.height, max(8, min(_ASKED, _ALL // (len(names) + 1))))
    places = np.unique(np.linspace(0, rows.height - 1, count).astype(int))
    some, mixed = rows[places.tolist()], np.random.default_rng(0).permutation(len(places)).tolist()
    asked = [some, *(some.with_columns(some[name][mixed]) for name in names)]
    try:
        said = predictor.predict(pl.concat(asked)).reshape(len(asked), some.height, -1)
    except OrreryError:  # a model may insist on which values go together
        return names
    moved = np.abs(said[1:] - said[0]).max(axis=(1, 2)) > _EQUAL * np.abs(said[0]).max()
    return [name for name, changed in zip(names, moved, strict=True) if changed or some[name].n_unique() == 1]


def _counts(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind == pl.Boolean or isinstance(kind, pl.String | pl.Categorical | pl.Enum)
