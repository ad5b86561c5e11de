"""What a column looked like, in a few kilobytes: counts over cells that the reference fixed once.

Fixed cells make a sketch linear: sketches of files and machines add up in any order, and a person's rows can be
*subtracted* when they are erased (KLL and t-digest cannot do that).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from orrery.errors import NotUnderstood
from orrery.stats.cells import Cells
from orrery.stats.checks import FloatArray, IntArray, require

BLOCK = 32_768  # values at a time: what is in between does not become large
CELLS = 256  # fine cells of a number
SAMPLE = 65_536  # values by which they are chosen, where there are more
TOP = 20  # categories with a cell of their own
KNOWN = 512  # rarer categories that are remembered, as hashes


class _Sketch(ABC):
    """Counts over fixed cells; what numbers and categories have in common. Cell 0 is "missing"."""

    kind: ClassVar[str]
    counts: IntArray

    @abstractmethod
    def empty_like(self) -> Self:
        """Give a sketch with the same cells and no rows."""

    @abstractmethod
    def same_cells(self, other: _Sketch) -> bool:
        """Say whether the counts of both mean the same."""

    def _take(self, one: Self, other: Self, sign: int) -> None:
        self.counts = one.counts + sign * other.counts

    @property
    def rows(self) -> int:
        """Rows counted, missing ones included."""
        return int(self.counts.sum())

    @property
    def missing(self) -> int:
        """Rows without a value."""
        return int(self.counts[0])

    def merge(self, other: Self) -> Self:
        """Give the sketch of the rows of both."""
        return self._combined(other, +1)

    def subtract(self, other: Self) -> Self:
        """Give the sketch without the rows of `other`, which must be among the rows of this one."""
        result = self._combined(other, -1)
        if (result.counts < 0).any():
            raise NotUnderstood(
                "The rows to subtract are not among the rows of this sketch.",
                safe="Nothing was changed.",
                todo="Subtract only rows that were added to it, once.",
            )
        return result

    def _combined(self, other: Self, sign: int) -> Self:
        if not self.same_cells(other):
            raise NotUnderstood(
                "Two sketches with different cells cannot be combined.",
                todo="Make both from one reference, with empty_like().",
            )
        result = self.empty_like()
        result._take(self, other, sign)
        return result


class NumericSketch(_Sketch):
    """Counts of a number over up to 256 quantile cells of its reference, with moments.

    The cells are the quantiles of 65,536 values drawn from the reference, where it has more: a cell that is to hold
    1/256 of it holds that to a third or so. How many rows of the reference are in each is counted exactly.

    Parameters
    ----------
    cells
        Between ascending borders in the unit of the column; cell ``i`` holds ``edges[i] <= x < edges[i + 1]``.
        ``counts`` is missing, below, the cells, above.
    centre, scale
        Where and in which unit moments are summed (about the mean and standard deviation of the reference), so that
        they stay exact for columns such as timestamps.

    Examples
    --------
    >>> reference = NumericSketch.fit(np.arange(1000.0))
    >>> day = reference.empty_like().add(np.array([5.0, 7.0, np.nan, 2000.0]))
    >>> day.rows, day.missing, day.outside, round(day.mean)
    (4, 1, 1, 671)
    """

    kind = "number"

    def __init__(self, cells: Cells, centre: float, scale: float) -> None:
        self.cells, self.centre, self.scale = cells, centre, scale
        self.counts = np.zeros(len(cells.edges) + 2, dtype=np.int64)
        self.moments = np.zeros(3)  # finite rows, sum and sum of squares of (x - centre) / scale

    @property
    def edges(self) -> FloatArray:
        """Borders of the cells."""
        return self.cells.edges

    @classmethod
    def fit(cls, values: npt.ArrayLike) -> NumericSketch:
        """Choose the cells from reference values and count these."""
        array = as_numbers(values)
        known = np.isfinite(array)
        finite = array if known.all() else array[known]
        if len(finite) == 0:
            return cls(Cells(np.zeros(0)), 0.0, 1.0).add(array)
        drawn = finite if len(finite) <= SAMPLE else finite[np.random.default_rng(0).integers(0, len(finite), SAMPLE)]
        drawn = np.sort(drawn)
        drawn[0], drawn[-1] = finite.min(), finite.max()
        edges = np.unique(drawn[np.linspace(0, len(drawn) - 1, CELLS).astype(np.int64)])
        edges = np.append(edges, np.nextafter(drawn[-1], np.inf))  # the maximum belongs to the last cell
        return cls(Cells.near(edges), float(drawn.mean()), float(drawn.std()) or 1.0).add(array)

    def add(self, values: npt.ArrayLike) -> NumericSketch:
        """Count values (nan is missing); gives itself."""
        array = as_numbers(values)
        for start in range(0, len(array), BLOCK):
            self._count(array[start : start + BLOCK])
        return self

    def _count(self, part: FloatArray) -> None:
        moments = self._moments_of(part)
        if not np.isfinite(moments[2]):  # there is a nan, or an infinity
            missing = np.isnan(part)
            self.counts[0] += missing.sum()
            part = part[~missing]
            moments = self._moments_of(part[np.isfinite(part)])
        self.counts[1:] += self.cells.count(part)
        self.moments += moments

    def _moments_of(self, values: FloatArray) -> tuple[int, float, float]:
        with np.errstate(over="ignore", invalid="ignore"):
            shifted = (values - self.centre) / self.scale
            return len(values), float(shifted.sum()), float(np.square(shifted, out=shifted).sum())

    def empty_like(self) -> NumericSketch:
        """Give a sketch with the same cells and no rows."""
        return NumericSketch(self.cells, self.centre, self.scale)

    def same_cells(self, other: _Sketch) -> bool:
        """Say whether the counts of both mean the same."""
        return isinstance(other, NumericSketch) and (
            self.cells is other.cells
            or (np.array_equal(self.edges, other.edges) and (self.centre, self.scale) == (other.centre, other.scale))
        )

    def _take(self, one: Self, other: Self, sign: int) -> None:
        super()._take(one, other, sign)
        self.moments = one.moments + sign * other.moments

    @property
    def outside(self) -> int:
        """Rows below the smallest or above the largest reference value."""
        return int(self.counts[1] + self.counts[-1]) if len(self.edges) else int(self.counts[1])

    @property
    def mean(self) -> float:
        """Mean of the finite values, in the unit of the column; nan without any."""
        n, total, _ = self.moments
        return float(self.centre + self.scale * total / n) if n else float("nan")

    @property
    def std(self) -> float:
        """Standard deviation of the finite values, in the unit of the column; nan without any."""
        n, total, squares = self.moments
        return float(self.scale * np.sqrt(max(0.0, squares / n - (total / n) ** 2))) if n else float("nan")

    def groups(self, bins: int = 10) -> IntArray:
        """For each cell its bin: 0 missing, 1 outside, then about `bins` bins of equal share in this sketch."""
        inner = self.counts[2:-1]
        middle = np.cumsum(inner) - inner / 2
        share = np.minimum(bins * middle / max(1, inner.sum()), bins - 1).astype(np.int64)
        _, numbers = np.unique(share, return_inverse=True)
        return np.concatenate([[0, 1], numbers + 2, [1]]).astype(np.int64)[: len(self.counts)]

    def to_state(self) -> dict[str, Any]:
        """Give cells and counts as JSON-able values."""
        return {
            "kind": self.kind,
            "edges": self.edges.tolist(),
            "centre": self.centre,
            "scale": self.scale,
            "counts": self.counts.tolist(),
            "moments": self.moments.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> NumericSketch:
        """Restore what `to_state` gave."""
        sketch = cls(Cells(np.asarray(state["edges"], dtype=np.float64)), state["centre"], state["scale"])
        sketch.counts = np.asarray(state["counts"], dtype=np.int64)
        sketch.moments = np.asarray(state["moments"], dtype=np.float64)
        return sketch


class CategorySketch(_Sketch):
    """Counts of the 20 most frequent categories of the reference, others, never seen ones, and missing.

    ``counts`` is missing, unseen, other, then the top categories. Categories outside of the top are remembered as
    64-bit hashes only, so that a rare value (a name, perhaps) is not readable in the sketch; above 512 of them they
    are not remembered at all, and a value that is not in the top counts as "other".

    Parameters
    ----------
    top
        Categories with a cell of their own.
    known
        Hashes of the rarer ones; None where there were too many.

    Examples
    --------
    >>> reference = CategorySketch.fit(np.array(["JFK", "LGA", "JFK", None], dtype=object))
    >>> reference.top, reference.missing, reference.empty_like().add(np.array(["EWR"])).unseen
    (('JFK', 'LGA'), 1, 1)
    """

    kind = "category"

    def __init__(self, top: tuple[str, ...], known: frozenset[int] | None) -> None:
        self.top, self.known = top, known
        self.counts = np.zeros(3 + len(top), dtype=np.int64)
        self._cell = {name: 3 + i for i, name in enumerate(top)}

    @classmethod
    def fit(cls, values: npt.ArrayLike | Counter[Any]) -> CategorySketch:
        """Choose the cells from reference values and count these."""
        tally = tally_of(values)
        # ties by name, so that the same rows in another order give the same cells
        ranked = sorted(((-n, name) for name, n in tally.items() if name is not None))
        rare = ranked[TOP:]
        known = frozenset(_hash(name) for _, name in rare) if len(rare) <= KNOWN else None
        return cls(tuple(name for _, name in ranked[:TOP]), known).add(tally)

    def add(self, values: npt.ArrayLike | Counter[Any]) -> CategorySketch:
        """Count values, or take in what was counted of each; gives itself.

        None and nan are missing; others are compared as text.
        """
        for name, n in tally_of(values).items():
            self.counts[0 if name is None else self._find(name)] += n
        return self

    def _find(self, name: str) -> int:
        cell = self._cell.get(name)
        if cell is not None:
            return cell
        return 2 if self.known is None or _hash(name) in self.known else 1

    def empty_like(self) -> CategorySketch:
        """Give a sketch with the same cells and no rows."""
        return CategorySketch(self.top, self.known)

    def same_cells(self, other: _Sketch) -> bool:
        """Say whether the counts of both mean the same."""
        return isinstance(other, CategorySketch) and self.top == other.top and self.known == other.known

    @property
    def unseen(self) -> int:
        """Rows with a category that the reference never had."""
        return int(self.counts[1])

    @property
    def outside(self) -> int:
        """The same as `unseen`."""
        return self.unseen

    def groups(self, bins: int = 10) -> IntArray:
        """For each cell its bin: 0 missing, 1 unseen, 2 other, then the first `bins` categories; the rest is other."""
        cells = np.arange(len(self.counts))
        return np.where(cells < 3 + bins, cells, 2).astype(np.int64)

    def to_state(self) -> dict[str, Any]:
        """Give cells and counts as JSON-able values."""
        return {
            "kind": self.kind,
            "top": list(self.top),
            "known": None if self.known is None else sorted(self.known),
            "counts": self.counts.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CategorySketch:
        """Restore what `to_state` gave."""
        sketch = cls(tuple(state["top"]), None if state["known"] is None else frozenset(state["known"]))
        sketch.counts = np.asarray(state["counts"], dtype=np.int64)
        return sketch


def as_numbers(values: npt.ArrayLike) -> FloatArray:
    """Give a column as floats, None as nan; `NotUnderstood` where a value is not a number."""
    array = np.asarray(values)
    require(array.ndim == 1, f"A column has the shape {array.shape}.", "Give one-dimensional arrays.")
    try:
        if array.dtype.kind in "mM":
            raise TypeError("dates and durations have no natural unit")
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise NotUnderstood(
            f"A column of numbers holds something else: {error}.",
            safe="Nothing was counted.",
            todo="Convert the column to numbers (dates to seconds), or declare it as a category.",
        ) from error


def tally_of(values: npt.ArrayLike | Counter[Any]) -> Counter[str | None]:
    """Count the values of a column as categories; None is missing."""
    if not isinstance(values, Counter):
        array = np.asarray(values)
        require(array.ndim == 1, f"A column has the shape {array.shape}.", "Give one-dimensional arrays.")
        values = Counter(array.tolist())
    result: Counter[str | None] = Counter()
    for value, n in values.items():
        result[group_of(value)] += n
    return result


def group_of(value: Any) -> str | None:
    """Give the category that a value is: None and nan are none, and 3.0 is "3" (a null makes ints floats)."""
    if value is None or value != value:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


Sketch = NumericSketch | CategorySketch
