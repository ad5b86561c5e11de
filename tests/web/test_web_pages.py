"""The pages: what they show, that nothing in them is believed, and that their forms are the same commands."""

from __future__ import annotations

import threading
from html.parser import HTMLParser

import httpx
import polars as pl
import pytest
from pytest import MonkeyPatch

from orrery.app import Orrery
from orrery.timeline.event import Draft
from orrery.web.modelpage import model_page

VOID = {"meta", "link", "img", "input", "br", "path", "circle", "rect"}
PAGES = [
    "/",
    "/reviews",
    "/issues",
    "/data",
    "/data/flights",
    "/-/privacy",
    "/flight-delay/privacy",
    "/flight-delay",
    "/flight-delay/orders",
    "/flight-delay/channels",
    "/flight-delay/issues",
    "/flight-delay/issues/gates3",
    "/flight-delay/versions/3",
    "/flight-delay/versions/5",
    "/flight-delay/versions/3/why",
    "/flight-delay/versions/5/why",
    "/flight-delay/commits/3f2c1ab",
]


class Tree(HTMLParser):
    """Checks that tags close in order, and collects them with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if tag in ("li", "p", "option") and self.stack[-1] != tag:
            raise AssertionError(f"</{tag}> closes <{self.stack[-1]}>")
        assert self.stack.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_well_formed_and_has_a_twin_in_json(web: httpx.Client, year: Orrery, path: str) -> None:
    answer = web.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    tree = Tree(answer.text)
    assert not tree.all("script") and len(tree.all("h1")) == 1 and len(tree.all("main")) == 1
    assert not any(name.startswith("on") or name == "style" for _, had in tree.tags for name in had)
    assert all(form.get("method") in ("get", "post") for form in tree.all("form"))
    twin = web.get(f"{'/index' if path == '/' else path}.json")
    assert twin.status_code == 200 and twin.json()["title"]
    links = {one["href"] or "" for one in tree.all("a")}
    # The rows of this history are not in the lake: their profile is another test.
    for link in sorted(link for link in links if "mlflow" not in link and "profile" not in link)[:12]:
        assert web.get(link.partition("#")[0]).status_code == 200, link


def test_the_page_of_a_model_draws_its_life(web: httpx.Client, year: Orrery) -> None:
    tree = Tree(web.get("/flight-delay").text)
    classes = [attributes.get("class") or "" for _, attributes in tree.tags]
    assert classes.count("bar champion") == 4 + 1  # v1, v2 twice, v4; and the legend
    assert classes.count("bar beside") == 2 + 1
    for sign in ("s-promoted", "s-rolled_back", "s-alarmed", "s-gated bad", "s-quarantined bad", "s-pushed"):
        assert any(sign in one for one in classes), sign
    assert classes.count("flag") == 2 and classes.count("series line") >= 2
    order = [tag for tag, _ in tree.tags if tag in ("figure", "table", "svg")]
    first = order.index("figure")
    assert order[first : first + 3] == ["figure", "table", "svg"], "the data come before the picture"


def test_the_page_of_a_model_says_what_each_monitor_found_at_the_newest_look(web: httpx.Client, year: Orrery) -> None:
    watches = {one["monitor"]: one for one in web.get("/flight-delay.json").json()["watches"]}
    assert {name: one["standing"] for name, one in watches.items()} == {
        "features": "quiet",
        "decay": "insufficient data",
    }
    page = web.get("/flight-delay").text
    assert "9 labels." in page and "0.25 of 1000" in page and "insufficient data" in page


def test_events_are_newest_first_paged_and_looks_folded_away(web: httpx.Client, year: Orrery) -> None:
    page = web.get("/flight-delay.json").json()
    seqs = [event["seq"] for event in page["events"]]
    assert seqs == sorted(seqs, reverse=True) and len(seqs) == 40
    assert not {event["kind"] for event in page["events"]} & {"watched", "compared"}
    older = web.get("/flight-delay.json", params={"before": page["older"]}).json()
    assert max(event["seq"] for event in older["events"]) < min(seqs) and older["older"] is None
    alarms = web.get("/flight-delay.json", params={"kind": "alarmed"}).json()["events"]
    assert [event["kind"] for event in alarms] == ["alarmed", "alarmed"]
    everything = web.get("/flight-delay.json", params={"kind": "all"}).json()["events"]
    assert everything[0]["kind"] == "watched"
    assert web.get("/flight-delay", params={"kind": "<b>"}).status_code == 422


def test_what_served_at_a_time(web: httpx.Client, year: Orrery) -> None:
    text = web.get("/flight-delay", params={"at": "2013-05-25 00:00"}).text
    served = text.partition('class="served"')[2].partition("</dl>")[0]
    assert "v4" in served and "By policy &#39;refresh&#39;" in served and "2013-05-23" in served
    assert web.get("/flight-delay", params={"at": "soon"}).status_code == 422


def test_the_page_of_a_version_says_why(web: httpx.Client, year: Orrery) -> None:
    refused = web.get("/flight-delay/versions/3").text
    assert "was refused by brier" in refused and "worse than the champion by more than 0.002" in refused
    assert "carrier=EV" in refused and "carrier=HA (n=31)" in refused and "Override a gate" in refused
    assert f"/mlflow/#/experiments/0/runs/{3:032x}" in refused
    assert "Approve" in web.get("/flight-delay/versions/5").text
    assert "<form" not in web.get("/flight-delay/versions/3.json").text


def test_the_chain_of_evidence_is_told_and_drawn(web: httpx.Client, year: Orrery) -> None:
    page = web.get("/flight-delay/versions/3/why").text
    assert "refused by brier" in page and "worse than the champion by more than 0.002" in page
    drawn = Tree(page)
    assert len([one for one in drawn.all("circle") if one.get("class") == "point"]) == 9  # the gate and 8 segments
    told = web.get("/flight-delay/versions/3/why.json").json()
    assert [link["what"] for link in told["links"]].count("gate") == 3 and told["forest"]["rows"]
    assert web.get("/flight-delay/versions/99/why").status_code == 404
    assert 'href="/flight-delay/versions/3/why"' in web.get("/flight-delay/versions/3").text


def test_the_forms_order_the_same(web: httpx.Client, year: Orrery) -> None:
    said = {"why": "Holds in every segment.", "actor": "mara", "environment": "production", "role": "quality"}
    answer = web.post("/flight-delay/versions/5/approve", data=said)
    assert answer.status_code == 303
    assert "Approved." in web.get(answer.headers["location"]).text
    (event,) = [one for one in year.timeline.read("flight-delay", kinds=("approved",), version=5)]
    assert (event.actor, event.why, event.data["role"]) == ("mara", "Holds in every segment.", "quality")
    answer = web.post("/flight-delay/orders/rollback", data={"why": "Test.", "environment": "production", "to": "1"})
    assert "Rolled back." in web.get(answer.headers["location"]).text
    assert year.model("flight-delay").lane("production").champion == 1
    assert web.post("/flight-delay/orders/event", data={"why": "Fair."}).status_code == 303
    assert web.post("/flight-delay/orders/train", data={"why": "Try.", "change": "refresh"}).status_code == 303
    for number, order in ((3, "reject"), (5, "retire"), (5, "delete")):
        assert web.post(f"/flight-delay/versions/{number}/{order}", data={"why": "Test."}).status_code == 303, order
    refused = web.post("/flight-delay/versions/4/promote", data={"why": "Test.", "environment": "nowhere"})
    assert refused.status_code == 404 and "There is no environment" in refused.text


@pytest.mark.parametrize(
    "path",
    [f"/flight-delay/versions/5/{order}" for order in ("approve", "reject", "promote", "retire", "delete")]
    + [f"/flight-delay/orders/{order}" for order in ("rollback", "train", "event")],
)
def test_no_form_without_a_reason(web: httpx.Client, year: Orrery, path: str) -> None:
    head = year.timeline.head()
    for why in ({}, {"why": ""}, {"why": "  "}):
        answer = web.post(path, data={"actor": "mara", **why})
        assert answer.status_code == 422 and "needs a reason" in answer.text
    assert web.post(path, json={"why": "x"}).status_code == 422
    assert year.timeline.head() == head


def test_only_pages_without_forms_load_themselves_again(web: httpx.Client, year: Orrery) -> None:
    web.post("/flight-delay/orders/train", data={"why": "So that something runs."})
    for path in PAGES:
        text = web.get(path).text
        if 'method="post"' in text:
            assert "http-equiv" not in text, path
    assert 'http-equiv="refresh"' in web.get("/").text and "train" in web.get("/").text


EVIL = "<script>alert(1)</script>'\"><img src=x onerror=alert(2)>"


def test_nothing_that_somebody_wrote_becomes_markup(web: httpx.Client, year: Orrery) -> None:
    def add(kind: str, **more: object) -> None:
        year.append([Draft(kind=kind, actor=EVIL, why=EVIL, model="flight-delay", **more)])  # type: ignore[arg-type]

    state = year.model("flight-delay")
    commit = next(iter(state.commits.values()))
    bad = {**commit.spec, "model": {**commit.spec["model"], "objective": EVIL, "owner": EVIL}}
    add("business")
    add("pushed", data={"commit": "e" * 40, "message": EVIL, "author": EVIL, "branch": EVIL, "spec": bad})
    add(
        "built", data={"commit": "e" * 40, "lock": EVIL, "python": EVIL, "packages": 1, "seconds": 1.0, "cached": False}
    )
    add("tested", environment=EVIL[:60], data={"commit": "e" * 40, "output": EVIL})
    facts = {"params": {EVIL: EVIL}, "metrics": {EVIL: 1.0}, "steps": [{"name": EVIL, "why": EVIL}], "warnings": [EVIL]}
    facts["compiled"] = {"served": "onnx", "sentence": f"Served compiled {EVIL}"}
    trained = {"run": EVIL, "commit": "e" * 40, "change": EVIL, "data": {"flights": 1}, "tracking_run": EVIL, **facts}
    add("trained", version=6, data=trained)
    verdict = {"verdict": EVIL, "why": EVIL, "numbers": {EVIL: EVIL}}
    table = {"segments": [{"segment": EVIL, "rows": 1, "loss": EVIL}], "insufficient": [EVIL]}
    gates = {EVIL: verdict, "segments": {"verdict": "passed", "why": EVIL, "numbers": table}}
    add("gated", version=6, data={"passed": True, "gates": gates})
    add("review_requested", version=6, environment="production", data={"role": EVIL})
    add("approved", version=6, environment="staging", data={"role": EVIL})
    add("promoted", version=6, environment="production", data={"previous": 2})
    add("alarmed", version=6, environment="production", data={"monitor": EVIL})
    add("issue_opened", data={"issue": EVIL, "title": EVIL, "owner": EVIL})
    contract = {"columns": {EVIL: {"type": EVIL, "categories": [EVIL], "nulls": EVIL}}, "ordered": [[EVIL, EVIL]]}
    data = [
        ("contract_changed", {"dataset": "flights", "contract": contract}),
        ("data_added", {"dataset": "flights", "version": 2, "rows": 1, "digest": EVIL}),
        ("quarantined", {"dataset": "flights", "version": 2, "rows": 1, "reasons": {EVIL: 1}}),
    ]
    year.append([Draft(kind=kind, actor=EVIL, why=EVIL, data=facts) for kind, facts in data])
    for path in [
        *PAGES,
        "/flight-delay/versions/6",
        f"/flight-delay/commits/{'e' * 40}",
        "/flight-delay?at=2099-01-01",
    ]:
        answer = web.get(path)
        assert answer.status_code == 200, path
        tree = Tree(answer.text)
        assert not tree.all("script") and all(image["src"] == "/static/orrery.svg" for image in tree.all("img")), path
        assert not any(name.startswith("on") for _, had in tree.tags for name in had), path
        assert not any(str(one.get("href")).startswith(("javascript", "data")) for one in tree.all("a"))
    assert "&lt;script&gt;" in web.get("/flight-delay/versions/6").text  # the control: it was really there
    assert "Served compiled &lt;script&gt;" in web.get("/flight-delay/versions/6").text


def test_an_address_is_not_believed_either(web: httpx.Client, year: Orrery) -> None:
    for path in (
        f"/{EVIL}",
        f"/flight-delay/commits/{EVIL}",
        f"/data/{EVIL}",
        f"/flight-delay?kind={EVIL}",
        "/?x=" + EVIL,
    ):
        answer = web.get(path.replace("<img", "%3Cimg"))
        assert answer.status_code >= 400 and "<script>" not in answer.text, path
    said = web.get("/flight-delay/versions/5", params={"done": EVIL})
    assert said.status_code == 200 and "script" not in said.text


def test_what_is_not_there_is_said_as_a_page(web: httpx.Client, year: Orrery) -> None:
    answer = web.get("/flight-dely")
    assert answer.status_code == 404 and "Did you mean &#39;flight-delay&#39;?" in answer.text
    Tree(answer.text)
    for path in ("/flight-delay/versions/99", "/flight-delay/commits/3f2", "/data/boats", "/a/b/c/d"):
        assert web.get(path).status_code == 404, path
    assert web.get("/flight-delay/versions/x").status_code == 422


def test_an_empty_orrery_says_how_to_begin(web: httpx.Client) -> None:
    text = web.get("/").text
    assert "orrery init" in text and "/git/my-model.git" in text
    for path in ("/reviews", "/issues", "/data"):
        assert web.get(path).status_code == 200


def test_a_page_costs_the_same_when_the_log_has_grown(year: Orrery) -> None:
    def rows() -> int:
        count = 0

        before = year.timeline.read

        def counting(*args: object, **more: object) -> object:
            nonlocal count
            for event in before(*args, **more):  # type: ignore[arg-type]
                count += 1
                yield event

        patch = MonkeyPatch()
        patch.setattr(year.timeline, "read", counting)
        model_page(year, "flight-delay")
        patch.undo()
        return count

    year.model("flight-delay")
    before = rows()
    facts = {"look": 9, "until": "2013-08-02T00:00:00.000000Z", "metrics": {"brier": 0.14}}
    for _ in range(5):
        year.append(
            Draft(
                kind="watched",
                actor="m",
                why="w",
                model="flight-delay",
                version=2,
                environment="production",
                data=facts,
            )
            for _ in range(1000)
        )
    year.model("flight-delay")  # folds what is new, once
    assert rows() < before + 400


def test_a_dataset_is_profiled_when_asked(web: httpx.Client, orrery: Orrery) -> None:
    frame = pl.DataFrame({"carrier": ["AA", "AA", "UA", None], "temp": [40.0, 50.0, 60.0, 70.0]})
    orrery.add_data("fresh", frame, why="First.", actor="nora")
    assert web.get("/data/fresh.json").json()["profile"] == []
    columns = {one["name"]: one for one in web.get("/data/fresh.json?profile=true").json()["profile"]}
    assert (columns["temp"]["mean"], columns["carrier"]["missing"]) == (55.0, 0.25)
    assert "Of the newest 4 rows." in web.get("/data/fresh?profile=true").text


def test_pages_are_read_while_the_timeline_grows(web: httpx.Client, year: Orrery, address: str) -> None:
    answers: list[int] = []

    def read() -> None:
        with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
            for path in ("/flight-delay.json", "/api/status", "/issues.json") * 5:
                answers.append(client.get(path).status_code)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    number = 0
    while any(reader.is_alive() for reader in readers):
        number += 1
        facts = {"issue": f"new-{number}", "title": "t", "owner": "nora"}
        year.append([Draft(kind="issue_opened", actor="a", why="b", model="flight-delay", data=facts)])
    assert set(answers) == {200} and len(answers) == 45 and number > 5


def test_issues_are_opened_and_discussed_by_forms(web: httpx.Client, year: Orrery) -> None:
    page = web.get("/flight-delay/issues").text
    assert "It leaks the target." in page and "Open an issue" in page
    form = {"title": "Why so early?", "why": "Since May.", "actor": "mara", "version": "v2", "event": "#3"}
    answer = web.post("/flight-delay/orders/issue", data=form)
    assert answer.status_code == 303 and answer.headers["location"] == "/flight-delay/issues?done=issue"
    issue = list(year.model("flight-delay").issues.values())[-1]
    path = f"/flight-delay/issues/{issue.id}"
    for order, more in (("comment", {}), ("assign", {"owner": "olaf"}), ("close", {}), ("reopen", {})):
        done = web.post(f"{path}/{order}", data={"why": f"Because of {order}.", "actor": "mara", **more})
        assert done.status_code == 303 and done.headers["location"] == f"{path}?done={order}"
    text = web.get(path).text
    assert all(f"Because of {order}." in text for order in ("comment", "assign", "close", "reopen"))
    assert "for olaf" in text and "What it is about" in text
    assert web.post(f"{path}/conquer", data=form).status_code == 404
    assert web.post(f"{path}/comment", data={**form, "version": "x"}).status_code == 422
    assert web.get("/flight-delay/issues/nothing").status_code == 404


def test_changes_are_asked_for_and_an_emergency_is_red(web: httpx.Client, year: Orrery) -> None:
    form = {"why": "Winter is missing.", "actor": "mara"}
    asked = web.post("/flight-delay/versions/5/ask", data={**form, "environment": "production", "role": "quality"})
    assert asked.status_code == 303
    page = web.get("/flight-delay/versions/5").text
    assert "asks for changes" in page and "Winter is missing." in page and "This waits for you" not in page
    assert "EMERGENCY" not in page
    refused = web.post("/flight-delay/versions/5/override", data={**form, "emergency": "yes"})
    assert refused.status_code == 403 and "knows no emergency" in refused.text
    facts = {"roles": ["quality"], "evidence": year.model("flight-delay").versions[5].evidence, "issue": "e1"}
    said = {"actor": "otto", "why": "The old one answers nonsense.", "model": "flight-delay", "version": 5}
    year.append([Draft(kind="review_overridden", environment="production", data=facts, **said)])
    year.append([Draft(kind="promoted", environment="production", data={"previous": 2}, **said)])
    for path in ("/flight-delay/versions/5", "/flight-delay"):
        text = web.get(path).text
        red = text.partition("EMERGENCY")[0].rpartition("<p" if "versions" in path else "<li")[2]
        assert ("note bad" if "versions" in path else "alarm") in red, path
    assert "k-review_overridden bad" in web.get("/flight-delay").text
