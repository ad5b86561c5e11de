"""A small project on data that is made here, and an orrery that really runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl

from orrery.app import Orrery
from orrery.settings import SETTINGS, Settings, load
from orrery.timeline.event import Event

PROJECT = """
[model]
name = "tides"
task = "regression"
target = "height"
time = "at"
entity = "gauge"
owner = "nora"
[data]
tides = "tides"
[gates]
holdout = "2d"
latency = { p99_ms = 1000 }
[rollout]
unit = "row"
[rollout.redesign]
shadow = false
min = "0s"
max = "30d"
[monitors]
every = "1s"
"""
QUIET = PROJECT.replace('every = "1s"', 'every = "1d"') + "[triggers]\ndrift = false\ndecay = false\n"
"""The project when nothing is to happen by itself: requests that are all alike are drift, and are answered."""
PIPELINE = """
import numpy as np

def features(tides):
    return tides.select("moon", "wind")

def model(features, height, *, ridge: float = 1e-3):
    x = np.column_stack([features.to_numpy(), np.ones(len(features))])
    return Line(np.linalg.solve(x.T @ x + ridge * np.eye(3), x.T @ height.to_numpy()))

class Line:
    def __init__(self, weights):
        self.weights = weights

    def predict(self, features):
        return features.to_numpy() @ self.weights[:2] + self.weights[2]
"""
POISONABLE = PIPELINE.replace(
    "        return features.to_numpy()",
    "        if (features['moon'] == 999.0).any():\n            import os\n            os._exit(9)\n"
    "        return features.to_numpy()",
)
TESTS = "def test_two_and_two():\n    assert 2 + 2 == 4\n"
PYTEST = "[pytest]\naddopts = -p no:schemathesis -p no:hypothesispytest -p no:xdist\n"
"""Plugins of our own tests, which stand beside orrery: each run of a project's tests would load them, for seconds."""


def tides(rows: int = 600, start: str = "2026-01-01", seed: int = 0, shift: float = 0.0) -> pl.DataFrame:
    """Return made-up tides: a line with noise; ``shift`` moves the height away from what the line says."""
    rng = np.random.default_rng(seed)
    moon, wind = rng.normal(size=rows), rng.normal(size=rows)
    first = pl.Series([start]).str.to_datetime().dt.replace_time_zone("UTC")[0]
    return pl.DataFrame(
        {
            "gauge": [f"g{seed}-{number}" for number in range(rows)],
            "at": [first] * rows,
            "moon": moon,
            "wind": wind,
            "height": 2 * moon - wind + 0.1 * rng.normal(size=rows) + shift,
        }
    ).with_columns(at=pl.col("at") + pl.duration(minutes=20) * pl.int_range(rows))


def write_project(folder: Path, **files: str) -> Path:
    """Write the project; ``pipeline`` and others replace a file's text."""
    (folder / "tests").mkdir(parents=True, exist_ok=True)
    (folder / "orrery.toml").write_text(files.get("toml", PROJECT))
    (folder / "pipeline.py").write_text(files.get("pipeline", PIPELINE))
    (folder / "pytest.ini").write_text(PYTEST)
    (folder / "tests" / "test_tides.py").write_text(files.get("tests", TESTS))
    return folder


def fresh_settings(home: Path) -> Settings:
    """Return the settings of a fresh orrery, with ports that were free a moment ago."""
    ports = []
    for _ in range(2):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            ports.append(one.getsockname()[1])
    home.mkdir()
    return load(home, port=ports[0], serving_port=ports[1])


def git(folder: Path, *words: str, env: dict[str, str] | None = None) -> str:
    """Run git as ann."""
    identity = ["-c", "user.name=ann", "-c", "user.email=ann@example.org", "-c", "http.extraHeader=X-Orrery-Actor: ann"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def wait(condition: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.1)


class Running:
    """An ``orrery up`` in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.orrery = Orrery(settings)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, more: dict[str, str] | None = None) -> None:
        """Start it, and wait until it answers; ``more`` are settings."""
        clean = {name: value for name, value in os.environ.items() if name not in SETTINGS} | (more or {})
        words = [sys.executable, "-m", "orrery.cli.main", "up", "--home", str(self.settings.home)]
        words += ["--port", str(self.settings.port), "--serving-port", str(self.settings.serving_port)]
        with (self.settings.home / "up.log").open("ab") as log:
            self.process = subprocess.Popen(words, env=clean, stdout=log, stderr=log, start_new_session=True)

        def answers() -> bool:
            assert self.process is not None and self.process.poll() is None, (self.settings.home / "up.log").read_text()
            try:
                control = httpx.get(f"{self.settings.control_url}/api/status", timeout=2)
                serving = httpx.get(f"{self.settings.serving_url}/v2/health/live", timeout=2)
            except httpx.HTTPError:
                return False
            return control.is_success and serving.is_success

        wait(answers)

    def stop(self) -> int:
        """Stop it as Ctrl-C does; return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        self.process = None
        return code

    def push(self, checkout: Path, message: str) -> str:
        """Commit everything and push it; return what the push said."""
        if not (checkout / ".git").exists():
            git(checkout, "init", "-q", "-b", "main")
            git(checkout, "remote", "add", "orrery", f"{self.settings.control_url}/git/tides.git")
        git(checkout, "add", "-A")
        git(checkout, "commit", "-q", "-m", message)
        return git(checkout, "push", "orrery", "main")


class Platform(Running):
    """A running orrery with tides in production, and everything that is asked of it."""

    @property
    def tides(self) -> Path:
        """The checkout of tides."""
        return self.settings.home.parent / "tides"

    def api(self, method: str, path: str, *, by: str = "mara", **more: Any) -> httpx.Response:
        """Order something of the control plane."""
        return httpx.request(
            method, self.settings.control_url + path, headers={"X-Orrery-Actor": by}, timeout=60, **more
        )

    def commit(self, checkout: Path, name: str, message: str) -> None:
        """Commit everything."""
        if not (checkout / ".git").exists():
            git(checkout, "init", "-q", "-b", "main")
            git(checkout, "remote", "add", "orrery", f"{self.settings.control_url}/git/{name}.git")
        git(checkout, "add", "-A")
        git(checkout, "commit", "-q", "--allow-empty", "-m", message)

    def pushed(self, checkout: Path, name: str, message: str = "a change", branch: str = "main") -> str:
        """Commit everything and push it; return what the push said."""
        self.commit(checkout, name, message)
        return git(checkout, "push", "orrery", f"HEAD:refs/heads/{branch}")

    def refused(self, checkout: Path, name: str) -> str:
        """Push what is refused; return what the push said."""
        self.commit(checkout, name, "to be refused")
        return failing_git(checkout, "push", "orrery", "main")

    def events(self, model: str, *kinds: str, after: int = 0) -> list[Event]:
        """Return the events of a model."""
        return list(self.orrery.timeline.read(model, kinds=kinds, after=after))

    def ask(self, moon: Any = 0.5, wind: Any = 1.0, **more: Any) -> httpx.Response:
        """Ask tides for one prediction."""
        body = {"moon": moon, "wind": wind, **more}
        return httpx.post(f"{self.settings.serving_url}/models/tides/predict", json=body, timeout=30)

    def served(self) -> int:
        """Return which version of tides answers."""
        return int(self.ask().json()["version"])


def failing_git(folder: Path, *words: str) -> str:
    """Run git as ann; it has to fail. Return what it said."""
    identity = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def named(name: str, more: str = "", dataset: str = "tides") -> str:
    """Return the project file for another model, or with more in it."""
    text = QUIET.replace('name = "tides"', f'name = "{name}"').replace('tides = "tides"', f'tides = "{dataset}"')
    return text + more


@contextlib.contextmanager
def asked_all_along(platform: Platform, every: float = 0.15) -> Iterator[list[tuple[int, int]]]:
    """Ask tides in the background; every request has to be answered. Gives (status, version) of each."""
    answers: list[tuple[int, int]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(every):
            found = platform.ask()
            answers.append((found.status_code, found.json().get("version", 0)))

    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask)
        try:
            yield answers
        finally:
            done.set()
        asking.result()
    assert answers and {status for status, _ in answers} == {200}, answers


def cli(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command on an orrery."""
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-m", "orrery.cli.main", *words, "--home", str(home)]
    return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=120)
