"""Intervals for one look at a fixed set of rows, as gates take it.

They are *not* valid when looked at again and again; for that see `orrery.stats.confidence`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from orrery.errors import NotUnderstood
from orrery.stats.checks import probability, require


class Interval(NamedTuple):
    """An estimate with the range that the data leave for it."""

    estimate: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Say whether `value` is outside of the interval."""
        return not self.low <= value <= self.high


def wilson(successes: float, n: float, alpha: float = 0.05) -> Interval:
    """Score interval of a share, honest for small groups and for shares near 0 and 1.

    Parameters
    ----------
    successes, n
        Counts, ``0 <= successes <= n``. With ``n = 0`` nothing is known: estimate nan, interval (0, 1).
    alpha
        Risk that the interval misses the true share (two-sided).

    References
    ----------
    Wilson 1927; Brown, Cai, DasGupta 2001, "Interval estimation for a binomial proportion".

    Examples
    --------
    >>> [round(x, 3) for x in wilson(0, 20)]
    [0.0, 0.0, 0.161]
    """
    probability(alpha, "alpha")
    require(0 <= successes <= n, f"{successes} successes of {n} are impossible.", "Give counts with successes <= n.")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0)
    z2 = float(special.ndtri(1 - alpha / 2)) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # The formula touches 0 and 1 exactly at the ends; rounding must not step over the estimate.
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def paired_interval(d: npt.ArrayLike, alpha: float = 0.05, blocks: npt.ArrayLike | None = None) -> Interval:
    """Student interval of the mean of paired differences, robust to dependence inside blocks.

    Parameters
    ----------
    d
        One difference for each row, such as loss of the champion minus loss of the challenger on that row.
    alpha
        Risk that the interval misses the true mean (two-sided).
    blocks
        For each row the unit that is independent (a day, a user). The estimate stays the mean over rows; its error is
        then taken between blocks (cluster-robust, degrees of freedom = blocks - 1). With blocks of equal size this
        is exactly the t interval of the block means.

    Returns
    -------
    Interval
        With fewer than two rows (or blocks) the ends are infinite: the data say nothing about the error.

    References
    ----------
    Liang, Zeger 1986; Cameron, Miller 2015, "A practitioner's guide to cluster-robust inference".

    Examples
    --------
    >>> d = [0.1, 0.2, 0.3, 0.2]
    >>> [round(x, 3) for x in paired_interval(d)]
    [0.2, 0.07, 0.33]
    >>> [round(x, 3) for x in paired_interval(d, blocks=["mon", "mon", "tue", "tue"])]
    [0.2, -0.435, 0.835]
    """
    probability(alpha, "alpha")
    values = np.asarray(d, dtype=np.float64).ravel()
    require(bool(np.isfinite(values).all()), "A paired difference is not a number.", "Leave out rows without a label.")
    if len(values) == 0:
        return Interval(math.nan, -math.inf, math.inf)
    mean = float(values.mean())
    deviations = values - mean
    if blocks is not None:
        labels = np.asarray(blocks).ravel()
        if len(labels) != len(values):
            raise NotUnderstood(
                f"{len(values)} differences but {len(labels)} block labels.", todo="Give one for each row."
            )
        _, codes = np.unique(labels, return_inverse=True)
        deviations = np.bincount(codes, weights=deviations).astype(np.float64)
    units = len(deviations)
    if units < 2:
        return Interval(mean, -math.inf, math.inf)
    error = math.sqrt(units / (units - 1) * float(deviations @ deviations)) / len(values)
    half = float(special.stdtrit(units - 1, 1 - alpha / 2)) * error
    return Interval(mean, mean - half, mean + half)
