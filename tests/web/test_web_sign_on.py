"""Signing in by OpenID Connect: who is let in, as whom and with which roles; and whose proof does not hold."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey

from orrery.access import oidc, sign_on
from orrery.access.roles import Grant
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotUnderstood
from orrery.settings import Oidc, Settings, load
from orrery.web.server import create
from web.provider import CLIENT, SECRET, Provider

BY = {"by": "tom", "why": "For the test."}
PASSWORD = "the moons of Jupiter are four"
GROUPS = "staff=viewer; /air/quality=reviewer:quality@team/air; it=administrator"


class Signing:
    """A provider, an orrery that trusts it, and browsers in front of both."""

    def __init__(self, orrery: Orrery, provider: Provider) -> None:
        self.orrery, self.provider, self.url = orrery, provider, orrery.settings.control_url
        self._browsers: list[httpx.Client] = []

    def browser(self) -> httpx.Client:
        self._browsers.append(httpx.Client(base_url=self.url, trust_env=False, timeout=60))
        return self._browsers[-1]

    def close(self) -> None:
        for one in self._browsers:
            one.close()
        self.provider.close()
        self.orrery.timeline.engine.dispose()

    def out(self, web: httpx.Client, place: str = "/") -> str:
        """Go to the provider, and return the address to which it sends the browser back."""
        answer = web.get("/-/oidc", params={"next": place})
        assert answer.status_code == 303, answer.text
        return httpx.get(answer.headers["location"], trust_env=False).headers["location"]

    def enter(self, place: str = "/") -> tuple[httpx.Client, httpx.Response]:
        web = self.browser()
        return web, web.get(self.out(web, place))

    def refused(self, said: str, status: int = 403) -> None:
        """Try to sign in and see that nothing comes of it."""
        web, answer = self.enter()
        assert answer.status_code == status and said in answer.text, (answer.status_code, answer.text)
        assert web.get("/api/models").status_code == 401 and session(self, web) is None

    def granted(self, name: str) -> list[tuple[str, str, bool]]:
        events = self.orrery.timeline.read(kinds=["granted"])
        of = [one for one in events if one.data.get("account") == name and one.actor == "orrery/sign-on"]
        return [(one.data["role"], one.data["place"], one.data["given"]) for one in of]


def session(signing: Signing, web: httpx.Client) -> str | None:
    return web.cookies.get(f"orrery-{signing.orrery.settings.port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(orrery: Orrery) -> Iterator[None]:
    config = uvicorn.Config(
        create(orrery), loop="asyncio", host="127.0.0.1", port=orrery.settings.port, log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    yield
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one account, written once and copied for each test."""
    folder = tmp_path_factory.mktemp("written")
    orrery = Orrery.open(folder)
    orrery.accounts.add("nora", links=["nora@example.org"], **BY)
    orrery.accounts.give("nora", "administrator", **BY)
    orrery.accounts.choose_password("nora", PASSWORD, **BY)
    orrery.timeline.engine.dispose()
    return folder


@pytest.fixture
def home(home: Settings, written: Path) -> Settings:
    shutil.copytree(written, home.home, dirs_exist_ok=True)
    return home


@contextmanager
def signing_in(home: Settings, more: dict[str, Any] | None = None, **settings: Any) -> Iterator[Signing]:
    provider = Provider(groups=["staff", "unknown"])
    secret = home.home.parent / "secret"
    secret.write_text(SECRET + "\n")
    given = Oidc(provider.issuer, CLIENT, str(secret), groups=GROUPS)
    made = replace(home, access="required", port=free_port(), oidc=replace(given, **(more or {})), **settings)
    orrery = Orrery(made)
    signing = Signing(orrery, provider)
    with serving(orrery):
        yield signing
    signing.close()


@pytest.fixture
def signing(home: Settings) -> Iterator[Signing]:
    with signing_in(home) as made:
        yield made


# --- who is let in ---------------------------------------------------------------------------------------------------


def test_who_comes_first_gets_an_account_with_the_roles_of_their_groups(signing: Signing) -> None:
    assert "Sign in at 127.0.0.1" in signing.browser().get("/-/sign-in").text
    web, answer = signing.enter("/reviews")
    assert answer.status_code == 303 and answer.headers["location"] == "/reviews"
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 2 and all("HttpOnly" in one and "SameSite=lax" in one for one in cookies)
    assert web.get("/reviews").status_code == 200 and "mara" in web.get("/-/account").text
    account = signing.orrery.accounts.get("mara")
    assert "viewer of everything, by a group" in web.get("/-/account").text
    assert account.grants == account.by_groups == (Grant("viewer"),) and not account.has_password
    assert account.links == ("mara@example.org",) and account.issuers == (signing.provider.issuer,)
    kinds = [(one.kind, one.actor) for one in signing.orrery.timeline.read(newest_first=True, limit=4)]
    assert kinds == [("signed_in", "mara"), ("granted", "orrery/sign-on")] + [("account", "orrery/sign-on")] * 2
    told = "".join(json.dumps(one.to_json()) for one in signing.orrery.timeline.read())
    assert "mara@example.org" not in told and signing.provider.person["sub"] not in told
    (asked,) = signing.provider.asked
    assert asked["code_challenge_method"] == "S256" and len(asked["code_challenge"]) == 43
    assert asked["response_type"] == "code" and asked["state"] != asked["nonce"] and asked["client_id"] == CLIENT
    own = {"Origin": signing.url, "Sec-Fetch-Site": "same-origin"}
    form = {"csrf": re.findall(r'name="csrf" value="(\w+)"', web.get("/-/account").text)[0]}
    assert web.post("/-/sign-out", data=form, headers=own).status_code == 303
    assert web.get("/api/models").status_code == 401


def test_each_sign_in_reads_the_groups_anew_and_writes_what_changed(signing: Signing) -> None:
    orrery, provider = signing.orrery, signing.provider
    signing.enter()
    orrery.accounts.give("mara", "scientist", "tides", **BY)
    provider.person["groups"] = ["/air/quality", "it"]
    signing.enter()
    grants = {Grant("administrator"), Grant("reviewer:quality", "team/air"), Grant("scientist", "tides")}
    assert set(orrery.accounts.get("mara").grants) == grants
    before = len(signing.granted("mara"))
    signing.enter()
    assert len(signing.granted("mara")) == before, "nothing has changed"
    with pytest.raises(NotAllowed, match="because of a group"):
        orrery.accounts.take("mara", "administrator", **BY)
    del provider.person["groups"]
    web, _ = signing.enter()
    assert orrery.accounts.get("mara").grants == (Grant("scientist", "tides"),)
    assert web.get("/api/status").status_code == 403
    assert signing.granted("mara") == [
        ("viewer", "*", True),
        ("reviewer:quality", "team/air", True),
        ("administrator", "*", True),
        ("viewer", "*", False),
        ("administrator", "*", False),
        ("reviewer:quality", "team/air", False),
    ]


def test_a_role_of_a_group_ends_when_nobody_signs_in_again(signing: Signing) -> None:
    signing.enter()
    shown = signing.orrery.keys.token("mara", scopes=["api"], **BY)[0]
    headers = {"Authorization": f"Bearer {shown}"}
    with signing.browser() as web:
        assert web.get("/data", headers=headers).status_code == 200
        assert web.get("/mlflow/x", headers=headers).status_code == 403  # of another scope
        assert signing.orrery.accounts.principal("mara").may("read")  # type: ignore[union-attr]
        with signing.orrery.timeline.engine.begin() as connection:
            past = {"until": "2020-01-01T00:00:00.000000Z"}
            connection.execute(sa.text("UPDATE access_group_roles SET until = :until"), past)
        principal = signing.orrery.accounts.principal("mara")
        assert (
            principal is not None
            and not principal.grants
            and web.get("/api/verify", headers=headers).status_code == 403
        )
    signing.enter()
    assert signing.orrery.accounts.principal("mara").may("read")  # type: ignore[union-attr]
    assert signing.granted("mara")[-1] == ("viewer", "*", True)


def test_groups_that_are_told_elsewhere(signing: Signing) -> None:
    provider = signing.provider
    told = {"sub": provider.person["sub"], "groups": ["it"], "email": "li@example.org", "email_verified": True}
    provider.person = {"sub": provider.person["sub"], "preferred_username": "li", "email_verified": True}
    provider.told = {**told, "sub": "another"}
    signing.refused("of another one")
    provider.told = told
    _, answer = signing.enter()
    assert answer.status_code == 303
    account = signing.orrery.accounts.get("li")
    assert account.grants == (Grant("administrator"),) and account.links == ("li@example.org",)


def test_who_has_no_group_that_counts_gets_no_account(signing: Signing) -> None:
    for groups in (["unknown"], [], None, {"staff": 1}, [["staff"]], "Staff"):
        signing.provider.person["groups"] = groups
        signing.refused("No group of yours")
    assert [one.name for one in signing.orrery.accounts.all()] == ["nora"]
    events = signing.orrery.timeline.read(kinds=["denied"])
    assert {(one.actor, one.data["what"]) for one in events} == {("stranger", "sign-in")}


def test_an_account_that_is_somebody_elses_is_not_to_be_had(signing: Signing) -> None:
    accounts, person = signing.orrery.accounts, signing.provider.person
    for name, email in (
        ("nora", "x@example.org"),
        ("NORA", ""),
        ("mara", "Nora@Example.org"),
        ("nora@example.org", ""),
    ):
        person.update(preferred_username=name, email=email)
        signing.refused("an account with your name or address already")
    for name in ("stranger", "owner", "a b", "orrery/gates", "x" * 70):
        person.update(preferred_username=name, email="")
        _, answer = signing.enter()
        assert answer.status_code == 303  # called by what identifies them
    assert [one.name for one in accounts.all()] == [person["sub"], "nora"]


def test_a_disabled_account_stays_out(signing: Signing) -> None:
    web, _ = signing.enter()
    signing.orrery.accounts.disable("mara", **BY)
    assert web.get("/api/models").status_code == 401
    signing.refused("is disabled")
    assert signing.orrery.accounts.principal("mara") is None


@pytest.mark.parametrize("newcomers", ["link", "both", "none"])
def test_who_is_linked_by_a_verified_address(home: Settings, newcomers: str) -> None:
    with signing_in(home, {"newcomers": newcomers}) as signing:
        accounts, provider = signing.orrery.accounts, signing.provider
        accounts.add("robot", kind="service", owner="nora", links=["robot@example.org"], **BY)
        as_nora = {"preferred_username": "zoe", "email": "nora@example.org", "groups": ["staff"]}
        unknown = {"none": "no account here", "link": "no account here"}
        provider.person.update(as_nora, email_verified=False)
        if newcomers == "both":  # an address that nobody has verified is none, and zoe is somebody new
            signing.provider.person["groups"] = []
        signing.refused(unknown.get(newcomers, "No group of yours"))
        provider.person.update(as_nora, email_verified="true")
        provider.person["groups"] = []
        signing.refused(unknown.get(newcomers, "No group of yours"))
        provider.person.update(as_nora, email_verified=True, email="robot@example.org")
        signing.refused(unknown.get(newcomers, "an account with your name or address"))
        provider.person.update(as_nora)
        if newcomers == "none":
            signing.refused("no account here")
            return
        _, answer = signing.enter()
        assert answer.status_code == 303
        account = accounts.get("nora")
        assert account.issuers == (provider.issuer,) and account.has_password
        assert account.grants == (Grant("administrator"), Grant("viewer")) and account.by_groups == (Grant("viewer"),)
        provider.person["email"] = "moved@example.org"
        assert signing.enter()[1].status_code == 303  # known by what does not change
        provider.person.update(as_nora, sub="another")  # the address was given to somebody else
        signing.refused("belongs to somebody else")


# --- whose proof does not hold ---------------------------------------------------------------------------------------


def _without(name: str) -> Any:
    return lambda claims: {key: value for key, value in claims.items() if key != name}


def _with(**more: Any) -> Any:
    return lambda claims: {**claims, **more}


def _packed(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def _unsigned(claims: dict[str, Any]) -> str:
    return f"{_packed({'alg': 'none', 'typ': 'JWT'})}.{_packed(claims)}."


CLAIMS = {
    "another issuer": (_with(iss="https://id.example"), "iss"),
    "no issuer": (_without("iss"), "iss"),
    "another audience": (_with(aud="another client"), "aud"),
    "no audience": (_without("aud"), "aud"),
    "several audiences, and not said for whom": (_with(aud=[CLIENT, "another"]), "azp"),
    "for another party": (_with(aud=[CLIENT, "another"], azp="another"), "azp"),
    "another nonce": (_with(nonce="x" * 43), "nonce"),
    "no nonce": (_without("nonce"), "nonce"),
    "expired": (_with(exp=int(time.time()) - 120), "exp"),
    "never expires": (_without("exp"), "exp"),
    "no date": (_without("iat"), "iat"),
    "of the future": (_with(iat=int(time.time()) + 3600), "iat"),
    "nobody": (_without("sub"), "sub"),
    "a number": (_with(sub=7), "sub"),
    "empty": (_with(sub=""), "sub"),
    "endless": (_with(sub="x" * 256), "sub"),
}


@pytest.fixture(scope="module")
def shared(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signing]:
    """One for tests in which nobody gets in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ORRERY_HOME", "ORRERY_ACCESS"):
            patch.delenv(name, raising=False)
        home = tmp_path_factory.mktemp("shared") / "home"
        shutil.copytree(written, home)
        with signing_in(load(home=home)) as made:
            yield made


@pytest.fixture
def honest(shared: Signing) -> Iterator[Signing]:
    yield shared
    shared.provider.change, shared.provider.sign, shared.provider.called = dict, shared.provider.signed, ""


@pytest.mark.parametrize("case", CLAIMS)
def test_a_token_that_says_what_it_must_not(honest: Signing, case: str) -> None:
    honest.provider.change, named = CLAIMS[case]
    honest.refused(f"does not hold: {named}")
    assert "mara" not in [one.name for one in honest.orrery.accounts.all()]


def test_a_token_that_is_signed_by_nobody_who_counts(honest: Signing) -> None:
    provider, stranger = honest.provider, RSAKey.generate_key(2048, parameters={"kid": "one"})
    public = provider.key.as_pem(private=False)

    def hs256(secret: bytes) -> Any:
        def sign(claims: dict[str, Any]) -> str:
            text = _packed({"alg": "HS256", "kid": "one"}) + "." + _packed(claims)
            mark = hmac.new(secret, text.encode(), hashlib.sha256).digest()
            return f"{text}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"

        return sign

    cases = {
        "none": _unsigned,
        "another's key": lambda claims: jwt.encode({"alg": "RS256", "kid": "one"}, claims, stranger),
        "a key that came along": lambda claims: jwt.encode(
            {"alg": "RS256", "kid": "two", "jwk": stranger.as_dict(private=False)}, claims, stranger
        ),
        "with the secret of the client": hs256(SECRET.encode()),
        "with the public key": hs256(public),
        "changed afterwards": lambda claims: _swapped(provider.signed(claims)),
        "nonsense": lambda claims: "a.b.c",
        "an object": lambda claims: {"alg": "none"},
        "nothing": lambda claims: "",
    }
    for case, sign in cases.items():
        provider.sign = sign
        web, answer = honest.enter()
        assert answer.status_code == 403 and session(honest, web) is None, case
    assert "mara" not in [one.name for one in honest.orrery.accounts.all()]
    provider.sign = provider.signed
    assert honest.enter()[1].status_code == 303  # and nothing but that was wrong with them
    honest.orrery.accounts.disable("mara", **BY)


def _swapped(token: str) -> str:
    head, body, mark = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{head}.{_packed({**claims, 'sub': 'another'})}.{mark}"


def test_keys_change_and_curves_sign_too(signing: Signing, monkeypatch: pytest.MonkeyPatch) -> None:
    assert signing.enter()[1].status_code == 303
    monkeypatch.setattr(oidc, "AGAIN", 0.0)
    signing.provider.renew()
    assert signing.enter()[1].status_code == 303
    signing.provider.renew("ES256")
    assert signing.enter()[1].status_code == 303
    signing.provider.methods = ["client_secret_post"]
    fresh = sign_on.SignOn(signing.orrery.settings, signing.orrery.timeline, signing.orrery.denials, "k")
    where, cookie = fresh.begin("/data")
    back = httpx.get(where, trust_env=False).headers["location"]
    assert fresh.end(dict(parse_qsl(urlsplit(back).query)), cookie) == ("mara", "/data")


def test_only_the_browser_that_began_can_end_it(signing: Signing, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = signing.browser(), signing.browser()
    back = signing.out(mine)
    foreign = signing.out(theirs)

    def code(address: str) -> str:
        return dict(parse_qsl(urlsplit(address).query))["code"]

    def tried(web: httpx.Client, address: str, said: str) -> None:
        kept = dict(web.cookies)
        answer = web.get(address)
        assert answer.status_code == 403 and said in answer.text, answer.text
        assert session(signing, web) is None
        web.cookies.update(kept)  # the cookie of the way out is used up

    bare = signing.browser()
    tried(bare, back, "has not begun")
    tried(theirs, back, "belongs to another sign-in")
    tried(mine, back.replace("state=", "state=x"), "belongs to another sign-in")
    tried(mine, f"{back}&iss=https://id.example", "of another provider")
    tried(mine, back.replace("code=", "error=access_denied&code="), "access_denied")
    tried(mine, back.replace("code=", "error=%3Cscript%3E&code="), "did not let you in: an error")
    tried(mine, back.replace(code(back), code(foreign)), "does not take the code")  # PKCE: it is of another verifier
    name = f"orrery-{signing.orrery.settings.port}-oidc"
    whole = mine.cookies[name]
    for wrong in (whole[:-1], f"{int(whole.partition('.')[0]) + 1}.{whole.partition('.')[2]}", "....", "x" * 3000, ""):
        mine.cookies.clear()
        tried(mine, back, "has not begun") if not wrong else mine.cookies.set(name, wrong)
        tried(mine, back, "has not begun")
    mine.cookies.clear()
    mine.cookies.set(name, whole)
    with monkeypatch.context() as later:
        later.setattr(sign_on, "WITHIN", -1)
        tried(mine, back, "took too long")
    assert mine.get(back).status_code == 303 and session(signing, mine)
    again = signing.browser()
    again.cookies.set(name, whole)
    tried(again, back, "does not take the code")  # it works once


def test_a_session_that_was_planted_ends_with_the_sign_in(signing: Signing) -> None:
    planted = signing.orrery.keys.session("nora", why="signed in")[0]
    web = signing.browser()
    web.cookies.set(f"orrery-{signing.orrery.settings.port}", planted)
    assert web.get(signing.out(web)).status_code == 303
    assert signing.orrery.keys.check(planted, "session") is None


def test_nobody_is_sent_elsewhere_afterwards(signing: Signing) -> None:
    for place in ("https://evil.example", "//evil.example", "/\\evil.example", "/-/sign-in", "data"):
        assert signing.enter(place)[1].headers["location"] == "/"
    with signing.browser() as web:  # under another name of this machine the cookie would not come back
        answer = web.get("/-/oidc?next=/data", headers={"Host": f"localhost:{signing.orrery.settings.port}"})
        assert answer.headers["location"] == f"{signing.url}/-/oidc?next=/data"


def test_no_secret_stays_behind(signing: Signing, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tokens: list[str] = []
    signing.provider.sign = lambda claims: tokens.append(signing.provider.signed(claims)) or tokens[-1]
    web = signing.browser()
    back = signing.out(web)
    web.get(back)
    signing.provider.change = _with(nonce="x")
    signing.refused("nonce")
    said = "".join(one.getMessage() for one in caplog.records if not one.name.startswith(("http", "asyncio")))
    said += "".join(json.dumps(event.to_json()) for event in signing.orrery.timeline.read())
    signing.orrery.timeline.engine.dispose()
    home = signing.orrery.settings.home
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != "key")
    for secret in (SECRET, *tokens, dict(parse_qsl(urlsplit(back).query))["code"], "opens-userinfo"):
        assert secret not in said and secret.encode() not in stored


# --- a provider that is not there, and settings ----------------------------------------------------------------------


def test_a_provider_that_cannot_be_asked(home: Settings) -> None:
    with signing_in(home, {"issuer": "http://127.0.0.1:9"}) as signing, signing.browser() as web:
        answer = web.get("/-/oidc")
        assert answer.status_code == 502 and "cannot be reached" in answer.text
        own = {"Origin": signing.url, "Sec-Fetch-Site": "same-origin"}
        form = {"name": "nora", "password": PASSWORD}
        assert web.post("/-/sign-in", data=form, headers=own).status_code == 303  # passwords go on


def test_a_provider_that_hangs_takes_no_threads_from_the_pages(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(oidc, "TIMEOUT", 1.0)
        with signing_in(home, {"issuer": issuer}) as signing, ThreadPoolExecutor(30) as threads:
            webs = [signing.browser() for _ in range(30)]
            answers = list(threads.map(lambda web: web.get("/-/oidc"), webs))
            said = [(one.status_code, "cannot be reached" in one.text) for one in answers]
            assert set(said) <= {(502, True), (403, False)} and said.count((502, True)) >= 1
            assert all("Many people" in one.text for one in answers if one.status_code == 403)
            silent.setblocking(False)
            silent.accept()[0].close()
            with pytest.raises(BlockingIOError):  # one was enough to know
                silent.accept()


def test_a_provider_that_calls_itself_otherwise(honest: Signing, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = honest.orrery.settings

    def asked(change: dict[str, Any]) -> str:
        with monkeypatch.context() as patch:
            for name, value in change.items():
                patch.setattr(honest.provider, name, value)
            fresh = sign_on.SignOn(settings, honest.orrery.timeline, honest.orrery.denials, "k")
            with pytest.raises(oidc.Unreachable) as refused:
                fresh.begin("/")
        return refused.value.what

    assert "calls itself 'https://id.example'" in asked({"called": "https://id.example"})
    real = honest.provider.get

    def in_the_clear(handler: Any, path: str, query: dict[str, str]) -> None:
        say, handler.say = (
            handler.say,
            lambda found, status=200: say({**found, "authorization_endpoint": "http://id.example/authorize"}, status),
        )
        real(handler, path, query)

    assert "authorization_endpoint that can be trusted" in asked({"get": in_the_clear})


def test_without_passwords_only_the_provider_lets_people_in(home: Settings) -> None:
    with signing_in(home, passwords="off") as signing, signing.browser() as web:
        page = web.get("/-/sign-in").text
        assert "Sign in at" in page and "password" not in page.lower()
        own = {"Origin": signing.url, "Sec-Fetch-Site": "same-origin"}
        form = {"name": "nora", "password": PASSWORD}
        assert web.post("/-/sign-in", data=form, headers=own).status_code == 429
        assert web.get("/api/models", auth=("nora", PASSWORD)).status_code == 403
        link = {"key": signing.orrery.keys.link("nora", **BY)[0], "password": PASSWORD, "again": PASSWORD}
        assert web.post("/-/welcome", data=link, headers=own).status_code == 403
        shown = signing.orrery.keys.token("nora", scopes=["api"], **BY)[0]
        assert web.get("/api/models", headers={"Authorization": f"Bearer {shown}"}).status_code == 200
        assert signing.enter()[1].status_code == 303


def test_settings_that_are_half_of_it_are_refused(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"ORRERY_ACCESS": "required", "ORRERY_OIDC_ISSUER": "https://id.example", "ORRERY_OIDC_CLIENT_ID": "o"}

    def loaded(**variables: str) -> Settings:
        with monkeypatch.context() as patch:
            for name, value in {**whole, **{f"ORRERY_{name}": value for name, value in variables.items()}}.items():
                patch.setenv(name, value) if value else patch.delenv(name, raising=False)
            return load(home.home)

    assert loaded().oidc == Oidc("https://id.example", "o")
    for variables, kind in (
        ({"ACCESS": "open"}, NotAllowed),
        ({"OIDC_ISSUER": ""}, NotUnderstood),
        ({"OIDC_ISSUER": "", "OIDC_CLIENT_ID": "", "PASSWORDS": "off"}, NotAllowed),
        ({"OIDC_ISSUER": "http://id.example"}, NotUnderstood),
        ({"OIDC_ISSUER": "id.example"}, NotUnderstood),
        ({"OIDC_CLIENT_ID": ""}, NotUnderstood),
        ({"OIDC_SCOPES": "profile"}, NotUnderstood),
        ({"OIDC_NEWCOMERS": "everybody"}, NotUnderstood),
        ({"PASSWORDS": "no"}, NotUnderstood),
    ):
        with pytest.raises(kind):
            loaded(**variables)
    orrery = Orrery(replace(home, access="required"))
    for change in (
        {"groups": "staff"},
        {"groups": "staff=king"},
        {"groups": "staff=viewer@A b"},
        {"groups": "=viewer"},
        {"client_secret_file": str(home.home / "nowhere")},
    ):
        made = replace(orrery.settings, oidc=Oidc("https://id.example", "o", **change))
        with pytest.raises(NotUnderstood):
            sign_on.SignOn(made, orrery.timeline, orrery.denials, "k")
    orrery.timeline.engine.dispose()


def test_a_role_of_a_group_holds_at_the_inference_server_no_longer_than_here(signing: Signing) -> None:
    from orrery.web.assignment import assignment_of

    signing.provider.person["groups"] = ["it"]
    signing.enter()
    signing.orrery.keys.token("mara", scopes=["inference"], lasts=timedelta(days=300), **BY)
    (one,) = assignment_of(signing.orrery).passes
    until = datetime.fromtimestamp(one.until, UTC) - datetime.now(UTC)
    assert timedelta(days=13) < until <= timedelta(days=14)
