"""Which feature steps only choose columns; whatever could do more is not taken for one."""

from __future__ import annotations

from types import FunctionType

import pytest

from orrery.pipeline.selection import only_selects

CONSTANTS = "NAMES = ['a', 'b']\nONE = 'a'\nNUMBER = 3\n\n"


def says(body: str, arguments: str = "rows") -> bool:
    source = f"{CONSTANTS}def features({arguments}):\n    {body}\n"
    namespace: dict[str, object] = {}
    exec(compile(source, "pipeline.py", "exec"), namespace)
    function = namespace["features"]
    assert isinstance(function, FunctionType)
    return only_selects(function, source, "rows")


@pytest.mark.parametrize(
    "body",
    [
        "return rows.select('a', 'b')",
        "return rows.select(['a', ONE])",
        "return rows.select(*NAMES).to_pandas()",
        "return rows.select(NAMES).drop('b')",
        "return rows.drop(ONE)",
        "return rows",
        "'Said.'\n    return rows.drop('a').select('b')",
    ],
)
def test_columns_as_they_come(body: str) -> None:
    assert says(body)


@pytest.mark.parametrize(
    "body",
    [
        "return rows.select('a', b=rows['a'] * 2)",
        "return rows.select(rows['a'])",
        "return rows.select('a').fill_null(0)",
        "return rows.select('a').to_pandas().drop('b')",
        "return rows.select('a').to_pandas().select('a')",
        "return rows.select(NUMBER)",
        "return rows.select(UNKNOWN)",
        "return rows.select([name for name in NAMES])",
        "return rows.select('a') if len(rows) > 1 else rows.select('b')",
        "rows = rows.drop('a')\n    return rows.select('b')",
        "return other.select('a')",
        "return rows.select(ONE := 'b')",
        "return rows.head('a')",
        "return",
    ],
)
def test_whatever_else(body: str) -> None:
    assert not says(body, "rows, other=None")


def test_an_argument_may_hide_a_constant() -> None:
    assert not says("return rows.select(*NAMES)", "rows, *, NAMES=('a',)")


def test_what_is_decorated_may_do_more() -> None:
    source = "def other(function):\n    return function\n\n@other\ndef features(rows):\n    return rows.select('a')\n"
    namespace: dict[str, object] = {}
    exec(compile(source, "pipeline.py", "exec"), namespace)
    assert not only_selects(namespace["features"], source, "rows")
