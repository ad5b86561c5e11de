"""A small project on data that is made here, and an orrery that really runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from orrery.app import Orrery
from orrery.settings import SETTINGS, Settings

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
min = "0s"
max = "30d"
[monitors]
every = "1s"
"""
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
TESTS = "def test_two_and_two():\n    assert 2 + 2 == 4\n"


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
    (folder / "tests" / "test_tides.py").write_text(files.get("tests", TESTS))
    return folder


def git(folder: Path, *words: str, env: dict[str, str] | None = None) -> str:
    """Run git as ann."""
    identity = ["-c", "user.name=ann", "-c", "user.email=ann@example.org", "-c", "http.extraHeader=X-Orrery-Actor: ann"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
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

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import httpx

        clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
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
