"""The rules that a contract is made of."""

from __future__ import annotations

from typing import Literal

import msgspec
import polars as pl

from orrery.errors import NotUnderstood

Type = Literal["integer", "number", "boolean", "string", "date", "instant", "other"]

CHANCE = 1e-9
"""A value is taken as wrongly absent when its absence is less likely than this."""

SPARING = 4.0
"""... even if its share had fallen to a quarter of that in the reference."""


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one column promises.

    Parameters
    ----------
    type : what it holds; ``other`` is not checked.
    nulls : share of missing values that is fine: 0, and a row without a value breaks the contract; 1, and none does;
        in between, a batch of 100 rows or more with a greater share breaks it as a whole.
    min, max : limits of a number, both included.
    categories : the values known; others break the contract only where it is ``closed``.
    closed : whether ``categories`` are all there are.
    unique : whether no value occurs twice.
    """

    type: Type
    nulls: float = 1.0
    min: float | None = None
    max: float | None = None
    categories: list[str] | None = None
    closed: bool = False
    unique: bool = False


class Rules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """All rules of a dataset.

    Parameters
    ----------
    columns : by name. A column that is not named here is taken as it comes.
    ordered : pairs of columns; the first is at most the second in every row that has both.
    present : column -> value, as text -> its share in the reference. A batch so large that the value should occur in
        it, and from which it is absent, breaks the contract as a whole.
    """

    columns: dict[str, Column] = {}
    ordered: list[tuple[str, str]] = []
    present: dict[str, dict[str, float]] = {}

    def verify(self) -> None:
        """Check that the rules make sense together.

        Raises
        ------
        NotUnderstood
            If one names an unknown column, or its limits contradict each other.
        """
        for name, column in self.columns.items():
            if not 0 <= column.nulls <= 1:
                raise NotUnderstood(f"Column {name!r} of the contract: nulls is a share, from 0 to 1.")
            if column.min is not None and column.max is not None and column.min > column.max:
                raise NotUnderstood(f"Column {name!r} of the contract: min {column.min} is above max {column.max}.")
            if column.closed and not column.categories:
                raise NotUnderstood(f"Column {name!r} of the contract is closed and has no categories.")
        named = [*(name for pair in self.ordered for name in pair), *self.present]
        for name in named:
            if name not in self.columns:
                raise NotUnderstood(f"The contract has a rule for {name!r}, which is none of its columns.")
        for low, high in self.ordered:
            if not {self.columns[low].type, self.columns[high].type} <= {"integer", "number"}:
                raise NotUnderstood(f"The contract orders {low!r} and {high!r}, which are not both numbers.")


POLARS: dict[str, pl.DataType] = {
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "string": pl.String(),
    "date": pl.Date(),
    "instant": pl.Datetime("us", "UTC"),
}
"""How a type is stored."""


def type_of(kind: pl.DataType) -> Type:
    """Return the type of a stored column."""
    for name, stored in POLARS.items():
        if stored == kind:
            return name  # type: ignore[return-value]
    return "other"


def rows_to_expect(share: float) -> float:
    """Return how many rows a batch needs before the absence of a value of this share is no accident.

    Examples
    --------
    >>> round(rows_to_expect(0.25))
    321
    """
    import math

    return math.log(CHANCE) / math.log1p(-share / SPARING)


def as_text(column: str) -> pl.Expr:
    """Return a column's values as they are written in ``present``."""
    return pl.col(column).cast(pl.String)
