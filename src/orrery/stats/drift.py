"""Did the features move away from the reference? One alarm for all of them, with a bounded rate of false alarms."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from orrery.errors import NotUnderstood
from orrery.stats.checks import LARGEST_EXPONENT, FloatArray, IntArray, probability, require
from orrery.stats.detector import log_bet, log_mean, run_length
from orrery.stats.severity import jensen_shannon, ks, psi
from orrery.stats.sketch import CategorySketch, NumericSketch
from orrery.stats.table import TableSketch


@dataclass(frozen=True, slots=True)
class Severity:
    """How far one feature of one batch is from the reference; for people to read, not the alarm."""

    psi: float
    """Population stability index over the bins used for betting."""
    jensen_shannon: float
    """Distance over the same bins: 0 same, 1 disjoint."""
    ks: float | None
    """Kolmogorov-Smirnov distance over fine cells, missing left out; None for categories."""
    missing: float
    """Share of rows without a value."""
    outside: float
    """Share of rows out of the reference's range, or with a category it never had."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    alarm: bool
    """Whether the statistic reached the promised average run length."""
    statistic: float
    """Shiryaev-Roberts statistic, mean over features and bets."""
    blame: tuple[tuple[str, float], ...] = ()
    """Features with their share of the evidence (shares add up to 1), largest first; empty where there is none."""
    severity: dict[str, Severity] = field(default_factory=dict)
    """For each feature how far this batch is from the reference."""


class FeatureDrift:
    """Two-sample betting on all features at once, with a tolerance.

    For each feature the witness set A is the bins whose *past* (exponentially weighted) share is above that of the
    reference. Null: ``P(A) <= Q(A) + tolerance`` for every feature, where Q is of the reference's rows *as they are*:
    nothing about them is estimated, so the promise is exact. Rows like those that the reference was drawn from differ
    from it by chance alone. That is within the tolerance, unless the reference is small: then it takes the tolerance's
    place (with 95 % confidence for all features together), so that what did not change is quiet there, too. The bets
    of all features are averaged, so they may depend on each other in any way.

    Parameters
    ----------
    reference
        Sketch of the rows that the model learned from.
    tolerance
        Tolerated movement from the reference's rows, in total variation: 0.05 means that 5 % may be elsewhere.
    arl
        Looks between two false alarms, on average at least.
    n_bets
        Size of the geometric grid of bets.
    memory
        Weight of the newest batch in the past share, 0 to 1.
    bins
        Bins of a number, about, and categories that are counted by themselves.

    References
    ----------
    Shekhar, Ramdas 2021, "Nonparametric two-sample testing by betting"; Shin, Ramdas, Rinaldo 2023, "E-detectors".
    Chance in the reference: Borell 1975, "The Brunn-Minkowski inequality in Gauss space"; the multinomial is taken for
    normal.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> reference = TableSketch.fit({"temperature": rng.normal(60, 10, 20_000)})
    >>> drift = FeatureDrift(reference)
    >>> def day(mean):
    ...     return reference.empty_like().add({"temperature": rng.normal(mean, 10, 1000)})
    >>> any(drift.update(day(60)).alarm for _ in range(50))
    False
    >>> any(drift.update(day(66)).alarm for _ in range(3))
    True
    """

    def __init__(
        self,
        reference: TableSketch,
        tolerance: float = 0.05,
        arl: float = 1000.0,
        n_bets: int = 5,
        memory: float = 0.2,
        bins: int = 10,
    ) -> None:
        require(0 <= tolerance < 1, f"The tolerance is {tolerance:g}.", "Give a share of rows, such as 0.05.")
        require(n_bets >= 1, f"n_bets is {n_bets}.", "Give 1 or more; 5 is the default.")
        require(reference.rows > 0, "The reference has no rows or no columns.", "Fit it on the training data.")
        self.tolerance, self.arl, self.n_bets = float(tolerance), run_length(arl), int(n_bets)
        self.memory = probability(memory, "memory")
        self.reference = reference
        self.features = tuple(reference.features)
        self.bins = int(bins)
        groups = [sketch.groups(self.bins) for sketch in reference.features.values()]
        self._width = max(int(group.max()) + 1 for group in groups)
        self._real = np.array([[bin <= group.max() for bin in range(self._width)] for group in groups])
        # one flat numbering of all bins of all features, so that one bincount serves them all
        self._bins = np.concatenate([group + row * self._width for row, group in enumerate(groups)])
        self._fine = self._places()
        self._reference_counts, self._reference_cells = self._counts(reference)
        self._q = self._reference_counts / reference.rows
        self._tolerated = np.maximum(self.tolerance, self._by_chance())
        self._fractions = np.geomspace(0.01, 0.9, n_bets)
        self._recent = self._q.copy()
        self._evidence = np.zeros((len(self.features), n_bets))  # log(1 + SR)
        self.looks = 0

    def _places(self) -> IntArray:
        """Give every cell its place in a table of the fine cells of numbers; what has none there, the last place."""
        numbers = [isinstance(sketch, NumericSketch) for sketch in self.reference.features.values()]
        sizes = [len(sketch.counts) for sketch in self.reference.features.values()]
        self._wide = max(sizes)
        nowhere = len(sizes) * self._wide
        return np.concatenate(
            [
                np.append(nowhere, row * self._wide + np.arange(size - 1)) if number else np.full(size, nowhere)
                for row, (number, size) in enumerate(zip(numbers, sizes, strict=True))
            ]
        )

    def _counts(self, sketch: TableSketch) -> tuple[FloatArray, FloatArray]:
        """Count the rows in each bin, and in each fine cell of a number: one row of a table for each feature."""
        cells = np.concatenate([part.counts for part in sketch.features.values()])
        flat = np.bincount(self._bins, weights=cells, minlength=len(self.features) * self._width).astype(np.float64)
        fine = np.zeros(len(self.features) * self._wide + 1)
        fine[self._fine] = cells
        return flat.reshape(len(self.features), self._width), fine[:-1].reshape(len(self.features), self._wide)

    def _by_chance(self) -> FloatArray:
        """Total variation between the reference and what it was drawn from: 95 % bound for all features together.

        It is the largest of nearly normal variables, the errors of all sets of bins, none of which has a standard
        deviation above ``0.5 / sqrt(n)``: so it exceeds its mean by no more than a normal variable does.
        """
        n = self.reference.rows
        mean = np.sqrt(2 / math.pi * self._q * (1 - self._q) / n).sum(axis=1) / 2
        return np.asarray(mean + NormalDist().inv_cdf(1 - 0.05 / len(self.features)) / (2 * math.sqrt(n)))

    def update(self, batch: TableSketch, units: float | None = None) -> Look:
        """Look at a new batch.

        Parameters
        ----------
        batch
            Sketch over the cells of the reference (``reference.empty_like().add(columns)``).
        units
            Number of *independent* units among its rows: users or sessions where the rows of one depend on each other,
            1 where the whole day moves together. By default every row.

        Returns
        -------
        Look
            After an alarm the detector begins anew: a change that stays alarms again, silence means that it is gone. A
            batch without rows is no look.
        """
        self._check(batch)
        n = batch.rows
        if n == 0:
            return Look(False, 0.0)
        require(
            units is None or 0 < units <= n,
            f"{units} units in {n} rows are impossible.",
            "Give 1 to the number of rows.",
        )
        self.looks += 1
        counts, cells = self._counts(batch)
        shares = counts / n
        witness = self._recent > self._q
        null = (self._q * witness).sum(axis=1) + self._tolerated
        # Where the past points nowhere, or no share could break the null, there is no bet, and no "+ 1" either: SR
        # may only grow by looks that were bet on.
        bet = witness.any(axis=1) & (null < 1)
        if bet.any():
            m0 = null[bet, None]
            seen = (shares * witness).sum(axis=1)[bet, None]
            log_l = log_bet(self._fractions / m0, seen, np.asarray(float(units or n)), m0)
            self._evidence[bet] = np.logaddexp(0.0, log_l + self._evidence[bet])
        self._recent += self.memory * (shares - self._recent)
        mean = float(log_mean(self._evidence.ravel()))
        look = Look(
            alarm=mean >= math.log1p(self.arl),
            statistic=math.expm1(min(mean, LARGEST_EXPONENT)),
            blame=self._blame(),
            severity=self._severity(batch, counts, cells),
        )
        if look.alarm:
            self._evidence[:] = 0.0
        return look

    @property
    def statistic(self) -> float:
        """Mean SR as it stands; 0 after an alarm, for the detector begins anew."""
        return math.expm1(min(float(log_mean(self._evidence.ravel())), LARGEST_EXPONENT))

    def shares(self, feature: str) -> list[tuple[str, float, float]]:
        """Give the name of each group of a category, its share in the reference and its recent share."""
        sketch = self.reference.features[feature]
        if not isinstance(sketch, CategorySketch):
            raise NotUnderstood(f"{feature} is a number: it has no groups.", todo="Read its severity instead.")
        names = ["missing", "unseen", "other", *sketch.top[: self.bins]]
        row = self.features.index(feature)
        pairs = zip(names, self._q[row].tolist(), self._recent[row].tolist(), strict=False)  # rows end in padding
        return list(pairs)

    def _check(self, batch: TableSketch) -> None:
        for name, sketch in self.reference.features.items():
            if name not in batch.features or not sketch.same_cells(batch.features[name]):
                raise NotUnderstood(
                    f"The batch has no sketch of {name} over the cells of the reference.",
                    safe="The look was not counted.",
                    todo="Make it with reference.empty_like().add(columns).",
                )
        if tuple(batch.features) != self.features:
            raise NotUnderstood("The columns of the batch come in another order.", todo="Use reference.empty_like().")

    def _blame(self) -> tuple[tuple[str, float], ...]:
        top = self._evidence.max()
        weight = (np.exp(self._evidence - top) - math.exp(-top)).sum(axis=1)  # SR of each feature, in units of exp(top)
        if weight.sum() <= 0:
            return ()
        shares = weight / weight.sum()
        order = np.argsort(-shares, kind="stable")
        return tuple((self.features[i], float(shares[i])) for i in order if shares[i] > 0)

    def _severity(self, batch: TableSketch, counts: FloatArray, cells: FloatArray) -> dict[str, Severity]:
        n = batch.rows
        found = zip(
            batch.features.items(),
            psi(self._reference_counts, counts, self._real).tolist(),
            jensen_shannon(self._reference_counts, counts).tolist(),
            ks(self._reference_cells, cells).tolist(),
            strict=True,
        )
        return {
            name: Severity(
                psi=index,
                jensen_shannon=distance,
                ks=gap if isinstance(sketch, NumericSketch) else None,
                missing=sketch.missing / n,
                outside=sketch.outside / n,
            )
            for (name, sketch), index, distance, gap in found
        }

    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(self._reference_counts.tobytes(), digest_size=8)
        digest.update("\0".join(self.features).encode())
        return digest.hexdigest()

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, without the reference, as JSON-able values."""
        return {
            "reference": self._fingerprint(),
            "tolerance": self.tolerance,
            "arl": self.arl,
            "n_bets": self.n_bets,
            "memory": self.memory,
            "bins": self.bins,
            "recent": self._recent.tolist(),
            "evidence": self._evidence.tolist(),
            "looks": self.looks,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], reference: TableSketch) -> FeatureDrift:
        """Go on where `to_state` stopped, with the same reference."""
        detector = cls(
            reference, state["tolerance"], state["arl"], state["n_bets"], state["memory"], state.get("bins", 10)
        )
        if detector._fingerprint() != state["reference"]:
            raise NotUnderstood(
                "The saved drift detector belongs to another reference.",
                safe="Its evidence was kept as it is.",
                todo="Begin a new detector for the new reference.",
            )
        detector._recent = np.asarray(state["recent"], dtype=np.float64)
        detector._evidence = np.asarray(state["evidence"], dtype=np.float64)
        detector.looks = state["looks"]
        return detector
