"""An orrery that requires access, started for real: the first administrator, a push without typing, and predictions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.conftest import Command, environment
from orrery.errors import NotAllowed, NotUnderstood
from orrery.settings import ACCESS_FILE, Settings, load, user


@contextmanager
def running(home: Settings, **more: str) -> Iterator[dict[str, Any]]:
    """Run `orrery up` and give what it said first."""
    env = {name: value for name, value in environment(home).items() if name != "ORRERY_ACTOR"} | more
    argv = [sys.executable, "-m", "orrery.cli.main", "up", "--json", "--workers", "0"]
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said: dict[str, Any] = {}
    try:
        for line in process.stdout:
            said |= json.loads(line)
            if "addresses" in said:
                break
        until = time.monotonic() + 60
        with httpx.Client(trust_env=False) as client:
            while time.monotonic() < until:
                try:
                    client.get(f"{said['addresses']['pages']}api/health")
                    client.get(f"{said['addresses']['inference']}/v2/health/live")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
        yield said
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_up_closes_the_door_and_stays_closed(orrery: Command, home: Settings, tmp_path: Path) -> None:
    with running(home, ORRERY_ACCESS="required") as said, httpx.Client(trust_env=False) as web:
        pages, inference = said["addresses"]["pages"].rstrip("/"), said["addresses"]["inference"]
        assert said["account"] == user() and said["link"].startswith(f"{pages}/-/welcome?key=orrery_l")
        assert web.get(f"{pages}/api/models").status_code == 401
        words, own = "a sentence to sign in with", {"Origin": pages}
        form = {"key": said["link"].partition("key=")[2], "password": words, "again": words}
        assert web.post(f"{pages}/-/welcome", data=form, headers=own).status_code == 303
        signed = web.post(f"{pages}/-/sign-in", data={"name": user(), "password": words}, headers=own)
        assert signed.status_code == 303 and web.get(f"{pages}/").status_code == 200

        # the inference server follows the control plane, and asks for a token of its own scope
        assert web.get(f"{inference}/v2/health/live").status_code == 200
        for path in ("/v2/models", "/metrics", "/v2", "/v2/models/tides", "/version"):
            assert web.get(inference + path).status_code == 401, path
        here = {"ORRERY_ACTOR": ""}
        other = orrery("token", "create", user(), "--scope", "api", **here).out.strip()
        shown = orrery("token", "create", user(), "--scope", "inference", **here).out.strip()
        assert _soon(web, f"{inference}/v2/models", shown, 200)
        assert web.get(f"{inference}/v2/models", headers={"Authorization": f"Bearer {other}"}).status_code == 401
        (key,) = [one["id"] for one in orrery("token", "list", "--json").lines() if one["scopes"] == ["inference"]]
        assert orrery("token", "revoke", key, "--why", "For the test.", **here).code == 0
        assert _soon(web, f"{inference}/v2/models", shown, 401)

        # a push without typing
        project = tmp_path / "tides"
        made = orrery("init", "tides", project, **here)
        assert made.code == 0, made.err
        env = {**environment(home), **here, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull}
        push = ["git", "-C", str(project), "push", f"{pages}/git/tides.git", "main:draft"]
        done = subprocess.run(push, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        helper = ["credential.helper=", f"credential.{pages}.helper="]
        without = [part for one in helper for part in ("-c", one)]
        done = subprocess.run(["git", *without, *push[1:], "--force"], env=env, capture_output=True, text=True)
        assert done.returncode != 0

        # everybody acts under their own name
        refused = orrery("event", "tides", "--why", "x", ORRERY_ACTOR="somebody")
        assert refused.code == 1 and "under their own name" in refused.err
        assert orrery("--as", "somebody", "user", "add", "li", **here).code == 1
    assert load(home.home).access == "required"  # forgetting the variable opens nothing
    kinds = [json.loads(line)["kind"] for line in orrery("timeline", "--json").out.splitlines()]
    assert kinds[:3] == ["account", "granted", "key"] and "signed_in" in kinds


def _soon(web: httpx.Client, address: str, shown: str, status: int) -> bool:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if web.get(address, headers={"Authorization": f"Bearer {shown}"}).status_code == status:
            return True
        time.sleep(0.1)
    return False


def test_git_gets_a_token_for_this_orrery_alone(orrery: Command, home: Settings) -> None:
    (home.home / ACCESS_FILE).touch()
    here = {"ORRERY_ACTOR": ""}
    assert orrery("user", "add", user(), **here).code == 0

    def asked(host: str) -> str:
        argv = [sys.executable, "-m", "orrery.cli.main", "credential", "get"]
        env = {**environment(home), **here}
        text = f"protocol=http\nhost={host}\n\n"
        return subprocess.run(argv, env=env, input=text, capture_output=True, text=True, timeout=60).stdout

    assert f"username={user()}" in asked("127.0.0.1:8700") and "password=orrery_t" in asked("127.0.0.1:8700")
    assert asked("evil.example") == asked("127.0.0.1:8701") == ""


def test_beyond_loopback_takes_access_and_a_proxy(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(kind: type[Exception], **variables: str) -> None:
        with monkeypatch.context() as patch, pytest.raises(kind):
            for name, value in variables.items():
                patch.setenv(f"ORRERY_{name}", value)
            load(home.home)

    refused(NotAllowed, LISTEN="0.0.0.0")
    refused(NotAllowed, LISTEN="0.0.0.0", ACCESS="required")
    refused(NotAllowed, LISTEN="0.0.0.0", URL="https://orrery.example")
    refused(NotAllowed, URL="https://orrery.example")
    refused(NotUnderstood, LISTEN="orrery.example", ACCESS="required")
    for url in (
        "http://orrery.example",
        "https://orrery.example/path",
        "https://me:x@orrery.example",
        "orrery.example",
    ):
        refused(NotUnderstood, URL=url, ACCESS="required")
    refused(NotUnderstood, ACCESS="requierd")
    monkeypatch.setenv("ORRERY_ACCESS", "required")
    monkeypatch.setenv("ORRERY_LISTEN", "0.0.0.0")
    monkeypatch.setenv("ORRERY_URL", "https://orrery.example/")
    assert load(home.home).public_url == "https://orrery.example"
