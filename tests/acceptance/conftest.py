"""Orreries that really run, each in a folder of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.support import Running
from orrery.settings import SETTINGS, Settings, load


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a fresh orrery with ports that were free a moment ago."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    ports = []
    for _ in range(2):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            ports.append(one.getsockname()[1])
    home = tmp_path / "home"
    home.mkdir()
    return load(home, port=ports[0], serving_port=ports[1])


@pytest.fixture
def running(settings: Settings) -> Iterator[Running]:
    """A running orrery."""
    platform = Running(settings)
    platform.start()
    yield platform
    if platform.process is not None:
        platform.stop()
    platform.orrery.timeline.engine.dispose()
