"""Secrets over the API and on the page: in they go, out comes who set them."""

from __future__ import annotations

import httpx

from orrery.app import Orrery

VALUE, MODEL = "the moons of Jupiter are four", "flight-delay"
PLACE = f"/api/models/{MODEL}/secrets"


def test_a_secret_goes_in_and_never_out(web: httpx.Client, year: Orrery) -> None:
    assert web.get(PLACE).json() == []
    body = {"value": VALUE, "why": "The new warehouse."}
    done = web.put(f"{PLACE}/warehouse", json=body, headers={"X-Orrery-Actor": "mara"})
    assert done.status_code == 201 and done.json()["events"][0]["data"]["change"] == "set"
    assert year.secrets.values(MODEL) == {"warehouse": VALUE}
    (one,) = web.get(PLACE).json()
    assert (one["name"], one["by"]) == ("warehouse", "mara")
    page = web.get(f"/{MODEL}/orders").text
    assert "<td>warehouse</td><td>mara</td>" in page and "given to" in page
    for text in (done.text, page, web.get(f"/{MODEL}").text, web.get(f"/{MODEL}/orders.json").text):
        assert VALUE not in text
    for wrong in ({"value": "sh0rt", "why": "w"}, {"value": VALUE}, {"value": VALUE, "why": "w", "more": 1}):
        refused = web.put(f"{PLACE}/other", json=wrong)
        assert refused.status_code == 422 and VALUE not in refused.text and "sh0rt" not in refused.text
    assert web.delete(f"{PLACE}/warehouse").status_code == 422  # a reason is asked for
    assert web.delete(f"{PLACE}/warehouse", params={"why": "Closed."}).status_code == 201
    assert web.delete(f"{PLACE}/warehouse", params={"why": "Closed."}).status_code == 404
    assert web.get(PLACE).json() == []
    assert [event.data["change"] for event in year.timeline.read(MODEL, kinds=["secret"])] == ["set", "removed"]
