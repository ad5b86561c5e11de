"""Who is to answer where, and what becomes of what the inference servers report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from orrery.app import Orrery
from orrery.serving.assignment import read
from orrery.timeline.event import Draft
from orrery.web.assignment import Assigner, assignment_of

pytestmark = pytest.mark.usefixtures("year")
URL = "/api/serving/assignment"
CHAMPION = "production/flight-delay/2"


def report(web: httpx.Client, applied: int, failed: dict[str, str] | None = None, server: str = "one") -> None:
    body = {"server": server, "applied": applied, "failed": failed or {}, "served": {CHAMPION: 12}}
    assert web.post("/api/serving/report", json=body).status_code == 200


def failures(orrery: Orrery) -> list[Any]:
    return [event for event in orrery.timeline.read("flight-delay", kinds=("failed",))]


def test_every_champion_has_a_slot_that_a_server_can_carry_out(year: Orrery) -> None:
    assignment = read(msgspec.json.encode(assignment_of(year)))  # as a server reads it, with its checks
    slots = {slot.key: slot for slot in assignment.slots}
    assert {key: slot.role for key, slot in slots.items()} == {
        "staging/flight-delay/5": "champion",
        CHAMPION: "champion",
    }
    slot = slots[CHAMPION]
    assert Path(slot.artifact) == year.settings.home / "artifacts/1/run002/artifacts/model"
    assert (slot.python, slot.task, slot.broken, slot.timeout) == ("/venvs/10ck/bin/python", "binary", "mask", 2.0)
    assert slot.memory == 4 << 30, "what its training may use"
    assert slot.entity == "flight_id"
    assert slot.contract is not None
    assert set(slot.contract["columns"]) == {"carrier", "temp", "distance"}, "a request does not know the target"
    assert slot.columns == {"carrier": "string", "temp": "number", "distance": "integer"}


def test_what_runs_beside_the_champion_has_a_slot_too(web: httpx.Client, year: Orrery) -> None:
    year.approve("flight-delay", 5, why="Good.", actor="mara")
    year.promote("flight-delay", 5, why="Now.", actor="mara")
    roles = {slot.version: slot.role for slot in assignment_of(year).slots if slot.environment == "production"}
    assert roles == {5: "champion", 2: "guard"}


def test_an_unchanged_assignment_is_not_sent_again(web: httpx.Client, year: Orrery) -> None:
    first = web.get(URL)
    tag = first.headers["etag"]
    again = web.get(URL, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    year.event("flight-delay", why="Nothing that serving cares about.", actor="nora")
    assert web.get(URL, headers={"If-None-Match": tag}).status_code == 304
    year.rollback("flight-delay", why="Test.", actor="mara", to=1)
    moved = web.get(URL, headers={"If-None-Match": tag})
    assert moved.status_code == 200 and moved.json()["seq"] > first.json()["seq"]


def test_the_number_is_the_same_after_a_restart(year: Orrery) -> None:
    assert Assigner(year).current()[1:] == Assigner(year).current()[1:]


def test_it_is_made_anew_only_when_something_happened(year: Orrery) -> None:
    assigner = Assigner(year)
    _, body, _ = assigner.current()
    assert assigner.current()[1] is body
    year.event("flight-delay", why="Something happened.", actor="nora")
    assert assigner.current()[1] is not body


def test_settled_waits_for_the_servers_that_are_there(web: httpx.Client, year: Orrery) -> None:
    assert year.settled() is web.get("/api/status").json()["settled"]
    seq = web.get(URL).json()["seq"]
    settled = year.settled()
    web.get(URL, params={"server": "one", "applied": seq - 1})
    found = web.get("/api/status").json()
    assert not found["settled"] and found["servers"][0]["applied"] == seq - 1
    report(web, seq)
    found = web.get("/api/status").json()
    assert found["settled"] is settled and found["servers"][0]["served"] == {CHAMPION: 12}


def test_a_champion_that_cannot_start_gives_way_once(web: httpx.Client, year: Orrery) -> None:
    seq = web.get(URL).json()["seq"]
    for server in ("one", "two", "one"):
        report(web, seq, {CHAMPION: "ImportError: no lightgbm"}, server)
    (failed,) = failures(year)
    assert (failed.version, failed.data["stage"], failed.data["final"]) == (2, "serving", False)
    back = [event for event in year.timeline.read("flight-delay", kinds=("rolled_back",))][-1]
    assert (back.version, back.actor) == (4, "orrery/serving") and "no lightgbm" in back.why
    assert year.model("flight-delay").champion() is year.model("flight-delay").versions[4]


def test_a_broken_machine_does_not_walk_back_through_all_champions(web: httpx.Client, year: Orrery) -> None:
    for version in (2, 4):
        seq = web.get(URL).json()["seq"]
        report(web, seq, {f"production/flight-delay/{version}": "broken"})
    champion = year.model("flight-delay").champion()
    assert champion is not None and champion.number == 4, "one step back, and no further"
    assert [event.version for event in failures(year)] == [2, 4]
    mine = [issue for issue in year.model("flight-delay").issues.values() if "cannot be served" in issue.title]
    assert [(issue.version, issue.owner) for issue in mine] == [(2, "nora"), (4, "nora")]


def test_a_challenger_that_cannot_start_is_dropped(web: httpx.Client, year: Orrery) -> None:
    year.approve("flight-delay", 5, why="Good.", actor="mara")
    year.promote("flight-delay", 5, why="Now.", actor="mara")
    report(web, web.get(URL).json()["seq"], {CHAMPION: "broken"})
    (failed,) = failures(year)
    assert failed.data["final"] is True and failed.data["role"] == "guard"
    (left,) = [one for one in year.timeline.read("flight-delay", kinds=("retired",), version=2, after=failed.seq)]
    assert "broken" in left.why and left.data["role"] == "guard"
    slots = [slot for slot in web.get(URL).json()["slots"] if slot["environment"] == "production"]
    assert [(slot["version"], slot["role"]) for slot in slots] == [(5, "champion"), (4, "standby")]
    assert year.model("flight-delay").lane("production").champion == 5


def test_a_share_by_hand_is_a_slot_and_what_is_taken_back_is_written_down(web: httpx.Client, year: Orrery) -> None:
    year.approve("flight-delay", 5, why="Good.", actor="mara")
    year.promote("flight-delay", 5, why="Try it.", actor="mara", share=0.1)
    year.promote("flight-delay", 5, why="More.", actor="mara", share=0.2)
    slots = {slot.role: slot for slot in assignment_of(year).slots if slot.environment == "production"}
    canary = slots["canary"]
    assert (canary.version, canary.share, canary.salt) == (5, 0.2, "production/flight-delay/5/canary")
    assert canary.probation is not None and slots["champion"].version == 2
    taken = {canary.key: {"since": "another trial", "role": "canary", "why": "old news"}}
    body: dict[str, Any] = {"server": "one", "applied": 1, "taken": taken}
    assert web.post("/api/serving/report", json=body).status_code == 200
    assert not failures(year), "what was taken back in another trial says nothing of this one"
    taken[canary.key] = {"since": canary.since, "role": "canary", "why": "It failed on 3 of 3."}
    for _ in range(2):
        assert web.post("/api/serving/report", json=body).status_code == 200
    (failed,) = failures(year)
    assert failed.actor == "orrery/serving" and failed.data["taken_back"]
    assert "was taken back in production (canary): It failed on 3 of 3." in failed.why
    lane = year.model("flight-delay").lane("production")
    assert lane.champion == 2 and 5 not in lane.challengers and 5 in lane.unfit
    assert not [one for one in year.due("flight-delay") if one.version == 5 and one.environment == "production"]


def test_a_new_champion_is_on_probation_and_one_that_came_back_is_not(year: Orrery) -> None:
    year.approve("flight-delay", 5, why="Good.", actor="mara")
    year.promote("flight-delay", 5, why="Now.", actor="mara")
    (slot,) = (slot for slot in assignment_of(year).slots if slot.key == "production/flight-delay/5")
    assert slot.probation is not None and slot.probation.before == 2
    year.rollback("flight-delay", why="No.", actor="mara")
    (slot,) = (slot for slot in assignment_of(year).slots if slot.key == CHAMPION)
    assert slot.role == "champion" and slot.probation is None


def test_a_report_about_what_is_not_assigned_changes_nothing(web: httpx.Client, year: Orrery) -> None:
    head = year.timeline.head()
    report(web, 3, {"production/flight-delay/1": "late news", "x/y/z": "nonsense"})
    assert year.timeline.head() == head
    assert web.post("/api/serving/report", json={"server": "", "applied": 1}).status_code == 422
    assert web.post("/api/serving/report", json={"server": "a", "applied": "1"}).status_code == 422


def test_who_holds_a_state_goes_on_seeing_it(year: Orrery) -> None:
    held = year.model("flight-delay")
    seq, lanes = held.seq, iter(held.issues)
    next(lanes)
    facts = {"issue": "new", "title": "t", "owner": "nora"}
    year.append([Draft(kind="issue_opened", actor="a", why="b", model="flight-delay", data=facts)])
    fresh = year.model("flight-delay")
    assert "new" in fresh.issues and "new" not in held.issues
    assert held.seq == seq < fresh.seq
    assert len(list(lanes)) == len(held.issues) - 1  # iterating while another thread folds does not break


def test_denied_requests_are_written_once_and_counted(web: httpx.Client, year: Orrery) -> None:
    seq = web.get(URL).json()["seq"]
    denied = [
        {"account": "mara", "model": "flight-delay", "times": 3},
        {"account": "", "model": "", "times": 2},
        {"account": "jo", "model": "../tides", "times": 1},
    ]
    body = {"server": "one", "applied": seq, "denied": denied}
    for _ in range(3):
        assert web.post("/api/serving/report", json=body).status_code == 200
    events = list(year.timeline.read(kinds=["denied"]))
    found = [(one.actor, one.model, one.data["project"], one.data.get("more", 0)) for one in events]
    assert found == [("mara", "flight-delay", "flight-delay", 2), ("stranger", "", "", 1), ("jo", "", "", 0)]
    assert web.post("/api/serving/report", json={**body, "denied": [{**denied[0], "times": -1}]}).status_code == 422
