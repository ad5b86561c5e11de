"""What comes too often, or is too large, is refused; browsers keep nothing, and are told of TLS."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from orrery.access.homekey import home_key
from orrery.app import Orrery
from web.conftest import answering
from web.test_web_entrance import BY, PASSWORD, basic, bearer, orrery, signed_in, token  # noqa: F401


@contextlib.contextmanager
def served(orrery: Orrery, **settings: Any) -> Iterator[tuple[httpx.Client, str]]:  # noqa: F811
    made = Orrery(replace(orrery.settings, **settings))
    with answering(made) as address, httpx.Client(base_url=address, trust_env=False, timeout=60) as web:
        yield web, address
    made.timeline.engine.dispose()


def test_an_account_that_asks_too_often_waits_and_others_do_not(orrery: Orrery) -> None:  # noqa: F811
    mara, olaf = bearer(token(orrery, "mara")), bearer(token(orrery, "olaf"))
    with served(orrery, requests_a_minute=5) as (web, _):
        assert [web.get("/api/models", headers=mara).status_code for _ in range(7)] == [200] * 5 + [429] * 2
        late = web.get("/api/models", headers=mara)
        assert int(late.headers["retry-after"]) >= 1 and "too many requests" in late.json()["error"]["what"]
        assert web.get("/api/models", headers=olaf).status_code == 200
        assert [web.get("/").status_code for _ in range(6)][-1] == 429, "who shows nothing is their address"
        ours = bearer(home_key(orrery.settings.home))
        assert {web.get("/api/serving/assignment", headers=ours).status_code for _ in range(8)} == {200}
        assert {web.get("/api/health").status_code for _ in range(8)} == {200}


def test_an_address_that_tries_too_often_waits_and_who_holds_a_token_does_not(orrery: Orrery) -> None:  # noqa: F811
    good, wrong = bearer(token(orrery, "mara")), bearer("orrery_t000000000000_" + "A" * 43)
    with served(orrery, tries_a_minute=4) as (web, address):
        assert [web.get("/api/models", headers=wrong).status_code for _ in range(6)] == [401] * 4 + [429] * 2
        assert web.get("/api/models", headers=good).status_code == 200
        late = signed_in(web, address)
        assert late.status_code == 429 and int(late.headers["retry-after"]) >= 1
        assert web.get("/api/models", headers=basic("mara", PASSWORD)).status_code == 429
    with served(orrery, tries_a_minute=4) as (web, address):
        assert signed_in(web, address).status_code == 303, "without the wrong ones before"
    with served(orrery, tries_a_minute=0, requests_a_minute=0) as (web, _):
        assert {web.get("/api/models", headers=wrong).status_code for _ in range(70)} == {401}


def test_behind_a_proxy_each_address_has_its_own_tries(orrery: Orrery) -> None:  # noqa: F811
    wrong = bearer("orrery_t000000000000_" + "A" * 43)

    def tries(web: httpx.Client, said: str) -> list[int]:
        return [web.get("/api/models", headers={**wrong, "X-Forwarded-For": said}).status_code for _ in range(3)]

    with served(orrery, tries_a_minute=2, client_header="x-forwarded-for") as (web, _):
        assert tries(web, "192.0.2.1") == [401, 401, 429] and tries(web, "192.0.2.2") == [401, 401, 429]
        assert tries(web, "192.0.2.9, 192.0.2.1") == [429] * 3, "what the client says of itself counts not"
    with served(orrery, tries_a_minute=2) as (web, _):
        assert tries(web, "192.0.2.1") == [401, 401, 429] and tries(web, "192.0.2.2") == [429] * 3


def test_a_push_has_a_size_and_a_pace(
    orrery: Orrery,  # noqa: F811
    tmp_path: Path,
) -> None:
    orrery.accounts.give("olaf", "scientist", "waves", **BY)
    shown, project = token(orrery, "olaf", "git"), tmp_path / "waves"
    project.mkdir()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0"}

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        who = ["-c", "user.name=Nora", "-c", "user.email=nora@example.org", "-c", "http.postBuffer=65536"]
        return subprocess.run(["git", *who, *words], cwd=project, env=env, capture_output=True, text=True, timeout=60)

    git("init", "-q", "-b", "draft")
    (project / "small").write_text("x")
    git("add", "-A")
    git("commit", "-q", "-m", "Small")
    with served(orrery, push_bytes=100_000, pushes_a_minute=6) as (_, address):
        place = f"http://olaf:{shown}@{address.removeprefix('http://')}/git/waves.git"
        small = git("push", place, "draft")
        assert small.returncode == 0, small.stderr
        (project / "large").write_bytes(os.urandom(400_000))
        git("add", "-A")
        git("commit", "-q", "-m", "Large")
        large = git("push", place, "draft")
        assert large.returncode != 0 and "413" in large.stderr, large.stderr
        refs = git("ls-remote", place).stdout
        assert git("rev-parse", "HEAD~1").stdout.strip() in refs and git("rev-parse", "HEAD").stdout.strip() not in refs
        refused = [git("push", place, "draft:other").stderr for _ in range(6)]
        assert any("429" in one for one in refused), refused
    with served(orrery) as (_, address):
        place = f"http://olaf:{shown}@{address.removeprefix('http://')}/git/waves.git"
        assert git("push", place, "draft").returncode == 0, "a larger limit lets the same push in"


@pytest.mark.filterwarnings("ignore")  # what MLflow warns of is not ours
def test_what_mlflow_is_sent_has_a_size(orrery: Orrery) -> None:  # noqa: F811
    headers = bearer(token(orrery, "mara"))
    place = "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/x"

    def parts() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 1000

    with served(orrery, artifact_bytes=10_000) as (web, _):
        assert web.put(place, content=b"x" * 20_000, headers=headers).status_code == 413
        assert web.put(place, content=parts(), headers=headers).status_code == 413, "not announced"
        assert web.put(place, content=b"x" * 5000, headers=headers).status_code != 413
    assert not [
        one for one in (orrery.settings.home / "artifacts").rglob("*") if one.is_file() and one.stat().st_size > 5000
    ]


def test_browsers_keep_nothing_and_are_told_of_tls(orrery: Orrery) -> None:  # noqa: F811
    url = "https://orrery.example"
    with served(orrery, url=url) as (web, _):
        shown = bearer(token(orrery, "mara"))
        for path in ("/", "/-/sign-in", "/-/welcome?key=x", "/api/models", "/-/account", "/mlflow/x"):
            answer = web.get(path, headers={**shown, "Host": "orrery.example"})
            if answer.status_code not in (401, 403):
                assert answer.headers["cache-control"] == "no-store", path
            assert answer.headers["strict-transport-security"] == "max-age=31536000", path
        assert web.get("/static/orrery.css").headers.get("cache-control") != "no-store"
        assert "strict-transport-security" not in web.get("/-/sign-in").headers, "on loopback there is no TLS"
    with served(orrery, url=url, hsts_seconds=0) as (web, _):
        assert "strict-transport-security" not in web.get("/-/sign-in", headers={"Host": "orrery.example"}).headers
