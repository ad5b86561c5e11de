"""An orrery that does TLS itself, started for real: people, git and programs come by https, and others not at all."""

from __future__ import annotations

import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from cli.conftest import Command, environment
from cli.test_cli_required import running
from orrery.settings import Settings, user
from web.test_web_sign_on import free_port


@pytest.fixture
def secured(tmp_path: Path) -> dict[str, str]:
    """The settings; beside them the issuer, and a certificate of the client ``robot``."""
    authority = trustme.CA()
    made, robot = authority.issue_cert("localhost"), authority.issue_cert("robot.example", common_name="robot")
    authority.cert_pem.write_to_path(str(tmp_path / "issuers.pem"))
    made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    robot.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "robot.pem"))
    port = free_port()
    return {
        "ORRERY_ACCESS": "required",
        "ORRERY_LISTEN": "0.0.0.0",
        "ORRERY_URL": f"https://localhost:{port}",
        "ORRERY_TLS_CERTIFICATE": str(tmp_path / "server.pem"),
        "ORRERY_TLS_KEY": str(tmp_path / "server.pem"),
        "ORRERY_TLS_PORT": str(port),
        "ORRERY_SERVING_TLS_PORT": str(free_port()),
        "ORRERY_SERVING_CLIENTS": str(tmp_path / "issuers.pem"),
    }


def client(tmp_path: Path, shown: str = "") -> httpx.Client:
    trusting = ssl.create_default_context(cafile=str(tmp_path / "issuers.pem"))
    if shown:
        trusting.load_cert_chain(tmp_path / shown)
    return httpx.Client(trust_env=False, verify=trusting, timeout=60)


def answers(web: httpx.Client, address: str, expected: Any) -> bool:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        answer = web.get(address)
        if answer.status_code == 200 and answer.json() == expected:
            return True
        time.sleep(0.1)
    return False


def closes(web: httpx.Client, address: str) -> bool:
    until = time.monotonic() + 30
    while time.monotonic() < until and web.get(address).status_code != 401:
        time.sleep(0.1)
    return web.get(address).status_code == 401


def test_up_by_tls(orrery: Command, home: Settings, secured: dict[str, str], tmp_path: Path) -> None:
    with running(home, **secured) as said, client(tmp_path) as web, httpx.Client(trust_env=False) as plain:
        pages, loopback = secured["ORRERY_URL"], said["addresses"]["pages"]
        assert said["addresses"]["by TLS"] == pages and said["link"].startswith(f"{pages}/-/welcome?key=")
        words, own = "a sentence to sign in with", {"Origin": pages}
        form = {"key": said["link"].partition("key=")[2], "password": words, "again": words}
        assert web.post(f"{pages}/-/welcome", data=form, headers=own).status_code == 303
        signed = web.post(f"{pages}/-/sign-in", data={"name": user(), "password": words}, headers=own)
        cookie = signed.headers["set-cookie"]
        assert cookie.startswith("__Host-orrery=") and "Secure" in cookie and "Domain" not in cookie
        assert web.get(f"{pages}/").status_code == 200
        assert web.get(f"{pages}/mlflow/").status_code == 200
        assert web.post(f"{pages}/-/sign-out", headers={"Origin": "https://evil.example"}).status_code == 403
        with pytest.raises(httpx.TransportError):
            plain.get(pages.replace("https", "http"))
        assert plain.get(f"{loopback}api/health").status_code == 200  # the processes of this orrery know each other
        with pytest.raises(httpx.ConnectError):  # and nobody else gets there: only loopback listens in the clear
            plain.get(loopback.replace("127.0.0.1", "127.0.0.2"))

        here = {**secured, "ORRERY_ACTOR": ""}
        project = tmp_path / "tides"
        assert orrery("init", "tides", project, **here).code == 0
        shown = orrery("token", "create", user(), "--scope", "git", **here).out.strip()
        env = {**environment(home), "GIT_TERMINAL_PROMPT": "0", "GIT_SSL_CAINFO": str(tmp_path / "issuers.pem")}
        address = f"{pages.replace('https://', f'https://token:{shown}@')}/git/tides.git"
        push = ["git", "-C", str(project), "push", address, "main:draft"]
        done = subprocess.run(push, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

        # a certificate is an account, as soon as there is one of its name, with what it may ask
        inference = f"{said['addresses']['inference by TLS']}/v2/models"
        with pytest.raises(httpx.TransportError):
            web.get(inference)
        with client(tmp_path, "robot.pem") as robot:
            assert robot.get(inference).status_code == 401
            made = orrery("user", "add", "robot", "--owner", user(), "--role", "scientist", **here)
            assert made.code == 0, made.err
            assert answers(robot, inference, {"models": []})
            assert orrery("user", "disable", "robot", "--why", "For the test.", **here).code == 0
            assert closes(robot, inference)


def test_up_says_what_is_wrong_with_the_certificate(
    orrery: Command, home: Settings, secured: dict[str, str], tmp_path: Path
) -> None:
    def certificate() -> dict[str, Any]:
        return next(one for one in orrery("doctor", "--json", **secured).lines() if one["name"] == "certificate")

    assert certificate()["ok"] and "until " in certificate()["found"]
    ends = datetime.now(UTC) + timedelta(days=3)
    made = trustme.CA().issue_cert("localhost", not_after=ends)
    made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    assert not certificate()["ok"] and "days are left" in certificate()["todo"]
    (tmp_path / "server.pem").write_text("nothing")
    assert not certificate()["ok"]
    refused = orrery("up", "--workers", "0", **secured)
    assert refused.code == 1 and "cannot be used" in refused.err
