"""How near is a row to the nearest of those that came with it? Who probes a model asks in crowds, or everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from orrery.errors import Damaged
from orrery.stats.anomaly import AnomalyScore, Columns
from orrery.stats.checks import FloatArray, IntArray
from orrery.stats.detector import MeanDetector
from orrery.stats.sketch import group_of

BLOCK = 100
"""Rows that follow each other and are compared."""
BLOCKS = 50
"""Blocks of the reference, at most, the newest; as many of a look, spread over it."""
LEAST = 5
"""Blocks of the reference below which nothing is known of them."""
TAIL = 0.01
"""Share of the reference's rows that count as too near, and as too far."""


class Usual(msgspec.Struct, frozen=True):
    """What the rows of the reference are like.

    Parameters
    ----------
    near, far : distances below, and above, which are those of at most one row in a hundred.
    crowded, spread : that share in truth, an upper bound of it.
    """

    near: float
    far: float
    crowded: float
    spread: float

    @classmethod
    def fit(cls, score: AnomalyScore, columns: Columns) -> Usual | None:
        """Learn from rows in the order in which they came; None where there are fewer than 500."""
        found = [_distances(score, table)[0] for _, table in _tables(score, columns)]
        if len(found) < LEAST:
            return None
        every = np.concatenate(found)
        every = every[every > 0]
        if not len(every):
            return None
        # Counted among all rows, those that are repeated included; strictly below and above: distances may tie.
        allowed = int(TAIL * BLOCK * len(found))
        ordered = np.sort(every)
        near = float(ordered[min(allowed, len(ordered) - 1)])
        far = float(ordered[max(0, len(ordered) - 1 - allowed)])
        shares = [np.array([side(one).mean() for one in found]) for side in (_below(near), _above(far))]
        crowded, spread = (float(each.mean() + 2 * each.std() / math.sqrt(len(each))) for each in shares)
        return cls(near, far, crowded, spread)

    @classmethod
    def from_bytes(cls, data: bytes) -> Usual:
        """Restore from JSON; `Damaged` where the bytes are something else."""
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise Damaged("These bytes are no reference.", todo="Make it again from its dataset version.") from error


class Crowding:
    """Bets that more rows than usual are very near to, or very far from, the nearest of the rows around them.

    The distance is PRADA's: that of a row to the nearest other one among a hundred that follow each other; of numbers
    in normal scores, of categories 1 for each that differs. Rows that are equal count once, and as neither. Null: in
    expectation at most `crowded`, and at most `spread`, plus `tolerance` of the rows of a block. A block is one unit:
    its rows may depend on each other in any way.

    Parameters
    ----------
    score, usual
        Fitted on the rows that the model learned from.
    tolerance
        Share of the rows that may crowd, or be far, beyond what is usual.
    arl
        Looks between two false alarms, on average at least.

    References
    ----------
    Juuti, Szyller, Marchal, Asokan 2019, "PRADA: protecting against DNN model stealing attacks"; Shin, Ramdas, Rinaldo
    2023, "E-detectors".
    """

    def __init__(self, score: AnomalyScore, usual: Usual, tolerance: float = 0.02, arl: float = 1000.0) -> None:
        self.score, self.usual = score, usual
        limits = {"near": usual.crowded, "far": usual.spread}
        # Each promises twice as much: the mean of both keeps the promise, and reaches it when one does.
        self.detectors = {
            side: MeanDetector(limit=limit, tolerance=tolerance, arl=2 * arl, smallest_bet=0.1)
            for side, limit in limits.items()
        }

    def update(
        self, columns: Columns, units: float | None = None, among: npt.NDArray[np.bool_] | None = None
    ) -> Pattern | None:
        """Look at rows in the order in which they came; None where there are fewer than a block.

        Parameters
        ----------
        units
            Independent units among the rows, if that is fewer than their blocks.
        among
            Rows that are looked at, some of each block; the others are only there to be near to. By default all.
        """
        found: dict[str, list[npt.NDArray[np.bool_]]] = {"near": [], "far": []}
        parts: dict[str, FloatArray] = {side: np.zeros(len(self.score.columns)) for side in found}
        places: list[IntArray] = []
        for place, table in _tables(self.score, columns):
            apart, part = _distances(self.score, table)
            if among is not None:
                place, apart, part = place[among[place]], apart[among[place]], part[among[place]]
            places.append(place)
            for side, test in (("near", _below(self.usual.near)), ("far", _above(self.usual.far))):
                found[side].append(test(apart))
                parts[side] += part[found[side][-1]].sum(axis=0)
        if not places:
            return None
        size = min(units or math.inf, len(places))
        shares = {side: float(np.mean([one.mean() for one in each])) for side, each in found.items()}
        alarms = [side for side, one in self.detectors.items() if one.update([shares[side]], [size])]
        side = alarms[0] if alarms else ("near" if self._over("near", shares) >= self._over("far", shares) else "far")
        rows = np.concatenate(places)[np.concatenate(found[side])]
        return Pattern(bool(alarms), side, shares, rows, self._blame(parts[side]))

    def usually(self, found: Pattern, rows: int = BLOCK) -> bool:
        """Say whether a look at so many rows is by itself within what is usual, and three standard deviations."""
        allowed = {side: one.limit + one.tolerance for side, one in self.detectors.items()}
        chance = {side: 3 * math.sqrt(limit / rows) for side, limit in allowed.items()}
        return all(found.shares[side] <= limit + chance[side] for side, limit in allowed.items())

    @property
    def statistic(self) -> float:
        """The mean of both at the last look; at an alarm it is the promised run length, or more."""
        return sum(one.statistic for one in self.detectors.values()) / len(self.detectors)

    def _over(self, side: str, shares: Mapping[str, float]) -> float:
        return shares[side] - self.detectors[side].limit

    def _blame(self, parts: FloatArray) -> list[tuple[str, float]]:
        total = float(parts.sum())
        ranked = sorted(zip(self.score.columns, parts.tolist(), strict=True), key=lambda one: -one[1])
        return [(name, part / total) for name, part in ranked if part > 0] if total else []

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, without the reference, as JSON-able values."""
        return {side: one.to_state() for side, one in self.detectors.items()}

    @classmethod
    def from_state(cls, state: dict[str, Any], score: AnomalyScore, usual: Usual) -> Crowding:
        """Go on where `to_state` stopped, with the same reference."""
        crowding = cls(score, usual)
        crowding.detectors = {side: MeanDetector.from_state(one) for side, one in state.items()}
        return crowding


class Pattern(msgspec.Struct, frozen=True):
    """What one look found.

    Parameters
    ----------
    alarm, side : whether it alarms; "near" or "far", whichever is further above what is usual.
    shares : of the rows that are near and far.
    rows : numbers of those on that side.
    blame : columns in which those differ from their nearest, with their share in it, largest first.
    """

    alarm: bool
    side: str
    shares: dict[str, float]
    rows: IntArray
    blame: list[tuple[str, float]]


def blocks(columns: Columns) -> Iterator[Columns]:
    """Give whole blocks of rows that follow each other, spread over all or the newest of them."""
    return ({name: each[place] for name, each in columns.items()} for place in _places(columns))


def _tables(score: AnomalyScore, columns: Columns) -> Iterator[tuple[IntArray, FloatArray]]:
    """Give the numbers of each block's rows, and what stands for these rows; made for all blocks at once."""
    places = _places(columns)
    if len(places):
        chosen = places.ravel()
        table = _table(score, {name: each[chosen] for name, each in columns.items()})
        yield from zip(places, table.reshape(*places.shape, -1), strict=True)


def _places(columns: Columns) -> IntArray:
    """Give the numbers of the rows of each block, shape (blocks, rows of a block)."""
    rows = len(next(iter(columns.values()), ()))
    count = rows // BLOCK
    blocks = np.unique(np.linspace(0, count - 1, min(count, BLOCKS)).astype(np.int64)) if count else np.empty(0, int)
    return np.asarray((rows - (count - blocks) * BLOCK)[:, None] + np.arange(BLOCK))


def distances(score: AnomalyScore, block: Columns) -> tuple[FloatArray, FloatArray]:
    """Give each row's distance to the nearest that is not equal to it, and the part of each column in its square.

    A row that an earlier one is equal to has the distance 0, and so has one that is alone.
    """
    return _distances(score, _table(score, block))


def _distances(score: AnomalyScore, table: FloatArray) -> tuple[FloatArray, FloatArray]:
    rows = len(table)
    apart, parts = np.zeros(rows), np.zeros((rows, table.shape[1]))
    total = np.zeros((rows, rows))
    for place in range(table.shape[1]):
        total += _squares(score, place, table[:, None, place], table[None, :, place])
    again = np.tril(total == 0, -1).any(axis=1)
    first = np.flatnonzero(~again)
    if len(first) < 2:
        return apart, parts
    np.fill_diagonal(total, np.inf)
    total[:, again] = np.inf
    nearest = total.argmin(axis=1)[first]
    apart[first] = np.sqrt(total[first, nearest])
    for place in range(table.shape[1]):
        parts[first, place] = _squares(score, place, table[first, place], table[nearest, place])
    return apart, parts


def _squares(score: AnomalyScore, place: int, one: FloatArray, other: FloatArray) -> FloatArray:
    """Give the squared difference of numbers; 1 for categories that differ."""
    difference: FloatArray = one - other if score.columns[place] in score.numbers else (one != other).astype(np.float64)
    return np.square(difference)


def _table(score: AnomalyScore, block: Columns) -> FloatArray:
    """Give normal scores of numbers, and numbers for categories, in the order of the score's columns."""
    rows = len(next(iter(block.values()), ()))
    normal = iter(score.normal(block).T)
    table = np.zeros((rows, len(score.columns)))
    for place, name in enumerate(score.columns):
        if name in score.numbers:
            table[:, place] = next(normal)
        elif (values := block.get(name)) is not None:
            codes: dict[str | None, int] = {}
            table[:, place] = [codes.setdefault(group_of(value), len(codes)) for value in np.asarray(values).tolist()]
    return table


def _below(limit: float) -> Any:
    return lambda apart: (apart > 0) & (apart < limit)


def _above(limit: float) -> Any:
    return lambda apart: apart > limit
