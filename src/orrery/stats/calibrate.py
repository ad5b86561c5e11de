"""Repair of a classifier's probabilities by two numbers, without training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from orrery.errors import NotUnderstood
from orrery.stats.checks import FloatArray, bounded


def _logit(probabilities: npt.ArrayLike) -> FloatArray:
    clipped = np.clip(bounded(probabilities, 0.0, 1.0, "the probabilities"), 1e-6, 1 - 1e-6)
    return np.asarray(special.logit(clipped), dtype=np.float64)


def platt(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, ridge: float = 1.0, weights: FloatArray | None = None
) -> tuple[float, float]:
    """Fit ``logit(P(label)) = slope * logit(probability) + intercept``.

    Parameters
    ----------
    probabilities
        What the model said for class 1, shape (rows,).
    labels
        What came, 0 or 1, shape (rows,).
    ridge
        Pull towards "nothing to repair" (slope 1, intercept 0), as a number of rows: 1.0 is a normal prior of
        standard deviation 1 on both, negligible from some hundred rows on. With ``ridge=0`` this is Cox's
        calibration slope and intercept (slope < 1: overconfident; intercept > 0: events are under-predicted).
    weights
        As how many rows each counts, shape (rows,); by default 1.

    Returns
    -------
    (slope, intercept)
        (1, 0) where there are no rows.

    References
    ----------
    Cox 1958, "Two further applications of a model for binary regression"; Platt 1999, "Probabilistic outputs for
    support vector machines".

    Examples
    --------
    >>> platt([], [])
    (1.0, 0.0)
    >>> slope, intercept = platt([0.1, 0.9] * 200, [0, 1, 1, 0, 0, 1, 0, 1] * 50)
    >>> round(slope, 2)  # 3 of 4 are right where 9 of 10 were promised
    0.5
    """
    x = _logit(probabilities)
    y = bounded(labels, 0.0, 1.0, "the labels")
    if len(x) != len(y):
        raise NotUnderstood(f"{len(x)} probabilities but {len(y)} labels.", todo="Give one label for each row.")
    counts = np.ones_like(x) if weights is None else weights
    design = np.column_stack([x, np.ones_like(x)])
    prior = np.array([1.0, 0.0])

    def cost(theta: FloatArray) -> float:
        z = design @ theta
        return float(counts @ (np.logaddexp(0, z) - y * z) + ridge / 2 * ((theta - prior) ** 2).sum())

    theta, value = prior.copy(), cost(prior)
    for _ in range(50):
        fitted = special.expit(design @ theta)
        gradient = design.T @ (counts * (fitted - y)) + ridge * (theta - prior)
        # 1e-9 keeps the curvature invertible where all probabilities are alike and there is no ridge
        curvature = (design.T * (counts * fitted * (1 - fitted))) @ design + (ridge + 1e-9) * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (lower := cost(theta - size * step)) > value and size > 1e-6:
            size /= 2
        theta, gain, value = theta - size * step, value - lower, lower
        if gain < 1e-12 * (1 + abs(value)):
            break
    return float(theta[0]), float(theta[1])


def apply_platt(probabilities: npt.ArrayLike, slope: float, intercept: float) -> FloatArray:
    """Give the repaired probabilities of class 1.

    Examples
    --------
    >>> apply_platt([0.1, 0.9], 1.0, 0.0).round(6).tolist()
    [0.1, 0.9]
    """
    return np.asarray(special.expit(slope * _logit(probabilities) + intercept), dtype=np.float64)
