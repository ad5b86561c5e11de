"""A table that is open sees what others commit, though the log is only listed where something was written."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from orrery.data.table import Table, Write


def added(table: Table, *values: int) -> None:
    table.write(lambda _: Write(pl.DataFrame({"x": values})))


def seen(table: Table) -> list[int]:
    found: list[int] = table.scan().select("x").collect()["x"].sort().to_list()
    return found


def test_what_another_one_commits_is_seen_at_once(tmp_path: Path) -> None:
    one, other = Table(str(tmp_path / "t"), {}), Table(str(tmp_path / "t"), {})
    for number in range(25):  # over two checkpoints
        added(one if number % 2 else other, number)
        assert seen(one) == seen(other) == list(range(number + 1))


def test_a_log_that_nobody_wrote_to_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Table(str(tmp_path / "t"), {}), Table(str(tmp_path / "t"), {})
    added(one, 1)
    assert seen(other) == [1]
    listed: list[int] = []
    update = DeltaTable.update_incremental
    monkeypatch.setattr(DeltaTable, "update_incremental", lambda table: (listed.append(1), update(table))[1])
    assert seen(other) == [1] and not listed
    added(one, 2)
    listed.clear()
    assert seen(other) == [1, 2] and listed, "a commit that is there must be looked for"


def test_commits_that_were_tidied_away_behind_a_checkpoint_are_seen(tmp_path: Path) -> None:
    one, other = Table(str(tmp_path / "t"), {}), Table(str(tmp_path / "t"), {})
    added(one, 0)
    assert seen(other) == [0]
    for number in range(1, 6):
        added(one, number)
    newest = DeltaTable(str(tmp_path / "t"))
    newest.create_checkpoint()
    for commit in (tmp_path / "t" / "_delta_log").glob("*.json"):
        if int(commit.stem) < newest.version():
            commit.unlink()
    assert seen(other) == list(range(6))
