"""A project of PyTorch goes the whole way: pushed, trained, compiled, judged, released, asked, and explained why."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import polars as pl
import pytest

from acceptance.support import QUIET, Platform, cli, fresh_settings, tides, wait, write_project
from orrery.pipeline.predictor import Predictor
from orrery.settings import SETTINGS

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None, reason="not run: PyTorch is not installed (make test-torch)"
    ),
]
PIPELINE = """
import numpy as np
import torch
from torch import nn


def features(tides):
    return tides.select("moon", "wind")


def model(features, height, *, steps: int = 300):
    torch.manual_seed(0)
    x = torch.tensor(features.to_numpy(), dtype=torch.float32)
    y = torch.tensor(height.to_numpy(), dtype=torch.float32)[:, None]
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.05), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
    return net
"""
BRANCHES = (
    PIPELINE.replace(
        "net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.05), nn.Linear(16, 1))",
        "net = Branching()",
    )
    + """

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)

    def forward(self, x):
        return self.line(x) if x.abs().sum() > 0 else self.line(x) * 1.0
"""
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running orrery whose first version of tides is a network in production."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        settings = fresh_settings(tmp_path_factory.mktemp("torch") / "home")
    running = Platform(settings)
    running.start()
    try:
        running.orrery.add_data("tides", tides(), why="first tides", actor="ann", key="first")
        _push(running, PIPELINE, "A network")
        _approved(running, 1)
        yield running
    finally:
        assert running.stop() == 0
        running.orrery.timeline.engine.dispose()


def _push(running: Platform, pipeline: str, message: str) -> None:
    """Push, and look on for as long as git lets one: importing PyTorch takes its time."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.pushed(write_project(running.tides, toml=QUIET, pipeline=pipeline), "tides", message)


def _approved(running: Platform, version: int) -> None:
    """Wait until a version waits for a person, say yes, and wait until it answers."""

    def waits() -> bool:
        assert not running.events("tides", "failed"), [event.why for event in running.events("tides", "failed")]
        return version in [waiting.number for waiting, _, _ in running.orrery.model("tides").waiting()]

    wait(waits, 240)
    said = running.api("POST", f"/api/models/tides/versions/{version}/approve", json={"why": "Read the gates."})
    assert said.status_code == 201, said.text
    wait(lambda: httpx.get(f"{running.settings.serving_url}/v2/models/tides/ready").is_success)
    wait(lambda: running.served() == version)


def _own(running: Platform, version: int, rows: pl.DataFrame) -> list[float]:
    """Ask the version's own Python, in this process."""
    facts = running.orrery.model("tides").versions[version].facts
    return [float(value) for value in Predictor.load(running.settings.home / facts["artifact"]).predict(rows).ravel()]


def test_a_network_is_pushed_trained_compiled_and_answers(network: Platform) -> None:
    compiled = network.orrery.model("tides").versions[1].facts["compiled"]
    assert compiled["served"] == "onnx", compiled
    rows = tides(20, seed=5)
    expected = _own(network, 1, rows)
    for row, value in zip(rows.select("moon", "wind").iter_rows(), expected, strict=True):
        found = network.ask(*row).json()
        assert found["version"] == 1 and found["prediction"] == pytest.approx(value, abs=1e-4)
    assert max(abs(value - height) for value, height in zip(expected, rows["height"], strict=True)) < 1.5


def test_one_that_does_not_convert_takes_over_and_is_asked_in_its_own_process(network: Platform) -> None:
    _push(network, BRANCHES, "A branch on the data")
    _approved(network, 2)
    compiled = network.orrery.model("tides").versions[2].facts["compiled"]
    assert compiled["served"] == "python" and compiled["sentence"]
    rows = tides(5, seed=6)
    for row, value in zip(rows.select("moon", "wind").iter_rows(), _own(network, 2, rows), strict=True):
        assert network.ask(*row).json()["prediction"] == pytest.approx(value, abs=1e-5)
    told = cli(Path(network.settings.home), "why", "tides", "2")
    assert told.returncode == 0 and "A branch on the data" in told.stdout, told.stdout + told.stderr
