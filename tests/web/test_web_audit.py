"""The pages of an audit, and what a read of them leaves behind."""

from __future__ import annotations

import httpx
import pytest

from orrery.app import Orrery
from orrery.timeline.event import Draft

pytestmark = pytest.mark.usefixtures("year")


def test_what_happened_is_found_by_who_and_kind_and_when(web: httpx.Client, year: Orrery) -> None:
    year.event("flight-delay", why="A <b>storm</b>.", actor="<i>eve</i>")
    page = web.get("/audit", params={"by": "<i>eve</i>"}).text
    assert "A &lt;b&gt;storm&lt;/b&gt;." in page and "<i>eve" not in page and "<b>storm" not in page
    found = web.get("/audit.json", params={"by": "<i>eve</i>"}).json()["events"]
    assert [one["why"] for one in found] == ["A <b>storm</b>."]
    kinds = {one["kind"] for one in web.get("/audit.json", params={"kind": "promoted"}).json()["events"]}
    assert kinds == {"promoted"}
    assert web.get("/audit.json", params={"by": "nobody"}).json()["events"] == []
    assert web.get("/audit.json", params={"until": "2012-01-01"}).json()["events"] == []
    assert web.get("/audit.json", params={"since": "yesterday"}).status_code == 422
    assert web.get("/audit.json", params={"kinds": "promoted"}).status_code == 422


def test_older_ones_are_on_the_next_page(web: httpx.Client, year: Orrery) -> None:
    drafts = [Draft(kind="business", actor="eve", why=f"{number}", model="flight-delay") for number in range(450)]
    year.append(drafts)
    seen: list[str] = []
    before: int | None = None
    while True:
        query = {"by": "eve", **({"before": before} if before else {})}
        page = web.get("/audit.json", params=query).json()
        seen += [one["why"] for one in page["events"]]
        if not page["more"]:
            break
        before = page["before"]
    assert seen == [str(number) for number in reversed(range(450))]


def test_what_one_person_did_and_what_served(web: httpx.Client, year: Orrery) -> None:
    year.event("flight-delay", why="A storm.", actor="eve")
    assert "A storm." in web.get("/audit/who", params={"name": "eve"}).text
    assert web.get("/audit/who.json", params={"name": "eve"}).json()["deeds"]["by_kind"] == {"business": 1}
    assert web.get("/audit/who").status_code == 200
    lane = year.model("flight-delay").lane("production")
    day = f"{lane.since:%Y-%m-%d}"
    (served,) = [
        one
        for one in web.get("/flight-delay/served.json", params={"at": day}).json()["served"]
        if one["environment"] == "production" and one["until"] is None
    ]
    assert (
        served["version"] == lane.champion
        and served["evidence"] == year.model("flight-delay").versions[lane.champion or 0].evidence
    )
    page = web.get("/flight-delay/served").text
    assert f"/flight-delay/versions/{lane.champion}" in page and served["evidence"] in page
    assert "Nothing answered then" in web.get("/flight-delay/served", params={"at": "2012-01-01"}).text
    assert web.get("/nothing-here/served").status_code == 404


def test_the_page_says_where_the_chain_is_anchored(web: httpx.Client, year: Orrery) -> None:
    assert "noted nowhere outside" in web.get("/audit").text
    (outcome,) = year.anchoring.anchor(["git+file:///nowhere.git"])
    assert outcome.fault and "orrery itself" in web.get("/issues").text
    place = str(year.settings.home / "outside")
    year.anchoring.anchor([place])
    assert place in web.get("/audit").text


def test_a_profile_of_personal_columns_is_a_read(web: httpx.Client, year: Orrery) -> None:
    import polars as pl

    from orrery.data.contract import Contract

    columns = {"patient": {"type": "string", "personal": "pseudonymised", "subject": True}}
    year.change_contract("ward", Contract.from_dict({"columns": columns}), why="Declared.", actor="root")
    year.add_data("ward", pl.DataFrame({"patient": ["Ann", "Bo"]}), why="First.", actor="root")
    assert web.get("/data/ward").status_code == 200
    assert list(year.timeline.read(kinds=["read"])) == []
    for _ in range(3):
        assert web.get("/data/ward", params={"profile": True}, headers={"X-Orrery-Actor": "eve"}).status_code == 200
    (event,) = year.timeline.read(kinds=["read"])
    assert (event.actor, event.data["what"], event.data["of"]) == ("eve", "profile", "ward")
