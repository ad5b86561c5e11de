"""The page of accounts: what an administrator sees and orders there, and nobody else."""

from __future__ import annotations

import re

import httpx
import pytest

from orrery.access.roles import Grant
from orrery.app import Orrery
from orrery.errors import NotAllowed
from web.test_web_entrance import BY, MODEL, PASSWORD, bearer, csrf, orrery, signed_in, token  # noqa: F401
from web.test_web_pages import Tree

WHY = "Because the test says so."


def ordered(web: httpx.Client, address: str, order: str, **fields: str) -> httpx.Response:
    form = {"csrf": csrf(web.get("/-/account")), "why": WHY, "account": "olaf", **fields}
    return web.post(f"/-/accounts/{order}", data=form, headers={"Origin": address})


def test_an_administrator_sees_all_accounts_and_no_secret(web: httpx.Client, orrery: Orrery, address: str) -> None:  # noqa: F811
    orrery.accounts.add("<b>".strip("<>") + "-robot", kind="service", owner="mara", **BY)
    shown, key = orrery.keys.token("olaf", scopes=["git"], label="<script>alert(1)</script>", **BY)
    assert "Accounts" not in web.get("/-/sign-in").text
    signed_in(web, address)
    page = web.get("/-/accounts")
    tree = Tree(page.text)
    assert page.status_code == 200 and not tree.all("script") and 'href="/-/accounts"' in web.get("/").text
    found = {one["name"]: one for one in web.get("/-/accounts.json").json()["accounts"]}
    assert set(found) == {"mara", "olaf", "b-robot"} and found["b-robot"]["owner"] == "mara"
    assert found["mara"]["sessions"] == 1 and found["mara"]["has_password"]
    assert found["olaf"]["roles"] == [{"role": "scientist", "on": "tides", "group": False}]
    assert [one["id"] for one in found["olaf"]["tokens"]] == [key.id]
    stored = orrery.accounts.get("mara")
    for secret in (shown, shown[21:], key.hash, "argon2", PASSWORD):
        assert secret not in page.text + web.get("/-/accounts.json").text
    assert stored.has_password


def test_what_an_administrator_orders(web: httpx.Client, orrery: Orrery, address: str) -> None:  # noqa: F811
    signed_in(web, address)
    shown, key = orrery.keys.token("olaf", scopes=["api"], **BY)
    session = orrery.keys.session("olaf", why="signed in")[0]
    assert ordered(web, address, "grant", role="viewer", on="").status_code == 303
    assert ordered(web, address, "grant", role="reviewer:quality", on="team/air").status_code == 303
    grants = {Grant("viewer"), Grant("reviewer:quality", "team/air"), Grant("scientist", "tides")}
    assert set(orrery.accounts.get("olaf").grants) == grants
    assert ordered(web, address, "ungrant", role="scientist", on="tides").status_code == 303
    assert Grant("scientist", "tides") not in orrery.accounts.get("olaf").grants
    assert ordered(web, address, "revoke", token=key.id, account="mara").status_code == 404  # not a token of hers
    assert ordered(web, address, "revoke", token=key.id).status_code == 303 and not orrery.keys.check(shown, "token")
    assert ordered(web, address, "sign-out").status_code == 303 and not orrery.keys.check(session, "session")
    assert ordered(web, address, "disable").status_code == 303 and orrery.accounts.principal("olaf") is None
    for order, fields, status in (
        ("grant", {"role": "king"}, 422),
        ("grant", {"role": "viewer", "account": "nobody"}, 404),
        ("ungrant", {"role": "operator"}, 404),
        ("disable", {"account": "mara"}, 403),  # the last administrator
        ("conquer", {}, 404),
        ("disable", {"why": " "}, 422),
        ("grant", {"role": "viewer", "csrf": "0" * 64}, 403),
    ):
        assert ordered(web, address, order, **fields).status_code == status, (order, fields)
    acts = [one for one in orrery.timeline.read(newest_first=True, limit=6) if one.kind != "denied"]
    assert {one.actor for one in acts} == {"mara"} and all(one.why == WHY for one in acts)


def test_who_does_not_manage_accounts_neither_sees_nor_orders(
    web: httpx.Client,
    orrery: Orrery,  # noqa: F811
    address: str,
) -> None:
    orrery.accounts.give("olaf", "administrator", MODEL, **BY)  # of one project is not of everything
    orrery.accounts.choose_password("olaf", PASSWORD, **BY)
    for headers in (bearer(token(orrery, "olaf")), {}):
        if not headers:
            assert signed_in(web, address, name="olaf").status_code == 303
            assert not re.search('href="/-/accounts"', web.get("/").text)
        assert web.get("/-/accounts", headers=headers).status_code == 403
        assert web.get("/-/accounts.json", headers=headers).status_code == 403
        form = {"account": "olaf", "role": "administrator", "why": WHY, "csrf": "x"}
        own = {"Origin": address, **headers}
        assert web.post("/-/accounts/grant", data=form, headers=own).status_code == 403
    with pytest.raises(NotAllowed):
        orrery.acting(orrery.accounts.principal("olaf")).allow("accounts", "")  # type: ignore[arg-type]
    assert Grant("administrator") not in orrery.accounts.get("olaf").grants
