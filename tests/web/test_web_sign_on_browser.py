"""Single sign-on in a real browser, from one site to another and back, with and without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cli.test_cli_sign_on import MARA, SUBJECT, provider  # noqa: F401
from orrery.access.roles import Grant
from orrery.settings import Settings
from web.test_web_browser import chromium  # noqa: F401
from web.test_web_sign_on import Signing, home, signing_in, written  # noqa: F401

pytestmark = pytest.mark.browser


@pytest.fixture
def signing(home: Settings, provider: str) -> Iterator[Signing]:  # noqa: F811
    person = {**MARA, "groups": ["it"]}
    assert httpx.put(f"{provider}/users/{SUBJECT}", json=person, trust_env=False).status_code == 204
    elsewhere = provider.replace("127.0.0.1", "localhost")  # for a browser that is another site
    with signing_in(home, {"issuer": elsewhere}) as made:
        yield made


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_somebody_signs_in_manages_an_account_and_signs_out(chromium: Any, signing: Signing, scripts: bool) -> None:  # noqa: F811
    context = chromium.new_context(viewport={"width": 390, "height": 800}, java_script_enabled=scripts)
    page = context.new_page()
    complaints: list[tuple[str, str]] = []
    page.on("console", lambda message: complaints.append((message.location["url"], message.text)))
    page.goto(f"{signing.url}/data")
    assert "/-/sign-in" in page.url
    page.get_by_role("link", name="Sign in at localhost").click()
    assert page.url.startswith("http://localhost:")
    page.locator("input[name=sub]").fill(SUBJECT)
    page.get_by_role("button", name="Authorize").click()
    assert page.url == f"{signing.url}/data" and page.get_by_role("heading", name="Data").is_visible()

    page.get_by_role("link", name="Accounts").click()
    nora = page.locator("li").filter(has=page.get_by_role("heading", name="nora", exact=True))
    nora.get_by_text("Give a role").first.click()
    form = nora.locator("form[action='/-/accounts/grant']")
    form.get_by_label("Role").fill("reviewer:quality")
    form.get_by_label("In").fill("team/air")
    form.get_by_label("Why").fill("She reviews what flies.")
    form.get_by_role("button", name="Give a role").click()
    assert page.get_by_role("status").inner_text() == "The role is given."
    assert Grant("reviewer:quality", "team/air") in signing.orrery.accounts.get("nora").grants
    if scripts:
        for path in ("/-/accounts", "/-/account"):
            page.goto(signing.url + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path

    page.goto(f"{signing.url}/-/account")
    page.get_by_role("button", name="Sign out", exact=True).click()
    assert page.url == f"{signing.url}/-/sign-in"
    page.goto(f"{signing.url}/data")
    assert "/-/sign-in" in page.url
    assert [one for one in complaints if one[0].startswith(signing.url)] == []  # the provider's pages are its own
    context.close()
