"""A real inference server in a process of its own, with tiny models, and a control plane to steer it."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from orrery.data.journal import FOLDER, frames, segments

SERVER = Path(__file__).with_name("serving_server.py")
CONTRACT = {
    "columns": {
        "age": {"type": "number", "min": 0, "max": 120},
        "city": {"type": "string", "categories": ["Paris", "Rome"], "closed": True},
    },
    "ordered": [["low", "high"]],
}


def until(true: Callable[[], Any], within: float = 15.0) -> Any:
    """Wait for something, and return it."""
    end = time.monotonic() + within
    while not (value := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return value


def unused_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Control:
    """The control plane's side: hands out an assignment and keeps the reports."""

    def __init__(self) -> None:
        self.assignment: dict[str, Any] | None = None
        self.reports: list[dict[str, Any]] = []
        self.not_modified = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = json.dumps(outer.assignment).encode()
                tag = f'"{hash(body)}"'
                if outer.assignment is None:
                    self.answer(404, b"", tag)
                elif self.headers["If-None-Match"] == tag:
                    outer.not_modified += 1
                    self.answer(304, b"", tag)
                else:
                    self.answer(200, body, tag)

            def do_POST(self) -> None:
                outer.reports.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.answer(204, b"", "")

            def answer(self, status: int, body: bytes, tag: str) -> None:
                self.send_response(status)
                self.send_header("ETag", tag)
                if status not in (204, 304):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class Served:
    """One inference server: start it, assign versions, talk to it, end it."""

    until = staticmethod(until)

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        self.control = Control()
        self.port, self.grpc_port = unused_port(), unused_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        self.process: subprocess.Popen[bytes] | None = None
        self._seq = 0

    def start(self, *options: str, **settings: int) -> None:
        """Start it; ``settings`` are those of orrery and ``Limits``."""
        argv = [sys.executable, str(SERVER), str(self.home), str(self.port), str(self.control.port)]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([*argv, json.dumps(settings), *options], stdout=log, stderr=log)
        until(self.alive)

    def alive(self) -> bool:
        assert self.process is not None and self.process.poll() is None, "the server has ended; see the file log"
        try:
            return self.http.get("/v2/health/live").status_code == 200
        except httpx.TransportError:
            return False

    def slot(self, version: int, role: str = "champion", **changes: Any) -> dict[str, Any]:
        """Describe a version; what the tiny model does is given as ``plan``."""
        artifact = self.folder / f"artifact-{changes.get('model', 'm')}-{version}"
        artifact.mkdir(exist_ok=True)
        plan = changes.pop("plan", {})
        (artifact / "tiny.json").write_text(json.dumps({"value": version / 1000, **plan}))
        base = {"model": "m", "environment": "production", "version": version, "role": role}
        return {**base, "artifact": str(artifact), "python": sys.executable, "timeout": 5.0, **changes}

    def order(self, *slots: dict[str, Any], **more: Any) -> int:
        """Assign without waiting, and return the number of the assignment."""
        self._seq += 1
        self.control.assignment = {"seq": self._seq, "slots": list(slots), **more}
        return self._seq

    def assign(self, *slots: dict[str, Any]) -> dict[str, Any]:
        """Assign, wait until it is in force, and return the report."""
        seq = self.order(*slots)
        return until(lambda: next((r for r in reversed(self.control.reports) if r["applied"] == seq), None), 60)

    def predict(self, row: Any = None, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post("/models/m/predict", json={"age": 40} if row is None else row, headers=names)

    def journal(self) -> list[dict[str, Any]]:
        """Return the rows of the journal."""
        found = []
        for path in segments(self.home / FOLDER):
            for _, body in frames(path.read_bytes()):
                assert body is not None
                read = msgspec.msgpack.decode(body)
                columns, same = read["columns"], {"_environment": read["environment"], **read.get("same", {})}
                rows = zip(*columns.values(), strict=True)
                found += [{**same, **dict(zip(columns, cells, strict=True))} for cells in rows]
        return found

    def models(self) -> list[psutil.Process]:
        """Return the model processes, each of which is below its guardian."""
        assert self.process is not None
        found = []
        for guardian in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [p for p in guardian.children() if p.status() != psutil.STATUS_ZOMBIE]
        return found

    def count(self, metric: str, **labels: str) -> int:
        """Return the sum of a metric over the lines that carry the labels."""
        lines = [
            line
            for line in self.http.get("/metrics").text.splitlines()
            if line.startswith((metric + "{", metric + " "))
        ]
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        return sum(int(line.rsplit(" ", 1)[1]) for line in lines if all(part in line for part in wanted))

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.http.close()
        self.control.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    """A server that is not started yet."""
    served = Served(tmp_path)
    yield served
    served.close()


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with one binary model, for tests that only ask."""
    served = Served(tmp_path_factory.mktemp("serving"))
    served.start(grpc_port=served.grpc_port)
    served.assign(served.slot(7, contract=CONTRACT, entity="city", plan={"needs": ["age"]}))
    yield served
    served.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Served]:
    """Return what makes a server that is not started yet, and that the caller closes."""
    return lambda: Served(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="module")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], Path]], Iterator[Served]]:
    """Return a generator of a server with a real version, which a function makes in a folder."""

    def serve(make: Callable[[Path], Path]) -> Iterator[Served]:
        served = Served(tmp_path_factory.mktemp("serving"))
        artifact = make(served.folder)
        served.start("real")
        served.assign({**served.slot(1), "artifact": str(artifact), "timeout": 30.0})
        served.until(lambda: served.http.get("/v2/health/ready").status_code == 200, 60)
        yield served
        served.close()

    return serve
