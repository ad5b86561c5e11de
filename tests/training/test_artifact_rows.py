"""Rows of a request: what fits is cast, what does not is refused with column and row."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from orrery.pipeline.rows import Columns, RowRefused

SCHEMA = pl.Schema(
    {
        "f": pl.Float64(),
        "i": pl.Int64(),
        "s": pl.String(),
        "b": pl.Boolean(),
        "t": pl.Datetime("us", "UTC"),
        "n": pl.Datetime("us"),
        "d": pl.Date(),
        "e": pl.Enum(["x", "y"]),
        "y": pl.Int64(),
    }
)
COLUMNS = Columns(SCHEMA, hidden="y")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("f", 12, 12.0),
        ("f", None, None),
        ("i", 3.0, 3),
        ("s", "12", "12"),
        ("t", "2013-06-01T07:00:00+02:00", datetime(2013, 6, 1, 5, tzinfo=UTC)),
        ("t", "2013-06-01 05:00:00", datetime(2013, 6, 1, 5, tzinfo=UTC)),
        ("n", "2013-06-01T05:00:00Z", datetime(2013, 6, 1, 5)),
        ("d", "2013-06-01", date(2013, 6, 1)),
        ("e", "y", "y"),
    ],
)
def test_values_that_fit_are_cast(name: str, value: Any, expected: Any) -> None:
    rows = COLUMNS.of_values({name: [None, value]}, 2)
    assert rows.frame.schema == SCHEMA
    assert rows.frame[name].to_list() == [None, expected]
    if value is not None:
        assert COLUMNS.of_frame(pl.DataFrame({name: [None, value]})).frame.equals(rows.frame)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("f", "12"),
        ("f", True),
        ("i", 1.5),
        ("i", "12"),
        ("i", 2**70),
        ("s", 3),
        ("b", 1),
        ("t", "yesterday"),
        ("t", 1370000000),
        ("e", "z"),
        ("f", {"a": 1}),
    ],
)
def test_values_that_do_not_fit_are_refused_with_their_place(name: str, value: Any) -> None:
    with pytest.raises(RowRefused) as caught:
        COLUMNS.of_values({"s": ["fine", "fine"], name: [None, value]}, 2)
    assert (caught.value.column, caught.value.row) == (name, 1)
    assert repr(value) in caught.value.what


def test_a_frame_of_other_types_is_refused_with_its_place() -> None:
    with pytest.raises(RowRefused) as caught:
        COLUMNS.of_frame(pl.DataFrame({"f": [None, "12"]}))
    assert (caught.value.column, caught.value.row) == ("f", 1)


def test_absent_columns_are_null_and_told_and_extra_ones_told() -> None:
    rows = COLUMNS.of_values({"s": ["a"], "f": [1.0], "altitude": [3]}, 1)
    assert rows.missing == ("i", "b", "t", "n", "d", "e")
    assert rows.extra == ("altitude",)
    assert rows.frame.columns == list(SCHEMA)
    assert rows.frame["i"].to_list() == [None]


def test_the_target_is_never_seen() -> None:
    rows = COLUMNS.of_values({"y": [1]}, 1)
    assert rows.frame["y"].to_list() == [None]
    assert "y" not in rows.missing + rows.extra


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(RowRefused, match="1 values for 2 rows"):
        COLUMNS.of_values({"s": ["a"]}, 2)
