"""What every statistic demands of the numbers it is given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orrery.errors import NotUnderstood

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LARGEST_EXPONENT = 700.0  # exp(709) is the end of double precision


def bounded(values: npt.ArrayLike, low: float, high: float, name: str) -> FloatArray:
    """Give `values` as a flat float array, or raise `NotUnderstood` where one is not within [low, high].

    A betting process multiplies by ``1 + bet * value``: a value outside of its bounds, or one that is not a number,
    would turn a valid test into a wrong one without a sign. Float noise of 1e-9 is forgiven.
    """
    array = np.atleast_1d(np.asarray(values, dtype=np.float64)).ravel()
    inside = (array >= low - 1e-9) & (array <= high + 1e-9)  # false for nan too
    if not inside.all():
        wrong = array[~inside]
        raise NotUnderstood(
            f"{len(wrong)} of {len(array)} values of {name} are not within [{low:g}, {high:g}], such as {wrong[0]:g}.",
            safe="Nothing was counted.",
            todo="Clip or rescale the values to these bounds, and leave out rows without a value.",
        )
    return np.clip(array, low, high)


def require(condition: bool, what: str, todo: str) -> None:
    """Raise `NotUnderstood` unless the condition on a parameter holds."""
    if not condition:
        raise NotUnderstood(what, todo=todo)


def probability(value: float, name: str) -> float:
    """Give back a number strictly between 0 and 1, or raise `NotUnderstood`."""
    require(0 < value < 1, f"{name} is {value:g}.", "Give a number between 0 and 1, such as 0.05.")
    return float(value)
