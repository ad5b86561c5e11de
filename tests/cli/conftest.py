"""The real command line in a process of its own, and an orrery with a history to ask about."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orrery.app import Orrery
from orrery.settings import SETTINGS, Settings
from orrery.timeline.event import Draft

SPEC: dict[str, Any] = {
    "model": {"name": "tides", "task": "regression", "target": "height"},
    "data": {"tides": "tides"},
}


class Ran:
    """A command that has ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def lines(self) -> list[dict[str, Any]]:
        """What it printed, one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Ran]


def environment(home: Settings) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return {**clean, "ORRERY_HOME": str(home.home), "ORRERY_ACTOR": "mara", "COLUMNS": "100"}


@pytest.fixture
def orrery(home: Settings, tmp_path: Path) -> Command:
    """Run the real command in an empty folder, on the home of this test."""
    folder = tmp_path / "here"
    folder.mkdir()

    def run(*arguments: object, cwd: Path = folder, **more: str) -> Ran:
        argv = [sys.executable, "-m", "orrery.cli.main", *map(str, arguments)]
        env = {**environment(home), **more}
        done = subprocess.run(
            argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )
        return Ran(done)

    return run


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a history, written once and copied for each test."""
    folder = tmp_path_factory.mktemp("written")
    _write(Orrery.open(folder))
    return folder


@pytest.fixture
def opened(home: Settings, written: Path) -> Iterator[Orrery]:
    """A model with three versions: the first was champion, the second is, the third waits for a review."""
    shutil.copytree(written, home.home, dirs_exist_ok=True)
    orrery = Orrery(home)
    yield orrery
    orrery.timeline.engine.dispose()


def _write(orrery: Orrery) -> None:
    facts = {"data": {"tides": 1}, "metrics": {"absolute_error": 0.5}, "artifact": ""}
    about = {"model": "tides", "actor": "orrery/test", "why": "For the test."}

    def at(day: int, kind: str, version: int | None = None, environment: str = "", **data: Any) -> Draft:
        return Draft(
            **about,
            kind=kind,
            version=version,
            environment=environment,
            data=data,
            occurred_at=datetime(2024, 1, day, 5, tzinfo=UTC),
        )

    drafts = [at(1, "pushed", commit="a" * 40, spec=SPEC, author="li", message="Begin")]
    for number in (1, 2, 3):
        run = f"run-{number}"
        drafts += [
            at(number, "triggered", run=run, reason="push", change="redesign", commit="a" * 40, data={"tides": 1}),
            at(number, "trained", number, run=run, commit="a" * 40, change="redesign", **facts),
            at(number, "gated", number, passed=True, gates={}),
        ]
        if number < 3:
            drafts.append(at(10 * number, "promoted", number, "production", previous=None, change="redesign"))
    drafts.append(at(21, "review_requested", 3, "production", role=""))
    drafts.append(at(22, "watched", 2, "production", look=1, until="2024-01-22T00:00:00Z"))
    orrery.append(drafts)
    orrery.timeline.engine.dispose()
