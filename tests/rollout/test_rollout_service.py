"""What the log says of a canary: who fails, is slow, breaks the contract or disagrees is told in numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from orrery import spec as specs
from orrery.data.log import COLUMNS
from orrery.rollout.service import service

AT = datetime(2026, 1, 1, tzinfo=UTC)


def policy(task: str = "binary", **probation: Any) -> specs.Spec:
    model = {"name": "tides", "task": task, "target": "y"}
    return specs.from_dict({"model": model, "data": {"t": "t"}, "rollout": {"probation": probation}})


def log(
    requests: int = 400,
    *,
    failed: int = 0,
    slow: float = 1.0,
    other: float = 0.0,
    broken: float = 0.0,
    value: float = 0.8,
) -> pl.DataFrame:
    """Return a log in which every other request is the canary's, and each sees what the other answered."""
    rows: list[dict[str, Any]] = []
    for number in range(requests):
        mine, output = number % 2 == 0, [1 - value if number < other * requests else value]

        def row(version: int, role: str, output: list[float], factor: float = 1.0, number: int = number) -> None:
            marks = ["age"] if version == 2 and number < broken * requests else []
            about = {"_id": f"r{number}#0", "_at": AT, "_version": version, "_role": role, "_output": output}
            rows.append({**about, "_latency": 0.02 * factor, "_broken": marks, "_environment": "production"})

        if mine and number < 2 * failed:
            row(1, "standby", [value])
            continue
        row(1, "shadow" if mine else "champion", [value])
        row(2, "canary" if mine else "shadow", output, slow)
    schema = {name: kind for name, kind in COLUMNS.items() if name in rows[0]}
    return pl.DataFrame(rows, schema=schema)


def said(rows: pl.DataFrame, spec: specs.Spec | None = None, scale: float = 1.0) -> dict[str, Any]:
    return service(rows, 1, 2, "canary", spec or policy(), scale)


def test_a_good_canary_breaks_no_limit() -> None:
    found = said(log())
    assert (found["requests"], found["failures"], found["breach"]) == (200, 0, "")
    assert (found["latency"], found["broken"], found["agreement"]) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"failed": 5}, "it failed on 5 of 200 requests (limit 1 %)"),
        ({"slow": 4.0}, "it took 4.0 times as long as the champion (limit 3 times)"),
        ({"broken": 0.1}, "10 % more of its rows break the contract (limit 5 %)"),
        ({"other": 0.7}, "only 30 % of its answers are the champion's (limit 50 %)"),
    ],
)
def test_each_limit_is_told_in_numbers(about: dict[str, Any], words: str) -> None:
    assert said(log(**about))["breach"] == words


def test_limits_are_the_policys() -> None:
    assert said(log(slow=4.0), policy(latency=5.0))["breach"] == ""
    assert said(log(failed=5), policy(failures=0.1))["breach"] == ""
    assert said(log(other=0.7), policy(agreement=0.2))["breach"] == ""


def test_a_few_requests_say_nothing_unless_they_failed() -> None:
    assert said(log(20, slow=4.0))["breach"] == ""
    assert said(log(20, failed=2))["breach"] == ""
    assert "failed on 3 of 10" in said(log(20, failed=3))["breach"]
    nothing = said(log(2)[:0])
    assert (nothing["requests"], nothing["latency"], nothing["agreement"], nothing["breach"]) == (0, None, None, "")


def test_regressions_agree_within_the_largest_error_that_counts() -> None:
    rows = log(other=1.0, value=0.9)  # 0.9 beside 0.1
    assert said(rows, policy("regression"), 1.0)["agreement"] == 1.0
    assert said(rows, policy("regression"), 0.5)["agreement"] == 0.0
