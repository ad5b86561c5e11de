"""An interval that stays true however often it is looked at."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from orrery.stats.checks import bounded, probability, require
from orrery.stats.intervals import Interval

BURN_IN = 50  # units before the estimated variance is believed


class MeanSequence:
    """Running mean of bounded values with a confidence sequence.

    ``mean ± s * sqrt(2 (t r² + 1) / (t² r²) * log(sqrt(t r² + 1) / alpha))``, where ``s`` is the standard deviation
    seen so far. Asymptotic, so for the first 50 units ``s`` is half of the range instead: then the same formula is
    Robbins' mixture bound for bounded values, which holds exactly.

    Parameters
    ----------
    low, high
        Bounds of the values, in their unit.
    tightest_at
        Number of units where the interval shall be as narrow as possible. It must be chosen before the data.

    References
    ----------
    Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence
    sequences"; Robbins 1970, "Statistical methods related to the law of the iterated logarithm".

    Examples
    --------
    >>> effect = MeanSequence(-1, 1)
    >>> effect.update([0.1, 0.3] * 500)
    >>> [round(x, 3) for x in effect.interval(alpha=0.05)]
    [0.2, 0.19, 0.21]
    """

    def __init__(self, low: float = -1.0, high: float = 1.0, tightest_at: int = 1000) -> None:
        require(low < high, f"The bounds [{low:g}, {high:g}] hold no values.", "Give low < high.")
        require(tightest_at >= 1, f"tightest_at is {tightest_at}.", "Give a number of units, 1 or more.")
        self.low, self.high, self.tightest_at = float(low), float(high), int(tightest_at)
        self.n = 0
        self._total = 0.0
        self._squares = 0.0

    def update(self, values: npt.ArrayLike) -> None:
        """Add values, one for each independent unit."""
        array = bounded(values, self.low, self.high, "the stream")
        self.n += len(array)
        self._total += float(array.sum())
        self._squares += float(array @ array)

    @property
    def mean(self) -> float:
        """The mean so far; nan before the first value."""
        return self._total / self.n if self.n else math.nan

    def interval(self, alpha: float = 0.05) -> Interval:
        """Give mean and interval; the whole range before the first value."""
        probability(alpha, "alpha")
        if self.n == 0:
            return Interval(math.nan, self.low, self.high)
        if self.n < BURN_IN:
            spread = (self.high - self.low) / 2
        else:
            spread = math.sqrt(max(0.0, self._squares / self.n - self.mean**2))
        rate = -2 * math.log(alpha)
        r2 = (rate + math.log1p(rate)) / self.tightest_at
        grown = self.n * r2 + 1
        half = spread * math.sqrt(2 * grown / (self.n**2 * r2) * (math.log(grown) / 2 - math.log(alpha)))
        return Interval(self.mean, max(self.low, self.mean - half), min(self.high, self.mean + half))

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, as JSON-able values."""
        return {
            "low": self.low,
            "high": self.high,
            "tightest_at": self.tightest_at,
            "n": self.n,
            "total": self._total,
            "squares": self._squares,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MeanSequence:
        """Go on where `to_state` stopped."""
        sequence = cls(state["low"], state["high"], state["tightest_at"])
        sequence.n, sequence._total, sequence._squares = state["n"], state["total"], state["squares"]
        return sequence
