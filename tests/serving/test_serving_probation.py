"""Bad versions that really run: whoever calls does not notice, and the server takes them back by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from serving.conftest import Served

STRICT = {"requests": 20, "time": 0.0, "failures": 0.01, "latency": 3.0}


def fresh(server: Any, version: int = 2, before: int = 1, since: str = "t1", **changes: Any) -> dict[str, Any]:
    """Describe a new champion on probation; ``probation`` changes what it must keep to."""
    probation = {**STRICT, "before": before, **changes.pop("probation", {})}
    return server.slot(version, since=since, probation=probation, **changes)


def asked(server: Any, times: int, row: Any = None) -> list[tuple[int, int, float]]:
    """Ask one after the other; return status, version and seconds of each."""
    found = []
    for _ in range(times):
        began = time.monotonic()
        answer = server.predict(row)
        found.append((answer.status_code, answer.json().get("version", 0), time.monotonic() - began))
    return found


def taken(server: Any, key: str = "production/m/2") -> dict[str, str]:
    """Wait until a version is reported as taken back."""
    reports = server.control.reports
    return server.until(lambda: reports and reports[-1]["taken"].get(key))


BAD = [
    pytest.param({"does": "fail"}, "ZeroDivisionError", id="raises"),
    pytest.param({"does": "wide"}, "returned rows|3 numbers", id="wrong shape"),
    pytest.param({"does": "short"}, "0 predictions for 1 rows", id="too few rows"),
    pytest.param({"does": "null"}, "no finite number", id="not finite"),
    pytest.param({"does": "hang"}, "no answer after", id="hangs"),
    pytest.param({"does": "die"}, "no answer after|is not running|ended twice", id="dies"),
    pytest.param({"does": "odd"}, "cannot use column do", id="refuses every row"),
]


numbers = count(2)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that bad versions come to, one after the other."""
    served = Served(tmp_path_factory.mktemp("probation"))
    served.start()
    served.assign(served.slot(1, task="regression"))
    yield served
    served.close()


@pytest.mark.parametrize(("plan", "why"), BAD)
def test_a_bad_champion_is_taken_back_before_it_is_felt(busy: Served, plan: dict[str, Any], why: str) -> None:
    server, bad, before = busy, next(numbers), len(busy.journal())
    server.assign(fresh(server, bad, plan=plan, task="regression"), server.slot(1, "standby", task="regression"))
    found = asked(server, 12)
    assert [(status, version) for status, version, _ in found] == [(200, 1)] * 12
    said = taken(server, f"production/m/{bad}")
    assert (said["since"], said["role"]) == ("t1", "champion")
    assert "It failed on 3 of its first 3 requests, which version 1 answered instead." in said["why"]
    assert any(part in said["why"] for part in why.split("|")), said["why"]
    assert server.count("orrery_taken_back_total", version=str(bad), role="champion") == 1
    rows = server.journal()[before:]
    assert len(rows) == 12 and {row["_version"] for row in rows} == {1}
    assert [row["_role"] for row in rows[:3]] == ["standby"] * 3 and rows[-1]["_role"] == "champion"
    assert server.http.get("/v2/health/ready").status_code == 200


def test_what_fails_for_some_rows_only_is_taken_back_too(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    server.assign(fresh(server, plan={"does": "fail", "when": "Rome"}), server.slot(1, "guard"))
    rows = [{"age": 40, "city": "Rome" if number % 4 == 0 else "Paris"} for number in range(16)]
    answers = [server.predict(row) for row in rows]
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json()["version"] for answer in answers[:8]] == [1, 2, 2, 2, 1, 2, 2, 2]
    assert "It failed on 3 of its first 9 requests" in taken(server)["why"]
    assert [answer.json()["version"] for answer in answers[9:]] == [1] * 7


def test_a_slow_version_is_taken_back(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    server.assign(fresh(server, plan={"sleep": 0.1}), server.slot(1, "standby"))
    found = asked(server, 25)
    assert {status for status, _, _ in found} == {200}
    assert {version for _, version, _ in found[20:]} == {1}
    assert "times as long as version 1" in taken(server)["why"]


def test_a_good_version_stays_and_the_one_before_may_go(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    server.assign(fresh(server, plan={"sleep": 0.001}), server.slot(1, "standby"))
    assert [(status, version) for status, version, _ in asked(server, 40)] == [(200, 2)] * 40
    assert server.control.reports[-1]["taken"] == {}
    server.assign(fresh(server))
    assert {version for _, version, _ in asked(server, 5)} == {2}
    server.until(lambda: len(server.models()) == 1)


def test_the_callers_mistakes_speak_against_no_version(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    server.assign(fresh(server, timeout=2.0), server.slot(1, "standby", timeout=2.0))
    assert {version for _, version, _ in asked(server, 1)} == {2}
    mistakes: list[Any] = [{"do": "odd"}, {"do": "fail"}, {"do": "short"}, {"age": [1]}]
    for mistake in mistakes * 5:
        assert server.predict(mistake).status_code in (400, 500)
    assert server.predict({"do": "die"}).status_code == 500
    server.until(lambda: server.http.get("/v2/health/ready").status_code == 200)
    assert {version for _, version, _ in asked(server, 10)} == {2}
    assert server.control.reports[-1]["taken"] == {}


def test_rows_that_end_both_versions_speak_against_none_while_the_new_one_starts_again(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    server.assign(fresh(server, plan={"start": 2.0}), server.slot(1, "standby"))
    assert {version for _, version, _ in asked(server, 1)} == {2}
    assert server.predict({"do": "die"}).status_code == 500
    assert {(status, version) for status, version, _ in asked(server, 10)} == {(200, 1)}
    server.until(lambda: server.http.get("/v2/health/ready").status_code == 200)
    assert {version for _, version, _ in asked(server, 10)} == {2}
    assert server.control.reports[-1]["taken"] == {}


def test_a_row_that_the_project_refuses_is_refused_and_speaks_against_nobody(server: Any) -> None:
    server.start()
    contract = {"columns": {"age": {"type": "number", "min": 0, "max": 120}}}
    server.assign(server.slot(1, contract=contract, broken="mask"))
    strict = fresh(server, contract=contract, broken="refuse")
    server.assign(strict, server.slot(1, "standby", contract=contract, broken="mask"))
    assert [server.predict({"age": 999}).status_code for _ in range(6)] == [422] * 6
    assert {version for _, version, _ in asked(server, 5)} == {2}
    assert server.control.reports[-1]["taken"] == {}


def test_a_canary_is_taken_back_and_the_champion_answers_all(server: Any) -> None:
    server.start()
    canary = server.slot(2, "canary", share=0.5, since="t", probation=STRICT, plan={"does": "die"})
    server.assign(server.slot(1), canary)
    assert [(status, version) for status, version, _ in asked(server, 20)] == [(200, 1)] * 20
    assert taken(server)["role"] == "canary"
    server.until(lambda: len(server.models()) == 1)


def test_it_is_remembered_while_the_control_plane_is_away_and_tried_again_only_when_told(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    slots = [fresh(server, plan={"does": "fail"}), server.slot(1, "standby")]
    server.assign(*slots)
    kept, server.control.assignment = server.control.assignment, None  # it answers 404: there is nothing to report to
    server.control.reports.clear()
    asked(server, 5)
    server.until(lambda: (server.home / "serving" / "taken.json").exists())
    server.kill()
    server.start()
    assert [(status, version) for status, version, _ in asked(server, 5)] == [(200, 1)] * 5
    assert not server.control.reports
    server.control.assignment = kept
    assert taken(server)["since"] == "t1"
    assert {version for _, version, _ in asked(server, 5)} == {1}  # reported, and not assigned anew
    server.assign(server.slot(1))
    server.until(lambda: server.control.reports[-1]["taken"] == {})
    server.assign(fresh(server, since="t2"), server.slot(1, "standby"))  # mended, and promoted by hand
    assert {version for _, version, _ in asked(server, 5)} == {2}


def test_without_a_version_before_there_is_nothing_to_go_back_to(server: Any) -> None:
    """The negative control: the same failures, felt."""
    server.start()
    server.assign(server.slot(1))
    server.assign(fresh(server, plan={"does": "fail"}))
    assert {status for status, _, _ in asked(server, 5)} == {500}
    assert server.control.reports[-1]["taken"] == {}
