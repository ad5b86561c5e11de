"""Signed webhooks and chats, against a real receiver: what they are sent, in which order, and where nothing is sent."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from notify.conftest import MODEL, Receiver, Sink, Time, asked, candidate, draft, receiving
from orrery.access import outgoing
from orrery.access.homekey import home_keys, write_keys
from orrery.access.outgoing import resolved
from orrery.access.posting import post
from orrery.actions.courier import courier_of
from orrery.app import Orrery
from orrery.audit.rotation import replace_home_key
from orrery.errors import Conflict, Damaged, NotAllowed, NotFound, NotUnderstood, OrreryError
from orrery.notify.courier import Courier
from orrery.notify.outbox import Outbox

DOCS = Path(__file__).parents[2] / "docs"
ACT = {"why": "For the test.", "actor": "olga"}


def hook(orrery: Orrery, receiver: Receiver, *kinds: str, name: str = "ci") -> str:
    made = orrery.add_hook(MODEL, name, f"{receiver.url}/in?t=s3cr3t", kinds=kinds or ("*",), private=True, **ACT)
    return made[1]


def signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Verify as a receiver does, with nothing of ours."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    what = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    made = base64.b64encode(hmac.new(key, what, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{made}"


def test_a_hook_is_sent_what_it_asked_for_in_order_and_signed(
    orrery: Orrery, courier: Courier, receiver: Receiver
) -> None:
    secret = hook(orrery, receiver, "promoted", "rolled_back", "alarmed", "review_requested", "failed")
    asked(orrery, "quality")
    candidate(orrery, 2)
    orrery.append(
        [
            draft("promoted", environment="production", previous=None, change="redesign"),
            draft("promoted", environment="production", version=2, previous=1, change="redesign"),
            draft("rolled_back", environment="production", previous=2),
            draft("alarmed", environment="production", monitor="decay", statistic=1.0, promise=1000, blame={}, look=1),
            draft("failed", "orrery/training", stage="training", error="row of Jane Roe", output="Jane", run="r2"),
        ]
    )
    courier.step()
    events = [json.loads(body) for _, _, body in receiver.got]
    assert [one["type"] for one in events] == [
        "dev.cdeventsx.orrery-version.reviewrequested.0.1.0",
        "dev.cdevents.service.deployed.0.3.0",
        "dev.cdevents.service.deployed.0.3.0",
        "dev.cdevents.service.upgraded.0.3.0",
        "dev.cdevents.service.rolledback.0.3.0",
        "dev.cdevents.incident.detected.0.3.0",
        "dev.cdeventsx.orrery-version.failed.0.1.0",
    ]
    assert [one["sequence"] for one in events] == sorted(one["sequence"] for one in events)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == len(events)
    for path, headers, body in receiver.got:
        assert path == "/in?t=s3cr3t" and signed(secret, headers, body)
        assert headers["content-type"].startswith("application/cloudevents+json")
        assert not signed(secret, headers, body + b" ")
        one = json.loads(body)
        assert one["specversion"] == "1.0" and {"id", "source", "time", "subject"} <= set(one)
        context = one["data"]["context"]
        assert (
            set(context) == {"specversion", "id", "source", "type", "timestamp"} and context["specversion"] == "0.5.0"
        )
        assert (context["id"], context["type"]) == (one["id"], one["type"])
    upgraded = events[3]["data"]["subject"]
    assert upgraded["content"] == {"environment": {"id": "production"}, "artifactId": "pkg:mlflow/tides@2"}
    assert "Jane" not in str(events) and events[1]["data"]["customData"]["why"] == "For the test."
    assert not any(
        "s3cr3t" in str(event.to_json()) or secret in str(event.to_json()) for event in orrery.timeline.read()
    )


def test_the_example_of_the_documentation_verifies_what_is_sent(orrery: Orrery, receiver: Receiver) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "webhooks.md").read_text(), flags=re.S)
    names: dict[str, Any] = {}
    exec(example, names)
    secret = hook(orrery, receiver)
    orrery.test_channel(MODEL, "ci", actor="olga")
    ((_, headers, body),) = receiver.got
    old = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 400)}
    assert names["verified"](headers, body, secret)
    assert not names["verified"](headers, body + b" ", secret) and not names["verified"](old, body, secret)


def test_what_happened_before_and_elsewhere_is_not_sent(orrery: Orrery, courier: Courier, receiver: Receiver) -> None:
    asked(orrery, "quality")
    hook(orrery, receiver)
    orrery.append([draft("business").__class__(kind="business", actor="x", why="y", model="waves")])
    courier.step()
    assert receiver.got == []
    orrery.remove_channel(MODEL, "ci", **ACT)
    asked(orrery, "legal")
    courier.step()
    assert receiver.got == []


def test_what_fails_is_tried_again_and_nothing_overtakes_it(
    orrery: Orrery, courier: Courier, receiver: Receiver, wall: Time
) -> None:
    hook(orrery, receiver, "business")
    with receiving() as other:
        hook(orrery, other, "business", name="other")
        for number in range(3):
            orrery.event(MODEL, why=f"{number}", actor="pia")
        receiver.status = [500, 302]
        receiver.headers = {"location": f"{other.url}/elsewhere"}
        courier.step()
        assert len(receiver.got) == 1 and len(other.got) == 3  # each hook has an order of its own
        wall.now += 10
        courier.step()
        assert len(receiver.got) == 2 and not any(path == "/elsewhere" for path, _, _ in other.got)
        wall.now += 20
        courier.step()
    told = [json.loads(body)["data"]["customData"]["why"] for _, _, body in receiver.got]
    ids = [headers["webhook-id"] for _, headers, _ in receiver.got]
    assert told == ["0", "0", "0", "1", "2"] and ids[0] == ids[1] == ids[2] != ids[3]
    record = Outbox(orrery.timeline).records("hook/")[f"hook/{MODEL}/ci"]
    assert (record.waiting, record.failed, record.said) == (0, 0, "") and record.last == wall.now


def test_a_hook_that_cannot_be_reached_is_given_up_with_an_issue(
    orrery: Orrery, courier: Courier, receiver: Receiver, wall: Time, sink: Sink
) -> None:
    hook(orrery, receiver, "business")
    for number in range(3):
        orrery.event(MODEL, why=f"{number}", actor="pia")
    receiver.status = [500] * 1000
    for _ in range(90):
        wall.now += 3600
        courier.step()
    made = len(receiver.got)
    assert 60 < made < 100 and {json.loads(body)["data"]["customData"]["why"] for _, _, body in receiver.got} == {"0"}
    (issue,) = orrery.model(MODEL).issues.values()
    assert issue.cause == f"delivery:hook/{MODEL}/ci" and "answered 500" in issue.why and sink.to() == ["olga"]
    assert Outbox(orrery.timeline).records("hook/")[f"hook/{MODEL}/ci"].failed == 3
    receiver.status = []
    orrery.event(MODEL, why="4", actor="pia")
    courier.step()
    assert len(receiver.got) == made and orrery.channels.get(MODEL, "ci").dead
    with pytest.raises(NotAllowed):
        orrery.test_channel(MODEL, "ci", actor="olga")
    orrery.remove_channel(MODEL, "ci", **ACT)
    hook(orrery, receiver, "business")
    orrery.event(MODEL, why="5", actor="pia")
    courier.step()
    assert len(receiver.got) == made + 1 and orrery.model(MODEL).issues[issue.id].closed is not None


KILLED = """
import os, sys
from orrery.app import Orrery
from orrery.actions.courier import courier_of
orrery = Orrery.open()
courier = courier_of(orrery)
courier.outbox.sent = lambda *args: os._exit(9)   # sent, and dead before it is noted
courier.step()
"""


def test_killed_between_sending_and_noting_it_is_sent_again_under_the_same_id(
    orrery: Orrery, courier: Courier, receiver: Receiver, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = hook(orrery, receiver, "review_requested")
    asked(orrery, "quality")
    for name, value in orrery.settings.environment().items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 9, done.stderr
    assert len(receiver.got) + len(sink.got) == 1
    courier.step()
    courier_of(orrery).step()
    ids = [message["Message-ID"] for _, message in sink.got]
    hooks = [headers["webhook-id"] for _, headers, _ in receiver.got]
    assert len(ids) + len(hooks) == 3 and len(set(ids)) == 1 and len(set(hooks)) == 1
    assert all(signed(secret, headers, body) for _, headers, body in receiver.got)


def test_two_couriers_make_each_delivery_once(orrery: Orrery, courier: Courier, receiver: Receiver) -> None:
    hook(orrery, receiver, "business")
    for number in range(20):
        orrery.event(MODEL, why=f"{number}", actor="pia")
    threads = [threading.Thread(target=courier_of(orrery).plan) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert courier.outbox.records("hook/")[f"hook/{MODEL}/ci"].waiting == 20
    courier.step()
    assert len(receiver.got) == 20


# --- where nothing is sent -------------------------------------------------------------------------------------------


def test_nothing_is_sent_within_the_network_unless_that_is_said(
    orrery: Orrery, courier: Courier, receiver: Receiver, wall: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (
        "http://example.org/",
        "ftp://example.org/",
        "https://user:pass@example.org/",
        "https://",
        "file:///etc/passwd",
        "https://exa mple.org/",
    ):
        with pytest.raises(NotUnderstood):
            orrery.add_hook(MODEL, "ci", url, **ACT)
    for host in ("127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
        with pytest.raises(NotAllowed):
            post(f"https://{host}:{receiver.url.rpartition(':')[2]}/", b"{}", {})
    for text in ("127.1", "2130706433", "0x7f000001"):  # other ways to write it, as the system reads them
        with pytest.raises(OrreryError):
            resolved(text, 443)
    assert resolved("127.0.0.1", 443, private=True) == ["127.0.0.1"] and receiver.got == []

    orrery.add_hook(MODEL, "ci", "https://rebind.example/", kinds=["business"], **ACT)
    answers = [["93.184.216.34", "127.0.0.1"], ["127.0.0.1"]]
    asked_for: list[str] = []

    def lookup(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        asked_for.append(host)
        found = answers.pop(0) if answers else ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(outgoing.socket, "getaddrinfo", lookup)
    orrery.event(MODEL, why="0", actor="pia")
    for _ in range(2):
        courier.step()
        wall.now += 100
    assert asked_for == ["rebind.example", "rebind.example"]  # once for each attempt
    record = courier.outbox.records("hook/")[f"hook/{MODEL}/ci"]
    assert record.waiting == 1 and "within this network" in record.said


def test_the_connection_goes_to_what_was_checked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name leads to the receiver the first time, and nowhere afterwards: it was asked for once."""
    port = int(receiver.url.rpartition(":")[2])
    seen: list[str] = []
    real = socket.getaddrinfo

    def lookup(host: str, *args: Any, **kwargs: Any) -> Any:
        if host != "hooks.example":
            return real(host, *args, **kwargs)
        seen.append(host)
        assert len(seen) == 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert post(f"http://hooks.example:{port}/", b"{}", {}, private=True) == 204
    ((_, headers, _),) = receiver.got
    assert headers["host"] == f"hooks.example:{port}"


def test_a_receiver_that_answers_without_end_holds_nobody_up() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    for letter in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100:
                        connection.sendall(bytes([letter]))
                        time.sleep(0.1)
                except OSError:
                    pass

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with pytest.raises(OrreryError, match="No answer"):
            post(f"http://127.0.0.1:{listening.getsockname()[1]}/", b"{}", {}, private=True, seconds=1.0)
        thread.join(10)
        assert not thread.is_alive()


# --- chats, and what is kept -----------------------------------------------------------------------------------------


def test_a_chat_is_told_once_and_only_what_it_is_for(
    orrery: Orrery, courier: Courier, receiver: Receiver, wall: Time, sink: Sink
) -> None:
    url = f"json://u:s3cr3t@{receiver.url.removeprefix('http://')}/team"
    orrery.add_channel(MODEL, "team", url, about="reviews", private=True, **ACT)
    orrery.add_channel(MODEL, "closed", url, **ACT)
    asked(orrery, "quality")
    orrery.open_issue(MODEL, "Late", why="x", actor="pia", owner="vic")
    courier.step()
    courier.step()
    ((path, _, body),) = receiver.got
    told = json.loads(body)
    assert (
        path == "/team"
        and told["title"].startswith("Version 1 of tides waits")
        and "/tides/versions/1" in told["message"]
    )
    record = courier.outbox.records(f"chat/{MODEL}/closed")[f"chat/{MODEL}/closed"]
    assert record.waiting == 2 and "within this network" in record.said and "s3cr3t" not in record.said
    assert orrery.test_channel(MODEL, "team", actor="olga") and len(receiver.got) == 2
    for bad in ("nonsense", "syslog://", "nosuch://x"):
        with pytest.raises(NotUnderstood):
            orrery.add_channel(MODEL, "bad", bad, **ACT)
    with pytest.raises(Conflict):
        orrery.add_channel(MODEL, "team", url, **ACT)


def test_secrets_are_sealed_and_bound_to_their_use(orrery: Orrery, receiver: Receiver) -> None:
    secret = hook(orrery, receiver)
    database = (orrery.settings.home / "orrery.db").read_bytes() + (orrery.settings.home / "orrery.db-wal").read_bytes()
    assert b"s3cr3t" not in database and secret.encode() not in database and b"whsec_" not in database
    assert orrery.channels.opened(orrery.channels.get(MODEL, "ci")) == (f"{receiver.url}/in?t=s3cr3t", secret)
    sealed = orrery.vault.seal("x", "hook/tides/ci")
    assert orrery.vault.opened(sealed, "hook/tides/ci") == "x"
    for wrong in ((sealed, "hook/waves/ci"), (sealed[:-4] + "AAAA", "hook/tides/ci"), ("!", "hook/tides/ci")):
        with pytest.raises(Damaged):
            orrery.vault.opened(*wrong)
    with pytest.raises(NotFound):
        orrery.add_hook("nowhere", "ci", "https://example.org", **ACT)


def test_after_the_key_of_the_home_was_replaced_channels_deliver_and_the_old_key_opens_nothing(
    orrery: Orrery, courier: Courier, receiver: Receiver
) -> None:
    secret, home = hook(orrery, receiver), orrery.settings.home
    orrery.add_channel(MODEL, "team", f"json://{receiver.url.removeprefix('http://')}/team", private=True, **ACT)
    orrery.set_remote(MODEL, "https://example.org/t.git", token="t0ken-of-remote", secret="s3cret-of-hooks", **ACT)
    courier.step()
    receiver.got.clear()
    (old,) = home_keys(home)
    replace_home_key(orrery.settings, lambda: orrery.channels.sealed_anew() + orrery.remotes.sealed_anew())
    asked(orrery, "quality")
    courier.step()
    assert sorted({path.partition("?")[0] for path, *_ in receiver.got}) == ["/in", "/team"]
    _, headers, body = next(one for one in receiver.got if one[0].startswith("/in"))
    assert signed(secret, headers, body), "the receiver need not be told of it"
    assert orrery.remotes.opened(MODEL) == ("t0ken-of-remote", "s3cret-of-hooks")
    write_keys(home, [old])
    for opens in (
        lambda: orrery.channels.opened(orrery.channels.get(MODEL, "ci")),
        lambda: orrery.channels.opened(orrery.channels.get(MODEL, "team")),
        lambda: orrery.remotes.opened(MODEL),
    ):
        with pytest.raises(Damaged):
            opens()
