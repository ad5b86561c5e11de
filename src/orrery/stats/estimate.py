"""What a classifier's loss should be where labels are not known yet: from its own probabilities, calibrated."""

from __future__ import annotations

import math

import numpy as np

from orrery.stats.calibrate import apply_platt, platt
from orrery.stats.checks import FloatArray
from orrery.stats.measure import NONE, Own, row_losses

LEAST_ROWS = 100  # labelled rows below which a calibration is not believed
LEAST_OF_A_CLASS = 10

Calibration = tuple[tuple[float, float], ...]
"""Slope and intercept of :func:`~orrery.stats.calibrate.platt` for each output column."""


def calibration_of(outputs: FloatArray, labels: FloatArray) -> Calibration | None:
    """Fit the calibration of each class against all others.

    Parameters
    ----------
    outputs
        Probability of class 1, shape (rows, 1), or of each class, shape (rows, classes).
    labels
        Class numbers, shape (rows,).

    Returns
    -------
    None where there are too few rows, or too few of a class, to believe it.
    """
    classes = max(outputs.shape[1], 2)
    counts = np.bincount(labels.astype(np.int64), minlength=classes)
    if len(labels) < LEAST_ROWS or counts.min() < LEAST_OF_A_CLASS:
        return None
    if outputs.shape[1] == 1:
        return (platt(outputs[:, 0], labels),)
    return tuple(platt(outputs[:, number], labels == number) for number in range(classes))


def expected_losses(
    name: str, outputs: FloatArray, calibration: Calibration, *, cap: float = math.inf, own: Own = NONE
) -> FloatArray:
    """Give the expected loss of each row, shape (rows,), if the calibrated probabilities come true.

    Parameters
    ----------
    name
        Of a loss of one row: log_loss, brier or zero_one.
    outputs
        What the model said, in the shapes of `calibration_of`. The loss is that of these; only how often each class
        will come is read from the calibrated ones.
    calibration
        Of `calibration_of`, on labelled rows that the model has not learned from.
    cap
        Largest loss of a row.
    own
        Losses of the project.

    References
    ----------
    Confidence-based performance estimation: Guillory et al. 2021, "Predicting with confidence on unseen distributions";
    Bialek et al. 2024, "Estimating model performance under covariate shift without labels".

    Examples
    --------
    >>> said = np.array([[0.9], [0.5]])
    >>> expected_losses("brier", said, ((1.0, 0.0),)).round(2).tolist()
    [0.09, 0.25]
    >>> expected_losses("zero_one", said, ((0.5, 0.0),)).round(2).tolist()  # 9 of 10 said, 3 of 4 come true
    [0.25, 0.5]
    """
    columns = [apply_platt(outputs[:, number], *repair) for number, repair in enumerate(calibration)]
    comes = np.column_stack(columns if len(columns) > 1 else [1 - columns[0], columns[0]])
    comes = comes / comes.sum(axis=1, keepdims=True)
    labels = (np.full(len(outputs), float(k)) for k in range(comes.shape[1]))
    losses = [row_losses(name, outputs, each, cap=cap, own=own) for each in labels]
    return np.asarray((comes * np.column_stack(losses)).sum(axis=1))
