"""Detectors that keep a promise about false alarms: Shiryaev-Roberts e-detectors.

``SR_t = L_t * (SR_{t-1} + 1)``, where ``L_t`` is one bet against "all is well". While all is well the expected time to
``SR >= ARL`` is at least the promised average run length ``ARL``, under any dependence over time. A mean of several SR
(bets, features, directions) keeps the promise. Everything is computed as ``log(1 + SR)``: it starts at 0, is never
negative and never overflows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from orrery.errors import NotUnderstood
from orrery.stats.checks import LARGEST_EXPONENT, FloatArray, bounded, require

CHUNK = 4096  # most looks computed at once
FIRST_CHUNK = 64  # after an alarm: little work is thrown away where it alarms again and again


def log_mean(log_one_plus: FloatArray) -> FloatArray:
    """Give ``log(1 + mean SR)`` over the last axis, from ``log(1 + SR)``."""
    mean = np.logaddexp.reduce(log_one_plus, axis=-1) - math.log(log_one_plus.shape[-1])
    return np.asarray(np.maximum(mean, 0.0))  # SR is never negative; rounding makes it so by 1e-16


def log_bet(bets: FloatArray, share: FloatArray, n: FloatArray, null: FloatArray) -> FloatArray:
    """Logarithm of the e-value of `n` units whose mean is `share`, against a mean of at most `null`.

    For 0/1 units it is their product. For units within [0, 1] it is never more than that (log is concave), so valid.
    """
    k = n * share
    return np.asarray(k * np.log1p(bets * (1 - null)) + (n - k) * np.log1p(-bets * null))


def run_length(arl: float) -> float:
    """Give back the promised average run length, or raise `NotUnderstood`."""
    require(
        arl > 1,
        f"An average run length of {arl:g} looks is no promise.",
        "Give the looks between false alarms, such as 1000.",
    )
    return float(arl)


def _smallest(bet: float) -> float:
    require(0 < bet <= 0.9, f"The smallest bet is {bet:g}.", "Give a share of the largest bet, 0.9 at most.")
    return float(bet)


class MeanDetector:
    """Finds when the mean of a stream within [0, 1] has risen above a limit.

    Null: ``E[x | past] <= limit + tolerance``. Used for decay (losses of matured labels in request order; the limit
    is the upper bound of the holdout loss) and for the share of a segment.

    Parameters
    ----------
    limit, tolerance
        In the unit of the stream; together above 0 and below 1.
    arl
        Looks between two false alarms, on average at least. A look is one value of the stream.
    n_bets, smallest_bet
        Size of the geometric grid of bets, which goes from this share of the largest possible bet to 90 % of it. The
        default finds small changes in many rows. Where a look is the mean of a whole block (a day) and `arl` is in
        the hundreds, take 0.3: a bet too small to win within one run length only spends false alarms.

    References
    ----------
    Shin, Ramdas, Rinaldo 2023, "E-detectors: a nonparametric framework for sequential change detection".

    Examples
    --------
    >>> detector = MeanDetector(limit=0.1, tolerance=0.02, arl=1000)
    >>> detector.update([0, 0, 0, 0, 0, 0, 0, 0, 0, 1] * 20)
    []
    >>> detector.update([0, 1] * 100)[0] < 50
    True
    """

    def __init__(
        self,
        limit: float,
        tolerance: float = 0.0,
        arl: float = 1000.0,
        n_bets: int = 8,
        smallest_bet: float = 0.01,
    ) -> None:
        self.limit, self.tolerance, self.arl, self.n_bets = float(limit), float(tolerance), run_length(arl), int(n_bets)
        self._null = limit + tolerance
        require(
            0 < self._null < 1 and tolerance >= 0,
            f"Nothing within [0, 1] can be tested against {limit:g} + {tolerance:g}.",
            "Give limit and tolerance in the unit of the stream, together between 0 and 1.",
        )
        require(n_bets >= 1, f"n_bets is {n_bets}.", "Give 1 or more; 8 is the default.")
        self.smallest_bet = _smallest(smallest_bet)
        self._bets = np.geomspace(smallest_bet, 0.9, n_bets) / self._null
        self._evidence = np.zeros(n_bets)  # log(1 + SR) for each bet
        self._last = 0.0  # the same, mean over bets, at the last look before a reset

    def update(self, x: npt.ArrayLike, counts: npt.ArrayLike | None = None) -> list[int]:
        """Look at new values in their order.

        Parameters
        ----------
        x
            Values within [0, 1], one for each look.
        counts
            For each look the number of *independent* units whose mean it is; by default 1.

        Returns
        -------
        list of int
            Positions in `x` where it alarmed; empty means quiet. After an alarm it begins anew, so a change that stays
            alarms again and again, and silence means that it is gone.
        """
        values = bounded(x, 0.0, 1.0, "the stream")
        if counts is None:
            log_l = np.log1p(np.multiply.outer(values - self._null, self._bets))
        else:
            sizes = bounded(counts, 0.0, math.inf, "the counts")
            if len(sizes) != len(values):
                raise NotUnderstood(
                    f"{len(values)} values but {len(sizes)} counts.", todo="Give one count for each value."
                )
            log_l = log_bet(self._bets, values[:, None], sizes[:, None], np.asarray(self._null))
        return self._follow(log_l)

    def look(self, units: npt.ArrayLike) -> bool:
        """Look once at units that came together and are independent of each other, such as the rows of a day.

        Parameters
        ----------
        units
            Values within [0, 1], in any order. Where they may depend on each other, give `update` their mean instead:
            then they are one unit.

        Returns
        -------
        bool
            Whether it alarms; then it begins anew. Nothing is no look.
        """
        values = bounded(units, 0.0, 1.0, "the units")
        if len(values) == 0:
            return False
        log_l = np.log1p(np.multiply.outer(values - self._null, self._bets)).sum(axis=0, keepdims=True)
        return bool(self._follow(log_l))

    def _follow(self, log_l: FloatArray) -> list[int]:
        """Take in one bet for each look, shape (looks, bets); give the looks that alarm."""
        alarms: list[int] = []
        start, size = 0, FIRST_CHUNK
        while start < len(log_l):
            total = np.cumsum(log_l[start : start + size], axis=0)
            # 1 + SR_t = exp(S_t) * (1 + SR_0 + sum over s <= t of exp(-S_s)), with S the running sum of log L
            path = total + np.logaddexp.accumulate(np.vstack([self._evidence, -total]))[1:]
            means = log_mean(path)
            over = np.flatnonzero(means >= math.log1p(self.arl))
            stop = int(over[0]) if len(over) else len(means) - 1
            self._last = float(means[stop])
            self._evidence = np.zeros(self.n_bets) if len(over) else path[stop]
            size = min(2 * size, CHUNK)
            if len(over):
                alarms.append(start + stop)
                size = FIRST_CHUNK
            start += stop + 1
        return alarms

    @property
    def statistic(self) -> float:
        """Mean SR at the last look; it alarms from `arl` on."""
        return math.expm1(min(self._last, LARGEST_EXPONENT))

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, as JSON-able values."""
        return {
            "limit": self.limit,
            "tolerance": self.tolerance,
            "arl": self.arl,
            "n_bets": self.n_bets,
            "smallest_bet": self.smallest_bet,
            "evidence": self._evidence.tolist(),
            "last": self._last,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MeanDetector:
        """Go on where `to_state` stopped."""
        detector = cls(state["limit"], state["tolerance"], state["arl"], state["n_bets"], state["smallest_bet"])
        detector._evidence = np.asarray(state["evidence"], dtype=np.float64)
        detector._last = state["last"]
        return detector


class CalibrationDrift:
    """Finds when the probabilities of a binary classifier no longer come true, on average over a block.

    Null: ``-tolerance <= E[mean(label - probability) | past] <= tolerance`` in each block. The block (a day) is one
    look and one unit, so rows of one block may depend on each other in any way. The labels can only pull the mean
    residual to between ``-mean(probability)`` and ``1 - mean(probability)``; that is known before they come, and sets
    the bets.

    Parameters
    ----------
    tolerance
        Tolerated difference between event rate and mean probability, 0 to 1.
    arl
        Blocks between two false alarms, on average at least.
    n_bets, smallest_bet
        Size of the geometric grid of bets in each direction, and its low end as in `MeanDetector`. On simulated days
        (rate .2, day's sd .1, ARL 100) 0.3 instead of 0.01 gave 0.8 instead of 6.0 false alarms in 1000 quiet days,
        and found a shift of .08 in 25 instead of 30 days.

    References
    ----------
    Shin, Ramdas, Rinaldo 2023 (see `MeanDetector`); Dawid 1982, "The well-calibrated Bayesian".

    Examples
    --------
    >>> detector = CalibrationDrift(tolerance=0.02, arl=100)
    >>> any(detector.update([0.2] * 10, [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]) for _ in range(50))
    False
    >>> any(detector.update([0.2] * 10, [1, 0, 1, 0, 1, 0, 1, 0, 1, 0]) for _ in range(50))
    True
    >>> detector.direction
    'under-predicted'
    """

    def __init__(self, tolerance: float = 0.02, arl: float = 100.0, n_bets: int = 4, smallest_bet: float = 0.3) -> None:
        require(0 <= tolerance < 1, f"The tolerance is {tolerance:g}.", "Give a difference of rates, such as 0.02.")
        require(n_bets >= 1, f"n_bets is {n_bets}.", "Give 1 or more; 4 is the default.")
        self.tolerance, self.arl, self.n_bets = float(tolerance), run_length(arl), int(n_bets)
        self.smallest_bet = _smallest(smallest_bet)
        self._fractions = np.geomspace(smallest_bet, 0.9, n_bets)
        self._evidence = np.zeros((2, n_bets))  # log(1 + SR): events under-predicted, over-predicted
        self._last = 0.0
        self.direction = ""  # which way the last look leaned: "under-predicted" or "over-predicted"
        self.residual = 0.0  # mean(label - probability) of the last block

    def update(self, probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> bool:
        """Look at one block of predictions with their labels (0 or 1); say whether it alarms.

        After an alarm it begins anew. A block without rows is no look.
        """
        p, y = bounded(probabilities, 0.0, 1.0, "the probabilities"), bounded(labels, 0.0, 1.0, "the labels")
        if len(p) != len(y):
            raise NotUnderstood(f"{len(p)} probabilities but {len(y)} labels.", todo="Give one label for each row.")
        if len(p) == 0:
            return False
        expected = float(p.mean())
        self.residual = float(y.mean()) - expected
        for side, (sign, room) in enumerate(((1, expected), (-1, 1 - expected))):
            worst = max(room + self.tolerance, 0.01)  # probabilities of exactly 0 would allow a bet without limit
            log_l = np.log1p(self._fractions / worst * (sign * self.residual - self.tolerance))
            self._evidence[side] = np.logaddexp(0.0, log_l + self._evidence[side])
        sides = log_mean(self._evidence)
        self.direction = "under-predicted" if sides[0] >= sides[1] else "over-predicted"
        self._last = float(log_mean(self._evidence.ravel()))
        alarm = self._last >= math.log1p(self.arl)
        if alarm:
            self._evidence[:] = 0.0
        return alarm

    @property
    def statistic(self) -> float:
        """Mean SR at the last look; it alarms from `arl` on."""
        return math.expm1(min(self._last, LARGEST_EXPONENT))

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, as JSON-able values."""
        return {
            "tolerance": self.tolerance,
            "arl": self.arl,
            "n_bets": self.n_bets,
            "smallest_bet": self.smallest_bet,
            "evidence": self._evidence.tolist(),
            "last": self._last,
            "direction": self.direction,
            "residual": self.residual,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CalibrationDrift:
        """Go on where `to_state` stopped."""
        detector = cls(state["tolerance"], state["arl"], state["n_bets"], state["smallest_bet"])
        detector._evidence = np.asarray(state["evidence"], dtype=np.float64)
        detector._last, detector.direction, detector.residual = state["last"], state["direction"], state["residual"]
        return detector
