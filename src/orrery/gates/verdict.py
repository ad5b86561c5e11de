"""The verdict of one gate, and what every gate is shown."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl

from orrery.spec import Spec
from orrery.stats.checks import FloatArray
from orrery.stats.measure import NONE, Own

Outcome = Literal["passed", "refused", "insufficient"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate found.

    Parameters
    ----------
    verdict : ``passed``, ``refused``, or ``insufficient`` where the data do not suffice to tell.
    why : a sentence with the numbers.
    numbers : the numbers again, for scripts and pictures.
    """

    verdict: Outcome
    why: str
    numbers: dict[str, Any] = {}


Form = Literal["python", "features in python", "compiled"]
"""Its own Python; its features in Python and the compiled model; the compiled form alone."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the gates are shown of a candidate.

    Parameters
    ----------
    spec : the candidate's project file.
    rows : untouched rows with all their columns.
    labels : encoded labels of the rows, shape (rows,).
    outputs : the candidate's outputs on them, shape (rows, k); made by a model that has not seen them.
    champion : the champion's outputs on the same rows, likewise unseen; None where there is no champion.
    champion_name : how to call the champion.
    blocks : number of the independent block of each row, shape (rows,).
    latencies : seconds of processor time that single rows took in the candidate's own process, shape (rounds, rows).
    timed : what answered them, which is what will answer when it is served.
    left : of the rows, those that a compiled candidate left to its own Python.
    replayed : outputs on logged requests from the log and from the dataset, each shape (n, k), with the names of
        columns that requests lack; None where there is no log yet.
    row_wise : largest difference between features of a row alone and among others; None where there are none.
    uses_target : features that change when the target is hidden from them.
    own : losses of the project's own.
    """

    spec: Spec
    rows: pl.DataFrame
    labels: FloatArray
    outputs: FloatArray
    champion: FloatArray | None = None
    champion_name: str = "champion"
    blocks: np.ndarray[Any, Any] | None = None
    latencies: FloatArray | None = None
    timed: Form = "python"
    left: int = 0
    replayed: tuple[FloatArray, FloatArray, list[str]] | None = None
    row_wise: float | None = None
    uses_target: tuple[str, ...] = ()
    own: Own = NONE
