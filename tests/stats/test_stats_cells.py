"""A table of boxes gives every value the cell that a binary search gives it, and categories may come counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.stats import CategorySketch, NumericSketch, TableSketch
from orrery.stats.cells import BOXES, MANY, Cells

RNG = np.random.default_rng(1)
SHAPES = {
    "bell": RNG.normal(size=MANY),
    "skewed": RNG.lognormal(sigma=2, size=MANY),
    "heavy tails": RNG.standard_cauchy(MANY),
    "hours": RNG.integers(0, 24, MANY).astype(float),
    "huge": RNG.normal(size=MANY) * 1e150,
    "tiny": RNG.normal(size=MANY) * 1e-150,
    "two far clusters": np.append(RNG.normal(size=MANY // 2), 1e12 + RNG.normal(size=MANY // 2)),
    "infinite": np.where(RNG.random(MANY) < 0.01, np.inf, RNG.normal(size=MANY)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_table_gives_the_cells_of_a_binary_search(shape: str) -> None:
    values = SHAPES[shape]
    edges = NumericSketch.fit(values).edges
    # the edges themselves and their neighbours are where a table could be wrong
    near = np.concatenate([values, edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf), [-np.inf, np.inf]])
    searched = np.bincount(np.searchsorted(edges, near, side="right"), minlength=len(edges) + 1)
    assert Cells(edges, len(near)).count(near).tolist() == searched.tolist()
    assert Cells(edges).count(near).tolist() == searched.tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=5, max_size=40, unique=True),
    st.lists(st.floats(allow_nan=False), max_size=60),
)
def test_whatever_the_edges_are(edges: list[float], values: list[float]) -> None:
    borders, near = np.array(sorted(edges)), np.array(values + edges)
    searched = np.bincount(np.searchsorted(borders, near, side="right"), minlength=len(borders) + 1)
    assert Cells(borders, MANY).count(near).tolist() == searched.tolist()


def test_the_table_is_used_for_many_values_only() -> None:
    """Negative control of the two tests above: with many values there is a table, and one box off is another cell."""
    edges = np.sort(RNG.normal(size=200))
    assert not Cells(edges, MANY - 1)._table
    cells = Cells(edges, MANY)
    assert cells._table
    values = RNG.normal(size=MANY)
    right = cells.count(values)
    cells._before = np.roll(cells._before, BOXES // 100)
    assert cells.count(values).tolist() != right.tolist()


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
