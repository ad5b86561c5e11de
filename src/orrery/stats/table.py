"""What a table looked like: one sketch for each column."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from orrery.errors import Damaged, NotFound, NotUnderstood
from orrery.stats.sketch import CategorySketch, NumericSketch, Sketch

Column = npt.NDArray[Any] | Counter[Any]
"""Values, or for a category how often each of them came: whoever reads a table may count words faster."""
Columns = Mapping[str, Column]


class TableSketch:
    """Sketches of the columns of one table, all over the same rows.

    Parameters
    ----------
    features
        Name of each column to its sketch.

    Examples
    --------
    >>> reference = TableSketch.fit({"dep_hour": np.arange(24.0), "origin": np.array(["JFK", "LGA"] * 12)})
    >>> day = reference.empty_like().add({"dep_hour": np.array([6.0, np.nan]), "origin": np.array(["JFK", "EWR"])})
    >>> day.rows, day.features["dep_hour"].missing, day.features["origin"].outside
    (2, 1, 1)
    >>> reference.merge(day).subtract(day).rows == reference.rows
    True
    """

    def __init__(self, features: Mapping[str, Sketch]) -> None:
        self.features: dict[str, Sketch] = dict(features)

    @classmethod
    def fit(cls, columns: Columns, categories: Collection[str] = ()) -> TableSketch:
        """Choose the cells from reference columns, and count these.

        Parameters
        ----------
        columns
            Arrays of equal length: numbers and booleans (nan is missing), or text and objects (None is missing). Or, of
            a category, how often each value came.
        categories
            Names of columns that hold codes, not quantities, although they are numbers.
        """
        _height(columns)
        return cls(
            {
                name: (
                    NumericSketch.fit(values)
                    if not isinstance(values, Counter)
                    and np.asarray(values).dtype.kind in "fiubmM"
                    and name not in categories
                    else CategorySketch.fit(values)
                )
                for name, values in columns.items()
            }
        )

    @property
    def rows(self) -> int:
        """Rows counted."""
        return next((sketch.rows for sketch in self.features.values()), 0)

    def empty_like(self) -> TableSketch:
        """Give a sketch with the same cells and no rows."""
        return TableSketch({name: sketch.empty_like() for name, sketch in self.features.items()})

    def add(self, columns: Columns) -> TableSketch:
        """Count rows and give itself. Columns that the reference does not have are left out.

        Raises
        ------
        NotFound
            Where a column of the reference is not there at all (give an array of nan or None where it is all missing).
        """
        absent = [name for name in self.features if name not in columns]
        if absent:
            raise NotFound(f"The rows have no column {', '.join(absent)}.", safe="Nothing was counted.")
        _height({name: columns[name] for name in self.features})
        # first into new sketches: a column that cannot be read must not leave half of the table counted
        fresh = {name: _counted(sketch.empty_like(), columns[name]) for name, sketch in self.features.items()}
        self.features = self.merge(TableSketch(fresh)).features if self.rows else fresh
        return self

    def merge(self, other: TableSketch) -> TableSketch:
        """Give the sketch of the rows of both."""
        return self._combined(other, "merge")

    def subtract(self, other: TableSketch) -> TableSketch:
        """Give the sketch without the rows of `other` (as for erasure)."""
        return self._combined(other, "subtract")

    def _combined(self, other: TableSketch, how: str) -> TableSketch:
        if self.features.keys() != other.features.keys():
            raise NotUnderstood("Two sketches of different columns cannot be combined.", todo="Use empty_like().")
        return TableSketch({name: getattr(mine, how)(other.features[name]) for name, mine in self.features.items()})

    def to_state(self) -> dict[str, Any]:
        """Give all sketches as JSON-able values."""
        return {name: sketch.to_state() for name, sketch in self.features.items()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TableSketch:
        """Restore what `to_state` gave."""
        kinds: dict[str, type[Sketch]] = {kind.kind: kind for kind in (NumericSketch, CategorySketch)}
        return cls({name: kinds[part["kind"]].from_state(part) for name, part in state.items()})

    def to_bytes(self) -> bytes:
        """Give compressed MessagePack, about 2 kB for each number."""
        return zlib.compress(msgspec.msgpack.encode(self.to_state()))

    @classmethod
    def from_bytes(cls, data: bytes) -> TableSketch:
        """Restore what `to_bytes` gave; `Damaged` where the bytes are something else."""
        try:
            return cls.from_state(msgspec.msgpack.decode(zlib.decompress(data)))
        except (zlib.error, msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(
                "These bytes are not a sketch.", todo="Make the sketch again from its dataset version."
            ) from error


def _counted(sketch: Sketch, values: Column) -> Sketch:
    if not isinstance(sketch, NumericSketch):
        return sketch.add(values)
    if isinstance(values, Counter):  # the reference has numbers here
        values = np.repeat(np.array(list(values), dtype=object), list(values.values()))
    return sketch.add(values)


def _height(columns: Columns) -> None:
    lengths = {one.total() if isinstance(one, Counter) else len(np.asarray(one)) for one in columns.values()}
    if len(lengths) > 1:
        raise NotUnderstood(
            f"The columns have different lengths: {sorted(lengths)}.",
            safe="Nothing was counted.",
            todo="Give one table.",
        )
