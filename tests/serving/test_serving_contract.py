"""The contract at the door: what is found broken, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from orrery.serving.contract import Checker, broken_row, masked

RULES: dict[str, Any] = {
    "columns": {
        "age": {"type": "integer", "min": 0, "max": 120},
        "weight": {"type": "number", "nulls": 0},
        "city": {"type": "string", "categories": ["Rome"], "closed": True},
        "land": {"type": "string", "categories": ["It"]},
        "day": {"type": "date"},
        "nothing": {"type": "string", "categories": [], "closed": True},
        "free": {"type": "other"},
    },
    "ordered": [["low", "high"]],
}


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("age", [0, 120, None, 7.0], [-1, 121, "7", True, 7.5]),
        ("weight", [1, 2.5, -1e300], [None, "x", False]),
        ("city", ["Rome", None], ["Paris", 1]),
        ("land", ["It", "Fr", None], [3]),
        ("day", ["2013-01-01", None], [20130101]),
        ("nothing", [None], ["x"]),
        ("free", [1, "x", None, True], []),
        ("unknown", [1, "x"], []),
    ],
)
def test_values_that_keep_and_break_a_rule(column: str, good: list[Any], bad: list[Any]) -> None:
    checker = Checker(RULES)
    assert checker.broken({column: good}, len(good)) is None
    for value in bad:
        assert checker.broken({column: [value]}, 1) == [[column]]
    mixed = checker.broken({column: [*good, *bad]}, len(good) + len(bad))
    assert mixed == ([[] for _ in good] + [[column] for _ in bad] if bad else None)


def test_a_pair_in_the_wrong_order_breaks_both() -> None:
    checker = Checker(RULES)
    columns = {"low": [1, 5, None, 2], "high": [2, 4, 3, 2]}
    broken = checker.broken(columns, 4)
    assert broken == [[], ["low", "high"], [], []]
    assert masked(columns, broken) == {"low": [1, None, None, 2], "high": [2, None, 3, 2]}
    assert columns["low"] == [1, 5, None, 2]
    assert checker.broken({"low": [9]}, 1) is None


def test_refusing_names_column_and_row() -> None:
    columns = {"age": [1, 400]}
    assert "Column age of row 1 holds 400" in str(broken_row(columns, Checker(RULES).broken(columns, 2) or []))


def test_no_contract_breaks_nothing() -> None:
    assert Checker(None).broken({"age": [None, "x"]}, 2) is None


def test_the_policies_over_http(server: Any) -> None:
    contract = {"columns": {"echo": {"type": "number", "min": 0, "max": 1}}}
    server.start()
    slots = [
        server.slot(number, environment=policy, broken=policy, contract=contract, plan={"value": 0.5})
        for number, policy in enumerate(("mask", "flag", "refuse"), 1)
    ]
    server.assign(*slots)
    rows = [{"echo": 0.25}, {"echo": 30.0}]
    answers = {
        slot["environment"]: server.http.post(f"/env/{slot['environment']}/models/m/predict", json=rows)
        for slot in slots
    }
    assert answers["mask"].json()["probability"] == [0.25, None]
    assert answers["mask"].json()["parameters"] == {"broken": [[], ["echo"]]}
    assert answers["flag"].json()["probability"] == [0.25, 30.0]
    assert answers["flag"].json()["parameters"] == {"broken": [[], ["echo"]]}
    assert answers["refuse"].status_code == 422
    assert "Column echo of row 1 holds 30.0" in answers["refuse"].json()["error"]
    logged = {(row["_environment"], row["echo"]): row["_broken"] for row in server.journal()}
    assert logged == {
        ("mask", 0.25): [],
        ("mask", 30.0): ["echo"],
        ("flag", 0.25): [],
        ("flag", 30.0): ["echo"],
    }
    assert server.count("orrery_broken_rows_total") == 3


def test_who_asks_is_in_the_log_where_the_request_says_so(server: Any) -> None:
    server.start()
    slots = [server.slot(1), server.slot(2, role="shadow")]
    server.assign(*slots)
    assert server.predict([{"age": 40}, {"age": 41}], x_caller="app-7", prefer="wait-shadow").status_code == 200
    assert server.predict(prefer="wait-shadow").status_code == 200
    for wrong in ("x" * 201, "a\x80b"):
        refused = server.predict(x_caller=wrong.encode("latin-1"))
        assert refused.status_code == 400 and "A caller's name" in refused.json()["error"]
    logged = [(row["_role"], row["age"], row.get("_caller")) for row in server.journal() if row["_role"] == "champion"]
    assert logged == [("champion", 40, "app-7"), ("champion", 41, "app-7"), ("champion", 40, None)]
    assert not any("_caller" in row for row in server.journal() if row["_role"] == "shadow")
