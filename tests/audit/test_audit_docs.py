"""What the pages for operators tell to do is done, line by line, on an orrery with a history."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from orrery.app import Orrery
from orrery.data.contract import Contract
from orrery.settings import SETTINGS, Settings
from orrery.timeline.event import Draft

DOCS = Path(__file__).parents[2] / "docs"
SPEC: dict[str, Any] = {
    "model": {"name": "flight-delay", "task": "regression", "target": "late"},
    "data": {"flights": "flights"},
}


def lines(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), flags=re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture
def folder(home: Settings, tmp_path: Path) -> Path:
    """An orrery in which a version answered on 3 March, with a person, a robot, personal data and a secret."""
    orrery = Orrery(home)

    def event(kind: str, day: int, version: int | None = None, actor: str = "orrery/test", **data: Any) -> Draft:
        when, place = datetime(2026, 3, day, tzinfo=UTC), data.pop("environment", "")
        about = {"model": "flight-delay", "why": "For the test.", "occurred_at": when, "environment": place}
        return Draft(kind=kind, actor=actor, version=version, data=data, **about)  # type: ignore[arg-type]

    said = {"by": "root", "why": "For the test."}
    orrery.accounts.add("mara", **said)
    orrery.accounts.give("mara", "reviewer:quality", **said)
    run = {"run": "r", "commit": "c" * 40, "change": "redesign", "data": {"flights": 1}}
    orrery.append(
        [
            event("pushed", 1, commit="c" * 40, spec=SPEC, author="li", message="Begin"),
            event("triggered", 1, reason="push", **run),
            event("trained", 1, 1, metrics={}, **run),
            event("gated", 1, 1, passed=True, gates={}),
            event("approved", 2, 1, actor="mara", role="quality"),
            event("promoted", 2, 1, environment="production", previous=None, change="redesign"),
        ]
    )
    orrery.accounts.add("robot", kind="service", owner="mara", **said)
    orrery.accounts.give("robot", "scientist", **said)
    columns = {"patient": {"type": "string", "personal": "encrypted"}}
    orrery.change_contract("ward", Contract.from_dict({"columns": columns}), why="Declared.", actor="root")
    orrery.add_data("ward", pl.DataFrame({"patient": ["Ann"]}), why="First.", actor="root")
    orrery.secrets.put("flight-delay", "token", "a-very-secret-value", "root", "now")
    orrery.denials.note("mara", "release", "mara may not release.")
    orrery.note_read("ward", "profile", "mara")
    orrery.timeline.engine.dispose()
    work = tmp_path / "here"
    work.mkdir()
    return work


@pytest.mark.parametrize("page", ["audit.md", "backup.md", "rotation.md"])
def test_the_page_is_walked_through(page: str, folder: Path, home: Settings) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**clean, "ORRERY_HOME": str(home.home), "PATH": path, "COLUMNS": "200"}
    told = {}
    for line in lines(page):
        done = subprocess.run(["bash", "-ec", line], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        told[line] = done.stdout
    every = "\n".join(told.values())
    assert {
        "audit.md": "v1, since 2026-03-02" in every
        and "mara (reviewer:quality) approved" in every
        and "may not release" in every,
        "backup.md": "and the chain holds" in every
        and (folder.parent / "keys" / "monday" / "privacy" / "keys.db").exists(),
        "rotation.md": every.count("is a new one") == 2 and "Once a year." in every,
    }[page], every
    assert "a-very-secret-value" not in every
