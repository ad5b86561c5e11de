"""The control plane as a process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil

from orrery.app import Orrery
from orrery.settings import Settings

HEAVY = ("mlflow", "sklearn", "polars", "deltalake", "scipy", "pandas", "pyarrow", "numpy")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(home: Settings, port: int) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    variables = {**os.environ, **home.environment(), "ORRERY_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "orrery.web"], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            until = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < until:
                try:
                    client.get("/api/health")
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield process, client
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_it_starts_light_answers_on_loopback_and_stops(home: Settings) -> None:
    Orrery(home).timeline.engine.dispose()  # the schema is there, as in every start but the first
    port = free_port()
    with started(home, port) as (process, client):
        assert client.get("/api/status").json()["settled"] is True
        listening = {
            one.laddr.ip for one in psutil.Process(process.pid).net_connections("tcp") if one.status == "LISTEN"
        }
        assert listening == {"127.0.0.1"}
        second = subprocess.run(
            [sys.executable, "-m", "orrery.web"],
            env={**os.environ, **home.environment(), "ORRERY_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 1 and f"port {port} cannot be used" in second.stderr
    assert process.returncode in (0, -15)


def test_nothing_heavy_is_imported_at_the_start(home: Settings) -> None:
    code = (
        "import sys, orrery.web.server as server; from orrery.app import Orrery; "
        "server.create(Orrery.open(sys.argv[1])).openapi(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(home.home)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
