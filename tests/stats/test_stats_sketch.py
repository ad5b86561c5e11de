"""Sketches are linear: they merge in any order, and subtracting undoes merging."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.errors import Damaged, NotFound, NotUnderstood
from orrery.stats import CategorySketch, NumericSketch, TableSketch

REFERENCE = TableSketch.fit(
    {
        "number": np.append(np.random.default_rng(0).normal(50, 10, 3000), np.nan),
        "word": np.array(["a"] * 1000 + ["b"] * 2000 + [None], dtype=object),
    }
)
numbers = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf]))
words = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "ä"]))
tables = st.lists(st.tuples(numbers, words), max_size=30).map(
    lambda rows: REFERENCE.empty_like().add(
        {
            "number": np.array([row[0] for row in rows], dtype=float),
            "word": np.array([row[1] for row in rows], dtype=object),
        }
    )
)


def same(one: TableSketch, other: TableSketch) -> bool:
    for name, part in one.features.items():
        twin = other.features[name]
        if not part.same_cells(twin) or not np.array_equal(part.counts, twin.counts):
            return False
    a, b = one.features["number"], other.features["number"]
    assert isinstance(a, NumericSketch) and isinstance(b, NumericSketch)
    return bool(np.allclose(a.moments, b.moments, rtol=1e-6, atol=1e-3))


@settings(max_examples=60, deadline=None)
@given(tables, tables, tables)
def test_merge_is_associative_and_commutative_and_subtract_undoes_it(
    a: TableSketch, b: TableSketch, c: TableSketch
) -> None:
    assert same(a.merge(b), b.merge(a))
    assert same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert same(a.merge(b).subtract(b), a)
    assert same(a.merge(REFERENCE.empty_like()), a)
    assert a.merge(b).rows == a.rows + b.rows


@settings(max_examples=60, deadline=None)
@given(tables)
def test_bytes_come_back_as_they_were(a: TableSketch) -> None:
    back = TableSketch.from_bytes(a.to_bytes())
    assert same(back, a) and same(back.merge(a).subtract(back), a)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=400))
def test_every_reference_value_is_inside_and_in_one_cell(values: list[float]) -> None:
    sketch = NumericSketch.fit(np.array(values))
    finite = [v for v in values if math.isfinite(v)]
    assert sketch.rows == len(values)
    assert sketch.missing == sum(math.isnan(v) for v in values)
    assert sketch.outside == sum(math.isinf(v) for v in values)
    assert len(sketch.groups()) == len(sketch.counts)
    if finite:
        assert sketch.mean == pytest.approx(np.mean(finite), rel=1e-6, abs=1e-6)
        assert sketch.std == pytest.approx(np.std(finite), rel=1e-3, abs=1e-3)


def test_adding_equals_merging() -> None:
    x = np.random.default_rng(1).normal(50, 20, 500)
    whole = NumericSketch.fit(x[:200]).empty_like()
    parts = whole.empty_like().add(x[:300]).merge(whole.empty_like().add(x[300:]))
    whole.add(x)
    assert np.array_equal(parts.counts, whole.counts) and np.allclose(parts.moments, whole.moments)


def test_bins_hold_about_equal_shares_and_outside_has_its_own() -> None:
    sketch = NumericSketch.fit(np.random.default_rng(2).lognormal(size=10_000))
    shares = np.bincount(sketch.groups(), weights=sketch.counts) / 10_000
    assert len(shares) == 12 and shares[0] == shares[1] == 0
    assert (abs(shares[2:] - 0.1) < 0.01).all()


def test_moments_stay_exact_far_from_zero() -> None:
    seconds = 1.7e9 + np.random.default_rng(3).normal(0, 1, 1000)
    sketch = NumericSketch.fit(seconds)
    assert sketch.std == pytest.approx(seconds.std(), rel=1e-6)


def test_categories_tell_other_from_unseen_until_there_are_too_many() -> None:
    few = CategorySketch.fit(np.array([f"c{i // 2}" for i in range(200)], dtype=object))
    assert few.empty_like().add(np.array(["c99", "new"])).counts[:3].tolist() == [0, 1, 1]
    many = CategorySketch.fit(np.array([f"c{i}" for i in range(2000)], dtype=object))
    assert many.known is None and many.empty_like().add(np.array(["new"])).unseen == 0


def test_rare_categories_are_not_readable_in_the_sketch() -> None:
    names = np.array(["usual"] * 50 + [f"common{i}" for i in range(19)] * 2 + ["Ada Lovelace"], dtype=object)
    state = str(CategorySketch.fit(names).to_state())
    assert "usual" in state and "Lovelace" not in state


def test_numbers_and_text_spell_a_category_alike() -> None:
    """A null turns a column of integers into floats; its categories must not become unseen."""
    reference = TableSketch.fit({"carrier": np.array([1, 2, 2])}, categories=["carrier"])
    day = reference.empty_like().add({"carrier": np.array([1.0, 2.0, np.nan])})
    part = day.features["carrier"]
    assert isinstance(part, CategorySketch) and (part.unseen, part.missing) == (0, 1)


def test_a_sketch_is_small() -> None:
    x = np.random.default_rng(4).normal(size=20_000)
    assert len(TableSketch.fit({"x": x}).to_bytes()) < 4000
    assert len(TableSketch.fit({"hour": np.floor(x * 5)}).to_bytes()) < 700


def test_rows_that_were_never_added_cannot_be_subtracted() -> None:
    other = REFERENCE.empty_like().add({"number": np.array([1e9]), "word": np.array(["zzz"], dtype=object)})
    with pytest.raises(NotUnderstood, match="not among the rows"):
        REFERENCE.subtract(other)


def test_sketches_of_different_references_do_not_mix() -> None:
    with pytest.raises(NotUnderstood, match="different cells"):
        NumericSketch.fit(np.arange(5.0)).merge(NumericSketch.fit(np.arange(6.0)))
    with pytest.raises(NotUnderstood, match="different columns"):
        REFERENCE.merge(TableSketch.fit({"number": np.arange(5.0)}))


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"number": np.array([1.0])}, NotFound),
        ({"number": np.array(["x"], dtype=object), "word": np.array(["a"])}, NotUnderstood),
        ({"number": np.array(["2013-01-01"], dtype="datetime64[D]"), "word": np.array(["a"])}, NotUnderstood),
        ({"number": np.array([1.0, 2.0]), "word": np.array(["a"])}, NotUnderstood),
    ],
)
def test_a_table_that_cannot_be_read_is_not_counted_by_half(columns: dict[str, np.ndarray], error: type) -> None:
    sketch = REFERENCE.empty_like()
    with pytest.raises(error):
        sketch.add(columns)
    assert all(part.rows == 0 for part in sketch.features.values())


def test_numbers_in_an_object_column_with_none_are_read() -> None:
    sketch = NumericSketch.fit(np.arange(10.0)).empty_like().add(np.array([1, None, 2.5], dtype=object))
    assert (sketch.rows, sketch.missing) == (3, 1)


@pytest.mark.parametrize("data", [b"", b"nonsense", REFERENCE.to_bytes()[:-9]])
def test_damaged_bytes_are_named(data: bytes) -> None:
    with pytest.raises(Damaged):
        TableSketch.from_bytes(data)


def test_columns_without_values_or_rows_are_survived() -> None:
    empty = TableSketch.fit({"x": np.array([np.nan, np.nan]), "w": np.array([None, None], dtype=object)})
    again = empty.empty_like().add({"x": np.array([3.0, 4.0]), "w": np.array(["a", "b"], dtype=object)})
    assert [part.outside for part in again.features.values()] == [2, 2]
    assert TableSketch.from_bytes(again.to_bytes()).rows == 2
    assert TableSketch.fit({"x": np.zeros(0)}).rows == 0
