"""The JSON API over a real timeline and a real server."""

from __future__ import annotations

import io
from typing import Any

import httpx
import polars as pl
import pytest

from orrery.app import Orrery

pytestmark = pytest.mark.usefixtures("year")
M = "/api/models/flight-delay"
WHY = {"why": "Because the test says so."}


def refused(answer: httpx.Response, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    error: dict[str, str] = answer.json()["error"]
    assert set(error) == {"what", "safe", "todo"} and error["what"]
    return error


def test_a_model_in_short(web: httpx.Client) -> None:
    found = web.get(M).json()
    assert (found["versions"], found["waiting"], found["primary"]) == (5, 1, "brier")
    production, staging = found["environments"]
    assert (production["environment"], production["champion"], staging["champion"]) == ("production", 2, 5)
    assert production["why"].startswith("The former champion is proven better")
    assert [one["name"] for one in web.get("/api/models").json()] == ["flight-delay"]


def test_versions_and_one_version(web: httpx.Client) -> None:
    versions = web.get(f"{M}/versions").json()
    assert [one["number"] for one in versions] == [1, 2, 3, 4, 5]
    assert [one["passed"] for one in versions] == [True, True, False, True, True]
    third = web.get(f"{M}/versions/3").json()
    assert third["gates"]["brier"]["verdict"] == "refused" and third["facts"]["params"]["depth"] == 6
    refused(web.get(f"{M}/versions/9"), 404)
    refused(web.get("/api/models/flight-dely"), 404)


def test_the_timeline_is_paged_without_gaps_both_ways(web: httpx.Client, orrery: Orrery) -> None:
    whole = [event.to_json() for event in orrery.timeline.read("flight-delay")]
    forward: list[dict[str, Any]] = []
    after: int | None = 1
    while after is not None:
        page = web.get(f"{M}/timeline", params={"after": after, "limit": 50}).json()
        forward += page["events"]
        after = page["next"]
    assert forward == [event for event in whole if event["seq"] > 1]
    backward: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 70}
    while True:
        page = web.get(f"{M}/timeline", params=query).json()
        backward += page["events"]
        if page["next"] is None:
            break
        query["before"] = page["next"]
    assert backward == whole[::-1]


def test_the_timeline_by_kind_version_and_time(web: httpx.Client) -> None:
    def kinds(**query: Any) -> list[str]:
        return [event["kind"] for event in web.get(f"{M}/timeline", params=query).json()["events"]]

    assert kinds(kind="alarmed") == ["alarmed", "alarmed"]
    assert kinds(kind=["alarmed", "rolled_back"]) == ["rolled_back", "alarmed", "alarmed"]
    assert kinds(version=3) == ["issue_opened", "gated", "trained"]
    early = web.get(f"{M}/timeline", params={"at": "2013-02-01T12:00"}).json()["events"]
    assert early and all(event["occurred_at"] < "2013-02-01T12:01" for event in early)
    refused(web.get(f"{M}/timeline", params={"kind": "alarm"}), 422)
    refused(web.get(f"{M}/timeline", params={"at": "yesterday"}), 422)
    refused(web.get(f"{M}/timeline", params={"limit": 5000}), 422)
    assert "limit" in refused(web.get(f"{M}/timeline", params={"limti": 5}), 422)["todo"]


def test_what_served_at_a_time(web: httpx.Client) -> None:
    def champion(at: str) -> int | None:
        return next(
            lane["champion"]
            for lane in web.get(f"{M}/at", params={"at": at}).json()["environments"]
            if lane["environment"] == "production"
        )

    assert [champion(day) for day in ("2013-02-10", "2013-04-01", "2013-05-25", "2013-06-10")] == [1, 2, 4, 2]
    assert web.get(f"{M}/at", params={"at": "2012-01-01"}).json()["environments"] == []


def test_reviews_issues_data_and_the_chain(web: httpx.Client) -> None:
    (review,) = web.get("/api/reviews").json()
    assert (review["version"], review["environment"], review["role"]) == (5, "production", "quality")
    issues = web.get(f"{M}/issues").json()
    assert {one["version"] for one in issues} == {1, 2, 3} and all(one["closed"] is None for one in issues)
    (dataset,) = web.get("/api/data").json()
    assert (dataset["name"], dataset["rows"], dataset["quarantined"]) == ("flights", 27004, 120)
    (first,) = web.get("/api/data/flights/versions").json()
    assert first["why"] == "January."
    refused(web.get("/api/data/boats/versions"), 404)
    verdict = web.get("/api/verify").json()
    assert verdict["holds"] and verdict["head"] == web.get("/api/status").json()["hash"]
    assert not web.get("/api/verify", params={"head": "0" * 64}).json()["holds"]


def test_approval_is_attributed_to_the_header(web: httpx.Client) -> None:
    answer = web.post(f"{M}/versions/5/approve", json=WHY, headers={"X-Orrery-Actor": "Jörg".encode()})
    assert answer.status_code == 201
    (event,) = answer.json()["events"]
    assert (event["kind"], event["actor"], event["why"]) == ("approved", "Jörg", WHY["why"])
    assert web.get("/api/reviews").json() == []
    again = refused(web.post(f"{M}/versions/5/approve", json=WHY), 403)
    assert "waiting" in again["what"]


def test_orders_change_what_serves(web: httpx.Client) -> None:
    refused(web.post(f"{M}/versions/3/promote", json=WHY), 403)
    refused(web.post(f"{M}/versions/5/promote", json=WHY), 403)
    web.post(f"{M}/versions/5/approve", json=WHY)
    kinds = [event["kind"] for event in web.post(f"{M}/versions/5/promote", json=WHY).json()["events"]]
    assert kinds == ["promoted", "challenged"]
    refused(web.request("DELETE", f"{M}/versions/5", params=WHY), 403)
    back = web.post(f"{M}/rollback", json={**WHY, "to": 1}).json()["events"]
    assert (back[0]["kind"], back[0]["version"], back[0]["actor"]) == ("rolled_back", 1, "anonymous@loopback")
    assert web.post(f"{M}/versions/5/retire", json=WHY).status_code == 201
    assert web.request("DELETE", f"{M}/versions/4", params=WHY).status_code == 201
    assert web.get(f"{M}/versions").json()[3]["deleted"]
    assert web.post(f"{M}/versions/3/approve", json={**WHY, "gate": "brier"}).status_code == 201
    assert web.post(f"{M}/versions/3/reject", json=WHY).status_code == 201


def test_events_and_trainings(web: httpx.Client) -> None:
    body = {"why": "Strike", "occurred_at": "2013-07-01", "data": {"airports": 3}}
    (event,) = web.post(f"{M}/events", json=body).json()["events"]
    assert (event["kind"], event["occurred_at"][:10], event["data"]) == ("business", "2013-07-01", {"airports": 3})
    (run,) = web.post(f"{M}/train", json={**WHY, "params": {"depth": 3}}).json()["events"]
    assert (run["kind"], run["data"]["reason"], run["data"]["params"]) == ("triggered", "hand", {"depth": 3})
    refused(web.post(f"{M}/train", json={**WHY, "change": "wild"}), 422)


ORDERS = [
    ("POST", f"{M}/versions/5/approve"),
    ("POST", f"{M}/versions/5/reject"),
    ("POST", f"{M}/versions/5/ask"),
    ("POST", f"{M}/versions/5/override"),
    ("POST", f"{M}/versions/5/promote"),
    ("POST", f"{M}/versions/5/retire"),
    ("DELETE", f"{M}/versions/1"),
    ("POST", f"{M}/rollback"),
    ("POST", f"{M}/events"),
    ("POST", f"{M}/train"),
    ("POST", f"{M}/issues"),
    *(("POST", f"{M}/issues/gates3/{order}") for order in ("comment", "assign", "close", "reopen")),
    ("POST", "/api/data/flights"),
    ("PUT", f"{M}/secrets/warehouse"),
    ("DELETE", f"{M}/secrets/warehouse"),
    ("POST", f"{M}/channels"),
    ("DELETE", f"{M}/channels/team"),
    ("POST", f"{M}/webhooks"),
    ("PUT", f"{M}/remote"),
    ("DELETE", f"{M}/remote"),
    ("POST", "/api/privacy/find"),
    ("POST", "/api/privacy/erase"),
]
PLAIN = {f"{M}/labels", "/api/serving/report", "/api/clock", f"{M}/channels/{{channel}}/test", f"{M}/remote/fetch"}
"""Routes that change something and neither override nor remove."""


@pytest.mark.parametrize(("method", "path"), ORDERS)
def test_no_order_without_a_reason(web: httpx.Client, orrery: Orrery, method: str, path: str) -> None:
    head = orrery.timeline.head()
    csv = {"content": "a\n1\n", "headers": {"content-type": "text/csv"}}
    for why in (None, "", "   "):
        said = {} if why is None else {"why": why}
        in_query = method == "DELETE" or path.startswith("/api/data")
        more: dict[str, Any] = {"params": said, **(csv if "data" in path else {})} if in_query else {"json": said}
        refused(web.request(method, path, **more), 422)
    assert orrery.timeline.head() == head


def test_every_route_that_changes_something_is_known_to_these_tests(web: httpx.Client) -> None:
    described = web.get("/openapi.json").json()["paths"]
    found = {
        (method.upper(), path.replace("{model}", "flight-delay").replace("{name}", "flights"))
        for path, methods in described.items()
        for method in methods
        if method != "get"
    }
    names = {"/5": "/{number}", "/1": "/{number}", "gates3": "{issue}", "warehouse": "{secret}", "team": "{channel}"}
    known = set()
    for method, path in ORDERS:
        for value, name in names.items():
            path = path.replace(value, name)
        known.add((method, path))
    assert found == known | {("POST", path) for path in PLAIN}


def test_the_description_is_whole(web: httpx.Client) -> None:
    document = web.get("/openapi.json").json()
    known = document["components"]["schemas"]
    text = web.get("/openapi.json").text
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in known, name
    for path, methods in document["paths"].items():
        assert path.startswith("/api/")
        for method, route in methods.items():
            good = next(answer for status, answer in route["responses"].items() if status.startswith("2"))
            assert good["content"]["application/json"]["schema"], (method, path)
            assert route["summary"], (method, path)
    assert known["ApproveOrder"]["additionalProperties"] is False


@pytest.mark.parametrize(
    "body",
    [
        '{"why": "x", "gates": "brier"}',
        '{"why": 3}',
        "{",
        "[]",
        '"why"',
        "\xff",
        '{"why": "' + "x" * 20_000 + '"}',
        "[" * 5000,
    ],
)
def test_what_cannot_be_read_changes_nothing(web: httpx.Client, orrery: Orrery, body: str) -> None:
    head = orrery.timeline.head()
    refused(web.post(f"{M}/versions/5/approve", content=body.encode("latin-1")), 422)
    assert orrery.timeline.head() == head


def test_a_replay_clock_moves_forward_only(web: httpx.Client) -> None:
    assert web.post("/api/clock", json={"now": "2013-09-01"}).status_code == 200
    assert web.get("/api/status").json()["now"].startswith("2013-09-01")
    refused(web.post("/api/clock", json={"now": "2013-08-01"}), 403)


def test_status_names_what_is_due(web: httpx.Client) -> None:
    found = web.get("/api/status").json()
    assert found["replay"] and found["processes"] == [] and found["servers"] == []
    assert found["settled"] is (not any(found["due"].values()))
    web.post("/api/clock", json={"now": "2013-09-01"})
    found = web.get("/api/status").json()
    assert not found["settled"] and "watch" in {one["kind"] for one in found["due"]["flight-delay"]}


FRAME = pl.DataFrame({"carrier": ["AA", "UA"], "temp": [40.0, 50.0], "distance": [200, 900], "late": [True, False]})


def _bodies() -> dict[str, bytes]:
    stream, parquet = io.BytesIO(), io.BytesIO()
    FRAME.write_ipc_stream(stream)
    FRAME.write_parquet(parquet)
    return {
        "application/vnd.apache.arrow.stream": stream.getvalue(),
        "application/vnd.apache.parquet": parquet.getvalue(),
        "text/csv; charset=utf-8": FRAME.write_csv().encode(),
        "application/x-ndjson": FRAME.write_ndjson().encode(),
    }


@pytest.mark.parametrize("kind", list(_bodies()))
def test_rows_come_in_whatever_form(web: httpx.Client, orrery: Orrery, kind: str) -> None:
    query = {"why": "A first batch.", "key": "one"}
    for _ in range(2):  # the same key again adds nothing
        answer = web.post("/api/data/fresh", params=query, content=_bodies()[kind], headers={"content-type": kind})
        assert answer.status_code == 201, answer.text
        assert (answer.json()["version"], answer.json()["rows"]) == (1, 2)
    assert orrery.lake.read("fresh").polars().equals(FRAME)


def test_rows_that_cannot_be_read(web: httpx.Client) -> None:
    def send(kind: str, body: bytes) -> dict[str, str]:
        return refused(web.post("/api/data/fresh", params=WHY, content=body, headers={"content-type": kind}), 422)

    assert "text/csv" in send("image/png", b"x")["todo"]
    assert send("text/csv", b"a,b\n1,2,3\n")["what"].startswith("The body cannot be read, line 2")
    assert "/" not in send("application/vnd.apache.parquet", b"PAR1")["what"].replace("I/O", "")
    send("application/vnd.apache.arrow.stream", b"nothing")
    refused(web.post("/api/data/UPPER", params=WHY, content="a\n1", headers={"content-type": "text/csv"}), 422)


def test_labels_are_counted(web: httpx.Client) -> None:
    labels = [{"entity": "a", "label": True}, {"entity": "b", "label": False, "at": "2013-07-01T00:00:00Z"}]
    first = web.post(f"{M}/labels", json={"labels": labels}, headers={"Idempotency-Key": "k"}).json()
    assert (first["unknown"], first["duplicate"]) == (2, 0)
    assert web.post(f"{M}/labels", json={"labels": labels}, headers={"Idempotency-Key": "k"}).json() == first
    second = web.post(f"{M}/labels", json={"labels": [{"entity": "b", "label": True}, {"entity": "a", "label": True}]})
    assert (second.json()["conflicting"], second.json()["duplicate"]) == (1, 1)
    table = pl.DataFrame({"entity": ["c"], "label": [1]}).write_csv().encode()
    assert web.post(f"{M}/labels", content=table, headers={"content-type": "text/csv"}).json()["unknown"] == 1
    refused(web.post(f"{M}/labels", json={"labels": [{"entity": "a"}]}), 422)
    refused(web.post(f"{M}/labels", json={"labels": [{"entity": "a", "label": "x"}, {"entity": "b", "label": 1}]}), 422)
    refused(web.post("/api/models/nobody/labels", json={"labels": labels}), 404)


def test_values_of_a_business_metric_come_where_labels_come(web: httpx.Client) -> None:
    values = {"labels": [{"entity": "2013-07-01", "label": 812.5}]}
    assert web.post(f"{M}/labels", params={"metric": "delays"}, json=values).json()["unknown"] == 1
    assert web.post(f"{M}/labels", params={"metric": "delays"}, json=values).json()["duplicate"] == 1
    assert web.post(f"{M}/labels", json=values).json()["unknown"] == 1  # a label of this entity is another thing
    said = refused(web.post(f"{M}/labels", params={"metric": "delay"}, json=values), 404)
    assert "no business metric 'delay'" in said["what"] and "delays" in said["todo"]
    words = {"labels": [{"entity": "2013-07-01", "label": "many"}]}
    refused(web.post(f"{M}/labels", params={"metric": "delays"}, json=words), 422)


def test_issues_are_opened_and_closed(web: httpx.Client) -> None:
    body = {"title": "Why so early?", "why": "Since May.", "version": 2}
    opened = web.post(f"{M}/issues", json=body)
    assert opened.status_code == 201 and opened.json()["events"][0]["kind"] == "issue_opened"
    id_ = opened.json()["events"][0]["data"]["issue"]
    assert web.post(f"{M}/issues/{id_}/comment", json={"why": "See.", "event": 3}).status_code == 201
    assert web.post(f"{M}/issues/{id_}/assign", json={"why": "See.", "owner": "olaf"}).status_code == 201
    assert web.post(f"{M}/issues/{id_}/close", json={"why": "Done."}).status_code == 201
    assert web.post(f"{M}/issues/{id_}/close", json={"why": "Done."}).status_code == 403
    assert web.post(f"{M}/issues/{id_}/reopen", json={"why": "Not done."}).status_code == 201
    assert web.post(f"{M}/issues/{id_}/close", json={}).status_code == 422
    mine = next(one for one in web.get(f"{M}/issues").json() if one["id"] == id_)
    assert (mine["owner"], mine["comments"], mine["closed"]) == ("olaf", 1, None)
