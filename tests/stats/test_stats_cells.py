"""A table of boxes gives every value the cell that a binary search gives it, and categories may come counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.data.arrays import MANY as WORDS
from orrery.data.arrays import tally
from orrery.stats import CategorySketch, NumericSketch, TableSketch
from orrery.stats.cells import BOXES, MANY, Cells
from orrery.stats.checks import FloatArray
from orrery.stats.sketch import CELLS

RNG = np.random.default_rng(1)
SHAPES = {
    "bell": RNG.normal(size=2 * MANY),
    "skewed": RNG.lognormal(sigma=2, size=2 * MANY),
    "heavy tails": RNG.standard_cauchy(2 * MANY),
    "hours": RNG.integers(0, 24, 2 * MANY).astype(float),
    "huge": RNG.normal(size=2 * MANY) * 1e150,
    "tiny": RNG.normal(size=2 * MANY) * 1e-150,
    "two far clusters": np.append(RNG.normal(size=MANY), 1e12 + RNG.normal(size=MANY)),
    "infinite": np.where(RNG.random(2 * MANY) < 0.01, np.inf, RNG.normal(size=2 * MANY)),
}


def searched(edges: FloatArray, values: FloatArray) -> list[int]:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).tolist()


def with_table(cells: Cells) -> Cells:
    """Ask about so many values that there is a table, where one can be made."""
    cells.count(np.full(MANY + 1, cells.edges[0]))
    return cells


@pytest.mark.parametrize("made", [Cells, Cells.near], ids=["as given", "near"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_table_gives_the_cells_of_a_binary_search(shape: str, made: Callable[[FloatArray], Cells]) -> None:
    values = SHAPES[shape]
    cells = made(NumericSketch.fit(values).edges)
    edges = cells.edges
    assert (np.diff(edges) > 0).all() and (edges[0], edges[-1]) == (values[np.isfinite(values)].min(), edges[-1])
    # the edges themselves and their neighbours are where a table could be wrong
    near = np.concatenate([values, edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf), [-np.inf, np.inf]])
    assert cells.count(near[:MANY]).tolist() == searched(edges, near[:MANY]) and cells._table is None
    assert cells.count(near).tolist() == searched(edges, near)
    assert (cells._table is None) == (len(edges) < 5)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=5, max_size=40, unique=True),
    st.lists(st.floats(allow_nan=False), max_size=60),
    st.booleans(),
)
def test_whatever_the_edges_are(edges: list[float], values: list[float], moved: bool) -> None:
    borders = np.array(sorted(edges))
    cells = with_table(Cells.near(borders) if moved else Cells(borders))
    assert (np.diff(cells.edges) > 0).all()
    near = np.concatenate([values, cells.edges, np.nextafter(cells.edges, 0.0)])
    assert cells.count(near).tolist() == searched(cells.edges, near)


def test_small_numbers_below_a_border_at_zero_are_below_it_however_wide_the_boxes_are() -> None:
    edges = np.array([-1e30, -3e29, 0.0, 2e29, 5e29, 8e29, 1e30])
    values = np.array([-5e-324, -1e-300, 0.0, 5e-324])
    assert with_table(Cells.near(edges)).count(values).tolist() == searched(edges, values) == [0, 0, 2, 2, 0, 0, 0, 0]


def test_the_table_is_used_for_many_values_only() -> None:
    """Negative control of the tests above: with many values there is a table, and one box off is another cell."""
    cells = with_table(Cells(np.sort(RNG.normal(size=200))))
    assert cells._table is not None
    values = RNG.normal(size=2 * MANY)
    right = cells.count(values)
    cells._table = np.roll(cells._table, BOXES // 100)
    assert cells.count(values).tolist() != right.tolist()


def test_cells_near_the_quantiles_leave_next_to_nothing_to_be_searched_for() -> None:
    values = RNG.lognormal(size=20_000)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, 100)))
    edges = np.append(edges, np.nextafter(edges[-1], np.inf))

    def unclear(cells: Cells) -> float:
        table = with_table(cells)._table
        assert table is not None
        return float((table[cells._boxes(values)] < 0).mean())

    near = Cells.near(edges)
    assert unclear(near) < 0.05 < unclear(Cells(edges))
    shares = near.count(values) / len(values)
    assert np.abs(shares - Cells(edges).count(values) / len(values)).max() < 0.002


def test_a_sketch_does_not_depend_on_how_many_values_come_at_once() -> None:
    values = np.where(RNG.random(40_000) < 0.1, np.nan, RNG.lognormal(size=40_000))
    reference = NumericSketch.fit(values)
    parts = reference.empty_like()
    for part in np.array_split(values, 50):
        parts.add(part)
    assert parts.counts.tolist() == reference.counts.tolist() and reference.missing == int(np.isnan(values).sum())
    assert parts.moments == pytest.approx(reference.moments, rel=1e-12)


def test_words_may_come_counted() -> None:
    words = np.array(["JFK", "LGA", None, "JFK", "EWR"], dtype=object)
    counts = Counter(words.tolist())
    assert CategorySketch.fit(counts).to_state() == CategorySketch.fit(words).to_state()
    numbers = np.arange(5.0)
    values, counted = {"n": numbers, "c": words}, {"n": numbers, "c": counts}
    assert TableSketch.fit(counted).to_state() == TableSketch.fit(values).to_state()  # type: ignore[arg-type]
    reference = TableSketch.fit(values)
    assert reference.empty_like().add(counted).to_state() == reference.to_state()  # type: ignore[arg-type]
    more = {"n": Counter({"2": 3, None: 1}), "c": Counter({"JFK": 4})}  # words where the reference has numbers
    day = reference.empty_like().add(more).features["n"]
    assert (day.rows, day.missing) == (4, 1)


def test_many_words_are_counted_as_few_are() -> None:
    """Also a word that comes once, at the very end, where all words by which hashes were named are before it."""
    few = RNG.choice(np.array(["JFK", "LGA", "EWR"]), 3 * WORDS).tolist()
    few += [None, "BOS", *few[:WORDS], "HNL", None]
    assert tally(pl.Series(few)) == Counter(few)
    different = [str(number) for number in range(2 * WORDS)] * 2
    assert tally(pl.Series(different)) == Counter(different)
    assert tally(pl.Series(few[:7])) == Counter(few[:7]) and tally(pl.Series([None], dtype=pl.String)) == {None: 1}
    assert tally(pl.Series([None] * 2 * WORDS, dtype=pl.String)) == {None: 2 * WORDS}


def test_a_large_reference_has_cells_of_nearly_equal_share_and_counts_that_are_exact() -> None:
    values = RNG.lognormal(size=400_000)
    sketch = NumericSketch.fit(values)
    inner = sketch.counts[2:-2]  # the last cell is the largest value's
    assert sketch.rows == len(values) and sketch.outside == 0
    assert len(inner) > 240 and np.abs(inner / len(values) * CELLS - 1).max() < 0.5
    assert sketch.counts[1:].tolist() == searched(sketch.edges, values)
    assert NumericSketch.fit(values).to_state() == sketch.to_state()
    deciles = np.bincount(sketch.groups(10), weights=sketch.counts)[2:] / len(values)
    assert len(deciles) == 10 and np.abs(deciles - 0.1).max() < 0.005
