"""Losses row by row, so that two models can be compared on the same rows. Lower is better."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from orrery.errors import NotUnderstood
from orrery.stats.checks import FloatArray, bounded


def _pair(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    left, right = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if left.shape[:1] != right.shape:
        raise NotUnderstood(
            f"Predictions of shape {left.shape} do not fit labels of shape {right.shape}.",
            todo="Give one label for each row of predictions.",
        )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise NotUnderstood("A prediction or a label is not a number.", todo="Leave out rows that have no label yet.")
    return left, right


def _classes(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Bring both shapes of a classifier's output to (rows, classes) and the labels to one-hot."""
    probabilities, codes = _pair(predictions, labels)
    bounded(probabilities, 0.0, 1.0, "the probabilities")
    if probabilities.ndim == 1:
        probabilities = np.column_stack([1 - probabilities, probabilities])
    classes = probabilities.shape[1]
    if not np.isin(codes, np.arange(classes)).all():
        raise NotUnderstood(
            f"A label is not one of the class numbers 0 to {classes - 1}.", todo="Encode the labels first."
        )
    return probabilities, np.eye(classes)[codes.astype(np.int64)]


def brier(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Brier score of each row, in [0, 1].

    Parameters
    ----------
    probabilities
        Of class 1, shape (rows,); or of each class, shape (rows, classes).
    labels
        Class numbers 0, 1, ... , shape (rows,).

    Returns
    -------
    array of shape (rows,)
        Half the squared distance to the one-hot label: for two classes this is ``(p - y) ** 2``.

    References
    ----------
    Brier 1950, "Verification of forecasts expressed in terms of probability".

    Examples
    --------
    >>> brier([0.8, 0.5], [1, 0]).round(2).tolist()
    [0.04, 0.25]
    """
    shares, truth = _classes(probabilities, labels)
    loss: FloatArray = ((shares - truth) ** 2).sum(axis=1) / 2
    return loss


def log_loss(probabilities: npt.ArrayLike, labels: npt.ArrayLike, clip: float = 1e-6) -> FloatArray:
    """Negative log-likelihood of each row in nats, in [0, -log(clip)].

    Shapes are those of `brier`. `clip` is the smallest probability believed: it makes the loss bounded, which an
    e-process needs (``PairedTest(bound=-log(clip))``).

    Examples
    --------
    >>> log_loss([1.0, 0.5], [1, 0]).round(3).tolist()
    [0.0, 0.693]
    """
    shares, truth = _classes(probabilities, labels)
    loss: FloatArray = np.minimum(-np.log(np.maximum((shares * truth).sum(axis=1), clip)), -math.log(clip))
    return np.abs(loss)  # -log(1) is -0.0


def zero_one(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Give 1 where the predicted class is wrong, else 0. Classes may be numbers or words.

    Examples
    --------
    >>> zero_one(["a", "b"], ["a", "a"]).tolist()
    [0.0, 1.0]
    """
    left, right = np.asarray(predictions), np.asarray(labels)
    if left.shape != right.shape:
        raise NotUnderstood(
            f"Predictions of shape {left.shape} do not fit labels of shape {right.shape}.",
            todo="Give one predicted class and one label for each row.",
        )
    loss: FloatArray = (left != right).astype(np.float64)
    return loss


def absolute_error(predictions: npt.ArrayLike, labels: npt.ArrayLike, cap: float = math.inf) -> FloatArray:
    """Absolute error of each row in the unit of the label, at most `cap` (an e-process needs a bound).

    Examples
    --------
    >>> absolute_error([3.0, 100.0], [1.0, 0.0], cap=10).tolist()
    [2.0, 10.0]
    """
    left, right = _pair(predictions, labels)
    return np.minimum(np.abs(left - right), cap)


def squared_error(predictions: npt.ArrayLike, labels: npt.ArrayLike, cap: float = math.inf) -> FloatArray:
    """Squared error of each row in the squared unit of the label, at most `cap` (an e-process needs a bound).

    Examples
    --------
    >>> squared_error([3.0], [1.0]).tolist()
    [4.0]
    """
    left, right = _pair(predictions, labels)
    return np.minimum((left - right) ** 2, cap)
