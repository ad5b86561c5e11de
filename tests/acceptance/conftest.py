"""Orreries that really run, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from acceptance.support import POISONABLE, QUIET, Platform, Running, fresh_settings, tides, wait, write_project
from orrery.settings import SETTINGS, Settings
from orrery.timeline.verify import verify


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a fresh orrery with ports that were free a moment ago."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return fresh_settings(tmp_path / "home")


@pytest.fixture
def running(settings: Settings) -> Iterator[Running]:
    """A running orrery."""
    platform = Running(settings)
    platform.start()
    yield platform
    if platform.process is not None:
        platform.stop()
    platform.orrery.timeline.engine.dispose()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running orrery with tides in production, for all cases of a file."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        settings = fresh_settings(tmp_path_factory.mktemp("shared") / "home")
    running = Platform(settings)
    running.start()
    try:
        running.orrery.add_data("tides", tides(), why="first tides", actor="ann", key="first")
        checkout = write_project(running.tides, toml=QUIET, pipeline=POISONABLE)
        running.pushed(checkout, "tides", "first")
        wait(lambda: running.orrery.model("tides").waiting())
        assert running.api("POST", "/api/models/tides/versions/1/approve", json={"why": "good"}).status_code == 201
        wait(lambda: httpx.get(f"{settings.serving_url}/v2/models/tides/ready").is_success)
        yield running
        assert verify(event.to_json() for event in running.orrery.timeline.read()).holds
    finally:
        code = running.stop()
        running.orrery.timeline.engine.dispose()
    assert code == 0
