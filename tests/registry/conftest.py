"""A control plane that has nothing but MLflow mounted, in a process of its own as users have it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orrery import settings as orrery_settings
from orrery.settings import Settings
from orrery.timeline import schema
from orrery.timeline.clock import SystemClock
from orrery.timeline.store import Timeline, connect

SERVE = """
import sys
import uvicorn
from fastapi import FastAPI
from orrery import settings
from orrery.registry.server import mlflow_app

app = FastAPI()
app.mount("/mlflow", mlflow_app(settings.load(home=sys.argv[1])))
assert "mlflow" not in sys.modules
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Settings]]:
    """Address of a running server with ``/mlflow``, and its settings."""
    folder = tmp_path_factory.mktemp("served")
    settings = orrery_settings.load(home=folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORRERY_", "MLFLOW_"))}
    command = [sys.executable, "-W", "ignore", "-c", SERVE, str(folder), str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{url}/mlflow/health", process, folder / "log")
        yield url, settings
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def open_timeline() -> Iterator[Callable[[Settings], Timeline]]:
    """Give a function that opens the timeline of settings."""
    engines = []

    def opened(settings: Settings) -> Timeline:
        engines.append(connect(settings.database))
        schema.upgrade(engines[-1])
        return Timeline(engines[-1], SystemClock())

    yield opened
    for engine in engines:
        engine.dispose()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=60):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer: {log.read_text()}")
