"""The rules that a contract is made of."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec
import polars as pl

from orrery.errors import NotAllowed, NotUnderstood
from orrery.types import parse_duration

Personal = Literal["pseudonymised", "encrypted", "plain"]
Type = Literal["integer", "number", "boolean", "string", "date", "instant", "other"]

DAY = timedelta(days=1)
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
    personal : what becomes of its values before they are written: ``pseudonymised`` (by a keyed hash), ``encrypted``
        (and seen by no model), or ``plain``. Nothing: it says nothing of a person.
    subject : whether it says whose the row is, of all that a person can ask to see, or to be erased.
    """

    type: Type
    nulls: float = 1.0
    min: float | None = None
    max: float | None = None
    categories: list[str] | None = None
    closed: bool = False
    unique: bool = False
    personal: Personal | None = None
    subject: bool = False


class Rules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """All rules of a dataset.

    Parameters
    ----------
    columns : by name. A column that is not named here is taken as it comes.
    ordered : pairs of columns; the first is at most the second in every row that has both.
    retention : how long rows are kept after they were added: 400d; nothing: without end.
    present : column -> value, as text -> its share in the reference. A batch so large that the value should occur in
        it, and from which it is absent, breaks the contract as a whole.
    """

    columns: dict[str, Column] = {}
    ordered: list[tuple[str, str]] = []
    present: dict[str, dict[str, float]] = {}
    retention: str = ""

    @property
    def personal(self) -> dict[str, Personal]:
        """The columns that are personal, and what becomes of each."""
        return {name: column.personal for name, column in self.columns.items() if column.personal is not None}

    @property
    def subject(self) -> str:
        """The column that says whose a row is; empty where none does."""
        return next((name for name, column in self.columns.items() if column.subject), "")

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
        if self.retention and parse_duration(self.retention) < DAY:
            raise NotUnderstood(f"The contract keeps rows for {self.retention}, which is less than a day.")
        self._verify_personal(set(named))

    def _verify_personal(self, named: set[str]) -> None:
        """Check that the marks can be kept, and that the contract itself, which is on the timeline, says no value."""
        if len(subjects := [name for name, column in self.columns.items() if column.subject]) > 1:
            raise NotUnderstood(f"A row is of one subject, and the contract has {' and '.join(subjects)}.")
        for name, mark in self.personal.items():
            column = self.columns[name]
            if mark == "pseudonymised" and column.type != "string":
                raise NotUnderstood(
                    f"Column {name!r} of the contract is to be pseudonymised and of type {column.type}.",
                    todo='A pseudonym is text: give it type = "string". Numbers are written as text first.',
                )
            if mark == "encrypted" and column.subject:
                raise NotUnderstood(
                    f"Column {name!r} of the contract is the subject and encrypted: nobody could be found by it.",
                    todo='Give it personal = "pseudonymised".',
                )
            if column.unique and mark == "encrypted":
                raise NotUnderstood(f"Column {name!r} of the contract is encrypted, so unique cannot be told of it.")
            says = column.categories is not None or column.min is not None or column.max is not None
            if says or name in named:
                raise NotUnderstood(
                    f"Column {name!r} of the contract is personal and has categories, limits or an order.",
                    safe="Nothing was changed.",
                    todo="Take them away: a contract stands on the timeline, which holds nothing personal.",
                )


def check_marks(dataset: str, old: Rules, new: Rules) -> None:
    """Check that rows which are there stay what their marks say.

    Raises
    ------
    NotAllowed
        If a column would be pseudonymised or encrypted that is not, or the other way round.
    """
    for name in sorted({*old.personal, *new.personal}):
        before, after = old.personal.get(name), new.personal.get(name)
        if before != after and {before, after} - {None, "plain"}:
            words = "in the clear" if before in (None, "plain") else before
            raise NotAllowed(
                f"The rows of {dataset} have {name} {words}.",
                safe="The contract stays as it was.",
                todo="Declare the contract for another dataset before its first rows, and add the rows to that.",
            )
    if old.subject != new.subject and "encrypted" in old.personal.values():
        raise NotAllowed(f"The rows of {dataset} are encrypted for each {old.subject or 'dataset'}.")


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
