"""A model's outputs against labels: the loss of each row, and metrics over many, by the names a project file uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from orrery.errors import NotUnderstood
from orrery.stats.checks import FloatArray
from orrery.stats.losses import absolute_error, brier, log_loss, squared_error, zero_one

CLIP = 0.01
"""Smallest probability believed in a decision: the logarithmic loss of a row is then at most 4.6 nats."""


class OwnLoss(NamedTuple):
    """A loss of the project's own: the largest that a row can have, and what computes it from outputs and labels."""

    bound: float
    of_rows: Callable[[FloatArray, FloatArray], FloatArray]


Own = Mapping[str, OwnLoss]
"""The project's own losses by name; they stand beside those that are known here."""
NONE: Own = {}


def encode(labels: Sequence[Any], classes: Sequence[Any]) -> FloatArray:
    """Return labels as numbers: class numbers where there are classes, else the values themselves.

    Parameters
    ----------
    labels : as they came: numbers, words, booleans.
    classes : in the order of the model's outputs; empty for regression.

    Raises
    ------
    NotUnderstood
        If a label is none of the classes or no number.

    Examples
    --------
    >>> encode(["no", "yes"], ["no", "yes"]).tolist(), encode([True, False, 1], [0, 1]).tolist()
    ([0.0, 1.0], [1.0, 0.0, 1.0])
    """
    try:
        if not len(classes):
            return np.asarray(labels, dtype=np.float64)
        numbers = {_plain(one): number for number, one in enumerate(classes)}
        codes = {label: numbers[_plain(label)] for label in set(labels)}  # few, however many rows
        return np.asarray([codes[label] for label in labels], dtype=np.float64)
    except KeyError as error:
        raise NotUnderstood(f"The label {error.args[0]!r} is none of {list(classes)}.") from None
    except (TypeError, ValueError):
        raise NotUnderstood("A label is not a number.", todo="Give numbers for a regression.") from None


def row_losses(
    name: str, outputs: FloatArray, labels: FloatArray, *, cap: float = math.inf, own: Own = NONE
) -> FloatArray:
    """Return the loss of each row, shape (rows,).

    Parameters
    ----------
    name : log_loss, brier, zero_one, absolute_error or squared_error, or one of ``own``.
    outputs : shape (rows, k): probability of class 1 (k = 1), of each class, or the predicted value (k = 1).
    labels : of :func:`encode`, shape (rows,).
    cap : largest loss of a row, in the unit of the loss; a decision needs one.
    own : losses of the project; they are bounded by themselves.

    Raises
    ------
    NotUnderstood
        If there is no such loss (an area, for instance, is none of a single row), or a number is not finite.
    """
    if name in own:
        return own[name].of_rows(outputs, labels)
    flat = outputs[:, 0] if outputs.shape[1] == 1 else outputs
    if name == "log_loss":
        return log_loss(flat, labels, clip=max(math.exp(-cap), 1e-15) if cap < math.inf else 1e-15)
    if name == "brier":
        return brier(flat, labels)
    if name == "zero_one":
        classes = (flat >= 0.5).astype(np.float64) if flat.ndim == 1 else flat.argmax(axis=1).astype(np.float64)
        return zero_one(classes, labels)
    if name == "absolute_error":
        return absolute_error(flat, labels, cap)
    if name == "squared_error":
        return squared_error(flat, labels, cap)
    raise NotUnderstood(f"{name!r} is no loss of a row.")


def bound_of(name: str, scale: float = 1.0, own: Own = NONE) -> float:
    """Return the largest loss of a row that a decision counts.

    Parameters
    ----------
    name : of the loss.
    scale : for errors of a regression: the largest error that counts, in the unit of the loss.
    own : losses of the project, which state theirs.
    """
    if name in own:
        return own[name].bound
    return {"log_loss": -math.log(CLIP), "brier": 1.0, "zero_one": 1.0}.get(name, scale)


def metric(name: str, outputs: FloatArray, labels: FloatArray, own: Own = NONE) -> float:
    """Return a metric over all rows; nan where it is undefined (no rows, or one class only for the area).

    Examples
    --------
    >>> metric("auc", np.array([[0.1], [0.4], [0.8]]), np.array([0.0, 0.0, 1.0]))
    1.0
    """
    return float(row_values(name, outputs, labels, own).mean()) if len(labels) else math.nan


def row_values(name: str, outputs: FloatArray, labels: FloatArray, own: Own = NONE) -> FloatArray:
    """Return what each row adds to a metric, shape (rows,): their mean is the metric, in its own unit.

    So the difference of two models has an interval in the unit of the metric, for the area and r2 too. The rows of an
    area are its structural components: the variance of their mean is DeLong's. All nan where it is undefined.

    References
    ----------
    DeLong, DeLong, Clarke-Pearson 1988, "Comparing the areas under two or more correlated ROC curves".

    Examples
    --------
    >>> row_values("r2", np.array([[1.0], [2.0]]), np.array([1.0, 3.0])).tolist()
    [1.0, 0.0]
    """
    if name == "accuracy":
        return np.asarray(1.0 - row_losses("zero_one", outputs, labels))
    if name == "auc":
        return _area_components(outputs[:, 0], labels)
    if name == "r2":
        spread = float(labels.var())
        errors = row_losses("squared_error", outputs, labels)
        return np.asarray(1.0 - errors / spread) if spread else np.full(len(labels), math.nan)
    return row_losses(name, outputs, labels, own=own)


def higher_is_better(name: str) -> bool:
    """Say which way a metric is good."""
    return name in ("accuracy", "auc", "r2")


def _area_components(scores: FloatArray, labels: FloatArray) -> FloatArray:
    positive = labels == 1
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return np.full(len(labels), math.nan)
    ranks = _ranks(scores)
    beaten = np.empty(len(scores))  # for a positive the share of negatives below it, for a negative of positives above
    beaten[positive] = (ranks[positive] - _ranks(scores[positive])) / m
    beaten[~positive] = 1.0 - (ranks[~positive] - _ranks(scores[~positive])) / n
    area = float(beaten[positive].mean())
    weight = np.where(positive, len(scores) / n, len(scores) / m)
    return np.asarray(area + weight * (beaten - area))


def _ranks(values: FloatArray) -> FloatArray:
    """Return the rank of each value from 1 on; equal ones share the middle of theirs.

    As SciPy's ``rankdata``, whose import alone takes a second of every worker's start.
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], dtype=np.float64)


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    return value.item() if isinstance(value, np.generic) else value
