"""How strange is a row? Its rank among rows that the model never saw, by what its values are alone and together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from orrery.errors import Damaged
from orrery.stats.checks import FloatArray
from orrery.stats.sketch import as_numbers, group_of

FITTED = RANKED = 20_000
"""Rows, at most, the newest: that the score is fitted on, and among which rows are ranked."""
LEAST = 99
"""Untouched rows below which no rank says anything."""
LEVELS = 256
"""Categories of a column that are told apart, the most frequent."""
COUNTED = 10
"""A number with so few different values is a category: a flag, a count, a constant."""
TOGETHER = 64
"""More numbers than this are each looked at by itself."""
RIDGE = 0.05
"""Of a number's variance: columns that say nearly the same share their weight."""
UNSEEN = 100.0
"""Part of a value that was never there: more than any that were."""
EDGE, FAR = 3.5, 30.0
"""Normal score of the most extreme value that was learned from, and the largest of any."""
KNOTS = 29
CUTS = 150

Columns = Mapping[str, npt.NDArray[Any]]


class Number(msgspec.Struct, frozen=True, tag="number"):
    """A column of numbers: where its quantiles are, as normal scores, and how surprising it is that one is missing."""

    name: str
    knots: list[float]
    normal: list[float]
    present: float
    missing: float


class Category(msgspec.Struct, frozen=True, tag="category"):
    """A column of categories, and how surprising each is; `other` was never there, or is one of the rarest."""

    name: str
    levels: dict[str, float]
    other: float
    missing: float


class State(msgspec.Struct, frozen=True):
    """What is learned; a few kilobytes.

    Parameters
    ----------
    columns : each by itself.
    moments : second moments of the normal scores, the upper triangle by rows; empty where each stands for itself.
    rows, cuts, above : untouched rows that were ranked; strangeness of some, and how many of all are stranger.
    usual : mean part of each column in the strangeness of an untouched row.
    """

    columns: list[Number | Category]
    moments: list[float]
    rows: int = 0
    cuts: list[float] = []
    above: list[int] = []
    usual: list[float] = []


class AnomalyScore:
    """Scores rows: 3 says that one in a thousand untouched rows is at least as strange.

    A row's strangeness is the squared Mahalanobis distance of its numbers, made normal by their quantiles, plus
    ``-2 log p`` of each category, ``p`` the share of rows with a category as rare; what was never there counts 100.
    The score is ``-log10`` of the row's rank among untouched rows (its conformal p-value): whatever the strangeness
    measures, at most a share of ``10^-s`` of the rows that are like the untouched ones scores ``s`` or more, so scores
    of different models compare. It ends at ``log10(rows + 1)``: more than all untouched rows can tell is not said.

    Parameters
    ----------
    state
        Of `fit`.

    References
    ----------
    Bates, Candès, Lei, Romano, Sesia 2023, "Testing for outliers with conformal p-values"; Liu, Lafferty, Wasserman
    2009, "The nonparanormal".

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> wind = rng.normal(size=4000)
    >>> rows = {"wind": wind, "wave": wind + 0.1 * rng.normal(size=4000), "harbour": np.array(["n", "s"] * 2000)}
    >>> score = AnomalyScore.fit(
    ...     {name: values[:2000] for name, values in rows.items()},
    ...     {name: values[2000:] for name, values in rows.items()},
    ... )
    >>> asked = {"wind": np.ones(3), "wave": np.array([1.0, -1.0, 1.0]), "harbour": np.array(["n", "n", "x"])}
    >>> score.scores(asked).round(1).tolist()
    [0.5, 3.3, 3.3]
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.columns = tuple(column.name for column in state.columns)
        self.numbers = tuple(column.name for column in state.columns if isinstance(column, Number))
        self._inverse = _inverse(state.moments, len(self.numbers))
        self._cuts = np.asarray(state.cuts, dtype=np.float64)[::-1]
        self._above = np.asarray([*state.above[::-1]], dtype=np.float64)

    @classmethod
    def fit(cls, learned: Columns, untouched: Columns) -> AnomalyScore | None:
        """Learn from columns in the order of time; None where there are too few rows, or no columns.

        Parameters
        ----------
        learned
            What the columns look like.
        untouched
            Other rows: those among which rows are ranked.
        """
        rows = min((len(values) for values in untouched.values()), default=0)
        if rows < LEAST or not learned or not len(next(iter(learned.values()))):
            return None
        columns = [_column(name, np.asarray(values)[-FITTED:]) for name, values in learned.items()]
        bare = cls(State(columns, []))
        moments: list[float] = []
        if len(bare.numbers) <= TOGETHER:
            normal = bare.normal({name: np.asarray(values)[-FITTED:] for name, values in learned.items()})
            moments = (normal.T @ normal / max(1, len(normal)))[np.triu_indices(normal.shape[1])].round(4).tolist()
        together = cls(State(columns, moments))
        parts = together.parts({name: np.asarray(values)[-RANKED:] for name, values in untouched.items()})
        strange = np.sort(_strangeness(parts))[::-1]
        above = np.unique(np.round(np.geomspace(1, len(strange), CUTS)).astype(np.int64)) - 1
        return cls(
            msgspec.structs.replace(
                together.state,
                rows=len(strange),
                cuts=strange[above].tolist(),
                above=above.tolist(),
                usual=parts.mean(axis=0).round(4).tolist(),
            )
        )

    def among(self, known: Mapping[str, tuple[float, float] | set[str] | None]) -> AnomalyScore:
        """Give the same without what only rows had that are gone: categories, and extremes of numbers.

        Parameters
        ----------
        known
            Limits of the numbers, or the values, that each column has left; a column of which nothing is known stays.
        """
        columns = [_among(column, known.get(column.name)) for column in self.state.columns]
        if columns == self.state.columns:
            return self
        return AnomalyScore(msgspec.structs.replace(self.state, columns=columns))

    @property
    def highest(self) -> float:
        """The score of a row that is stranger than all untouched ones."""
        return math.log10(self.state.rows + 1)

    def at_most(self, level: float) -> float:
        """Give an upper bound, with 95 % confidence, of the share of rows like the untouched ones that score `level`.

        Of so many ranked rows the share beyond the level follows a beta distribution.
        """
        from scipy.special import betaincinv

        beyond = math.floor((self.state.rows + 1) * 10.0**-level * (1 + 1e-12))
        return float(betaincinv(beyond, self.state.rows + 1 - beyond, 0.95)) if beyond else 0.0

    def scores(self, columns: Columns) -> FloatArray:
        """Score rows; a column that is not there is all missing."""
        strange = _strangeness(self.parts(columns))
        place = np.searchsorted(self._cuts, strange, side="left") - 1  # the last cut that the row is stranger than
        above = np.where(place < 0, self.state.rows, self._above[np.maximum(place, 0)])
        return np.asarray(math.log10(self.state.rows + 1) - np.log10(1 + above))

    def blame(self, columns: Columns) -> list[tuple[str, float]]:
        """Give the columns that make rows strange with their share in it, largest first."""
        gains = np.maximum(self.parts(columns) - np.asarray(self.state.usual), 0.0).sum(axis=0)
        total = float(gains.sum())
        ranked = sorted(zip(self.columns, gains.tolist(), strict=True), key=lambda one: -one[1])
        return [(name, gain / total) for name, gain in ranked if gain > 0]

    def parts(self, columns: Columns) -> FloatArray:
        """Give the part of each column in the strangeness of each row, shape (rows, columns)."""
        rows = len(next(iter(columns.values()), ()))
        found = np.zeros((rows, len(self.columns)))
        normal = self.normal(columns)
        distances = iter((normal * (normal @ self._inverse)).T)
        for place, column in enumerate(self.state.columns):
            values = columns.get(column.name)
            if isinstance(column, Category):
                found[:, place] = column.missing if values is None else _surprises(column, values)
            else:
                gone = np.ones(rows, dtype=bool) if values is None else np.isnan(as_numbers(values))
                found[:, place] = next(distances) + np.where(gone, column.missing, column.present)
        return found

    def normal(self, columns: Columns) -> FloatArray:
        """Give the normal scores of the numbers, shape (rows, numbers); 0 for what is missing."""
        rows = len(next(iter(columns.values()), ()))
        found = np.zeros((rows, len(self.numbers)))
        kinds = [column for column in self.state.columns if isinstance(column, Number)]
        for place, column in enumerate(kinds):
            if (values := columns.get(column.name)) is not None:
                found[:, place] = _normal(column, as_numbers(values))
        return found

    def to_bytes(self) -> bytes:
        """Give it as JSON."""
        return msgspec.json.encode(self.state)

    @classmethod
    def from_bytes(cls, data: bytes) -> AnomalyScore:
        """Restore what `to_bytes` gave; `Damaged` where the bytes are something else."""
        try:
            state = msgspec.json.decode(data, type=State)
            numbers = sum(isinstance(column, Number) for column in state.columns)
            right = len(state.moments) in (0, numbers * (numbers + 1) // 2) and len(state.usual) == len(state.columns)
            if not right or len(state.cuts) != len(state.above) or state.rows < LEAST:
                raise msgspec.DecodeError("its parts do not fit each other")
            return cls(state)
        except msgspec.DecodeError as error:
            raise Damaged(f"This is no anomaly score: {error}.", todo="Train the version again.") from error


def _among(column: Number | Category, known: tuple[float, float] | set[str] | None) -> Number | Category:
    if isinstance(column, Category) and isinstance(known, set):
        levels = {group: part for group, part in column.levels.items() if group in known or not group}
        return msgspec.structs.replace(column, levels=levels)
    if isinstance(column, Number) and known:
        low, high = known if isinstance(known, tuple) else (min(map(float, known)), max(map(float, known)))
        if column.knots[0] < low or column.knots[-1] > high:
            knots, group = np.unique(np.clip(column.knots, low, high), return_inverse=True)
            normal = np.bincount(group, column.normal) / np.bincount(group)
            return msgspec.structs.replace(column, knots=knots.tolist(), normal=normal.round(4).tolist())
    return column


def _strangeness(parts: FloatArray) -> FloatArray:
    """Add the parts up; rounded, so that equal rows are equally strange in whatever batch they come."""
    return np.asarray(parts.sum(axis=1).round(6))


def _surprise(share: float | None) -> float:
    return round(-2 * math.log(share), 4) + 0.0 if share else UNSEEN  # never -0.0


def _column(name: str, values: npt.NDArray[Any]) -> Number | Category:
    if values.dtype.kind in "fiub":
        numbers = as_numbers(values)
        finite = numbers[np.isfinite(numbers)]
        if len(np.unique(finite)) > COUNTED:
            return _number(name, finite, len(numbers))
        values = numbers
    return _category(name, values)


def _number(name: str, finite: FloatArray, rows: int) -> Number:
    normal = np.linspace(-EDGE, EDGE, KNOTS)
    levels = np.array([(1 + math.erf(one / math.sqrt(2))) / 2 for one in normal])
    levels[[0, -1]] = 0.0, 1.0
    knots, group = np.unique(np.quantile(finite, levels), return_inverse=True)
    middle = np.bincount(group, normal) / np.bincount(group)  # of equal values the middle one
    gone = rows - len(finite)
    tally = Counter({"": len(finite), None: gone} if gone else {"": len(finite)})
    shares = _rarity(tally)
    return Number(name, knots.tolist(), middle.round(4).tolist(), _surprise(shares[""]), _surprise(shares.get(None)))


def _category(name: str, values: npt.NDArray[Any]) -> Category:
    tally: Counter[str | None] = Counter(map(group_of, values.tolist()))
    rows = len(values)
    present = rows - tally[None]
    if len(tally) > max(50, rows // 20):  # names, free text: whether there is one is all that can be told
        tally = Counter({"": present, None: tally[None]} if tally[None] else {"": present})
        shares = _rarity(tally)
        return Category(name, {}, _surprise(shares[""]), _surprise(shares.get(None)))
    shares = _rarity(tally)
    ranked = sorted((group for group in tally if group is not None), key=lambda group: (-tally[group], group))
    rest = sum(tally[group] for group in ranked[LEVELS:])
    levels = {group: _surprise(shares[group]) for group in ranked[:LEVELS]}
    return Category(name, levels, _surprise(rest / rows), _surprise(shares.get(None)))


def _rarity(tally: Mapping[str | None, int]) -> dict[str | None, float]:
    """Give for each group the share of rows whose group is at most as frequent."""
    total = sum(tally.values())
    counts = sorted(set(tally.values()))
    mass = {count: sum(n for n in tally.values() if n <= count) / total for count in counts}
    return {group: mass[n] for group, n in tally.items() if n}


def _normal(column: Number, numbers: FloatArray) -> FloatArray:
    """Give the normal score of numbers: between the knots a line, beyond the last ones a line from the middle."""
    low, high = column.knots[0], column.knots[-1]
    middle = float(np.interp(0.0, column.normal, column.knots))
    below, over = middle - low or high - middle, high - middle or middle - low
    found = np.interp(numbers, column.knots, column.normal)
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.where(numbers < low, found - EDGE * (low - numbers) / below, found)
        found = np.where(numbers > high, found + EDGE * (numbers - high) / over, found)
    return np.asarray(np.clip(np.where(np.isnan(numbers), 0.0, found), -FAR, FAR))


def _surprises(column: Category, values: npt.NDArray[Any]) -> FloatArray:
    listed = np.asarray(values).tolist()
    known: dict[Any, float] = {}
    for value in set(listed):
        group = group_of(value)
        known[value] = column.missing if group is None else column.levels.get(group, column.other)
    return np.array([known[value] for value in listed], dtype=np.float64)


def _inverse(moments: list[float], size: int) -> FloatArray:
    if not moments:
        return np.eye(size)
    upper = np.zeros((size, size))
    upper[np.triu_indices(size)] = moments
    full = upper + upper.T - np.diag(np.diag(upper))
    return np.asarray(np.linalg.inv(full + RIDGE * np.eye(size)))
