"""Do the features still go together as they did? A classifier of "training or production?" as a sequential bet."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orrery.errors import Damaged, NotUnderstood
from orrery.stats.checks import LARGEST_EXPONENT, FloatArray, IntArray, probability, require
from orrery.stats.detector import log_bet, log_mean, run_length
from orrery.stats.sketch import as_numbers, group_of, tally_of

FITTED, HELD = 15_000, 5_000  # reference rows, at most: to learn how features vary, and to compare with
LEVELS = 5  # categories of a feature that are told apart, the most frequent
PAIRED = 20  # dimensions whose products are looked at, the first of each feature before the second of any
FAR = 3.0  # standard deviations from which on a number is no further away
RIDGE = 0.1  # of a term's variance: terms that say nearly the same share their weight

NOBODY: tuple[tuple[str, float], ...] = ()
EVERY = slice(None)
Columns = Mapping[str, npt.NDArray[Any]]


class JointReference:
    """Rows of the reference as numbers: how its columns and their products vary, and rows to compare with.

    A number is in standard deviations, at most 3 away; a category is an indicator of each of its five most frequent
    values; what is missing or rarer has an indicator of its own. The *terms* are these dimensions and the products of
    the first twenty, of different columns.

    Parameters
    ----------
    kinds
        How each column is encoded: ``name``, ``mean`` and ``std`` or ``levels``, and whether there is a ``rest``: rows
        without a value, or with a rarer category.
    held
        Encoded rows that nothing was learned from, shape (rows, dimensions).
    shift, centre, scale
        Mean of each dimension; mean and standard deviation of each term.
    inverse
        Of the correlations of the terms, with a ridge.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> wind = rng.normal(size=4000)
    >>> reference = JointReference.fit({"wind": wind, "wave": wind + rng.normal(size=4000)})
    >>> reference.columns, reference.names
    (('wind', 'wave'), ('wind', 'wave', 'wind and wave'))
    """

    def __init__(
        self,
        kinds: list[dict[str, Any]],
        held: FloatArray,
        shift: FloatArray,
        centre: FloatArray,
        scale: FloatArray,
        inverse: FloatArray,
    ) -> None:
        self.kinds, self.held, self.shift = kinds, held, shift
        self.centre, self.scale, self.inverse = centre, scale, inverse
        self.columns = tuple(kind["name"] for kind in kinds)
        self.numbers = tuple(kind["name"] for kind in kinds if "mean" in kind)
        owners = [(number, rank) for number, kind in enumerate(kinds) for rank in range(len(_words(kind)))]
        self._pairs = _pairs_of(owners)
        one = len(owners)  # the place of a column of ones: a dimension by itself is its product with it
        self._left = np.array([*range(one), *(a for a, _ in self._pairs)], dtype=np.int64)
        self._right = np.array([*(one for _ in range(one)), *(b for _, b in self._pairs)], dtype=np.int64)
        of = [self.columns[number] for number, _ in owners]
        words = [word for kind in kinds for word in _words(kind)]
        self.parts = [(name,) for name in of] + [(of[a], of[b]) for a, b in self._pairs]
        self.names = (*words, *(f"{words[a]} and {words[b]}" for a, b in self._pairs))

    @classmethod
    def fit(cls, columns: Columns) -> JointReference | None:
        """Learn from reference columns; None where there are too few rows, or columns that vary, to say anything."""
        kinds = [kind for name, values in columns.items() if (kind := _kind(name, np.asarray(values))) is not None]
        rows = len(next(iter(columns.values()), ()))
        if len(kinds) < 2 or rows < 200:
            return None
        blank = np.zeros(0)
        bare = cls(kinds, np.zeros((0, 0)), blank, blank, blank, np.zeros((0, 0)))
        # Every fourth row is held back: rows that follow each other in time are in both parts.
        place = np.arange(rows)
        aside, learned = place[place % 4 == 3][-HELD:], place[place % 4 != 3][-FITTED:]
        held, fitted = (
            bare.encode({name: np.asarray(columns[name])[part] for name in columns}) for part in (aside, learned)
        )
        bare.shift = fitted.mean(axis=0)
        terms = bare._raw(fitted)
        centre, scale = terms.mean(axis=0), terms.std(axis=0)
        scale = np.where(scale > 1e-9, scale, np.inf)  # a term that never varied cannot be told from noise
        standard = (terms - centre) / scale
        inverse = np.linalg.inv(standard.T @ standard / len(standard) + RIDGE * np.eye(standard.shape[1]))
        return cls(kinds, held, bare.shift, centre, scale, inverse)

    def encode(self, columns: Columns) -> FloatArray:
        """Give the dimensions of rows, shape (rows, dimensions); a column that is not there is all missing."""
        rows = len(next(iter(columns.values()), ()))
        return np.column_stack(
            [_encoded(kind, columns.get(kind["name"], np.full(rows, np.nan))) for kind in self.kinds]
        )

    def terms(self, encoded: FloatArray, chosen: IntArray | slice = EVERY) -> FloatArray:
        """Give dimensions and products, or some of them, in standard deviations of the reference: (rows, terms)."""
        return np.asarray((self._raw(encoded, chosen) - self.centre[chosen]) / self.scale[chosen])

    def means(self, encoded: FloatArray) -> FloatArray:
        """Give the mean of each of ``terms(encoded)`` without making the products."""
        base = self._with_ones(encoded)
        products = base.T @ base / len(base)
        return np.asarray((products[self._left, self._right] - self.centre) / self.scale)

    def scores(self, encoded: FloatArray, weights: FloatArray) -> FloatArray:
        """Give ``terms(encoded) @ weights`` without making the products."""
        base, scaled = encoded - self.shift, weights / self.scale
        products = np.zeros((base.shape[1], base.shape[1]))
        for (a, b), weight in zip(self._pairs, scaled[base.shape[1] :].tolist(), strict=True):
            products[a, b] = weight
        linear = base @ scaled[: base.shape[1]] - float(self.centre @ scaled)
        return np.asarray(linear + ((base @ products) * base).sum(axis=1))

    def _raw(self, encoded: FloatArray, chosen: IntArray | slice = EVERY) -> FloatArray:
        base = self._with_ones(encoded)
        return np.asarray(base[:, self._left[chosen]] * base[:, self._right[chosen]])

    def _with_ones(self, encoded: FloatArray) -> FloatArray:
        return np.column_stack([encoded - self.shift, np.ones(len(encoded))])

    def to_bytes(self) -> bytes:
        """Give a compressed NumPy archive, some hundred kilobytes."""
        file = io.BytesIO()
        arrays = {name: getattr(self, name) for name in ("shift", "centre", "scale")}
        kinds = np.frombuffer(json.dumps(self.kinds).encode(), dtype=np.uint8)
        small = {name: getattr(self, name).astype(np.float32) for name in ("held", "inverse")}
        np.savez_compressed(file, kinds=kinds, **small, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> JointReference:
        """Restore what `to_bytes` gave; `Damaged` where the bytes are something else."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                parts = {name: found[name].astype(np.float64) for name in found.files if name != "kinds"}
                return cls(json.loads(found["kinds"].tobytes()), **parts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged("These bytes are no reference.", todo="Make it again from its dataset version.") from error


@dataclass(frozen=True, slots=True)
class JointLook:
    """What one look found."""

    alarm: bool
    statistic: float
    apart: float = 0.0
    """Share of this look's rows that the classifier takes for production, above that of the reference: a lower bound of
    the total variation between the two, but for chance."""
    blame: tuple[tuple[str, float], ...] = ()
    """Columns with their share of what tells the rows apart, largest first."""
    most: str = ""
    """The term that tells most: a column, or two that no longer go together."""


class JointDrift:
    """Bets that a classifier, fitted on past looks only, tells this look's rows from those of the reference.

    The classifier is Fisher's discriminant on the terms of the reference; A is the set of rows that it takes for
    production. Null: ``P(A) <= Q(A) + tolerance + slack``, whatever A is: no joint distribution within ``tolerance`` of
    the reference in total variation breaks it. Q is measured on rows that the classifier never saw.

    Parameters
    ----------
    reference
        Of the rows that the model learned from.
    tolerance, arl, n_bets, memory
        As in `FeatureDrift`.

    References
    ----------
    Podkopaev, Ramdas 2023, "Sequential predictive two-sample and independence testing"; Shin, Ramdas, Rinaldo 2023.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def day(together):
    ...     wind, alone = rng.normal(size=(2, 500))
    ...     return {"wind": wind, "wave": wind if together else alone}
    >>> reference = JointReference.fit({name: np.tile(values, 10) for name, values in day(True).items()})
    >>> drift = JointDrift(reference)
    >>> any(drift.update(day(True)).alarm for _ in range(20))
    False
    >>> found = [drift.update(day(False)) for _ in range(5)]
    >>> found[-1].alarm, found[-1].most
    (True, 'wind and wave')
    """

    def __init__(
        self,
        reference: JointReference,
        tolerance: float = 0.05,
        arl: float = 1000.0,
        n_bets: int = 5,
        memory: float = 0.2,
    ) -> None:
        require(0 <= tolerance < 1, f"The tolerance is {tolerance:g}.", "Give a share of rows, such as 0.05.")
        require(n_bets >= 1, f"n_bets is {n_bets}.", "Give 1 or more; 5 is the default.")
        self.reference, self.tolerance, self.arl = reference, float(tolerance), run_length(arl)
        self.n_bets, self.memory = int(n_bets), probability(memory, "memory")
        self._slack = math.sqrt(math.log(20) / (2 * max(1, len(reference.held))))  # 95 % (Hoeffding)
        self._fractions = np.geomspace(0.01, 0.9, n_bets)
        self._recent = np.zeros(len(reference.names))  # mean of each term over past looks, newest weighing most
        self._noise = 0.0  # variance of that mean, of a term of the reference
        self._evidence = np.zeros(n_bets)  # log(1 + SR)

    def update(self, columns: Columns, units: float | None = None) -> JointLook:
        """Look at new rows; `units` of them are independent, by default all. After an alarm it begins anew."""
        encoded = self.reference.encode(columns)
        n = len(encoded)
        require(
            units is None or 0 < units <= n,
            f"{units} units in {n} rows are impossible.",
            "Give 1 to the number of rows.",
        )
        size = float(units or n)
        now = self.reference.means(encoded)
        weights = self._discriminant()
        apart, blame, most = 0.0, NOBODY, ""
        if weights.any():
            cut = float(weights @ self._recent) / 2
            expected = float((self.reference.scores(self.reference.held, weights) > cut).mean())
            seen = float((self.reference.scores(encoded, weights) > cut).mean())
            apart = seen - expected
            null = expected + self.tolerance + self._slack
            if null < 1:
                log_l = log_bet(self._fractions / null, np.asarray(seen), np.asarray(size), np.asarray(null))
                self._evidence = np.asarray(np.round(np.logaddexp(0.0, log_l + self._evidence), 9), dtype=np.float64)
            blame, most = self._blame(weights * now)
        mean = float(log_mean(self._evidence))
        alarm = mean >= math.log1p(self.arl)
        look = JointLook(alarm, math.expm1(min(mean, LARGEST_EXPONENT)), apart, blame, most)
        if alarm:
            self._evidence[:] = 0.0
        weight = self.memory if self._noise else 1.0
        self._recent = np.round(self._recent + weight * (now - self._recent), 6)
        self._noise = (1 - weight) ** 2 * self._noise + weight**2 / size
        return look

    @property
    def statistic(self) -> float:
        """Mean SR as it stands; 0 after an alarm, for the detector begins anew."""
        return math.expm1(min(float(log_mean(self._evidence)), LARGEST_EXPONENT))

    def _discriminant(self) -> FloatArray:
        """Weights of the terms, from past looks; what could be chance is drawn towards nothing."""
        shrunk = np.sign(self._recent) * np.maximum(np.abs(self._recent) - math.sqrt(self._noise), 0.0)
        return np.asarray(self.reference.inverse @ shrunk)

    def _blame(self, told: FloatArray) -> tuple[tuple[tuple[str, float], ...], str]:
        gains = np.maximum(told, 0.0)
        if not gains.any():
            return (), ""
        shares = dict.fromkeys(self.reference.columns, 0.0)
        for part, gain in zip(self.reference.parts, gains.tolist(), strict=True):
            for name in part:
                shares[name] += gain / len(part)
        total = sum(shares.values())
        ranked = sorted(((name, share / total) for name, share in shares.items() if share), key=lambda one: -one[1])
        return tuple(ranked), self.reference.names[int(gains.argmax())]

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, without the reference, as JSON-able values."""
        return {
            "tolerance": self.tolerance,
            "arl": self.arl,
            "n_bets": self.n_bets,
            "memory": self.memory,
            "recent": self._recent.tolist(),
            "noise": self._noise,
            "evidence": self._evidence.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], reference: JointReference) -> JointDrift:
        """Go on where `to_state` stopped, with the same reference."""
        drift = cls(reference, state["tolerance"], state["arl"], state["n_bets"], state["memory"])
        if len(state["recent"]) != len(reference.names):
            raise NotUnderstood(
                "The saved joint drift detector belongs to another reference.",
                safe="Its evidence was kept as it is.",
                todo="Begin a new detector for the new reference.",
            )
        drift._recent = np.asarray(state["recent"], dtype=np.float64)
        drift._noise, drift._evidence = state["noise"], np.asarray(state["evidence"], dtype=np.float64)
        return drift


def _kind(name: str, values: npt.NDArray[Any]) -> dict[str, Any] | None:
    """Return how a column is encoded; None where it never varies."""
    if values.dtype.kind in "fiub":
        numbers = as_numbers(values)
        finite = numbers[np.isfinite(numbers)]
        if not len(finite) or finite.std() == 0:
            return None
        rest = bool(np.isnan(numbers).any())
        return {"name": name, "mean": float(finite.mean()), "std": float(finite.std()), "rest": rest}
    tally = tally_of(values)
    ranked = sorted((-n, group) for group, n in tally.items() if group is not None)
    levels = [group for _, group in ranked[:LEVELS]]
    return {"name": name, "levels": levels, "rest": len(tally) > len(levels)} if len(tally) > 1 else None


def _words(kind: dict[str, Any]) -> list[str]:
    """Return the name of each dimension of a column."""
    name = kind["name"]
    words = [f"{name} {level}" for level in kind["levels"]] if "levels" in kind else [name]
    return [*words, f"{name} other" if "levels" in kind else f"{name} missing"] if kind["rest"] else words


def _encoded(kind: dict[str, Any], values: npt.NDArray[Any]) -> FloatArray:
    if "levels" in kind:
        place = {group: number for number, group in enumerate(kind["levels"])}
        plain = np.asarray(values).tolist()
        cells = {value: place.get(group_of(value) or "", len(place)) for value in set(plain)}
        found = [cells[value] for value in plain]
        return np.asarray(np.eye(len(place) + 1)[found, : len(_words(kind))]).reshape(len(found), -1)
    numbers = as_numbers(values)
    missing = np.isnan(numbers)
    scaled = np.where(missing, 0.0, np.clip((numbers - kind["mean"]) / kind["std"], -FAR, FAR))
    return np.column_stack([scaled, missing] if kind["rest"] else [scaled])


def _pairs_of(owners: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return which dimensions are multiplied: the first of each column before the second of any."""
    order = sorted(range(len(owners)), key=lambda place: (owners[place][1], owners[place][0]))[:PAIRED]
    return [(a, b) for a, b in itertools.combinations(sorted(order), 2) if owners[a][0] != owners[b][0]]
