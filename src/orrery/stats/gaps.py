"""Are groups treated alike? One alarm for all groups and rates, with a bounded rate of false alarms."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orrery.stats.checks import LARGEST_EXPONENT, FloatArray, bounded, probability, require
from orrery.stats.confidence import MeanSequence
from orrery.stats.detector import log_bet, log_mean, run_length

Outcome = Literal["pass", "fail", "insufficient data"]

SELECTED, FOUND, FALSE = range(3)
"""Rates that are compared: of all rows those selected; of the positive ones (true positive rate); of the negative ones
(false positive rate)."""
CRITERIA = ("selected less", "selected more", "found less", "found more", "falsely less", "falsely more")
"""What may be wrong with a group beside the others; criterion ``2 * rate`` and ``2 * rate + 1`` are of one rate."""
ALPHA = 0.05  # risk that any of the outcomes is ever wrong


class GroupGaps:
    """Bets for each group that a rate of its rows is too far from that of all others.

    Null: the selection rate of each group is between ``ratio`` and ``1 / ratio`` times that of the others, and its true
    and false positive rates are within ``gap`` of theirs. The bets of all groups and rates are averaged, so they may
    depend on each other in any way.

    Parameters
    ----------
    groups
        Number of groups.
    ratio
        Smallest fair ratio of selection rates: 0.8 is the "four fifths" of American law.
    gap
        Largest fair difference of true, and of false, positive rates.
    arl
        Looks between two false alarms, on average at least.
    n_bets
        Size of the geometric grid of bets.

    References
    ----------
    Shin, Ramdas, Rinaldo 2023, "E-detectors"; Chugg, Cortes-Gomez, Wilder, Ramdas 2023, "Auditing fairness by betting";
    Hardt, Price, Srebro 2016, "Equality of opportunity in supervised learning".

    Examples
    --------
    >>> gaps = GroupGaps(groups=1, arl=100)
    >>> for _ in range(40):
    ...     gaps.compare(0, SELECTED, [1, 0, 0, 0] * 10, [1, 1, 0, 0] * 50)
    ...     if gaps.settle():
    ...         break
    >>> gaps.outcome(0, SELECTED), gaps.outcome(0, FOUND)
    ('fail', 'insufficient data')
    """

    def __init__(self, groups: int, ratio: float = 0.8, gap: float = 0.1, arl: float = 1000.0, n_bets: int = 3) -> None:
        require(groups >= 1, f"{groups} groups cannot be compared.", "Give 1 or more.")
        require(n_bets >= 1, f"n_bets is {n_bets}.", "Give 1 or more; 3 is the default.")
        self.groups, self.n_bets, self.arl = int(groups), int(n_bets), run_length(arl)
        self.ratio, self.gap = probability(ratio, "the ratio"), probability(gap, "the gap")
        self._fractions = np.geomspace(0.05, 0.9, n_bets)
        self._evidence = np.zeros((groups, len(CRITERIA), n_bets))  # log(1 + SR)
        self._sums = np.zeros((groups, len(CRITERIA), 3))  # units, sum and sum of squares of how far it is from fair
        self._last = 0.0

    def compare(self, group: int, rate: int, inside: npt.ArrayLike, outside: npt.ArrayLike, units: float = 1.0) -> None:
        """Take in one look's rows of a group and of all others.

        Parameters
        ----------
        group
            Its number, from 0.
        rate
            SELECTED, FOUND or FALSE.
        inside, outside
            For each row 1 where it was selected, else 0. Where either is empty there is no bet.
        units
            Independent units for each row, at most 1; below it where rows depend on each other. A look is one at least.
        """
        mine, theirs = bounded(inside, 0.0, 1.0, "the selection"), bounded(outside, 0.0, 1.0, "the selection")
        if not len(mine) or not len(theirs):
            return
        k = max(1, int(min(len(mine), len(theirs)) * min(units, 1.0)))
        a, b = _blocks(mine, k), _blocks(theirs, k)
        low, high = self._bounds(rate)
        null = np.asarray(-low / (high - low))
        for side, (one, other) in enumerate(((a, b), (b, a))):
            # above 0: the group's rate is too low (side 0), or that of the others is (side 1)
            x = self.ratio * other - one if rate == SELECTED else other - one - self.gap
            place = (group, 2 * rate + side)
            share = np.asarray((x.mean() - low) / (high - low))
            log_l = log_bet(self._fractions / null, share, np.asarray(float(k)), null)
            self._evidence[place] = np.logaddexp(0.0, log_l + self._evidence[place])
            self._sums[place] += (k, x.sum(), x @ x)

    def settle(self) -> bool:
        """End the look; say whether it alarms. After an alarm it begins anew."""
        self._evidence = np.round(self._evidence, 6)  # a state of few bytes, the same before and after a restart
        self._sums = np.round(self._sums, 6)
        self._last = float(log_mean(self._evidence.ravel()))
        alarm = self._last >= math.log1p(self.arl)
        if alarm:
            self._evidence[:] = 0.0
        return alarm

    def outcome(self, group: int, rate: int) -> Outcome:
        """Say of all looks so far whether a rate is fair; it may be asked at every look.

        All outcomes together are right with 95 % probability: each side has a confidence sequence. A unit that never
        was is counted as if it were half a range away, so that rates that never vary do not look like certainty.
        """
        low, high = self._bounds(rate)
        alpha = ALPHA / (self.groups * len(CRITERIA))
        fair = True
        for n, total, squares in self._sums[group, 2 * rate : 2 * rate + 2]:
            state = {"low": low, "high": high, "tightest_at": 1000, "n": int(n), "total": total}
            interval = MeanSequence.from_state({**state, "squares": squares + (high - low) ** 2 / 4}).interval(alpha)
            if interval.low > 0:
                return "fail"
            fair = fair and interval.high <= 0
        return "pass" if fair else "insufficient data"

    def blame(self) -> list[tuple[int, int, float]]:
        """Give groups and criteria with their share of the evidence, largest first; empty where there is none."""
        top = self._evidence.max()
        weight = (np.exp(self._evidence - top) - math.exp(-top)).sum(axis=2)
        total = float(weight.sum())
        order = np.argsort(-weight, axis=None, kind="stable") if total > 0 else ()
        found = [(int(place) // len(CRITERIA), int(place) % len(CRITERIA)) for place in order]
        return [(group, one, float(weight[group, one] / total)) for group, one in found if weight[group, one] > 0]

    @property
    def statistic(self) -> float:
        """Mean SR at the last look; it alarms from `arl` on."""
        return math.expm1(min(self._last, LARGEST_EXPONENT))

    def _bounds(self, rate: int) -> tuple[float, float]:
        return (-1.0, self.ratio) if rate == SELECTED else (-1.0 - self.gap, 1.0 - self.gap)

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, as JSON-able values."""
        return {
            "groups": self.groups,
            "ratio": self.ratio,
            "gap": self.gap,
            "arl": self.arl,
            "n_bets": self.n_bets,
            "evidence": self._evidence.tolist(),
            "sums": self._sums.tolist(),
            "last": self._last,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> GroupGaps:
        """Go on where `to_state` stopped."""
        gaps = cls(state["groups"], state["ratio"], state["gap"], state["arl"], state["n_bets"])
        gaps._evidence = np.asarray(state["evidence"], dtype=np.float64)
        gaps._sums = np.asarray(state["sums"], dtype=np.float64)
        gaps._last = state["last"]
        return gaps


def _blocks(values: FloatArray, k: int) -> FloatArray:
    """Give the means of `k` blocks of rows, as even as they can be."""
    starts = np.arange(k) * len(values) // k
    return np.asarray(np.add.reduceat(values, starts) / np.diff(starts, append=len(values)))
