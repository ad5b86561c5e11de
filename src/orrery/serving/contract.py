"""The contract at the door: which values of a request are not what the model was promised.

Plain Python, because a request has few rows and this process stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orrery.errors import ContractBroken

Columns = dict[str, list[Any]]
Broken = list[list[str]]

_NUMBER = frozenset({int, float})
_KINDS: dict[str, frozenset[type]] = {
    "integer": frozenset({int}),
    "number": _NUMBER,
    "boolean": frozenset({bool}),
    "string": frozenset({str}),
    "date": frozenset({str}),
    "instant": frozenset({str}),
}
"""The types of a contract, and what JSON has for them; of any other type, every value is fine."""


class Checker:
    """Finds the values that break one contract.

    Parameters
    ----------
    contract : ``columns``, by name: ``type``, and optionally ``min``, ``max``, ``categories``, ``closed`` (whether a
        value outside the categories is broken) and ``nulls`` (0: null is broken, too); ``ordered``, pairs of columns of
        which the first is at most the second. A column that is not there breaks nothing: that, the model itself says.

    Examples
    --------
    >>> checker = Checker({"columns": {"age": {"type": "number", "min": 0, "max": 120}}})
    >>> checker.broken({"age": [40, 400]}, 2)
    [[], ['age']]
    """

    def __init__(self, contract: Mapping[str, Any] | None) -> None:
        contract = contract or {}
        self._columns = [(name, _offenders(rule)) for name, rule in contract.get("columns", {}).items()]
        self._ordered = [(low, high) for low, high in contract.get("ordered", ())]

    def broken(self, columns: Columns, rows: int) -> Broken | None:
        """Return the broken columns of each row, or nothing when all rows keep the contract."""
        found: Broken | None = None
        for name, offenders in self._columns:
            values = columns.get(name)
            if values is not None:
                for row in offenders(values):
                    found = found or [[] for _ in range(rows)]
                    found[row].append(name)
        for low, high in self._ordered:
            for row in _disordered(columns.get(low), columns.get(high)):
                found = found or [[] for _ in range(rows)]
                found[row].extend(name for name in (low, high) if name not in found[row])
        return found


def promised(contract: Mapping[str, Any] | None, target: str) -> dict[str, Any] | None:
    """Return what a request must keep: the contract of the dataset, without the target, which it cannot know."""
    if not contract:
        return None
    columns = {name: rule for name, rule in contract.get("columns", {}).items() if name != target}
    ordered = [list(pair) for pair in contract.get("ordered", []) if target not in pair]
    return {"columns": columns, "ordered": ordered}


def masked(columns: Columns, broken: Broken) -> Columns:
    """Return the columns with null in place of every broken value; the given ones stay as they are."""
    result = dict(columns)
    for row, names in enumerate(broken):
        for name in names:
            if result[name] is columns[name]:
                result[name] = list(columns[name])
            result[name][row] = None
    return result


def broken_row(columns: Columns, broken: Broken) -> ContractBroken:
    """Return the error that names the first broken value; there is one."""
    row = next(row for row, names in enumerate(broken) if names)
    name = broken[row][0]
    return ContractBroken(
        f"Column {name} of row {row} holds {columns[name][row]!r:.60}, which breaks the model's contract.",
        todo="Correct the value, or send null where it is not known.",
    )


def _offenders(rule: Mapping[str, Any]) -> Callable[[list[Any]], list[int]]:
    """Return a function from values to the rows that break the rule."""
    kinds = _KINDS.get(str(rule.get("type", "")))
    low, high = rule.get("min"), rule.get("max")
    categories = frozenset(rule.get("categories") or ()) if rule.get("closed") else None
    nullable = rule.get("nulls", 1) != 0

    def keeps(value: Any) -> bool:
        if value is None:
            return bool(nullable)
        if kinds is not None and type(value) not in kinds and not (int in kinds and _whole(value)):
            return False
        if categories is not None:
            return bool(value in categories)
        if low is None and high is None:
            return True
        return type(value) not in _NUMBER or bool((low is None or value >= low) and (high is None or value <= high))

    usual = kinds and (kinds | {type(None)} if nullable else kinds)
    allowed = None if categories is None else categories | {None} if nullable else categories
    bounded = (low is not None or high is not None) and kinds is not None and kinds <= _NUMBER

    def offenders(values: list[Any]) -> list[int]:
        # The usual case, without a loop in Python. JSON has no NaN, so the extremes tell of all.
        plain = usual is not None and usual.issuperset(map(type, values))
        if plain and (allowed is None or allowed.issuperset(values)):
            if not bounded:
                return []
            known = values if None not in values else [value for value in values if value is not None]
            if not known or ((low is None or min(known) >= low) and (high is None or max(known) <= high)):
                return []
        return [row for row, value in enumerate(values) if not keeps(value)]

    return offenders


def _whole(value: Any) -> bool:
    return type(value) is float and value.is_integer()


def _disordered(low: list[Any] | None, high: list[Any] | None) -> list[int]:
    if low is None or high is None:
        return []
    rows = []
    for row, (first, second) in enumerate(zip(low, high, strict=True)):
        if first is not None and second is not None:
            try:
                if first > second:
                    rows.append(row)
            except TypeError:
                rows.append(row)
    return rows
