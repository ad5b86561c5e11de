"""How like the rows of now is each row of then? Ratios of densities, and how many rows are left to judge by."""

from __future__ import annotations

import math

import numpy as np

from orrery.stats.checks import FloatArray

PRIOR = 1.0
"""Standard deviation of a coefficient before anything is seen: what is not known is drawn towards "nothing moved"."""


def density_ratio(then: FloatArray, now: FloatArray, rows: int) -> FloatArray:
    """Weigh rows of then so that they look as rows of now do: how much more likely each is now, its mean 1.

    The logarithm of the ratio is linear in the columns. Its coefficients are those with which the rows of now are
    most likely, with a normal prior: so the weighted means of the columns become those of now as far as so many rows
    can tell. Weights are cut at the root of the number of rows, times the mean (truncated importance weights).

    Parameters
    ----------
    then
        Rows in standard deviations, shape (rows, columns).
    now
        Mean of each column now, shape (columns,).
    rows
        That these means are of: so much they count against the prior.

    References
    ----------
    Sugiyama et al. 2008, "Direct importance estimation for covariate shift adaptation"; Tsuboi et al. 2009, its
    log-linear form; Ionides 2008, "Truncated importance sampling".

    Examples
    --------
    >>> then = np.random.default_rng(0).normal(size=(4000, 1))
    >>> weights = density_ratio(then, np.array([0.8]), rows=500)
    >>> round(float(np.average(then[:, 0], weights=weights)), 2)
    0.8
    >>> 4000 / 2.2 < effective_size(weights) < 4000 / 1.6  # exp(0.8 ** 2) is 1.9
    True
    """
    from scipy.optimize import minimize

    def cost(coefficients: FloatArray) -> tuple[float, FloatArray]:
        tilt = then @ coefficients
        top = float(tilt.max())
        weights = np.exp(tilt - top)
        total = float(weights.sum())
        likelihood = float(coefficients @ now) - (top + math.log(total / len(then)))
        slope = now - weights @ then / total
        prior = coefficients / PRIOR**2 / rows
        return float(coefficients @ prior) / 2 - likelihood, prior - slope

    tilt = then @ minimize(cost, np.zeros(then.shape[1]), jac=True, method="L-BFGS-B").x
    weights = np.exp(tilt - tilt.max())
    weights = np.minimum(weights / weights.mean(), math.sqrt(len(then)))
    return np.asarray(weights / weights.mean())


def effective_size(weights: FloatArray) -> float:
    """Give the number of rows of equal weight whose mean is as precise as that of these (Kish 1965).

    Examples
    --------
    >>> effective_size(np.ones(10)), effective_size(np.array([3.0, 0.0, 0.0])), effective_size(np.zeros(3))
    (10.0, 1.0, 0.0)
    """
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares else 0.0
