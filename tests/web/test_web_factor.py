"""A password of one's own choice, a second factor, and tokens of one's own: on the pages, over the network."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from orrery.access.factors import RECOVERY, STEP, Factors
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotUnderstood
from web.conftest import answering
from web.test_web_entrance import (  # noqa: F401
    BY,
    MODEL,
    PASSWORD,
    basic,
    bearer,
    csrf,
    denied,
    orrery,
    signed_in,
    token,
)
from web.test_web_pages import Tree

FRESH = "nine planets less one make eight"


class Device:
    """What a person has in their pocket: knows the secret, and a time that a test moves on."""

    def __init__(self, orrery: Orrery) -> None:  # noqa: F811
        self.secret, self.at = "", 1_800_000_000.0
        orrery.factors._now = lambda: self.at

    def code(self, steps: int = 1) -> str:
        """Let half minutes pass and return the code of then, computed as RFC 6238 says, not by what is tested."""
        import base64
        import hashlib
        import hmac

        self.at += steps * STEP
        mac = hmac.new(base64.b32decode(self.secret), int(self.at // STEP).to_bytes(8, "big"), hashlib.sha1).digest()
        start = mac[-1] & 15
        return f"{(int.from_bytes(mac[start : start + 4], 'big') & 0x7FFFFFFF) % 10**6:06d}"


@pytest.fixture
def device(orrery: Orrery) -> Device:  # noqa: F811
    return Device(orrery)


def own(web: httpx.Client, address: str, order: str, **fields: str) -> httpx.Response:
    form = {"csrf": csrf(web.get("/-/account")), **fields}
    return web.post(f"/-/account/{order}", data=form, headers={"Origin": address})


def second(web: httpx.Client, address: str, code: str, **more: str) -> httpx.Response:
    return web.post("/-/second", data={"code": code, **more}, headers={"Origin": address})


def enrolled(web: httpx.Client, address: str, device: Device) -> list[str]:
    """Set a second factor up on the page, and return the codes for recovery."""
    signed_in(web, address)
    page = own(web, address, "factor", password=PASSWORD)
    assert page.status_code == 200
    device.secret = secret_on(page)
    page = own(web, address, "factor-confirm", code=device.code())
    assert page.status_code == 200
    return re.findall(r"[A-Z2-7]{4}(?:-[A-Z2-7]{4}){5}", page.text)


def secret_on(page: httpx.Response) -> str:
    return re.findall(r"<code>([A-Z2-7]{32})</code>", page.text)[0]


# --- passwords -------------------------------------------------------------------------------------------------------


def test_people_change_their_own_password(web: httpx.Client, orrery: Orrery, address: str) -> None:  # noqa: F811
    elsewhere, shown = orrery.keys.session("mara", why="signed in")[0], token(orrery, "mara")
    link = orrery.keys.link("mara", **BY)[0]
    signed_in(web, address)
    wrong = {"password": "not the one that it is", "new": FRESH, "again": FRESH}
    assert own(web, address, "password", **wrong).status_code == 403 and orrery.accounts.fits("mara", PASSWORD)
    assert own(web, address, "password", password=PASSWORD, new=FRESH, again=FRESH[1:]).status_code == 422
    for bad in ("short", "password1234", "qwertyuiop12", "Mara is mara!"):
        assert own(web, address, "password", password=PASSWORD, new=bad, again=bad).status_code == 422, bad
    form = {"password": PASSWORD, "new": FRESH, "again": FRESH}
    assert own(web, address, "password", **form, csrf="0" * 64).status_code == 403
    assert orrery.accounts.fits("mara", PASSWORD) and orrery.keys.check(elsewhere, "session")
    assert own(web, address, "password", **form).status_code == 303
    assert orrery.accounts.fits("mara", FRESH) and not orrery.accounts.fits("mara", PASSWORD)
    assert orrery.keys.check(elsewhere, "session") is None and orrery.keys.check(link, "link") is None
    assert web.get("/-/account").status_code == 200, "who has changed it stays"
    assert orrery.keys.check(shown, "token"), "tokens go on unless that is wished"
    again = {"password": FRESH, "new": PASSWORD, "again": PASSWORD, "tokens": "yes"}
    assert own(web, address, "password", **again).status_code == 303
    assert orrery.keys.check(shown, "token") is None
    told = "".join(str(event.to_json()) for event in orrery.timeline.read())
    assert FRESH not in told and "Changed by its owner." in told


def test_guesses_of_the_old_password_are_counted(web: httpx.Client, orrery: Orrery, address: str) -> None:  # noqa: F811
    signed_in(web, address)
    for _ in range(5):
        assert own(web, address, "password", password="a guess at random", new=FRESH, again=FRESH).status_code == 403
    late = own(web, address, "password", password=PASSWORD, new=FRESH, again=FRESH)
    assert late.status_code == 429 and orrery.accounts.fits("mara", PASSWORD)


# --- a second factor -------------------------------------------------------------------------------------------------


def test_a_second_factor_from_beginning_to_end(
    web: httpx.Client,
    orrery: Orrery,  # noqa: F811
    address: str,
    device: Device,
) -> None:
    signed_in(web, address)
    assert own(web, address, "factor", password="not the one that it is").status_code == 403
    page = own(web, address, "factor", password=PASSWORD)
    tree, device.secret = Tree(page.text), secret_on(page)
    assert page.headers["cache-control"] == "no-store" and tree.all("svg") and not tree.all("script")
    assert "style=" not in page.text and f"secret={device.secret}" in page.text
    assert device.secret not in web.get("/-/account").text, "shown once"
    assert signed_in(web, address).status_code == 303, "nothing is asked for until a code has come"
    assert own(web, address, "factor-confirm", code="000000").status_code == 422
    page = own(web, address, "factor-confirm", code=device.code())
    codes = re.findall(r"[A-Z2-7]{4}(?:-[A-Z2-7]{4}){5}", page.text)
    assert len(set(codes)) == RECOVERY and not set(codes) & set(re.findall(r"[\w-]+", web.get("/-/account").text))
    assert own(web, address, "factor", password=PASSWORD, code=device.code()).status_code == 403, "there is one"

    web.cookies.clear()
    asked = signed_in(web, address, next=f"/{MODEL}")
    assert asked.status_code == 200 and "one-time-code" in asked.text and device.secret not in asked.text
    assert web.get("/api/models").status_code == 401, "a password alone opens nothing"
    assert second(web, address, "000000").status_code == 401
    code = device.code()
    answer = second(web, address, code, next=f"/{MODEL}")
    assert answer.status_code == 303 and answer.headers["location"] == f"/{MODEL}"
    assert web.get("/api/models").status_code == 200

    for headers in (basic("mara", PASSWORD), basic("mara", PASSWORD + code)):
        for path in ("/api/models", "/mlflow/x", f"/git/{MODEL}.git/info/refs?service=git-upload-pack"):
            assert httpx.get(address + path, headers=headers).status_code in (401, 403), path
    assert own(web, address, "factor-remove", password=PASSWORD, code="000000").status_code == 403
    assert own(web, address, "factor-remove", password=PASSWORD, code=device.code()).status_code == 303
    web.cookies.clear()
    assert signed_in(web, address).status_code == 303
    changes = [event.data["change"] for event in orrery.timeline.read(kinds=["account"]) if event.actor == "mara"]
    assert changes == ["factor_added", "factor_removed"]
    told = "".join(str(event.to_json()) for event in orrery.timeline.read())
    assert not any(one in told for one in (device.secret, code, *codes))


def test_a_code_opens_once_also_after_a_restart(
    web: httpx.Client,
    orrery: Orrery,  # noqa: F811
    address: str,
    device: Device,
) -> None:
    enrolled(web, address, device)
    web.cookies.clear()
    signed_in(web, address)
    code = device.code()
    assert second(web, address, code).status_code == 303
    web.cookies.clear()
    signed_in(web, address)
    assert second(web, address, code).status_code == 401
    anew = Factors(orrery.timeline, orrery.vault, frozenset(), lambda: device.at)
    assert not anew.fits("mara", code), "another process, or the same after a restart"
    assert anew.fits("mara", device.code()), "while a new one opens"
    late = device.code()
    device.at += 2 * STEP
    assert not anew.fits("mara", late), "an old one opens nothing, though nobody has used it"


def test_two_who_show_the_same_code_at_once_are_one_too_many(orrery: Orrery, device: Device) -> None:  # noqa: F811
    from concurrent.futures import ThreadPoolExecutor

    device.secret = orrery.factors.begin("mara", "test").secret
    assert orrery.factors.confirm("mara", device.code())
    code = device.code()
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(lambda _: orrery.factors.fits("mara", code), range(8))) == 1


def test_wrong_codes_lock_and_a_right_password_does_not_unlock(
    web: httpx.Client,
    orrery: Orrery,  # noqa: F811
    address: str,
    device: Device,
) -> None:
    enrolled(web, address, device)
    web.cookies.clear()
    for _ in range(5):
        assert signed_in(web, address).status_code == 200
        assert second(web, address, "000000").status_code == 401
    locked = second(web, address, device.code())
    assert locked.status_code == 429 and int(locked.headers["retry-after"]) >= 1
    assert signed_in(web, address).status_code == 429
    assert ("mara", "locked") in denied(orrery)


def test_a_ticket_is_of_one_who_has_shown_the_password_and_falls_with_it(
    web: httpx.Client,
    orrery: Orrery,  # noqa: F811
    address: str,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enrolled(web, address, device)
    door = orrery.door
    mara, olaf = orrery.accounts.principal("mara"), orrery.accounts.principal("olaf")
    assert mara is not None and olaf is not None
    ticket = door.ticket(mara)
    assert door.holder(ticket) is not None
    name = ticket.split(".")[1]
    for wrong in ("", ".", "..", ticket[:-1] + "x", ticket.replace(name, "b2xhZg"), "9" + ticket, door.ticket(olaf)):
        assert door.holder(wrong) is None, wrong
    web.cookies.clear()
    assert second(web, address, device.code()).status_code == 401, "a code alone opens nothing"
    assert (
        httpx.post(f"{address}/-/second", data={"code": device.code()}, headers={"Origin": address}).status_code == 401
    )
    later = time.time() + 301
    monkeypatch.setattr("orrery.access.door.time.time", lambda: later)
    assert door.holder(ticket) is None
    monkeypatch.undo()
    orrery.accounts.choose_password("mara", FRESH, **BY)
    assert door.holder(ticket) is None


def test_a_code_for_recovery_opens_once_and_is_told(
    web: httpx.Client,
    orrery: Orrery,  # noqa: F811
    address: str,
    device: Device,
) -> None:
    codes = enrolled(web, address, device)
    web.cookies.clear()
    signed_in(web, address)
    assert second(web, address, codes[0].lower().replace("-", " ")).status_code == 303
    (event,) = [one for one in orrery.timeline.read(kinds=["account"]) if one.data["change"] == "recovery_used"]
    assert event.actor == "mara" and event.data["left"] == RECOVERY - 1
    assert "9 codes" in web.get("/-/account").text
    assert not orrery.factors.fits("mara", codes[0])
    page = own(web, address, "factor-codes", password=PASSWORD, code=device.code())
    fresh = re.findall(r"[A-Z2-7]{4}(?:-[A-Z2-7]{4}){5}", page.text)
    assert len(fresh) == RECOVERY and not orrery.factors.fits("mara", codes[1])
    orrery.accounts.choose_password("olaf", FRESH, **BY)
    device.secret = orrery.factors.begin("olaf", "test").secret
    assert orrery.factors.confirm("olaf", device.code())
    assert not orrery.factors.fits("olaf", fresh[0]), "codes of somebody else open nothing"
    assert orrery.factors.fits("mara", fresh[0])


def test_an_administrator_removes_it_with_a_reason(
    web: httpx.Client,
    orrery: Orrery,  # noqa: F811
    address: str,
    device: Device,
) -> None:
    device.secret = orrery.factors.begin("olaf", "test").secret
    orrery.factors.confirm("olaf", device.code())
    signed_in(web, address)
    assert "has a second factor" in web.get("/-/accounts").text
    form = {"csrf": csrf(web.get("/-/account")), "account": "olaf"}
    order = "/-/accounts/unfactor"
    assert web.post(order, data={**form, "why": " "}, headers={"Origin": address}).status_code == 422
    assert orrery.factors.has("olaf")
    assert web.post(order, data={**form, "why": "Lost."}, headers={"Origin": address}).status_code == 303
    assert not orrery.factors.has("olaf") and not orrery.factors.left("olaf")
    newest = next(iter(orrery.timeline.read("", newest_first=True, limit=1)))
    assert (newest.actor, newest.why, newest.data["change"]) == ("mara", "Lost.", "factor_removed")


def test_the_secret_is_sealed_and_keys_are_replaced_under_it(orrery: Orrery, device: Device) -> None:  # noqa: F811
    from orrery.access.homekey import home_keys, write_keys
    from orrery.errors import Damaged

    device.secret = orrery.factors.begin("mara", "test").secret
    codes = orrery.factors.confirm("mara", device.code())
    stored = b"".join(one.read_bytes() for one in orrery.settings.home.glob("orrery.db*"))
    for secret in (device.secret, *codes, *(one.replace("-", "") for one in codes)):
        assert secret.encode() not in stored
    write_keys(orrery.settings.home, ["another key than it was before", *home_keys(orrery.settings.home)])
    assert orrery.factors.sealed_anew() == 1
    write_keys(orrery.settings.home, home_keys(orrery.settings.home)[:1])
    assert orrery.factors.fits("mara", device.code())
    write_keys(orrery.settings.home, ["a key that sealed nothing here"])
    with pytest.raises(Damaged):
        orrery.factors.fits("mara", device.code())


# --- where a role asks for it ----------------------------------------------------------------------------------------


@pytest.fixture
def strict(orrery: Orrery) -> Iterator[Orrery]:  # noqa: F811
    made = Orrery(replace(orrery.settings, second_factor="administrator reviewer"))
    yield made
    made.timeline.engine.dispose()


def test_a_role_that_needs_one_lets_nobody_in_without(strict: Orrery) -> None:
    device, keys, name = Device(strict), strict.keys, f"orrery-{strict.settings.port}"
    before = keys.session("mara", why="signed in")[0]
    by_provider = keys.session("mara", why="signed in", by_provider=True)[0]
    with answering(strict) as address, httpx.Client(base_url=address, trust_env=False, timeout=60) as web:
        for session, status in ((before, 401), (by_provider, 200)):
            assert web.get("/api/models", headers={"Cookie": f"{name}={session}"}).status_code == status
        shown = bearer(token(strict, "mara"))
        assert web.get("/api/models", headers=shown).status_code == 200, "a token is something that one has"
        assert web.get("/api/models", headers=basic("mara", PASSWORD)).status_code == 403
        asked = signed_in(web, address)
        assert asked.status_code == 200 and web.get("/api/models").status_code == 401
        device.secret = secret_on(asked)
        assert second(web, address, "000000").status_code == 401
        page = second(web, address, device.code())
        assert page.status_code == 200 and "Codes for recovery" in page.text
        assert web.get("/api/models").status_code == 200
        assert own(web, address, "factor-remove", password=PASSWORD, code=device.code()).status_code == 403
        assert strict.factors.has("mara")
        strict.accounts.choose_password("olaf", PASSWORD, **BY)
        assert signed_in(web, address, name="olaf").status_code == 303, "a scientist needs none"
        assert web.get("/api/models").status_code == 200
        strict.accounts.give("olaf", "reviewer:quality", "tides", **BY)  # from now on he does
        assert web.get("/api/models").status_code == 401


def test_what_is_no_role_is_refused(orrery: Orrery) -> None:  # noqa: F811
    with pytest.raises(NotUnderstood, match="king"):
        Orrery(replace(orrery.settings, second_factor="king"))


# --- tokens of one's own ---------------------------------------------------------------------------------------------


def test_people_make_tokens_for_themselves_with_password_and_code(
    web: httpx.Client,
    orrery: Orrery,  # noqa: F811
    address: str,
    device: Device,
) -> None:
    enrolled(web, address, device)
    form = {"scope-api": "yes", "label": "laptop", "lasts": "1d"}
    assert own(web, address, "token", **form, password=PASSWORD, code="000000").status_code == 403
    assert own(web, address, "token", **form, password="not the one it is", code=device.code()).status_code == 403
    assert own(web, address, "token", password=PASSWORD, code=device.code()).status_code == 422, "without a scope"
    assert orrery.keys.all("mara") == []
    page = own(web, address, "token", **form, password=PASSWORD, code=device.code())
    (shown,) = re.findall(r"orrery_t[\w-]+", page.text)
    assert page.headers["cache-control"] == "no-store" and shown not in web.get("/-/account").text
    assert httpx.get(f"{address}/api/models", headers=bearer(shown)).status_code == 200
    assert httpx.get(f"{address}/mlflow/x", headers=bearer(shown)).status_code == 403, "for its scope alone"
    (key,) = orrery.keys.all("mara")
    theirs = orrery.keys.token("olaf", scopes=["api"], **BY)[1]
    assert own(web, address, "revoke", token=theirs.id).status_code == 403 or orrery.keys.all("olaf")[0].revoked is None
    assert own(web, address, "revoke", token=key.id).status_code == 303
    assert httpx.get(f"{address}/api/models", headers=bearer(shown)).status_code == 401
    for order in ("password", "token", "factor-confirm", "revoke"):  # a program does nothing of this
        answer = httpx.post(f"{address}/-/account/{order}", data={"x": "y"}, headers=bearer(token(orrery, "mara")))
        assert answer.status_code == 403, order


def test_a_service_has_no_second_factor(orrery: Orrery) -> None:  # noqa: F811
    orrery.accounts.add("robot", kind="service", owner="mara", **BY)
    with pytest.raises(NotAllowed):
        orrery.factors.begin("robot", "test")
