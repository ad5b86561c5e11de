"""Contracts: what is inferred, what breaks, what does not, and how people edit them."""

from __future__ import annotations

import json
import time

import numpy as np
import polars as pl
import pytest

from orrery.data.contract import Contract
from orrery.errors import NotUnderstood


def weather(rows: int, seed: int = 0, start: int = 0) -> pl.DataFrame:
    """Rows like hourly weather and flights: dew point never above temperature (at it in fog), a fifth late."""
    rng = np.random.default_rng(seed)
    temp = rng.normal(40, 10, rows)
    return pl.DataFrame(
        {
            "id": [f"f{start + i}" for i in range(rows)],
            "temp": temp,
            "dewp": temp - np.maximum(rng.normal(10, 6, rows), 0),
            "origin": rng.choice(["EWR", "JFK", "LGA"], rows),
            "distance": rng.integers(100, 2500, rows),
            "gust": np.where(rng.random(rows) < 0.3, np.nan, rng.normal(20, 5, rows)),
            "weekday": (np.arange(start, start + rows) // 900) % 7,
            "late": rng.random(rows) < 0.22,
        }
    ).with_columns(pl.col("gust").fill_nan(None))


REFERENCE = weather(27_000)
CONTRACT = Contract.infer(REFERENCE)


def test_what_is_inferred() -> None:
    columns = CONTRACT.columns
    assert columns["temp"].type == "number" and columns["temp"].nulls == 0
    assert columns["temp"].min < -20 and columns["temp"].max > 120  # room around what was seen
    assert columns["origin"].categories == ["EWR", "JFK", "LGA"] and not columns["origin"].closed
    assert columns["id"].unique and columns["id"].categories is None
    assert 0 < columns["gust"].nulls < 1
    assert CONTRACT.ordered == [("dewp", "temp")]
    assert set(CONTRACT.present) == {"origin", "late"}
    assert set(CONTRACT.present["late"]) == {"true", "false"}


def test_a_value_that_some_batches_lack_is_not_expected_in_each() -> None:
    assert "weekday" not in CONTRACT.present  # a batch of a day holds one of seven


def test_a_counter_has_no_limits() -> None:
    rising = Contract.infer(pl.DataFrame({"id": range(5000), "year": [2013 + i // 1000 for i in range(5000)]}))
    assert rising.columns["id"].max is None and rising.columns["year"].max is None


def test_order_by_coincidence_is_not_a_rule() -> None:
    rng = np.random.default_rng(1)
    apart = pl.DataFrame({"a": rng.normal(0, 1, 5000), "b": rng.normal(100, 1, 5000)})
    assert Contract.infer(apart).ordered == []
    a = rng.normal(40, 10, 5000)
    never_met = pl.DataFrame({"a": a, "b": a + 5 + np.abs(rng.normal(10, 5, 5000))})
    assert Contract.infer(never_met).ordered == []
    few = weather(500)
    assert Contract.infer(few).ordered == []


def test_normal_batches_pass() -> None:
    for seed in range(1, 6):
        batch = weather(1000, seed, start=27_000 + seed * 1000)
        checked = CONTRACT.check(batch)
        assert checked.reasons == {} and checked.bad.height == 0
        assert checked.good.equals(batch)


def test_a_feed_that_changes_to_celsius_is_found() -> None:
    batch = weather(1000, 9, start=50_000)
    cold = batch.with_columns(temp=(pl.col("temp") - 32) / 1.8)
    checked = CONTRACT.check(cold)
    assert checked.reasons["dewp is above temp"] > 900
    assert "dewp is above temp" in checked.bad["_why"][0]
    assert checked.good.height + checked.bad.height == 1000


@pytest.mark.parametrize("label", [True, False])
def test_a_batch_of_one_label_is_found(label: bool) -> None:
    batch = weather(1000, 9, start=50_000).with_columns(late=pl.lit(label))
    checked = CONTRACT.check(batch)
    assert checked.good.height == 0 and checked.bad.height == 1000
    (reason,) = checked.reasons
    assert f"late is {str(not label).lower()} in none of 1000 rows" in reason
    small = batch.head(20)  # twenty flights on time are no news
    assert CONTRACT.check(small).bad.height == 0


def test_each_row_rule_names_its_rows() -> None:
    contract = Contract.from_toml(
        """
        [columns.age]
        type = "integer"
        nulls = 0
        min = 0
        max = 120
        [columns.plan]
        type = "string"
        categories = ["basic", "pro"]
        closed = true
        [columns.card]
        type = "string"
        unique = true
        [columns.vip]
        type = "boolean"
        [columns.since]
        type = "date"
        """
    )
    rows = pl.DataFrame(
        {
            "age": ["40", "400", "-1", None, "forty", "1.0"],
            "plan": ["basic", "gold", "pro", None, "pro", "pro"],
            "card": ["a", "b", "c", "d", "d", None],
            "vip": ["true", "0", "1", "maybe", None, "false"],
            "since": ["2013-01-01", "2013-01-02", "never", None, "2013-01-05", "2013-01-06"],
        }
    )
    checked = contract.check(rows)
    assert checked.reasons == {
        "age is above 120": 1,
        "age is below 0": 1,
        "age is missing": 1,
        "age is not an integer": 2,
        "plan is none of its categories": 1,
        "card occurs twice": 1,
        "vip is not a boolean": 1,
        "since is not a date": 1,
    }
    assert checked.good.schema == {
        "age": pl.Int64,
        "plan": pl.String,
        "card": pl.String,
        "vip": pl.Boolean,
        "since": pl.Date,
    }
    assert checked.good["age"].to_list() == [40]
    assert checked.bad["age"].to_list() == ["400", "-1", None, "forty", "1.0"]  # as it came
    assert checked.bad["_why"][0] == "age is above 120; plan is none of its categories"
    assert contract.broken_columns(rows) == [
        [],
        ["age", "plan"],
        ["since", "age"],
        ["vip", "age"],
        ["age", "card"],
        ["age"],
    ]


def test_a_missing_column_is_a_column_without_values() -> None:
    batch = weather(1000, 3, start=60_000)
    assert CONTRACT.check(batch.drop("temp")).reasons == {"temp is missing": 1000}
    assert CONTRACT.check(batch.drop("gust")).reasons.keys() == {
        "gust is missing in 100% of the rows, and at most 90% is fine"
    }
    assert CONTRACT.check(batch.with_columns(extra=pl.lit(1))).good.width == batch.width + 1
    assert CONTRACT.broken_columns(batch.drop("temp")) == [[]] * 1000  # a request that leaves it out breaks nothing


def test_nan_is_missing_and_breaks_no_limit() -> None:
    contract = Contract.from_toml('[columns.x]\ntype = "number"\nmax = 1\n[columns.y]\ntype = "number"\nnulls = 0')
    rows = pl.DataFrame({"x": [float("nan"), 0.5, 2.0], "y": [1.0, float("nan"), None]})
    assert contract.check(rows).reasons == {"x is above 1": 1, "y is missing": 2}


def test_it_is_written_and_read_back() -> None:
    assert Contract.from_toml(CONTRACT.to_toml("flights")) == CONTRACT
    assert Contract.from_json(CONTRACT.to_json()) == CONTRACT
    assert Contract.from_dict(json.loads(json.dumps(CONTRACT.to_dict()))) == CONTRACT
    assert Contract.from_toml(CONTRACT.to_toml()).digest == CONTRACT.digest
    odd = Contract.infer(pl.DataFrame({'a "strange" name.': ["x", "y"] * 30, "größe": [1.0] * 60}))
    assert Contract.from_toml(odd.to_toml()) == odd


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[columns.a]\ntype = "number"\nmaxx = 1', "unknown key 'maxx'. Did you mean 'max'"),
        ("colums = {}", "unknown key 'colums'. Did you mean 'columns'"),
        ('[columns.a]\ntype = "float"', "Invalid enum value 'float'"),
        ('[columns.a]\ntype = "number"\nmin = 2\nmax = 1', "min 2.0 is above max 1.0"),
        ('ordered = [["a", "b"]]', "rule for 'a'"),
        ('[columns.a]\ntype = "string"\nclosed = true', "closed and has no categories"),
        ("[columns", "not TOML"),
    ],
)
def test_an_edit_that_went_wrong_says_how(text: str, message: str) -> None:
    with pytest.raises(NotUnderstood, match=message):
        Contract.from_toml(text)


def test_it_is_fast() -> None:
    wide = weather(1000, 2, start=90_000).with_columns(*(pl.col("temp").alias(f"x{i}") for i in range(12)))
    contract = Contract.infer(REFERENCE.with_columns(*(pl.col("temp").alias(f"x{i}") for i in range(12))))
    few = wide.head(200)
    contract.check(wide), contract.broken_columns(few)
    spent = []
    for _ in range(5):
        start = time.process_time()
        contract.check(wide)
        contract.broken_columns(few)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.02
