"""Untouched rows are the newest, or the same ones in every version."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest

from orrery.errors import NotUnderstood
from orrery.spec import Spec, from_dict
from orrery.training.split import recent, split


def spec(holdout: str = "", **model: str) -> Spec:
    return from_dict(
        {
            "model": {"name": "toy", "task": "regression", "target": "y", **model},
            "data": {"rows": "rows"},
            "gates": {"holdout": holdout},
        }
    )


def hourly(count: int) -> pl.DataFrame:
    start = datetime(2020, 1, 1)
    return pl.DataFrame(
        {"at": [start + timedelta(hours=i) for i in range(count)], "id": range(count), "y": range(count)}
    )


@pytest.mark.parametrize("kind", [pl.Datetime("us"), pl.Datetime("ms", "Europe/Berlin"), pl.String])
def test_the_newest_rows_are_held_out(kind: pl.DataType) -> None:
    frame = hourly(240).sample(fraction=1, shuffle=True, seed=1).with_columns(pl.col("at").cast(kind))
    train, holdout = split(frame, spec("2d", time="at"))
    assert sorted(holdout["y"]) == list(range(192, 240))
    assert sorted(train["y"]) == list(range(192))
    assert sorted(recent(frame, spec(time="at"), "1d")["y"]) == list(range(216, 240))
    assert recent(frame, spec(time="at"), "0s").equals(frame)


def test_a_share_holds_out_the_same_rows_whatever_else_came() -> None:
    frame = hourly(4000)
    train, holdout = split(frame, spec("0.2", entity="id"))
    assert 0.17 < holdout.height / frame.height < 0.23
    assert train.height + holdout.height == frame.height
    _, more = split(pl.concat([frame.reverse(), hourly(5000)[4000:]]), spec("0.2", entity="id"))
    assert set(holdout["id"]) == {each for each in more["id"] if each < 4000}
    # Chosen once and for all: another choice would show champions rows they have learnt from.
    assert holdout["id"].head(5).to_list() == FIRST_HELD


FIRST_HELD = [0, 6, 23, 26, 32]


def test_rows_without_an_entity_are_held_out_by_their_content_without_the_target() -> None:
    frame = hourly(1000).drop("id")
    _, holdout = split(frame, spec("0.3"))
    _, other = split(frame.with_columns(y=-pl.col("y")).sample(fraction=1, shuffle=True, seed=2), spec("0.3"))
    assert sorted(holdout["at"]) == sorted(other["at"])
    assert 0.25 < holdout.height / 1000 < 0.35


def test_one_entity_is_never_on_both_sides() -> None:
    frame = hourly(1000).with_columns(id=pl.col("id") % 40)
    train, holdout = split(frame, spec("0.5", entity="id"))
    assert not set(train["id"]) & set(holdout["id"])


@pytest.mark.parametrize(("count", "said"), [(1, "no row is left"), (24, "no row is left to learn from")])
def test_an_empty_side_is_refused(count: int, said: str) -> None:
    with pytest.raises(NotUnderstood, match=said):
        split(hourly(count), spec("2d", time="at"))
    with pytest.raises(NotUnderstood, match="no row is left untouched"):
        split(hourly(2), spec("0.001", entity="id"))


def test_times_that_are_none_are_refused() -> None:
    with pytest.raises(NotUnderstood, match="which is no time"):
        split(hourly(10).with_columns(at=1.5), spec("2d", time="at"))
    with pytest.raises(NotUnderstood, match="is no column"):
        split(hourly(10).drop("at"), spec("2d", time="at"))
    with pytest.raises(NotUnderstood, match="does not say when a row was"):
        recent(hourly(10), spec(), "2d")
