"""Webhooks of platforms against a real control plane, and repositories that real servers serve on loopback."""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from orrery.access.roles import Grant, Principal
from orrery.actions.courier import courier_of
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotUnderstood, OrreryError
from orrery.notify.courier import Courier
from orrery.settings import Settings, load
from orrery.source import remote as remotes
from orrery.source.git import Source, announce
from orrery.source.http import git_app
from orrery.source.incoming import PLATFORMS, genuine, push_of
from orrery.web.server import create

MODEL, SECRET = "tides", "it is only for the test"
ACT = {"why": "For the test.", "actor": "olga"}
REPOSITORY = "harbour/tides"


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    config = uvicorn.Config(app, loop="asyncio", host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


class Elsewhere:
    """A server with a repository, which asks for a token; not an orrery's, but what serves is git's own program."""

    def __init__(self, folder: Path) -> None:
        self.settings = load(home=folder)
        self.asked: list[str] = []
        self.redirect = ""
        app = FastAPI()

        @app.middleware("http")
        async def door(request: Request, go_on: Any) -> Any:
            self.asked.append(request.url.path)
            if self.redirect:
                return Response(status_code=302, headers={"location": f"{self.redirect}{request.url.path}"})
            shown = request.headers.get("authorization", "")
            if request.method == "GET" and "upload" in str(request.url) and shown != self.expected:
                return Response(status_code=401, headers={"www-authenticate": "Basic"})
            return await go_on(request)

        app.mount("/harbour", git_app(self.settings, quiet=0.1))
        self.app = app
        self.expected = "Basic " + base64.b64encode(b"robot:t0ken").decode()


@pytest.fixture
def elsewhere(tmp_path: Path, home: Settings) -> Elsewhere:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return Elsewhere(folder)


@pytest.fixture
def away(elsewhere: Elsewhere) -> Iterator[str]:
    """Address of the repositories elsewhere."""
    with serving(elsewhere.app) as address:
        yield f"{address}/harbour"


@pytest.fixture
def orrery(home: Settings) -> Iterator[Orrery]:
    made = Orrery(replace(home, access="required"))
    yield made
    made.timeline.engine.dispose()


@pytest.fixture
def web(orrery: Orrery) -> Iterator[httpx.Client]:
    with serving(create(orrery)) as address, httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def courier(orrery: Orrery) -> Courier:
    made = courier_of(orrery)
    made.clock = [time.time()]  # type: ignore[attr-defined]
    made._now = lambda: made.clock[0]  # type: ignore[attr-defined]
    return made


def come_from(orrery: Orrery, away: str, **more: Any) -> None:
    said = {"user": "robot", "token": "t0ken", "secret": SECRET, "private": True, **ACT, **more}
    orrery.set_remote(MODEL, f"{away}/tides.git", **said)


def hexed(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def told(
    platform: str, commit: str, *, branch: str = "main", repository: str = REPOSITORY, login: str = "nora", **more: Any
) -> tuple[dict[str, str], bytes]:
    """A push as each platform tells of it: the fields and headers of their documentation, shortened."""
    ref, before, url = f"refs/heads/{branch}", "0" * 40, "https://evil.example/steal.git"
    if platform == "github":
        payload: dict[str, Any] = {
            "ref": ref,
            "before": before,
            "after": commit,
            "deleted": False,
            "repository": {"full_name": repository, "clone_url": url, "html_url": url, "default_branch": "main"},
            "pusher": {"name": login, "email": "nora@example.org"},
            "sender": {"login": login, "id": 17},
            "head_commit": {"id": commit, "message": "First"},
            **more,
        }
        body = json.dumps(payload).encode()
        return {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": "72d3162e",
            "X-Hub-Signature-256": f"sha256={hexed(body)}",
        }, body
    if platform == "gitea":
        payload = {
            "ref": ref,
            "before": before,
            "after": commit,
            "repository": {"full_name": repository, "clone_url": url, "ssh_url": url},
            "pusher": {"login": login, "username": login},
            "sender": {"login": login},
            **more,
        }
        body = json.dumps(payload).encode()
        return {"X-Gitea-Event": "push", "X-Gitea-Delivery": "f6266f16", "X-Gitea-Signature": hexed(body)}, body
    if platform == "gitlab":
        payload = {
            "object_kind": "push",
            "event_name": "push",
            "ref": ref,
            "before": before,
            "after": commit,
            "checkout_sha": commit,
            "user_username": login,
            "user_name": "Nora Berg",
            "project": {"path_with_namespace": repository, "git_http_url": url, "default_branch": "main"},
            **more,
        }
        body = json.dumps(payload).encode()
        return {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": SECRET, "X-Gitlab-Event-UUID": "13792a34"}, body
    payload = {
        "actor": {"type": "user", "nickname": "changes often", "account_id": login, "uuid": "{1}"},
        "repository": {"full_name": repository, "links": {"html": {"href": url}}},
        "push": {"changes": [{"old": None, "new": {"type": "branch", "name": branch, "target": {"hash": commit}}}]},
        **more,
    }
    body = json.dumps(payload).encode()
    return {"X-Event-Key": "repo:push", "X-Request-UUID": "5d1e", "X-Hub-Signature": f"sha256={hexed(body)}"}, body


def post(web: httpx.Client, platform: str, request: tuple[dict[str, str], bytes], model: str = MODEL) -> httpx.Response:
    headers, body = request
    return web.post(f"/hooks/{model}/{platform}", content=body, headers={"content-type": "application/json", **headers})


def pushes(orrery: Orrery) -> list[tuple[str, str]]:
    return [(event.actor, event.data["commit"]) for event in orrery.timeline.read(MODEL, kinds=["pushed"])]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_push_elsewhere_goes_on_as_if_it_were_pushed_here(
    platform: str, orrery: Orrery, web: httpx.Client, courier: Courier, elsewhere: Elsewhere, away: str, clone: Any
) -> None:
    mine = clone()
    commit = mine.commit("Heights of the tide")
    mine.git("push", f"{away}/tides.git", "main")
    come_from(orrery, away)
    answer = post(web, platform, told(platform, commit))
    assert answer.status_code == 202 and commit[:7] in answer.json()["done"]
    courier.step()
    assert pushes(orrery) == [(f"{platform}:nora", commit)]
    (event,) = orrery.timeline.read(MODEL)
    assert event.why.startswith("Pushed to main of http://127.0.0.1") and event.data["author"] == "Nora"
    source = Source(orrery.settings)
    assert source.tip(MODEL) == commit and announce(source, orrery.timeline) == []
    assert "evil.example" not in str(event.to_json()) and "t0ken" not in str(
        [e.to_json() for e in orrery.timeline.read()]
    )

    # told again, under another id: only what is signed counts
    headers, body = told(platform, commit)
    again = post(
        web, platform, ({**headers, "X-GitHub-Delivery": "2", "X-Gitea-Delivery": "2", "X-Request-UUID": "2"}, body)
    )
    assert again.status_code == 202 and "told before" in again.json()["done"]
    asked = len(elsewhere.asked)
    courier.step()
    assert len(elsewhere.asked) == asked and len(pushes(orrery)) == 1


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_is_not_genuine_or_not_for_us_does_nothing(
    platform: str, orrery: Orrery, web: httpx.Client, courier: Courier, elsewhere: Elsewhere, away: str, clone: Any
) -> None:
    mine = clone()
    commit = mine.commit()
    mine.git("push", f"{away}/tides.git", "main")
    come_from(orrery, away)
    headers, body = told(platform, commit)
    signature = next(name for name in headers if name.endswith(("Signature", "256", "Token")))
    before = len(elsewhere.asked)
    said = set()
    for wrong in (
        {**headers, signature: headers[signature][:-1] + ("0" if headers[signature][-1] != "0" else "1")},
        {**headers, signature: ""},
        {name: value for name, value in headers.items() if name != signature},
        {**headers, signature: hexed(body, "another secret")},
    ):
        refused = post(web, platform, (wrong, body))
        assert refused.status_code == 404
        said.add(refused.text)
    if platform != "gitlab":  # a token signs nothing
        assert post(web, platform, (headers, body + b" ")).status_code == 404
    said.add(post(web, platform, (headers, body), "nowhere").text)
    other = next(one for one in PLATFORMS if one != platform)
    assert post(web, other, (headers, body)).status_code == 404
    assert len(said) == 1  # which of these it was, and which projects there are, is nobody's business
    assert [event.actor for event in orrery.timeline.read(kinds=["denied"])] == ["stranger"]

    for idle in (
        told(platform, commit, branch="draft"),
        told(platform, commit, repository="harbour/waves"),
        told(platform, commit, repository="strangers/tides"),
        told(platform, "0" * 40),
    ):
        answer = post(web, platform, idle)
        assert answer.status_code == 200 and answer.json()["done"].startswith("Nothing")
    assert post(web, platform, told(platform, "main; rm -rf /")).status_code == 422
    courier.step()
    assert len(elsewhere.asked) == before and list(orrery.timeline.read(MODEL)) == []
    post(web, platform, told(platform, commit))  # the negative control
    courier.step()
    assert len(pushes(orrery)) == 1 and len(elsewhere.asked) > before


def test_a_signature_of_newer_gitlab_runs_out_and_has_an_id_of_its_own() -> None:
    key = base64.b64encode(b"k" * 32).decode()
    body, now = told("gitlab", "a" * 40)[1], 1_800_000_000

    def headers(at: int, id_: str = "msg_1") -> dict[str, str]:
        signed = hmac.new(b"k" * 32, f"{id_}.{at}.".encode() + body, hashlib.sha256).digest()
        return {
            "webhook-id": id_,
            "webhook-timestamp": str(at),
            "webhook-signature": f"v1,AAAA v1,{base64.b64encode(signed).decode()}",
            "x-gitlab-token": f"whsec_{key}",
        }

    assert genuine("gitlab", headers(now), body, f"whsec_{key}", now)
    assert not genuine("gitlab", headers(now), body + b" ", f"whsec_{key}", now)
    assert not genuine("gitlab", headers(now - 301), body, f"whsec_{key}", now)
    assert not genuine("gitlab", {**headers(now), "webhook-id": "msg_2"}, body, f"whsec_{key}", now)
    assert not genuine("gitlab", headers(now), body, "whsec_not base64", now)
    assert not any(genuine(one, {}, body, "", now) for one in PLATFORMS)


def test_ones_own_bitbucket_server_tells_it_otherwise() -> None:
    payload = {
        "actor": {"name": "nora"},
        "repository": {"slug": "tides", "project": {"key": "HARBOUR"}},
        "changes": [{"ref": {"id": "refs/heads/main", "displayId": "main"}, "toHash": "a" * 40, "type": "UPDATE"}],
    }
    push = push_of("bitbucket", {"x-event-key": "repo:refs_changed"}, payload, "main")
    assert push is not None and (push.repository, push.actor) == ("harbour/tides", "bitbucket:nora")
    for broken in ({}, [], {"ref": 1}, {"object_kind": "push"}, None):
        for platform in PLATFORMS:
            headers = {"x-github-event": "push", "x-gitea-event": "push", "x-event-key": "repo:push"}
            with pytest.raises(NotUnderstood):
                push_of(platform, headers, broken, "main")


def test_late_and_overtaken_news_moves_nothing_back_and_a_rewound_branch_does(
    orrery: Orrery, web: httpx.Client, courier: Courier, away: str, clone: Any
) -> None:
    mine = clone()
    come_from(orrery, away)
    first, second = mine.commit("First"), mine.commit("Second")
    mine.git("push", f"{away}/tides.git", "main")
    post(web, "github", told("github", second, login="pia"))
    post(web, "github", told("github", first, login="nora"))  # came late
    courier.step()
    assert pushes(orrery) == [("github:pia", second)]
    mine.git("reset", "-q", "--hard", first)
    other = mine.commit("Another way")
    mine.git("push", "-f", f"{away}/tides.git", "main")
    post(web, "github", told("github", second, login="x", forced=1))  # is not there any more
    post(web, "github", told("github", other, login="nora"))
    courier.step()
    assert pushes(orrery) == [("github:pia", second), ("github:nora", other)]
    assert Source(orrery.settings).tip(MODEL) == other
    assert orrery.fetch_remote(MODEL, actor="olga").endswith("is here") and len(pushes(orrery)) == 2


def test_four_eyes_hold_for_who_pushed_elsewhere(
    orrery: Orrery, web: httpx.Client, courier: Courier, away: str, clone: Any
) -> None:
    mine = clone()
    mine.write("orrery.toml", (mine.folder / "orrery.toml").read_text() + FOUR_EYES)
    commit = mine.commit()
    mine.git("push", f"{away}/tides.git", "main")
    come_from(orrery, away)
    for name in ("pia", "mara"):
        orrery.accounts.add(name, by="root", why="For the test.")
    orrery.accounts.link("pia", "github:pia-at-github", by="root", why="For the test.")
    post(web, "github", told("github", commit, login="pia-at-github"))
    courier.step()
    write_candidate(orrery, commit)
    mine_ = {name: orrery.acting(Principal(name, (Grant("reviewer"),))) for name in ("pia", "mara")}
    with pytest.raises(NotAllowed, match="pushed the commit"):
        mine_["pia"].approve(MODEL, 1, why="Fine.", actor="x")
    assert mine_["mara"].approve(MODEL, 1, why="Fine.", actor="x")


FOUR_EYES = '[environments.production]\nneeds = ["review:quality"]\nfour_eyes = true\n'


def write_candidate(orrery: Orrery, commit: str) -> None:
    from orrery.timeline.event import Draft

    facts = {"run": "r", "commit": commit, "change": "redesign", "data": {MODEL: 1}}

    def of(kind: str, version: int | None, environment: str = "", **data: Any) -> Draft:
        return Draft(
            kind=kind, actor="orrery", why="x", model=MODEL, version=version, environment=environment, data=data
        )

    orrery.append(
        [
            of("triggered", None, reason="push", **facts),
            of("trained", 1, artifact="x", metrics={}, **facts),
            of("gated", 1, passed=True, gates={}),
            of("review_requested", 1, "production", role="quality"),
        ]
    )


def test_a_commit_that_cannot_start_the_loop_is_refused_with_an_issue(
    orrery: Orrery, web: httpx.Client, courier: Courier, away: str, clone: Any
) -> None:
    mine = clone()
    come_from(orrery, away)
    good = mine.commit()
    mine.git("push", f"{away}/tides.git", "main")
    post(web, "github", told("github", good))
    courier.step()
    mine.write("orrery.toml", "[model]\nname = ")
    bad = mine.commit("Broken")
    # the server there takes everything: it is no orrery
    bare = Path(str(away_folder(mine, away)))
    mine.git("push", "-f", str(bare), "main")
    post(web, "github", told("github", bad))
    courier.step()
    assert [commit for _, commit in pushes(orrery)] == [good] and Source(orrery.settings).tip(MODEL) == good
    (issue,) = orrery.model(MODEL).issues.values()
    assert issue.title == "Refused: the remote of tides" and "orrery.toml" in issue.why
    mine.write("orrery.toml", clone("again").folder.joinpath("orrery.toml").read_text())
    repaired = mine.commit("Repaired")
    mine.git("push", "-f", str(bare), "main")
    post(web, "github", told("github", repaired))
    courier.step()
    assert pushes(orrery)[-1] == ("github:nora", repaired)
    assert orrery.model(MODEL).issues[issue.id].closed is not None


def away_folder(mine: Any, away: str) -> Path:
    return mine.folder.parent / "elsewhere" / "repos" / "tides.git"


# --- where it is fetched from ----------------------------------------------------------------------------------------


def test_a_remote_is_reached_only_as_it_was_set(
    orrery: Orrery, courier: Courier, elsewhere: Elsewhere, away: str, clone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = clone()
    commit = mine.commit()
    mine.git("push", f"{away}/tides.git", "main")
    for url in (
        "http://example.org/x.git",
        "git://example.org/x.git",
        "ext::sh -c touch% /tmp/x",
        "--upload-pack=touch /tmp/x",
        "/etc",
        "file:///etc",
        "git@example.org:x.git",
        "https://user:pass@example.org/x.git",
        "https://example.org/x.git?a=b",
    ):
        with pytest.raises(NotUnderstood):
            orrery.set_remote(MODEL, url, **ACT)
    with pytest.raises(NotUnderstood):
        orrery.set_remote(MODEL, "https://example.org/x.git", branch="--x ..", **ACT)
    orrery.set_remote(MODEL, "https://127.0.0.1/tides.git", **ACT)
    with pytest.raises(NotAllowed):
        orrery.fetch_remote(MODEL, actor="olga")

    come_from(orrery, away, token="wrong")
    with pytest.raises(OrreryError) as error:
        orrery.fetch_remote(MODEL, actor="olga")
    assert "wrong" not in str(error.value)
    come_from(orrery, away)
    before = len(elsewhere.asked)
    with serving(elsewhere.app) as second:
        elsewhere.redirect = second
        with pytest.raises(OrreryError):
            orrery.fetch_remote(MODEL, actor="olga")
        elsewhere.redirect = ""
    assert len(elsewhere.asked) == before + 1  # it was not followed
    assert orrery.fetch_remote(MODEL, actor="olga").endswith("is here") and pushes(orrery) == [("olga", commit)]


def test_git_connects_to_the_address_that_was_checked(
    orrery: Orrery, elsewhere: Elsewhere, away: str, clone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server has the name; git reaches one only because it is told which address was checked."""
    mine = clone()
    mine.commit()
    mine.git("push", f"{away}/tides.git", "main")
    port = away.split(":")[2].partition("/")[0]
    come_from(orrery, f"http://git.nowhere.invalid:{port}/harbour")
    with pytest.raises(OrreryError, match="no address"):
        orrery.fetch_remote(MODEL, actor="olga")
    monkeypatch.setattr(remotes, "resolved", lambda host, port, private: ["127.0.0.1"])
    assert orrery.fetch_remote(MODEL, actor="olga").endswith("is here")


def test_a_file_is_a_remote_where_that_is_said(orrery: Orrery, clone: Any) -> None:
    mine = clone()
    commit = mine.commit()
    orrery.set_remote(MODEL, f"file://{mine.folder}", private=True, **ACT)
    assert orrery.fetch_remote(MODEL, actor="olga").endswith("is here") and pushes(orrery) == [("olga", commit)]


KILLED = """
import os
from orrery.app import Orrery
from orrery.source import follow
orrery = Orrery.open()
follow.record_push = lambda *args: os._exit(9)   # the branch is moved, and nothing is written down
from orrery.actions.courier import courier_of
courier_of(orrery).step()
"""


def test_killed_between_moving_the_branch_and_writing_it_down_who_pushed_is_kept(
    orrery: Orrery, web: httpx.Client, courier: Courier, away: str, clone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = clone()
    commit = mine.commit()
    mine.git("push", f"{away}/tides.git", "main")
    come_from(orrery, away)
    post(web, "github", told("github", commit))
    for name, value in orrery.settings.environment().items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 9, done.stderr
    source = Source(orrery.settings)
    assert source.tip(MODEL) == commit and pushes(orrery) == []
    announce(source, orrery.timeline)  # what a worker does first
    assert pushes(orrery) == [("github:nora", commit)]
    courier.step()
    assert len(pushes(orrery)) == 1


def test_a_body_has_a_limit(orrery: Orrery, web: httpx.Client) -> None:
    assert post(web, "github", ({}, b"x" * (9 << 20))).status_code == 413


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """A real ssh server on loopback, which lets one key in; gives its port."""
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists():
        pytest.skip("not run: no ssh server (apt-get install openssh-server)")
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    keys = folder / "authorized"
    keys.write_text((folder / "user.pub").read_text())
    keys.chmod(0o600)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "AuthorizedKeysFile": keys}
    options |= {"StrictModes": "no", "UsePAM": "no", "PidFile": "none", "PasswordAuthentication": "no"}
    words = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    server = subprocess.Popen([program, "-D", "-e", "-f", "/dev/null", *words], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
    yield lambda path: f"ssh://127.0.0.1:{port}{path}"
    server.terminate()
    server.wait(20)


@pytest.mark.ssh
def test_a_remote_over_ssh_with_a_deploy_key(
    orrery: Orrery, clone: Any, tmp_path: Path, sshd: Callable[[Path], str]
) -> None:
    mine = clone()
    commit = mine.commit()
    key = (tmp_path / "ssh" / "user").read_text()
    said = {"user": getpass.getuser(), "private": True, **ACT}
    orrery.set_remote(MODEL, sshd(mine.folder), token=key, **said)
    assert orrery.fetch_remote(MODEL, actor="olga").endswith("is here") and pushes(orrery) == [("olga", commit)]
    assert key.splitlines()[1] not in str([event.to_json() for event in orrery.timeline.read()])

    known = orrery.settings.home / "known_hosts"
    host, kind, _ = known.read_text().split()[:3]
    other = (tmp_path / "ssh" / "user.pub").read_text().split()[1]
    known.write_text(f"{host} {kind} {other}\n")  # the server is another one than before
    with pytest.raises(OrreryError):
        orrery.fetch_remote(MODEL, actor="olga")
    known.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "stranger"], check=True)
    orrery.set_remote(MODEL, sshd(mine.folder), token=(tmp_path / "stranger").read_text(), **said)
    with pytest.raises(OrreryError):
        orrery.fetch_remote(MODEL, actor="olga")
