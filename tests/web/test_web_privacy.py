"""The pages of personal data: what was erased and what is left, what is kept how long, what a model processes."""

from __future__ import annotations

import httpx
import polars as pl
import pytest

from orrery.access.roles import Grant, Principal
from orrery.actions.desk import Desk
from orrery.actions.erase import erase, find
from orrery.app import Orrery
from orrery.data.contract import Contract
from orrery.errors import NotAllowed
from orrery.web.privacypage import privacy_page

MARKS = 'retention = "400d"\n[columns.patient]\ntype = "string"\nsubject = true\n'


@pytest.fixture
def clinic(orrery: Orrery) -> Orrery:
    """Visits of nine patients, one of whom was looked for and erased."""
    orrery.change_contract("visits", Contract.from_toml(MARKS), why="w", actor="ann")
    for _ in range(2):
        rows = pl.DataFrame({"patient": [f"p{one % 9}" for one in range(90)], "age": [one % 90 for one in range(90)]})
        orrery.add_data("visits", rows, why="clinic", actor="ann")
    desk = Desk(orrery, again=False)
    find(desk, "p3", actor="mara", why="Request <b>17</b>.")
    erase(desk, "p3", actor="mara", why="Request <b>17</b>.")
    return orrery


def test_what_was_erased_and_what_is_kept_is_shown(clinic: Orrery, web: httpx.Client) -> None:
    text = web.get("/-/privacy").text
    assert "Request &lt;b&gt;17&lt;/b&gt;." in text and "<b>17" not in text
    assert "nothing of it in" in text and "400d" in text and "Who looked for whom" in text
    shown = web.get("/-/privacy.json").json()
    assert [one["rows"] for one in shown["erasures"]] == [20] and shown["looks"][0]["by"] == "mara"
    assert "psn_" not in text and "p3" not in text

    (clinic.settings.home / "note").write_text(clinic.privacy.pseudonyms.of("p4") or "")
    erase(Desk(clinic, again=False), "p4", actor="mara", why="Request 18.")
    assert "left in note (1)" in web.get("/-/privacy").text


def test_a_dataset_says_that_rows_are_gone(clinic: Orrery, web: httpx.Client) -> None:
    page = web.get("/data/visits").text
    assert "20 rows that were here are gone for good" in page and "pseudonymised, whose the row is" in page
    assert "10 of all its rows are gone" in page and "20 of all its rows are gone" in page
    assert web.get("/data/visits.json").json()["gone"] == {"1": 10, "2": 20}
    assert "Rows are kept for 400d" in page


def test_who_may_not_erase_does_not_see_who_was(clinic: Orrery) -> None:
    for role in ("viewer", "scientist", "reviewer", "operator"):
        with pytest.raises(NotAllowed):
            privacy_page(clinic.acting(Principal("x", (Grant(role),))))
    assert privacy_page(clinic.acting(Principal("x", (Grant("compliance"),)))).erasures


def test_the_record_of_a_model_says_what_nobody_has_said(year: Orrery, web: httpx.Client) -> None:
    page = web.get("/flight-delay/privacy").text
    assert "Nobody has said: legal basis, controller" in page
    assert "Say before departure" in page and "No column is marked as personal." in page
    assert web.get("/flight-delay/privacy.json").json()["missing"] == ["legal basis", "controller"]
    assert '"/flight-delay/privacy"' in web.get("/flight-delay").text


PRIVACY = "/api/privacy"


def test_a_person_is_found_and_erased_by_the_api(clinic: Orrery, web: httpx.Client) -> None:
    asked = {"subject": "p5", "why": "Request 19."}
    found = web.post(f"{PRIVACY}/find", json=asked)
    assert found.status_code == 200 and found.json()["rows"] == 20, found.text
    would = web.post(f"{PRIVACY}/erase", json={**asked, "dry_run": True}).json()
    assert would["rows"] == 20 and web.post(f"{PRIVACY}/find", json=asked).json()["rows"] == 20, "nothing went"
    gone = web.post(f"{PRIVACY}/erase", json=asked).json()
    assert gone["rows"] == 20 and gone["files"] == [] and gone["searched"]["files"] > 0
    assert web.post(f"{PRIVACY}/find", json=asked).json()["rows"] == 0
    listed = {one["why"]: one for one in web.get(PRIVACY).json()}
    assert listed.keys() == {"Request <b>17</b>.", "Request 19."}
    assert listed["Request 19."]["rows"] == 20 and listed["Request 19."]["clean"] and listed["Request 19."]["proof"]
    who = clinic.privacy.pseudonyms.of("p6") or ""
    named = web.post(f"{PRIVACY}/erase", json={"subject": "p6", "why": f"{who} wrote a letter."})
    assert named.status_code == 422 and web.post(f"{PRIVACY}/find", json={**asked, "subject": "p6"}).json()["rows"]
    assert web.post(f"{PRIVACY}/erase", json={"subject": "nobody", "why": "w"}).status_code == 404
    assert web.post(f"{PRIVACY}/find", json={"subject": " ", "why": "w"}).status_code == 422


def test_a_person_is_found_and_erased_by_the_page(clinic: Orrery, web: httpx.Client) -> None:
    form = {"subject": "p7", "why": "Request <i>20</i>."}
    page = web.post("/-/privacy/find", data=form)
    assert page.status_code == 200 and page.headers["cache-control"] == "no-store"
    assert "What is kept" in page.text and "20 rows" in page.text and "visits" in page.text
    assert "p7" not in page.text and "psn_" not in page.text and "<i>20" not in page.text
    refused = web.post("/-/privacy/erase", data=form)
    assert refused.status_code == 422 and "20 rows" in web.post("/-/privacy/preview", data=form).text
    erased = web.post("/-/privacy/erase", data={**form, "sure": "yes"})
    assert "What was erased" in erased.text and "nothing of it in any" in erased.text, erased.text
    assert "0 rows" in web.post("/-/privacy/find", data=form).text
    assert web.post("/-/privacy/conquer", data=form).status_code == 404


def test_who_may_not_find_finds_and_erases_nothing_by_these_ways(clinic: Orrery) -> None:
    from orrery.web.erasing import OF_PRIVACY, _done

    for role in ("viewer", "scientist", "reviewer", "operator"):
        other = clinic.acting(Principal("x", (Grant(role),)))
        for order in OF_PRIVACY:
            with pytest.raises(NotAllowed):
                _done(order, other, "p6", "x", "w")
    assert _done("find", clinic.acting(Principal("x", (Grant("compliance"),))), "p6", "x", "w")["rows"] == 20
