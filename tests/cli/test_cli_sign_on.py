"""The how-to about single sign-on, walked through: a provider in a process of its own, and the settings of the page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.conftest import Command
from cli.test_cli_required import running
from orrery.settings import Settings
from web.test_web_sign_on import free_port

PAGE = (Path(__file__).parents[2] / "docs" / "single-sign-on.md").read_text()
MARA = {"preferred_username": "mara", "email": "mara@example.org", "email_verified": True}
SUBJECT = "7f3a"


@pytest.fixture
def provider() -> Iterator[str]:
    port = free_port()
    person = json.dumps({"sub": SUBJECT, **MARA, "groups": ["staff", "flights"]})
    argv = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "-p", str(port), "--user-claims", person]
    process = subprocess.Popen([*argv, "--require-nonce", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    issuer, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while time.monotonic() < until:
        try:
            assert httpx.get(f"{issuer}/.well-known/openid-configuration", trust_env=False).is_success
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield issuer
    process.kill()
    process.wait()


def variables(issuer: str, folder: Path) -> dict[str, str]:
    """Return the settings that the page names first, with this provider in place of the one of the example."""
    block = re.findall(r"```sh\n(.*?)```", PAGE, re.S)[0]
    found = {name: value.strip('"') for name, value in re.findall(r"^export (\w+)=(.*)$", block, re.M)}
    assert len(found) == 5 and block.endswith("orrery up\n")
    secret = folder / "oidc-secret"
    secret.write_text("whatever this provider takes\n")
    return {**found, "ORRERY_OIDC_ISSUER": issuer, "ORRERY_OIDC_CLIENT_SECRET_FILE": str(secret)}


def signed_in(pages: str, web: httpx.Client, action: dict[str, str]) -> httpx.Response:
    """Do what a person does: follow the link, fill the form of the provider, come back."""
    web.cookies.clear()
    page = web.get(f"{pages}/-/sign-in?next=/data")
    (link,) = re.findall(r'href="(/-/oidc[^"]*)"', page.text)
    out = web.get(f"{pages}{link}").headers["location"]
    assert "Authorize Client" in httpx.get(out, trust_env=False).text
    back = httpx.post(out, data=action, trust_env=False).headers["location"]
    assert back.startswith(f"{pages}/-/oidc/back?")
    return web.get(back)


def test_the_how_to(orrery: Command, home: Settings, provider: str, tmp_path: Path) -> None:
    env = variables(provider, tmp_path)

    def roles() -> set[tuple[str, str]]:
        (found,) = [one for one in orrery("user", "list", "--json", **env).lines() if one["account"] == "mara"]
        assert found["issuers"] == [provider] and all(one["group"] for one in found["roles"])
        return {(one["role"], one["on"]) for one in found["roles"]}

    with running(home, **env) as said, httpx.Client(trust_env=False, timeout=60) as web:
        pages = said["addresses"]["pages"].rstrip("/")
        answer = signed_in(pages, web, {"sub": SUBJECT})
        assert answer.status_code == 303 and answer.headers["location"] == "/data"
        assert web.get(f"{pages}/data").status_code == 200
        assert roles() == {("viewer", "*"), ("scientist", "flight-delay")}
        assert "by a group" in orrery("user", "list", **env).out
        (looked,) = [one for one in orrery("doctor", "--json", **env).lines() if one["name"] == "sign-on"]
        assert looked["ok"] and looked["found"] == f"{provider}; keys: 1"

        changed: dict[str, Any] = {**MARA, "groups": ["it"]}
        assert httpx.put(f"{provider}/users/{SUBJECT}", json=changed, trust_env=False).status_code == 204
        assert signed_in(pages, web, {"sub": SUBJECT}).status_code == 303
        assert roles() == {("administrator", "*")}
        assert web.get(f"{pages}/api/status").status_code == 200

        # This provider forgets the state when somebody says no: the answer is of nobody's sign-in.
        assert "belongs to another sign-in" in signed_in(pages, web, {"action": "deny"}).text
        assert "No group of yours" in signed_in(pages, web, {"sub": "a stranger"}).text
        assert web.get(f"{pages}/api/models").status_code == 401

    changes = [
        (one["data"]["role"], one["data"]["given"])
        for one in orrery("audit", "--kind", "granted", "--json", **env).lines()
        if one["data"].get("account") == "mara"
    ]
    assert sorted(changes) == sorted(
        [("viewer", True), ("scientist", True), ("administrator", True), ("viewer", False), ("scientist", False)]
    )
    refused = orrery("audit", "--kind", "denied", "--json", **env).lines()
    assert "another sign-in" in refused[0]["why"] and len(refused) == 1  # the second within a minute is counted

    wrong = orrery("up", "--workers", "0", **{**env, "ORRERY_OIDC_GROUPS": "staff"})
    assert wrong.code == 1 and "GROUP=ROLE" in wrong.err
    lost = orrery("doctor", "--json", **{**env, "ORRERY_OIDC_ISSUER": "http://127.0.0.1:9"})
    assert [one["name"] for one in lost.lines() if not one["ok"]] == ["sign-on"] and lost.code == 1
    nobody = orrery("user", "invite", "mara", **{**env, "ORRERY_PASSWORDS": "off"})
    assert nobody.code == 1 and provider in nobody.err
