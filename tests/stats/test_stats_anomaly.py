"""The anomaly score keeps its level on rows like those it was ranked among, and finds what is broken."""

from __future__ import annotations

import json

import numpy as np
import pytest

from orrery.errors import Damaged
from orrery.stats.anomaly import RANKED, TOGETHER, UNSEEN, AnomalyScore

HARBOURS = np.array(["north", "south", "west", "lighthouse"], dtype=object)


def rows(seed: int, count: int) -> dict[str, np.ndarray]:
    """Two numbers that go together, one with a heavy tail, a flag, and a category with a rare value."""
    random = np.random.default_rng(seed)
    wind = random.normal(size=count)
    return {
        "wind": wind,
        "wave": wind + 0.2 * random.normal(size=count),
        "fee": np.exp(2 * random.normal(size=count)),
        "night": random.integers(0, 2, count).astype(float),
        "harbour": random.choice(HARBOURS, count, p=[0.5, 0.3, 0.195, 0.005]),
    }


@pytest.fixture(scope="module")
def score() -> AnomalyScore:
    found = AnomalyScore.fit(rows(0, 20_000), rows(1, 5_000))
    assert found is not None
    return found


def one(**changed: object) -> dict[str, np.ndarray]:
    usual = {"wind": 0.5, "wave": 0.5, "fee": 1.0, "night": 1.0, "harbour": "north"} | changed
    return {name: np.array([value], dtype=object if isinstance(value, str) else None) for name, value in usual.items()}


def test_rows_like_the_untouched_ones_score_no_more_often_than_promised() -> None:
    """Over many fits: the promise is about the draw of the untouched rows too."""
    levels = np.array([1, 2, 3])
    shares = []
    for seed in range(30):
        found = AnomalyScore.fit(rows(2 * seed, 2000), rows(2 * seed + 1, 1999))
        assert found is not None
        shares.append((found.scores(rows(1000 + seed, 5000))[:, None] >= levels).mean(axis=0))
    mean, error = np.mean(shares, axis=0), np.std(shares, axis=0) / np.sqrt(len(shares))
    assert (mean <= 10.0**-levels + 3 * error).all(), mean
    assert (mean >= 0.5 * 10.0**-levels).all(), "it would be of no use if nothing ever scored so much"


def test_a_distance_that_is_read_as_chi_squared_breaks_that_promise(score: AnomalyScore) -> None:
    """The negative control: what is usually done, on the same rows."""
    many = rows(3, 20_000)
    numbers = np.column_stack([many[name] for name in ("wind", "wave", "fee")])
    apart = numbers - numbers.mean(axis=0)
    squared = np.einsum("ij,jk,ik->i", apart, np.linalg.inv(np.cov(numbers.T)), apart)
    assert (squared > 16.27).mean() > 0.005  # 99.9 % of a chi-squared variable with three degrees of freedom
    assert (score.scores(many) >= 3).mean() < 0.002


def test_the_share_beyond_a_level_is_at_most_what_is_said_and_often_more_than_the_level_itself() -> None:
    """The ranking is of few rows: the level alone, the negative control, is no bound of what it lets through."""
    beyond, limits = [], []
    for seed in range(60):
        found = AnomalyScore.fit(rows(2 * seed, 500), rows(2 * seed + 1, 999))
        assert found is not None
        beyond.append((found.scores(rows(5000 + seed, 4000)) >= 2 - 1e-9).mean())
        limits.append(found.at_most(2))
    assert 0.012 < limits[0] < 0.03 and set(limits) == {limits[0]}
    assert np.mean(np.array(beyond) > limits[0]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)
    assert np.mean(np.array(beyond) > 0.01) > 0.2
    assert found.at_most(4) == 0.0, "nothing can score so much"


@pytest.mark.parametrize(
    ("changed", "blamed"),
    [
        ({"wind": 80.0, "wave": 80.0}, "wave"),
        ({"wind": np.inf}, "wind"),
        ({"wind": -2.0, "wave": 2.0}, "wave"),  # each by itself is usual
        ({"harbour": "Atlantis"}, "harbour"),
        ({"harbour": None}, "harbour"),
        ({"night": 2.0}, "night"),
        ({"fee": np.nan}, "fee"),
        ({"fee": 1e9}, "fee"),
        ({"fee": 1e308}, "fee"),
    ],
)
def test_what_is_broken_scores_three_and_is_named(score: AnomalyScore, changed: dict[str, object], blamed: str) -> None:
    assert score.scores(one()) < 1.5
    assert score.scores(one(**changed)) >= 3
    names = [name for name, _ in score.blame(one(**changed))]
    assert names[0] in (blamed, "wind")
    assert np.isclose(sum(share for _, share in score.blame(one(**changed))), 1)


def test_a_rare_category_is_stranger_than_a_frequent_one_and_less_so_than_one_that_was_never_there(
    score: AnomalyScore,
) -> None:
    north, lighthouse, atlantis = (score.scores(one(harbour=name))[0] for name in ("north", "lighthouse", "Atlantis"))
    assert north < lighthouse < atlantis <= score.highest


def test_a_column_that_does_not_come_is_missing_and_more_than_is_known_is_not_said(score: AnomalyScore) -> None:
    less = {name: values for name, values in one().items() if name != "harbour"}
    assert score.scores(less)[0] == pytest.approx(score.highest) and score.blame(less)[0][0] == "harbour"
    assert score.scores({name: values[:0] for name, values in one().items()}).shape == (0,)
    assert score.highest == pytest.approx(np.log10(5001))


def test_a_category_that_was_often_not_there_is_no_surprise() -> None:
    learned, untouched = rows(4, 5000), rows(5, 5000)
    for table in (learned, untouched):
        table["harbour"][::3] = None
        table["wind"][::3] = np.nan
    found = AnomalyScore.fit(learned, untouched)
    assert found is not None
    assert found.scores(one(harbour=None, wind=np.nan))[0] < 1.5


def test_the_same_row_scores_the_same_alone_and_among_others_and_after_a_restart(score: AnomalyScore) -> None:
    many = rows(6, 300)
    again = AnomalyScore.from_bytes(score.to_bytes())
    alone = [
        again.scores({name: values[place : place + 1] for name, values in many.items()})[0] for place in range(300)
    ]
    assert alone == score.scores(many).tolist()


def test_it_is_a_few_kilobytes_and_names_nobody() -> None:
    learned, untouched = rows(7, 5000), rows(8, 3 * RANKED)
    for table in (learned, untouched):
        table["name"] = np.array([f"person {place}" for place in range(len(table["wind"]))], dtype=object)
    found = AnomalyScore.fit(learned, untouched)
    assert found is not None and found.state.rows == RANKED
    assert len(found.to_bytes()) < 12_000 and b"person 1" not in found.to_bytes()
    assert found.scores(one(name="somebody else"))[0] < 1.5, "free text is new in every row"


def test_more_numbers_than_can_be_held_together_are_each_looked_at_alone() -> None:
    wide = np.random.default_rng(9).normal(size=(600, TOGETHER + 1))
    columns = {f"x{place}": wide[:, place] for place in range(TOGETHER + 1)}
    found = AnomalyScore.fit({n: v[:400] for n, v in columns.items()}, {n: v[400:] for n, v in columns.items()})
    assert found is not None and found.state.moments == []
    assert found.scores({name: np.full(1, 30.0) for name in columns})[0] == pytest.approx(found.highest)


def test_without_rows_there_is_nothing_to_say() -> None:
    assert AnomalyScore.fit(rows(0, 100), rows(1, 98)) is None
    assert AnomalyScore.fit({}, {}) is None
    assert AnomalyScore.fit(rows(0, 0), rows(1, 500)) is None


@pytest.mark.parametrize("change", ["[]", "cut", "moments"])
def test_other_bytes_are_no_score(score: AnomalyScore, change: str) -> None:
    state = json.loads(score.to_bytes())
    if change == "cut":
        state["cuts"] = state["cuts"][1:]
    state["moments"] = state["moments"][1:] if change == "moments" else state["moments"]
    with pytest.raises(Damaged):
        AnomalyScore.from_bytes(b"[]" if change == "[]" else json.dumps(state).encode())


def test_a_constant_that_changes_is_strange() -> None:
    learned, untouched = ({**rows(seed, 500), "unit": np.full(500, 273.15)} for seed in (10, 11))
    found = AnomalyScore.fit(learned, untouched)
    assert found is not None and found.scores(one(unit=273.15))[0] < 1.5
    assert found.parts(one(unit=0.0))[0, -1] == UNSEEN
