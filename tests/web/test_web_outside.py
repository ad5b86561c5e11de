"""Channels, webhooks and remotes by the JSON API: as the commands have them, and what is secret goes in only."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest

from orrery.app import Orrery

M = "/api/models/flight-delay"
WHY = {"why": "For the test."}
CHAT = "json://u:s3cr3t@chat.example.org/room"
HOOK = "https://ci.example.org/in?t=s3cr3t"
REMOTE = {"url": "https://git.example.org/air/flight-delay.git", "token": "t0ken-s3cr3t", "user": "robot"}


def test_channels_and_webhooks_are_added_listed_and_removed(web: httpx.Client, year: Orrery) -> None:
    assert web.get(f"{M}/channels").json() == []
    chat = web.post(f"{M}/channels", json={"name": "team", "url": CHAT, "about": "reviews", **WHY})
    assert chat.status_code == 201 and chat.json()["place"] == "json://" and chat.json()["kinds"] == ["reviews"]
    hook = web.post(f"{M}/webhooks", json={"url": HOOK, "kinds": ["promoted"], **WHY})
    assert hook.status_code == 201 and hook.json()["secret"].startswith("whsec_"), hook.text
    stored = {one.name: year.channels.opened(one) for one in year.channels.all("flight-delay")}
    assert stored == {"team": (CHAT, ""), "webhook": (HOOK, hook.json()["secret"])}
    listed = web.get(f"{M}/channels")
    assert [(one["name"], one["medium"]) for one in listed.json()] == [("team", "chat"), ("webhook", "webhook")]
    said = listed.text + chat.text + "".join(str(one.to_json()) for one in year.timeline.read(kinds=["channel"]))
    assert "s3cr3t" not in said and hook.json()["secret"] not in said
    assert web.post(f"{M}/webhooks", json={"url": HOOK, **WHY}).status_code == 409
    removed = web.delete(f"{M}/channels/webhook", params=WHY)
    assert removed.json() == {"ok": True} and [one.name for one in year.channels.all()] == ["team"]
    assert web.delete(f"{M}/channels/webhook", params=WHY).status_code == 404
    assert [event.why for event in year.timeline.read(kinds=["channel"])] == ["For the test."] * 3


@pytest.mark.parametrize(
    "body",
    [
        {"url": "http://ci.example.org/in"},
        {"url": HOOK, "private": True},
        {"url": HOOK, "kinds": ["conquered"]},
        {"url": HOOK, "kinds": []},
    ],
)
def test_what_is_no_webhook_is_refused(web: httpx.Client, year: Orrery, body: dict[str, object]) -> None:
    answer = web.post(f"{M}/webhooks", json={**body, **WHY})
    assert answer.status_code in (403, 422) and answer.json()["error"]["what"]
    assert year.channels.all() == []


def test_channels_of_orrery_itself(web: httpx.Client, year: Orrery) -> None:
    assert web.post("/api/models/*/channels", json={"name": "ops", "url": CHAT, **WHY}).status_code == 201
    assert [one["name"] for one in web.get("/api/models/*/channels").json()] == ["ops"]
    assert web.get(f"{M}/channels").json() == []
    assert web.delete("/api/models/*/channels/ops", params=WHY).status_code == 200


def test_a_remote_is_set_changed_shown_and_removed(web: httpx.Client, year: Orrery) -> None:
    assert web.get(f"{M}/remote").status_code == 404
    made = web.put(f"{M}/remote", json={**REMOTE, **WHY})
    assert made.status_code == 201 and made.json()["hooks"].endswith("/hooks/flight-delay")
    assert year.remotes.opened("flight-delay") == ("t0ken-s3cr3t", made.json()["secret"])
    shown = web.get(f"{M}/remote")
    assert shown.json() == {**made.json(), "secret": ""} and "s3cr3t" not in shown.text + made.text
    changed = web.put(f"{M}/remote", json={**REMOTE, "branch": "release", "secret": "own-of-gitlab", **WHY})
    assert changed.json()["branch"] == "release" and changed.json()["secret"] == ""
    assert year.remotes.opened("flight-delay")[1] == "own-of-gitlab"
    for bad in ({"url": "nonsense"}, {"url": "file:///etc"}, {"url": REMOTE["url"], "branch": "a..b"}):
        assert web.put(f"{M}/remote", json={**bad, **WHY}).status_code in (403, 422), bad
    assert web.delete(f"{M}/remote", params=WHY).status_code == 200
    assert year.remotes.all() == [] and web.post(f"{M}/remote/fetch").status_code == 404


def test_a_channel_is_tried_and_a_remote_fetched(web: httpx.Client, year: Orrery, tmp_path: Path) -> None:
    there = tmp_path / "there"
    subprocess.run(["git", "init", "-q", "-b", "main", str(there)], check=True)
    year.set_remote("flight-delay", f"file://{there}", why="w", actor="root", private=True)
    fetched = web.post(f"{M}/remote/fetch")
    assert fetched.status_code >= 400 and "git could not fetch" in fetched.text, "it has no commit"
    year.add_hook("flight-delay", "ci", "http://127.0.0.1:9/in", why="w", actor="root", private=True)
    tried = web.post(f"{M}/channels/ci/test")
    assert tried.status_code >= 400 and tried.json()["error"]["what"], "nobody listens there"
