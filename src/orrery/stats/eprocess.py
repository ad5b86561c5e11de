"""Evidence that can be looked at any number of times: e-processes for paired comparisons.

An e-process is a bet against the null hypothesis: where that is true, the expected wealth never exceeds 1 at any
stopping time, so wealth of ``1 / alpha`` is reached with probability at most ``alpha`` *ever* (Ville's inequality).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from orrery.stats.checks import LARGEST_EXPONENT, FloatArray, bounded, require
from orrery.stats.confidence import MeanSequence
from orrery.stats.intervals import Interval

CHUNK = 65_536  # rows bet on at once, to bound memory


def log_mean_e(log_e: npt.ArrayLike) -> float:
    """Give the natural logarithm of the mean of e-processes: evidence that not all of their nulls are true.

    The mean is an e-process itself, however those that it is made of depend on each other. So where all nulls are true
    it ever reaches ``1 / alpha`` with probability at most alpha: one budget for all of them. It is there no later than
    the first of m that reaches ``m / alpha`` (Bonferroni), and sooner where several nulls are false.

    References
    ----------
    Vovk, Wang 2021, "E-values: calibration, combination and applications".

    Examples
    --------
    >>> round(math.exp(log_mean_e(np.log([60.0, 1.0, 0.5]))), 2)
    20.5
    """
    values = np.asarray(log_e, dtype=np.float64)
    require(values.size > 0, "There is no evidence to take the mean of.", "Give one e-process at least.")
    return float(np.logaddexp.reduce(values.ravel())) - math.log(values.size)


def mcnemar_log_e(wins: npt.ArrayLike, losses: npt.ArrayLike, a: float = 10.0) -> FloatArray:
    """Give the natural logarithm of the McNemar e-value for counts of any shape.

    Examples
    --------
    >>> mcnemar_log_e([0, 80, 2_000_000], [0, 20, 0]).round(1).tolist()
    [-0.0, 15.6, 1386176.5]
    """
    w, n_l = np.asarray(wins, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    p, q = n_l + a, w + a
    return np.asarray(
        (w + n_l) * math.log(2) + special.betaln(q, p) + _log_half_betainc(p, q) - special.betaln(a, a) + math.log(2)
    )


def _log_half_betainc(p: FloatArray, q: FloatArray) -> FloatArray:
    """Log I_½(p, q), also where I_½ is below the smallest double."""
    p, q = np.broadcast_arrays(p, q)
    direct = np.asarray(special.betainc(p, q, 0.5))
    tiny = direct < 1e-250
    result = np.log(np.where(tiny, 1.0, direct))
    if tiny.any():
        a, b = p[tiny], q[tiny]
        front = -(a + b) * math.log(2) - np.log(a) - special.betaln(a, b)
        result = np.asarray(result)
        result[tiny] = front - np.log(_continued_fraction(a, b))
    return result


def _continued_fraction(a: FloatArray, b: FloatArray) -> FloatArray:
    """``1 + d1/(1 + d2/(1 + ...))`` of the incomplete beta function at ½ (DLMF 8.17.22), by Lentz's method.

    Only used far in the tail, where a is much larger than b and few terms are enough.
    """
    f = c = np.ones_like(a)
    d = np.zeros_like(a)
    for k in range(1, 2000):
        m = k // 2
        if k % 2:
            term = -(a + m) * (a + b + m) * 0.5 / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * 0.5 / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        f = f * c * d
        if np.all(np.abs(c * d - 1) < 1e-14):
            break
    return f


class McNemarE:
    """Evidence that the challenger is right more often than the champion, from the rows where only one of them is.

    Null: a discordant pair is won with probability at most ½, whatever came before. Wealth is a mixture over the win
    probabilities above ½ with weights Beta(a, a):
    ``E = 2^(W+L) B(W+a, L+a) I_½(L+a, W+a) / (B(a, a) / 2)``. It depends on the counts alone, so batches do not matter.

    Parameters
    ----------
    a
        How near to ½ the win probability is expected: 10 is best for 55 to 70 %, 1 knows nothing.

    References
    ----------
    McNemar 1947; Ramdas, Grünwald, Vovk, Shafer 2023, "Game-theoretic statistics and safe anytime-valid inference".

    Examples
    --------
    >>> test = McNemarE()
    >>> test.update(wins=60, losses=25)
    >>> round(test.e)
    351
    """

    def __init__(self, a: float = 10.0) -> None:
        require(a > 0, f"a is {a:g}.", "Give a number above 0; 10 is the default.")
        self.a = float(a)
        self.wins = 0
        self.losses = 0

    def update(self, wins: npt.ArrayLike, losses: npt.ArrayLike) -> None:
        """Add counts of won and lost discordant pairs; arrays are summed."""
        new_wins, new_losses = int(np.sum(wins)), int(np.sum(losses))
        require(new_wins >= 0 and new_losses >= 0, "A count is below zero.", "Give counts of new pairs.")
        self.wins += new_wins
        self.losses += new_losses

    @property
    def log_e(self) -> float:
        """Natural logarithm of the evidence; 0 at the start."""
        return float(mcnemar_log_e(self.wins, self.losses, self.a))

    @property
    def e(self) -> float:
        """The evidence (wealth of a gambler who began with 1), at most 1e304."""
        return math.exp(min(self.log_e, LARGEST_EXPONENT))

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, as JSON-able values."""
        return {"a": self.a, "wins": self.wins, "losses": self.losses}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> McNemarE:
        """Go on where `to_state` stopped."""
        test = cls(state["a"])
        test.wins, test.losses = state["wins"], state["losses"]
        return test


class BettingE:
    """Evidence that the mean of bounded differences is above ``-margin``.

    Null: ``E[d | past] <= -margin``, that is, the challenger is worse by the margin or more. Wealth is the mean over a
    geometric grid of bets of ``prod(1 + bet * (d + margin))``: exact at every moment and under any batching.

    Parameters
    ----------
    margin
        Tolerated loss, in the unit of ``d``; 0 asks for superiority, above 0 for non-inferiority.
    n_bets
        Size of the grid, from 1 % to 90 % of the largest bet that cannot go bankrupt.
    low, high
        Bounds of ``d``. ``d`` is *loss of the champion minus loss of the challenger* for one independent unit. Where
        rows of one day depend on each other, the day is the unit and ``d`` is the mean of that day.

    References
    ----------
    Waudby-Smith, Ramdas 2024, "Estimating means of bounded random variables by betting".

    Examples
    --------
    >>> test = BettingE(margin=0.01)
    >>> test.update([0.2, 0.0, 0.1, -0.05] * 40)
    >>> test.e > 20, round(test.mean, 4), test.n
    (True, 0.0625, 160)
    """

    def __init__(self, margin: float = 0.0, n_bets: int = 16, low: float = -1.0, high: float = 1.0) -> None:
        require(
            low < -margin < high,
            f"A margin of {margin:g} leaves nothing to test on differences within [{low:g}, {high:g}].",
            "Give a margin smaller than the largest possible difference.",
        )
        require(n_bets >= 1, f"n_bets is {n_bets}.", "Give 1 or more; 16 is the default.")
        self.margin, self.n_bets = float(margin), int(n_bets)
        self._effect = MeanSequence(low, high)
        self._bets = np.geomspace(0.01, 0.9, n_bets) / -(low + margin)
        self._log_wealth = np.zeros(n_bets)

    def update(self, d: npt.ArrayLike) -> None:
        """Bet on new differences, one for each independent unit, in the order in which they came."""
        values = bounded(d, self._effect.low, self._effect.high, "the differences")
        self._effect.update(values)
        for start in range(0, len(values), CHUNK):
            part = values[start : start + CHUNK] + self.margin
            self._log_wealth += np.log1p(np.multiply.outer(part, self._bets)).sum(axis=0)

    @property
    def log_e(self) -> float:
        """Natural logarithm of the evidence; 0 at the start."""
        return float(np.logaddexp.reduce(self._log_wealth)) - math.log(self.n_bets)

    @property
    def e(self) -> float:
        """The evidence (wealth of a gambler who began with 1), at most 1e304."""
        return math.exp(min(self.log_e, LARGEST_EXPONENT))

    @property
    def n(self) -> int:
        """Number of units seen."""
        return self._effect.n

    @property
    def mean(self) -> float:
        """Mean difference so far; nan before the first."""
        return self._effect.mean

    def interval(self, alpha: float = 0.05) -> Interval:
        """Give the mean difference with a confidence sequence, valid at every look."""
        return self._effect.interval(alpha)

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, as JSON-able values."""
        return {
            "margin": self.margin,
            "n_bets": self.n_bets,
            "effect": self._effect.to_state(),
            "log_wealth": self._log_wealth.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> BettingE:
        """Go on where `to_state` stopped."""
        effect = MeanSequence.from_state(state["effect"])
        test = cls(state["margin"], state["n_bets"], effect.low, effect.high)
        test._effect = effect
        test._log_wealth = np.asarray(state["log_wealth"], dtype=np.float64)
        return test
