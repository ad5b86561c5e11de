"""`orrery up` brings all processes, tells where they are, lets nobody else in, and takes them along."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from orrery import reading
from orrery.app import Orrery
from orrery.cli import up
from orrery.settings import SETTINGS, Settings


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    def __init__(self, home: Settings, *arguments: str, command: str = "up") -> None:
        clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        self.out = home.home.parent / "up.txt"
        argv = [sys.executable, "-m", "orrery.cli.main", "--home", str(home.home), command, *arguments]
        with self.out.open("w") as out:
            self.process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, env=clean)

    def waits_for(self, words: str, seconds: float = 90.0) -> str:
        until = time.monotonic() + seconds
        while words not in (text := self.out.read_text()):
            assert self.process.poll() is None, text
            assert time.monotonic() < until, text
            time.sleep(0.1)
        return text


@pytest.fixture
def ports() -> tuple[int, int]:
    return unused_port(), unused_port()


@pytest.fixture
def running(home: Settings, ports: tuple[int, int]) -> Iterator[Running]:
    found = Running(home, "--port", str(ports[0]), "--serving-port", str(ports[1]))
    yield found
    if found.process.poll() is None:
        found.process.terminate()
        found.process.wait(30)


def test_one_command_starts_all_and_stops_all(orrery, home: Settings, running: Running, ports: tuple[int, int]) -> None:
    text = running.waits_for("Ready.")
    assert f"http://127.0.0.1:{ports[0]}/git/MODEL.git" in text
    [status] = orrery("status", "--json").lines()
    assert status["pid"] == running.process.pid
    assert {one["name"]: one["state"] for one in status["processes"]} == {
        "web": "running",
        "serving": "running",
        "worker-1": "running",
    }
    assert status["addresses"]["inference"] == f"http://127.0.0.1:{ports[1]}"

    second = orrery("up")
    assert second.code == 1
    assert f"as process {running.process.pid}" in second.err

    children = psutil.Process(running.process.pid).children(recursive=True)
    assert len(children) >= 3
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(30) == 0
    assert running.out.read_text().rstrip().endswith("Stopped.")
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert not (home.home / "address.json").exists()


def test_a_port_that_was_asked_for_and_is_taken(orrery, home: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        asked = orrery("up", "--port", port)
        assert asked.code == 1
        assert f"Port {port} is in use." in asked.err
        by_variable = orrery("up", "--json", ORRERY_PORT=str(port))
        assert by_variable.code == 1
        assert "ORRERY_PORT" in json.loads(by_variable.err)["error"]["todo"]
    assert not (home.home / "processes.json").exists()


def test_without_a_wish_the_next_free_port_is_taken() -> None:
    from orrery.cli.up import _port

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        found = _port(None, "ORRERY_NOT_SET", taken, "--port", ())
    assert found > taken


def test_replicas_answer_alone_with_what_was_assigned_last(orrery, home: Settings, ports: tuple[int, int]) -> None:
    refused = orrery("serve")
    assert refused.code == 1 and "No version was ever assigned" in refused.err
    artifact = {"model": "tides", "environment": "production", "version": 3, "role": "champion", "artifact": "/gone"}
    assignment = {"seq": 7, "slots": [{**artifact, "python": sys.executable}]}
    (home.folder("serving") / "assignment.json").write_text(json.dumps(assignment))
    alone = Running(home, "--port", str(ports[1]), "--replicas", "2", command="serve")
    try:
        alone.waits_for(f"tides v3 (production): http://127.0.0.1:{ports[1]}")
        until = time.monotonic() + 60
        while 'replica="2"' not in (text := _page(ports[1], "/metrics")) or 'replica="1"' not in text:
            assert time.monotonic() < until, text
            time.sleep(0.1)
        assert "/gone" in _page(ports[1], "/models/tides/predict", b'{"hour": 3}')  # it knows its version, and why not
        second = orrery("up")
        assert second.code == 1 and "runs in" in second.err
        children = psutil.Process(alone.process.pid).children(recursive=True)
    finally:
        alone.process.terminate()
        assert alone.process.wait(30) == 0
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


def test_a_model_from_python_is_asked_where_up_says_that_it_answers(opened: Orrery, ports: tuple[int, int]) -> None:
    home = opened.settings.home
    assert reading.model("tides", "production", str(home)).address == opened.settings.serving_url
    known = up._addresses(replace(opened.settings, serving_port=ports[1]))
    up._write(home / "address.json", {**known, "port": ports[0], "serving_port": ports[1]})
    assert reading.model("tides", "production", str(home)).address == f"http://127.0.0.1:{ports[1]}"


def _page(port: int, path: str, body: bytes | None = None) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()
    except OSError as error:
        return str(error)
