"""The entrance, where access is required: who gets in, by what they show, and who does not."""

from __future__ import annotations

import base64
import inspect
import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi.routing import APIRoute
from starlette.routing import Mount

from orrery.access.door import Door
from orrery.access.homekey import home_key, training_pass, trains
from orrery.access.patience import FREE, Patience
from orrery.access.roles import ALLOWED, ROLES, Grant, Principal
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotFound
from orrery.settings import Settings
from orrery.source.http import git_app
from orrery.web.accountspage import OF_ACCOUNT
from orrery.web.erasing import OF_PRIVACY
from orrery.web.forms import OF_CHANNEL, OF_ISSUE, OF_MODEL, OF_VERSION
from orrery.web.ownpage import OF_OWN
from orrery.web.rules import rule_of
from orrery.web.server import create

MODEL = "flight-delay"
BY = {"by": "tom", "why": "For the test."}
PASSWORD = "the moons of Jupiter are four"
WHY = {"why": "Because the test says so."}
OF_PART = {
    "/versions/": OF_VERSION,
    "/issues/": OF_ISSUE,
    "/accounts/": OF_ACCOUNT,
    "/account/": OF_OWN,
    "/channels/": OF_CHANNEL,
    "/privacy/": OF_PRIVACY,
}
FILLED = {
    "channel": "team",
    "platform": "github",
    "issue": "decay200",
    "model": MODEL,
    "name": "flights",
    "number": "5",
    "secret": "warehouse",
    "sha": "c0ffee5",
}


@pytest.fixture
def orrery(home: Settings, written: Path) -> Iterator[Orrery]:
    """Half a year of a model, and access required; mara may everything, olaf has a role in another project."""
    shutil.copytree(written, home.home, dirs_exist_ok=True)
    made = Orrery(replace(home, access="required", replay=True))
    accounts = made.accounts
    for name, role, place in (("mara", "administrator", "*"), ("olaf", "scientist", "tides")):
        accounts.add(name, **BY)
        accounts.give(name, role, place, **BY)
    accounts.choose_password("mara", PASSWORD, **BY)
    yield made
    made.timeline.engine.dispose()


def token(orrery: Orrery, account: str, *scopes: str, **more: Any) -> str:
    return orrery.keys.token(account, scopes=scopes or ("api", "git", "mlflow"), **BY, **more)[0]


def bearer(shown: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {shown}"}


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def denied(orrery: Orrery) -> list[tuple[str, str]]:
    return [(event.actor, event.data["what"]) for event in orrery.timeline.read(kinds=["denied"])]


def signed_in(web: httpx.Client, address: str, password: str = PASSWORD, **more: str) -> httpx.Response:
    form = {"name": "mara", "password": password, **more}
    return web.post("/-/sign-in", data=form, headers={"Origin": address, "Sec-Fetch-Site": "same-origin"})


# --- the matrix ------------------------------------------------------------------------------------------------------


def addresses() -> list[tuple[str, str]]:
    """Every method and address that the application answers, from its own list of routes and from its description."""
    app = create(Orrery.__new__(_Bare))
    found = []
    for route in _flat(app.routes):
        if isinstance(route, APIRoute):
            orders = next((of for part, of in OF_PART.items() if part in route.path), OF_MODEL)
            paths = [route.path.replace("{order}", one) for one in orders] if "{order}" in route.path else [route.path]
            found += [(method, path) for method in route.methods for path in paths]
        elif isinstance(route, Mount):
            found += [("GET", f"{route.path}/x"), ("POST", f"{route.path}/x")] if route.path == "/mlflow" else []
        else:
            found.append(("GET", route.path))
    described = app.openapi()["paths"]
    found += [(method.upper(), path) for path, methods in described.items() for method in methods]
    found += [("GET", f"/git/{MODEL}.git/info/refs"), ("POST", f"/git/{MODEL}.git/git-receive-pack")]
    return sorted(set(found))


def _flat(routes: Any) -> Iterator[Any]:
    for route in routes:
        included = getattr(route, "original_router", None)  # newer FastAPI keeps what is included as one
        yield from [route] if included is None else _flat(included.routes)


class _Bare(Orrery):
    """An orrery that is only described, not opened."""

    settings = Settings(home=Path("/nowhere"), database="", lake="")  # type: ignore[assignment]


def filled(path: str) -> str:
    return re.sub(r"{(\w+)}", lambda match: FILLED[match[1]], path)


ADDRESSES = addresses()


def test_every_address_has_a_rule() -> None:
    assert len(ADDRESSES) >= 60
    missing = [one for one in ADDRESSES if rule_of(one[0], filled(one[1])) is None]
    assert missing == []
    assert rule_of("POST", "/api/models/x/conquer") is None and rule_of("PATCH", "/api/data/x") is None


def may(role: str, method: str, path: str) -> bool:
    rule = rule_of(method, filled(path))
    assert rule is not None
    if rule.permission in ("public", "anybody"):
        return True
    if rule.permission == "serving":
        return False
    return role in ALLOWED[rule.permission] and rule.where != "*"


@pytest.mark.parametrize("role", ROLES)
def test_each_role_at_each_address(web: httpx.Client, orrery: Orrery, role: str) -> None:
    orrery.accounts.add(f"a-{role}", **BY)
    orrery.accounts.give(f"a-{role}", role, MODEL, **BY)
    shown = bearer(token(orrery, f"a-{role}"))
    wrong = []
    for method, path in ADDRESSES:
        answer = web.request(method, filled(path), headers=shown)
        let_in = answer.status_code not in (401, 403)
        if let_in != may(role, method, path):
            wrong.append((method, path, answer.status_code))
    assert wrong == []
    assert not any(event.actor == f"a-{role}" for event in orrery.timeline.read(MODEL) if event.kind != "denied")


FORMS = re.compile(r'<(?:form method="post" action|button[^>]* formaction)="([^"]+)"')
SHOWN = ("/", "/issues", f"/{MODEL}", f"/{MODEL}/orders", f"/{MODEL}/issues", f"/{MODEL}/issues/gates3")
OF_VERSIONS = tuple(f"/{MODEL}/versions/{number}" for number in (1, 2, 3, 4, 5))


def test_pages_show_each_role_the_forms_that_it_may_send_and_no_others(web: httpx.Client, orrery: Orrery) -> None:
    def forms(role: str) -> set[tuple[str, str]]:
        orrery.accounts.add(f"a-{role.replace(':', '-')}", **BY)
        orrery.accounts.give(f"a-{role.replace(':', '-')}", role, MODEL, **BY)
        shown = bearer(token(orrery, f"a-{role.replace(':', '-')}"))
        pages = [(path, web.get(path, headers=shown)) for path in (*SHOWN, *OF_VERSIONS)]
        assert all(page.status_code == 200 for _, page in pages)
        return {(path, action) for path, page in pages for action in FORMS.findall(page.text)}

    everything = forms("administrator")
    orders = {*OF_VERSION, *OF_MODEL, *OF_ISSUE} - {"override", "reopen"}  # no emergencies here, nothing is closed
    assert {action.rpartition("/")[2] for _, action in everything} == orders
    for role in ROLES:
        if role != "administrator":
            assert forms(role) == {one for one in everything if may(role, "POST", one[1])}, role
    signs = {action for path, action in forms("reviewer:legal") if path.endswith("/5")}
    assert f"/{MODEL}/versions/5/approve" not in signs, "it waits for a review of quality"
    assert f"/{MODEL}/versions/5/approve" in {action for _, action in forms("reviewer:quality")}


READS = {"acting", "allow", "datasets", "due", "model", "models", "open", "personal", "settled", "team_apart"}
READS |= {"deeds"}  # asks for audit itself, everywhere: tests/audit/test_audit_answers.py
OF_THE_LOOP = {"append", "note_read", "note_read_of_chain", "note_read_of_log", "note_read_of_project"}
OF_THE_LOOP |= {"order", "ship_journal"}
"""What carries out what was ordered; nothing that a principal reaches."""
COMMANDS = {
    name: method
    for name, method in inspect.getmembers(Orrery, inspect.isfunction)
    if not name.startswith("_") and name not in READS | OF_THE_LOOP
}


def test_each_role_at_each_command(orrery: Orrery) -> None:
    assert set(COMMANDS) >= {"approve", "reject", "promote", "rollback", "retire", "delete", "train", "add_data"}
    for name, method in COMMANDS.items():
        permission, of = method.permission  # a command without a rule has none, and this fails
        for role in ROLES:
            ours = orrery.acting(Principal("x", (Grant(role, MODEL),)))
            theirs = orrery.acting(Principal("x", (Grant(role, "tides"),)))
            expected = TypeError if role in ALLOWED[permission] else NotAllowed  # let in, it misses the rest
            with pytest.raises(expected):
                getattr(ours, name)("flights" if of == "dataset" else MODEL)
            if of == "project":
                with pytest.raises(NotFound):
                    getattr(theirs, name)(MODEL)


def test_other_teams_see_nothing(web: httpx.Client, orrery: Orrery) -> None:
    orrery.accounts.assign("data/flights", "air", **BY)
    shown = bearer(token(orrery, "olaf"))
    for method, path in ADDRESSES:
        rule = rule_of(method, filled(path))
        answer = web.request(method, filled(path), headers=shown)
        if rule is not None and rule.where in ("project", "dataset"):
            assert answer.status_code == 404, (method, path, answer.status_code)
        asked = answer.text.replace(filled(path), "")
        assert "c0ffee5" not in asked and "nora" not in asked and "27004" not in asked, (method, path)
    for path in ("/", "/index.json", "/reviews", "/issues", "/data", "/api/models", "/api/reviews", "/api/data"):
        text = web.get(path, headers=shown).text
        assert MODEL not in text and "flights" not in text, path
    assert orrery.team_apart("tides", "flights") == "air" and not orrery.team_apart("tides", "common")
    orrery.accounts.assign("tides", "air", **BY)
    assert not orrery.team_apart("tides", "flights")
    mara = bearer(token(orrery, "mara"))
    assert MODEL in web.get("/", headers=mara).text and "flights" in web.get("/data", headers=mara).text


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_nothing_shown_is_nothing_answered(web: httpx.Client, orrery: Orrery) -> None:
    for path in (
        "/",
        f"/{MODEL}",
        "/api/models",
        "/mlflow/",
        f"/git/{MODEL}.git/info/refs",
        "/nowhere",
        "/openapi.json",
    ):
        assert web.get(path).status_code == 401, path
    assert web.get(f"/{MODEL}?x=1", headers={"Accept": "text/html"}).headers["location"] == f"/-/sign-in?next=/{MODEL}"
    assert web.get("/api/health").status_code == web.get("/static/orrery.css").status_code == 200
    claimed = {"X-Orrery-Actor": "mara"}
    assert web.get("/api/models", headers=claimed).status_code == 401
    assert denied(orrery) == []  # nobody has tried anything yet


def test_acts_are_attributed_to_who_showed_the_token_whatever_they_say(web: httpx.Client, orrery: Orrery) -> None:
    headers = {**bearer(token(orrery, "mara")), "X-Orrery-Actor": "nora"}
    answer = web.post(f"/api/models/{MODEL}/events", json=WHY, headers=headers)
    assert answer.status_code == 201 and answer.json()["events"][0]["actor"] == "mara"
    form = web.post(f"/{MODEL}/orders/event", data={**WHY, "actor": "nora"}, headers=headers)
    assert form.status_code == 303
    newest = next(iter(orrery.timeline.read(MODEL, newest_first=True, limit=1)))
    assert (newest.kind, newest.actor) == ("business", "mara")


def test_a_token_that_opens_nothing(web: httpx.Client, orrery: Orrery) -> None:
    good = token(orrery, "mara")
    revoked, key = orrery.keys.token("mara", scopes=["api"], **BY)
    orrery.keys.revoke(key.id, **BY)
    expired, gone = orrery.keys.token("mara", scopes=["api"], **BY)
    with orrery.timeline.engine.begin() as connection:
        old = {"until": "2020-01-01T00:00:00.000000Z", "id": gone.id}
        connection.execute(sa.text("UPDATE access_keys SET until = :until WHERE id = :id"), old)
    orrery.accounts.add("gone", **BY)
    orrery.accounts.give("gone", "administrator", **BY)
    disabled = token(orrery, "gone")
    orrery.accounts.disable("gone", **BY)
    session, _ = orrery.keys.session("mara", why="signed in")
    assert web.get("/api/models", headers=bearer(good)).status_code == 200
    said = set()
    for wrong in (
        revoked,
        expired,
        disabled,
        session,
        good[:-1] + "_",
        "x",
        "orrery_t",
        home_key(orrery.settings.home)[1:],
    ):
        answer = web.get("/api/models", headers=bearer(wrong))
        assert answer.status_code == 401, wrong
        said.add(answer.text)
        assert web.get(f"/git/{MODEL}.git/info/refs", headers=basic("mara", wrong)).status_code == 401
    assert len(said) == 1  # which of these it was is nobody's business
    assert web.get("/mlflow/x", headers=basic("olaf", good)).status_code == 401  # another's token under one's own name
    assert ("stranger", "api") in denied(orrery)


def test_a_token_opens_its_scopes_and_its_project(web: httpx.Client, orrery: Orrery) -> None:
    git, narrow = token(orrery, "mara", "git"), token(orrery, "mara", "api", project="tides")
    assert web.get("/api/models", headers=bearer(git)).status_code == 403
    assert web.get("/", headers=bearer(git)).status_code == 403
    assert web.get("/mlflow/x", headers=bearer(git)).status_code == 403
    assert web.get(f"/git/{MODEL}.git/info/refs?service=git-upload-pack", headers=basic("mara", git)).status_code == 404
    assert web.get("/api/models", headers=bearer(narrow)).json() == []
    assert web.get(f"/api/models/{MODEL}", headers=bearer(narrow)).status_code == 404
    assert web.get("/api/status", headers=bearer(narrow)).status_code == 403
    assert web.post(f"/api/models/{MODEL}/train", json=WHY, headers=bearer(narrow)).status_code == 404


def test_paths_are_read_in_one_way(web: httpx.Client, orrery: Orrery, address: str) -> None:
    shown = bearer(token(orrery, "olaf"))
    tricks = (
        f"/git/../api/models/{MODEL}",
        f"/git/tides.git/../{MODEL}.git/info/refs",
        f"/git/tides.git/..%2f{MODEL}.git/info/refs",
        f"/git/tides.git%2f..%2f{MODEL}.git/info/refs",
        f"//api/models/{MODEL}",
        f"/api//models/{MODEL}",
        f"/static/../api/models/{MODEL}",
        f"/static/%2e%2e/api/models/{MODEL}",
        f"/static/%252e%252e/api/models/{MODEL}",
        f"/api/health/../models/{MODEL}",
        f"/api/health%00/../models/{MODEL}",
        f"/static\\..\\api\\models\\{MODEL}",
        f"/api/models/tides%2f..%2f{MODEL}",
        f"/api/models/{MODEL}/",
        f"/{MODEL}.json.json",
    )
    host, port = address.removeprefix("http://").split(":")
    for path in tricks:
        for headers in (shown, {}):
            lines = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            status, body = _raw(host, int(port), "\r\n".join(lines) + "\r\n\r\n")
            assert status in (400, 401, 403, 404), (path, status)
            assert "c0ffee5" not in body
    push = f"/git/{MODEL}.git/info/refs?service=git-upload-pack&service=git-receive-pack"
    orrery.accounts.give("olaf", "viewer", MODEL, **BY)
    assert web.get(push, headers=shown).status_code == 403
    assert web.get(push.replace("&service=git-receive-pack", ""), headers=shown).status_code == 404  # none was pushed


def _raw(host: str, port: int, request: str) -> tuple[int, str]:
    import socket

    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(request.encode())
        answer = b""
        while block := connection.recv(65536):
            answer += block
    return int(answer.split()[1]), answer.decode(errors="replace")


def test_the_processes_of_orrery_know_each_other_and_nobody_else(web: httpx.Client, orrery: Orrery) -> None:
    key = home_key(orrery.settings.home)
    assert (orrery.settings.home / "key").stat().st_mode & 0o777 == 0o600
    assert web.get("/api/serving/assignment", headers=bearer(key)).status_code == 200
    assert web.get("/api/serving/assignment", headers=bearer(token(orrery, "mara"))).status_code == 403
    assert web.get("/api/serving/assignment").status_code == 401
    for path in ("/api/models", "/", f"/{MODEL}", "/mlflow/x", "/api/status"):
        assert web.get(path, headers=bearer(key)).status_code == 403, path
    made = training_pass(key, "tides", 60)
    assert web.get("/mlflow/x", headers=bearer(made)).status_code == 404
    for path in ("/api/models", "/", "/api/serving/assignment", f"/git/{MODEL}.git/info/refs"):
        assert web.get(path, headers=bearer(made)).status_code == 401, path
    assert not trains(key, training_pass(key, "tides", -1)) and not trains(key + "x", made)
    assert not trains(key, made.replace("tides", MODEL))


# --- sessions --------------------------------------------------------------------------------------------------------


def csrf(page: httpx.Response) -> str:
    match = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
    assert match is not None
    return match[1]


def test_a_person_signs_in_works_and_signs_out(web: httpx.Client, orrery: Orrery, address: str) -> None:
    answer = signed_in(web, address, next=f"/{MODEL}")
    assert answer.status_code == 303 and answer.headers["location"] == f"/{MODEL}"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie and "Domain" not in cookie
    page = web.get(f"/{MODEL}/versions/5")
    own = {"Origin": address, "Sec-Fetch-Site": "same-origin"}
    approve = f"/{MODEL}/versions/5/approve"
    assert page.status_code == 200 and "mara" in page.text and 'name="actor"' not in page.text
    assert web.post(approve, data={**WHY, "csrf": csrf(page)}, headers=own).status_code == 303
    newest = next(iter(orrery.timeline.read(MODEL, newest_first=True, limit=1)))
    assert (newest.kind, newest.actor) == ("approved", "mara")
    out = web.post("/-/sign-out", data={"csrf": csrf(web.get("/-/account"))}, headers=own)
    assert out.status_code == 303 and web.get("/api/models").status_code == 401
    kinds = [event.kind for event in orrery.timeline.read("", newest_first=True, limit=2)]
    assert kinds == ["key", "signed_in"]


def test_a_foreign_page_can_make_a_browser_do_nothing(web: httpx.Client, orrery: Orrery, address: str) -> None:
    signed_in(web, address)
    page = web.get(f"/{MODEL}/versions/5")
    own, path = {"Origin": address}, f"/{MODEL}/versions/5/approve"
    head = orrery.timeline.head(MODEL)
    assert web.post(path, data=WHY, headers=own).status_code == 403  # without what the form carries
    assert web.post(path, data={**WHY, "csrf": "0" * 64}, headers=own).status_code == 403
    assert web.post(path, data={**WHY, "csrf": csrf(page)}).status_code == 403  # nobody says where it comes from
    assert (
        web.post(path, data={**WHY, "csrf": csrf(page)}, headers={"Origin": "http://evil.example"}).status_code == 403
    )
    assert (
        web.post(f"/api/models/{MODEL}/train", json=WHY, headers=own).status_code == 403
    )  # cookies do not write there
    other = orrery.keys.session("mara", why="signed in elsewhere")[0]
    from orrery.access.keys import csrf_of

    assert web.post(path, data={**WHY, "csrf": csrf_of(other)}, headers=own).status_code == 403
    assert orrery.timeline.head(MODEL) == head


def test_a_session_cannot_be_fixed_beforehand(web: httpx.Client, orrery: Orrery, address: str) -> None:
    name = f"orrery-{orrery.settings.port}"
    planted = orrery.keys.session("olaf", why="signed in")[0]
    web.cookies.set(name, planted)
    answer = signed_in(web, address)
    fresh = answer.cookies[name]
    assert fresh != planted and orrery.keys.check(planted, "session") is None
    for junk in ("orrery_s000000000000_" + "A" * 43, "x" * 5000, "a;b=c", ""):
        web.cookies.clear()
        assert web.get("/api/models", headers={"Cookie": f"{name}={junk}"}).status_code == 401
    assert signed_in(web, address).cookies[name] != fresh


def test_signing_out_everywhere_ends_every_session(web: httpx.Client, orrery: Orrery, address: str) -> None:
    elsewhere = orrery.keys.session("mara", why="signed in")[0]
    signed_in(web, address)
    form = {"csrf": csrf(web.get("/-/account")), "everywhere": "yes"}
    assert web.post("/-/sign-out", data=form, headers={"Origin": address}).status_code == 303
    assert orrery.keys.check(elsewhere, "session") is None


def test_wrong_passwords_lock_and_tell_nothing(web: httpx.Client, orrery: Orrery, address: str) -> None:
    known = signed_in(web, address, "a wrong password")
    unknown = web.post("/-/sign-in", data={"name": "zebedee", "password": "x"}, headers={"Origin": address})
    assert known.status_code == unknown.status_code == 401 and known.text == unknown.text
    for _ in range(4):
        signed_in(web, address, "a wrong password")
    assert signed_in(web, address).status_code == 429  # not even the right one
    locked = web.get("/api/models", headers=basic("mara", PASSWORD))
    assert locked.status_code == 429 and int(locked.headers["retry-after"]) >= 1
    assert web.get("/api/models", headers=bearer(token(orrery, "mara"))).status_code == 200  # programs go on
    assert set(denied(orrery)) == {("mara", "sign-in"), ("stranger", "sign-in"), ("mara", "locked")}
    told = "".join(str(event.to_json()) for event in orrery.timeline.read())
    assert "zebedee" not in told and "too many wrong ones" in told


def test_a_restart_forgets_no_wrong_password(web: httpx.Client, orrery: Orrery, address: str) -> None:
    for _ in range(6):
        signed_in(web, address, "a wrong password")
    anew = create(Orrery(orrery.settings)).state.door
    with pytest.raises(NotAllowed, match="too many"):
        anew.sign_in("mara", PASSWORD)
    assert anew.sign_in("olaf", PASSWORD) is None


def test_many_wrong_passwords_at_once_are_counted_like_one_after_the_other(orrery: Orrery) -> None:
    stopped = datetime.now(UTC)
    key, patience = "k", Patience(orrery.timeline, "k", lambda: stopped)
    door = Door(orrery.accounts, orrery.keys, orrery.denials, key, patience, orrery.factors)

    def guess(number: int) -> bool:
        try:
            return door.sign_in("mara", f"a wrong password {number}") is None
        except NotAllowed:
            return False

    with ThreadPoolExecutor(16) as threads:
        looked_at = sum(threads.map(guess, range(40)))
    assert FREE <= looked_at <= FREE + 1  # two are looked at at once


def test_an_invitation(web: httpx.Client, orrery: Orrery, address: str) -> None:
    shown = orrery.keys.link("olaf", **BY)[0]
    own, words = {"Origin": address}, "a password that olaf chose"
    assert web.get("/-/welcome", params={"key": shown}).status_code == 200  # a scanner of mail uses nothing up
    short = web.post("/-/welcome", data={"key": shown, "password": "short", "again": "short"}, headers=own)
    assert short.status_code == 422
    form = {"key": shown, "password": words, "again": words}
    assert web.post("/-/welcome", data={**form, "again": "other than that"}, headers=own).status_code == 422
    assert web.post("/-/welcome", data=form, headers=own).status_code == 303
    assert orrery.accounts.fits("olaf", words)
    again = web.post("/-/welcome", data={**form, "password": "x" * 20, "again": "x" * 20}, headers=own)
    assert again.status_code == 422 and not orrery.accounts.fits("olaf", "x" * 20)


def test_no_secret_reaches_a_log_or_the_timeline(
    web: httpx.Client, orrery: Orrery, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = token(orrery, "mara")
    cookie = signed_in(web, address).cookies[f"orrery-{orrery.settings.port}"]
    web.get("/api/models", headers=bearer(shown))
    web.get(f"/git/{MODEL}.git/info/refs", headers=basic("mara", shown))
    web.post("/-/sign-in", data={"name": PASSWORD, "password": shown}, headers={"Origin": address})
    said = "".join(f"{one.name} {one.getMessage()}" for one in caplog.records if not one.name.startswith("http"))
    said += "".join(str(event.to_json()) for event in orrery.timeline.read())
    for secret in (shown, shown[21:], cookie, cookie[21:], PASSWORD, home_key(orrery.settings.home)):
        assert secret not in said


# --- beyond loopback -------------------------------------------------------------------------------------------------


def test_behind_a_proxy(home: Settings, written: Path) -> None:
    from orrery.web.guard import refuse

    url = "https://orrery.example"
    ours = {b"host": b"orrery.example".decode(), b"origin": url}
    assert refuse("POST", ours, "/", url) == "" and refuse("GET", {b"host": "127.0.0.1:8700"}, "/", url) == ""
    assert refuse("POST", ours, "/", "") and refuse("GET", {b"host": "other.example"}, "/", url)
    for origin in ("http://orrery.example", "https://orrery.example.evil", "null", "http://127.0.0.1:8700"):
        assert refuse("POST", {**ours, b"origin": origin}, "/", url), origin


def test_git_pushes_with_a_token(
    web: httpx.Client, orrery: Orrery, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(git_app.__kwdefaults__, "quiet", 0.1)  # no worker follows
    orrery.accounts.give("olaf", "scientist", "waves", **BY)
    project = tmp_path / "waves"
    project.mkdir()
    spec = '[model]\nname = "waves"\ntask = "regression"\ntarget = "height"\n[data]\nwaves = "waves"\n'
    (project / "orrery.toml").write_text(spec)
    who = ["-c", "user.name=Nora", "-c", "user.email=nora@example.org"]

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0"}
        return subprocess.run(["git", *who, *words], cwd=project, env=env, capture_output=True, text=True, timeout=120)

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-q", "-m", "Begin")
    place = address.removeprefix("http://")
    assert git("push", f"http://{place}/git/waves.git", "main").returncode != 0
    mine, theirs = token(orrery, "olaf", "git"), token(orrery, "olaf", "git", project="tides")
    assert git("push", f"http://olaf:{theirs}@{place}/git/waves.git", "main").returncode != 0
    assert not (orrery.settings.home / "repos" / "waves.git").exists()  # who may not push makes no repository
    pushed = git("push", f"http://olaf:{mine}@{place}/git/waves.git", "main")
    assert pushed.returncode == 0, pushed.stderr
    (event,) = orrery.timeline.read("waves", kinds=["pushed"])
    assert event.actor == "olaf" and event.data["author"] == "Nora"
    assert event.occurred_at < datetime.now(UTC)
    assert orrery.timeline.models() == [MODEL, "waves"]
