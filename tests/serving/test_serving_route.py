"""Who answers: a share of the units, the same ones at every restart, and all who were in a share that grows."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orrery.serving.route import Share

UNITS = [f"customer-{number}" for number in range(400)]


def versions(server: Any, people: list[str] = UNITS[:120]) -> dict[str, int]:
    """Return who is answered by which version."""
    return {person: server.predict({"age": 40, "person": person}).json()["version"] for person in people}


@given(st.text(), st.integers(0, 10**9), st.floats(0, 1), st.floats(0, 1))
def test_a_share_that_grows_keeps_who_was_in_it(salt: str, unit: int, one: float, other: float) -> None:
    small, large = Share(min(one, other), salt), Share(max(one, other), salt)
    assert not small.holds_unit(unit) or large.holds_unit(unit)
    assert Share(1.0, salt).holds_unit(unit) and not Share(0.0, salt).holds_unit(unit)


def test_a_share_has_its_size_and_another_salt_draws_anew() -> None:
    first, second = Share(0.2, "m/2"), Share(0.2, "m/3")
    units = range(20_000)
    in_first = {unit for unit in units if first.holds_unit(unit)}
    in_both = {unit for unit in in_first if second.holds_unit(unit)}
    assert abs(len(in_first) / 20_000 - 0.2) < 0.012  # four standard errors
    assert abs(len(in_both) / len(in_first) - 0.2) < 0.026


def test_every_process_draws_alike() -> None:
    program = (
        "from orrery.serving.route import Share; s = Share(.3, 'm/2'); print([s.holds_unit(u) for u in range(99)])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    here = Share(0.3, "m/2")
    assert shown.stdout.strip() == str([here.holds_unit(unit) for unit in range(99)])
    assert here.holds_unit(7.0) == here.holds_unit(7) == here.holds_unit("7")


def test_a_canary_answers_its_share_and_the_same_people_after_a_restart(server: Any) -> None:
    server.start()

    def canary(share: float) -> dict[str, Any]:
        return server.slot(2, "canary", share=share, salt="m/2", unit="person")

    server.assign(server.slot(1), canary(0.2))
    first = versions(server)
    assert 8 <= list(first.values()).count(2) <= 40
    assert server.stop() == 0
    server.control.assignment = None  # the restarted server has only what is on its disk
    server.start()
    server.until(lambda: server.http.get("/v2/models/m/versions/2/ready").status_code == 200)
    assert versions(server) == first
    server.assign(server.slot(1), canary(0.5))
    second = versions(server)
    assert {person for person, version in first.items() if version == 2} < {
        person for person, version in second.items() if version == 2
    }
    server.assign(server.slot(1))
    assert set(versions(server).values()) == {1}


def test_champion_and_canary_see_what_the_other_answered(server: Any) -> None:
    server.start()
    server.assign(server.slot(1), server.slot(2, "canary", share=0.5, salt="s"), server.slot(3, "shadow"))
    answered = {}
    for number in range(30):
        said = server.predict(x_request_id=f"r{number}", prefer="wait-shadow").json()
        answered[f"r{number}#0"] = said["version"]
    assert set(answered.values()) == {1, 2}
    rows = server.journal()
    assert len(rows) == 90
    for row in rows:
        mine = answered[row["_id"]] == row["_version"]
        assert row["_role"] == ({1: "champion", 2: "canary"}[row["_version"]] if mine else "shadow")
        assert ("age" in row) is mine  # the inputs stand with who answered


def test_the_arms_of_a_comparison_are_apart(server: Any) -> None:
    server.start()
    server.assign(server.slot(1), server.slot(2, "arm", share=0.5, salt="s"))
    for _ in range(30):
        server.predict(prefer="wait-shadow")
    rows = server.journal()
    assert len(rows) == 30
    assert {(row["_version"], row["_role"]) for row in rows} == {(1, "champion"), (2, "arm")}


def test_a_request_that_names_a_version_is_answered_by_it(server: Any) -> None:
    server.start()
    server.assign(server.slot(1), server.slot(2, "canary", share=0.5), server.slot(3, "shadow"))
    body = {"inputs": [{"name": "age", "shape": [1], "datatype": "INT64", "data": [4]}]}

    def ask(version: int) -> Any:
        return server.http.post(f"/v2/models/m/versions/{version}/infer", json=body)

    for version in (1, 2):
        assert {ask(version).json()["model_version"] for _ in range(12)} == {str(version)}
        assert server.http.get(f"/v2/models/m/versions/{version}").json()["versions"] == [str(version)]
    assert (ask(3).status_code, "Versions 1 and 2 of m answer" in ask(3).json()["error"]) == (404, True)


def test_a_canary_that_cannot_start_is_never_asked(server: Any) -> None:
    server.start()
    report = server.assign(server.slot(1), server.slot(2, "canary", share=0.9, plan={"fails": "no such feature"}))
    assert report["failed"] == {"production/m/2": "no such feature"}
    assert {server.predict().json()["version"] for _ in range(20)} == {1}


def test_a_share_that_is_none_is_refused(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    server.order(server.slot(1), server.slot(2, "canary", share=1.5))
    said = server.until(lambda: server.control.reports[-1]["failed"].get("assignment"))
    assert "The share of production/m/2 is 1.5" in said
    assert server.predict().json()["version"] == 1
