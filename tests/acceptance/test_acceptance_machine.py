"""A machine that misbehaves: its disk is full, its clock goes back. Nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from acceptance.support import cli, fresh_settings, tides
from orrery.app import Orrery
from orrery.settings import Settings
from orrery.timeline.event import Draft
from orrery.timeline.verify import verify
from orrery.types import format_instant

MEBIBYTE = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of 12 MiB."""
    if os.geteuid() != 0:
        pytest.skip("not run: only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"not run: no disk can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill the disk but for a few bytes."""
    filler = disk / "filler"
    free = os.statvfs(disk)
    with filler.open("wb") as file:
        file.write(b"\0" * (free.f_bavail * free.f_frsize - leave))
    return filler


@pytest.mark.parametrize("leave", [0, 96 * 1024], ids=["nothing left", "too little for these rows"])
def test_a_full_disk_is_said_and_loses_nothing(small_disk: Path, tmp_path: Path, leave: int) -> None:
    """Rows and events are refused in a sentence; what was there stays, and with room again it goes on."""
    settings = fresh_settings(small_disk / "home")
    home, first, more = settings.home, tmp_path / "first.parquet", tmp_path / "more.parquet"
    tides(50).write_parquet(first)
    tides(20_000, start="2026-02-01", seed=1).write_parquet(more)
    assert cli(home, "data", "add", "tides", str(first), "--why", "first").returncode == 0
    orrery = Orrery(settings)
    filler = fill(small_disk, leave)
    for words in (("data", "add", "tides", str(more)), ("data", "add", "gulls", str(more))):
        refused = cli(home, *words)
        assert refused.returncode == 1 and "Traceback" not in refused.stderr, refused.stderr
        said = refused.stderr.partition("orrery: ")[2]  # a thread of the library may have cried out before
        assert says_full(said), refused.stderr
    acknowledged = appended(orrery, 400)
    assert len(acknowledged) < 400
    filler.unlink()
    assert [event.hash for event in orrery.timeline.read("tides")] == acknowledged
    orrery.timeline.engine.dispose()
    told = cli(home, "verify")
    assert told.returncode == 0, told.stdout + told.stderr
    orrery = Orrery(settings)
    assert [event.data["dataset"] for event in orrery.timeline.read(kinds=["data_added"])] == ["tides"]
    orrery.timeline.engine.dispose()
    again = cli(home, "data", "add", "tides", str(more), "--why", "again")
    assert again.returncode == 0 and "tides@v2: 20000 rows added." in again.stdout, again.stdout + again.stderr
    orrery = Orrery(settings)
    assert orrery.lake.read("tides", 1).polars().height == 50
    assert orrery.lake.read("tides", 2).polars().height == 20_050
    assert orrery.states.data().datasets["tides"].rows == 20_050
    assert verify(event.to_json() for event in orrery.timeline.read()).holds
    orrery.timeline.engine.dispose()


def appended(orrery: Orrery, wanted: int) -> list[str]:
    """Append events until the disk is full; return the hashes of those that were acknowledged."""
    kept = []
    try:
        for number in range(wanted):
            draft = Draft(kind="business", actor="ann", why=f"{number} " + "x" * 20_000, model="tides")
            kept += [event.hash for event in orrery.timeline.append([draft])]
    except sa.exc.OperationalError as error:
        assert says_full(str(error.orig))
    return kept


def says_full(text: str) -> bool:
    return any(words in text.lower() for words in ("disk is full", "no space left", "disk i/o error"))


def test_a_clock_that_goes_back_does_not_turn_the_record_round(tmp_path: Path) -> None:
    """Appends go on; when something was recorded never goes back, and the chain holds."""
    settings = fresh_settings(tmp_path / "home")
    clock = settings.home / "clock"
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    clock.write_text(format_instant(noon))
    orrery = Orrery(Settings(**{**vars(settings), "replay": True}))
    orrery.add_data("tides", tides(50), why="first", actor="ann", key="first")
    clock.write_text(format_instant(noon - timedelta(days=2)))
    orrery.add_data("tides", tides(50, start="2026-02-01", seed=1), why="second", actor="ann", key="second")
    clock.write_text(format_instant(noon + timedelta(hours=1)))
    orrery.add_data("tides", tides(50, start="2026-02-02", seed=2), why="third", actor="ann", key="third")
    recorded = [event.recorded_at for event in orrery.timeline.read(kinds=["data_added"])]
    assert recorded == [noon, noon, noon + timedelta(hours=1)]
    occurred = [event.occurred_at for event in orrery.timeline.read(kinds=["data_added"])]
    assert occurred[1] == noon - timedelta(days=2)
    assert orrery.states.data().datasets["tides"].rows == 150
    assert verify(event.to_json() for event in orrery.timeline.read()).holds
    orrery.timeline.engine.dispose()
