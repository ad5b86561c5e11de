"""The soak in its short form, and that it finds what it exists to find."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from acceptance.soak import soak
from acceptance.soak_check import Told, judge, spoil
from orrery.data.lake import Lake
from orrery.data.log import PredictionLog

KILLED = Counter({"worker": 1})


@pytest.mark.timeout(900)
def test_moves_and_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    """The whole of it, seconds instead of minutes: what was promised is kept, and each kind of process was killed."""
    lines, done = soak(tmp_path, seconds=15, moves=8, seed=0, versions=2)
    assert all(line.kept for line in lines), lines
    assert set(done.kills) == {"model process", "worker", "control plane", "inference server"}
    assert sum(done.moves.values()) == 8 and done.moves["promotion"] + done.moves["rollback"] > 1


def broken(told: Told, rows: pl.DataFrame, memory: list[tuple[float, float]] | None = None) -> list[str]:
    """Return the promises that are not kept."""
    return [line.what for line in judge(told, rows, memory or [], KILLED) if not line.kept]


@pytest.fixture
def told() -> Told:
    """Three requests that were answered by version 1."""
    return Told({"a": 1, "b": 1, "c": 1})


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    """The log of the three, with a challenger's rows beside them."""
    log = PredictionLog(Lake(str(tmp_path / "lake")), "tides")
    log.append(
        pl.DataFrame(
            {
                "_id": ["a#0", "b#0", "c#0", "a#0", "c#0"],
                "_at": [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second) for second in range(5)],
                "_environment": ["production"] * 5,
                "_version": [1, 1, 1, 2, 2],
                "_role": ["champion"] * 3 + ["shadow"] * 2,
            }
        )
    )
    return log


def stored(log: PredictionLog) -> pl.DataFrame:
    return log.rows("production", None, None).select("_id", "_version", "_role").collect()


def test_a_whole_log_keeps_every_promise(told: Told, log: PredictionLog) -> None:
    """A challenger may have missed a request; a request without an answer may have been written down."""
    assert broken(told, stored(log)) == []
    del told.acknowledged["b"]
    told.unanswered.add("b")
    assert broken(told, stored(log)) == []


@pytest.mark.parametrize(
    ("how", "promise"),
    [
        ("lost", "acknowledged rows that are not in the log"),
        ("doubled", "answers that are in the log twice"),
    ],
)
def test_a_spoilt_log_is_found(told: Told, log: PredictionLog, tmp_path: Path, how: str, promise: str) -> None:
    """One row taken out of the stored table, or added to it again."""
    spoil(tmp_path / "lake" / "predictions" / "tides", how)
    fresh = PredictionLog(Lake(str(tmp_path / "lake")), "tides")
    assert broken(told, stored(fresh)) == [promise]


def test_what_the_clients_were_told_is_held_against_the_log(told: Told, log: PredictionLog) -> None:
    """A failed request, a row of another version, a row that nobody asked for, a challenger's row twice."""
    rows = stored(log)
    told.failed.append("d: 503")
    assert broken(told, rows) == ["failed requests"]
    told.failed.clear()
    told.acknowledged["b"] = 2
    assert broken(told, rows) == ["rows whose version is not the one that was told"]
    del told.acknowledged["b"]
    assert broken(told, rows) == ["rows of answers that nobody asked for"]
    told.acknowledged["b"] = 1
    assert broken(told, pl.concat([rows, rows.tail(1)])) == ["challengers' rows that are in the log twice"]


def test_memory_that_grows_is_found(told: Told, log: PredictionLog) -> None:
    """A tenth of a megabyte a second is too much, noise around a level is not; a rise while it warms up is left out."""
    rows = stored(log)
    level = [(float(second), 100 + second % 5 + (0 if second > 90 else second - 90)) for second in range(600)]
    assert broken(told, rows, level) == []
    assert broken(told, rows, [(at, size + at / 10) for at, size in level]) == ["memory of the inference server"]
