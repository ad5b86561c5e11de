"""A project that is developed elsewhere: a platform tells of a push, and in the end a reviewer has mail."""

from __future__ import annotations

import hashlib
import hmac
import json
from email.message import Message
from pathlib import Path
from typing import Any

import httpx
import pytest

from acceptance.support import QUIET, Running, git, tides, wait, write_project
from notify.conftest import Sink
from orrery.settings import Settings

BY = {"by": "root", "why": "For the test."}


def text_of(message: Message) -> str:
    body = message.get_payload(decode=True)
    assert isinstance(body, bytes)
    return body.decode()


@pytest.mark.slow
def test_from_a_push_elsewhere_to_a_mail_to_who_reviews(settings: Settings, tmp_path: Path) -> None:
    sink = Sink()
    running = Running(settings)
    orrery = running.orrery
    project = write_project(tmp_path / "elsewhere" / "tides", toml=QUIET)
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "First")
    commit = git(project, "rev-parse", "HEAD").strip()
    for name, role in (("mara", "reviewer"), ("vic", "viewer")):
        orrery.accounts.add(name, links=[f"{name}@post.example"], **BY)
        orrery.accounts.give(name, role, "tides", **BY)
    orrery.add_data("tides", tides(), why="first tides", actor="ann", key="first")
    url = f"file://{project}"
    _, secret = orrery.set_remote("tides", url, why="For the test.", actor="olga", private=True)
    payload: dict[str, Any] = {
        "ref": "refs/heads/main",
        "after": commit,
        "repository": {"full_name": "elsewhere/tides"},
        "sender": {"login": "ann"},
    }
    body = json.dumps(payload).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}"}
    try:
        running.start({"ORRERY_MAIL": sink.url})
        answer = httpx.post(f"{settings.control_url}/hooks/tides/github", content=body, headers=headers, timeout=60)
        assert answer.status_code == 202, answer.text
        wait(lambda: "tides" in orrery.models() and orrery.model("tides").waiting(), 240)
        wait(lambda: sink.got, 60)
        (pushed,) = orrery.timeline.read("tides", kinds=["pushed"])
        assert (pushed.actor, pushed.data["commit"]) == ("github:ann", commit)
        assert [address for address, _ in sink.got] == ["mara@post.example"]
        text = text_of(sink.got[0][1])
        assert "absolute_error: passed" in text and f"{settings.control_url}/tides/versions/1" in text
        page = httpx.get(f"{settings.control_url}/tides/channels.json", timeout=60).json()
        assert page["remote"]["url"] == url and page["fetched_at"]
    finally:
        running.stop()
        orrery.timeline.engine.dispose()
        sink.controller.stop()
