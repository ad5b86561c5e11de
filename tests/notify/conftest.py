"""A model whose version waits for a review, people with addresses, a real mail server and a real receiver."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from orrery.actions.courier import courier_of
from orrery.app import Orrery
from orrery.notify.courier import Courier
from orrery.settings import Settings
from orrery.timeline.event import Draft
from orrery.types import address_mark

MODEL = "tides"
BY = {"by": "root", "why": "For the test."}
GATES = {
    "quality": {"verdict": "passed", "why": "0.5 m, the champion 0.6 m."},
    "segments": {"verdict": "passed", "why": "No port is worse."},
}
SPEC: dict[str, Any] = {
    "model": {"name": MODEL, "task": "regression", "target": "height", "owner": "olga"},
    "data": {MODEL: MODEL},
    "environments": {
        "staging": {"needs": ["gates"]},
        "production": {
            "needs": ["staging", "review:quality", "review:legal"],
            "four_eyes": True,
            "review_within": "1d",
            "emergency": True,
        },
    },
}
ADDRESSES = {name: f"{name}@post.example" for name in ("mara", "lena", "nora", "olga", "pia", "vic", "far", "mute")}
ROLES = {
    "mara": [("reviewer:quality", MODEL)],
    "lena": [("reviewer:legal", MODEL)],
    "nora": [("scientist", MODEL), ("reviewer", MODEL)],
    "olga": [("operator", MODEL)],
    "pia": [("scientist", MODEL)],
    "vic": [("viewer", MODEL)],
    "far": [("reviewer", "waves"), ("administrator", "waves")],
    "mute": [("reviewer", MODEL)],
}


def draft(kind: str, actor: str = "orrery/test", environment: str = "", version: int | None = 1, **data: Any) -> Draft:
    return Draft(
        kind=kind, actor=actor, why="For the test.", model=MODEL, version=version, environment=environment, data=data
    )


def candidate(orrery: Orrery, number: int = 1) -> None:
    """Write a version that nora made, and that passed its gates."""
    commit = str(number) * 40
    facts: dict[str, Any] = {"run": f"r{number}", "commit": commit, "change": "redesign", "data": {MODEL: 1}}
    authors = ["Nora Berg", address_mark(ADDRESSES["nora"])]
    orrery.append(
        [
            draft("pushed", "pia", version=None, commit=commit, spec=SPEC, author="Nora Berg", authors=authors),
            draft("triggered", "orrery", version=None, reason="push", **facts),
            draft("trained", version=number, artifact="x", metrics={"absolute_error": 0.5}, **facts),
            draft("gated", version=number, passed=True, gates=GATES),
            draft("promoted", version=number, environment="staging", previous=None, change="redesign"),
        ]
    )


def asked(orrery: Orrery, role: str, number: int = 1, **more: Any) -> None:
    orrery.append([draft("review_requested", "orrery/rollout", "production", number, role=role, **more)])


class Sink:
    """A mail server that keeps what it is sent, and can be told to refuse."""

    def __init__(self) -> None:
        self.refuses = ""
        self.got: list[tuple[str, Message]] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self.controller.start()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuses:
            return self.refuses
        self.got.append((envelope.rcpt_tos[0], message_from_bytes(envelope.content)))
        return "250 taken"

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}/?from=orrery@post.example"

    def to(self) -> list[str]:
        """Who got something, in order; and forget it."""
        found = sorted(address.partition("@")[0] for address, _ in self.got)
        self.last = [message for _, message in self.got]
        for one in self.last:
            one.replace_header("Subject", " ".join(one["Subject"].split()))  # as it was before it was folded
        self.got = []
        return found


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A mail server on loopback."""
    made = Sink()
    yield made
    made.controller.stop()


@dataclass
class Receiver:
    """A program that takes requests, and answers what it is told to."""

    url: str = ""
    status: list[int] = field(default_factory=list)
    """Of the next answers; 204 when they are used up."""
    headers: dict[str, str] = field(default_factory=dict)
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            made.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(made.status.pop(0) if made.status else 204)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A program on loopback."""
    with receiving() as made:
        yield made


class Time:
    """The time on the wall, as the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Time:
    return Time()


@pytest.fixture
def orrery(home: Settings, sink: Sink) -> Iterator[Orrery]:
    """People with addresses, and a candidate that nora made; mail goes to the sink."""
    made = Orrery(replace(home, access="required", mail=sink.url))
    for name, address in ADDRESSES.items():
        made.accounts.add(name, links=[address], **BY)
        for role, place in ROLES[name]:
            made.accounts.give(name, role, place, **BY)
    made.channels.wish("mute", "nothing", **BY)
    candidate(made)
    yield made
    made.timeline.engine.dispose()


@pytest.fixture
def courier(orrery: Orrery, wall: Time) -> Courier:
    """What sends, on the test's own time; what came before is sent already."""
    made = courier_of(orrery)
    made._now = wall
    made.step()
    return made


Sent = Callable[[], list[str]]
