"""A person is erased from an orrery that really runs: not a byte is left in any file, and everything goes on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import polars as pl
import pytest

from acceptance.support import PROJECT, Running, cli, tides, wait, write_project
from orrery.data.contract import Contract
from orrery.data.personal import ERASED
from orrery.data.predictions import LabelTable, PredictionLog
from orrery.settings import Settings
from orrery.timeline.verify import verify

MARA = "Mara Lindqvist"
EXTREME = 9.87654321
"""Her wind: nobody's was as strong, so that it is an extreme of all that is kept of the column."""
MARKS = """
[columns.patient]
type = "string"
subject = true
[columns.doctor]
type = "string"
personal = true
[columns.address]
type = "string"
personal = "encrypted"
[columns.moon]
type = "number"
max = 50
"""
TOML = PROJECT.replace('entity = "gauge"', 'entity = "visit"').replace("drift", "drift") + (
    '[triggers]\ndrift = false\ndecay = false\n[privacy]\npurpose = "To foresee heights."\n'
)


def visits(rows: int = 600, seed: int = 0, start: str = "2026-01-01") -> pl.DataFrame:
    """Return visits of sixty patients, every sixtieth of Mara; she is a doctor of others, too."""
    place = pl.int_range(rows)
    frame = tides(rows, start, seed).rename({"gauge": "visit"})
    return frame.with_columns(
        patient=pl.when(place % 60 == 7).then(pl.lit(MARA)).otherwise(pl.format("patient {}", place % 60)),
        doctor=pl.when(place % 50 == 3).then(pl.lit(MARA)).otherwise(pl.lit("Dr. Okonkwo")),
        address=pl.format("{} Harbour Lane", place % 60),
        wind=pl.when(place == 7).then(EXTREME).otherwise(pl.col("wind").clip(-3, 3)),
    )


def numbers(home: Path) -> list[str]:
    """Return the files in which the extreme stands: as a number of a table, or as text."""
    found = []
    for path in home.rglob("*"):
        if path.suffix == ".parquet" and "_delta_log" not in str(path):
            frame = pl.read_parquet(path, hive_partitioning=False)
            if any((frame[name] == EXTREME).any() for name, kind in frame.schema.items() if kind == pl.Float64):
                found.append(str(path.relative_to(home)))
        elif path.is_file() and "environments" not in path.parts and str(EXTREME).encode() in path.read_bytes():
            found.append(str(path.relative_to(home)))
    return found


def holding(home: Path, *texts: str) -> list[str]:
    """Return the files that hold one of the texts, by other means than the ones that are tested."""
    found = []
    for path in home.rglob("*"):
        if not path.is_file() or path.is_symlink() or "environments" in path.parts:
            continue
        body = path.read_bytes()
        if path.suffix == ".parquet":
            body += pl.read_parquet(path, hive_partitioning=False).write_ndjson().encode()
        elif path.suffix == ".arrow":
            body += pl.read_ipc(path).write_ndjson().encode()
        elif body.startswith(b"SQLite"):
            with closing(sqlite3.connect(path)) as database:
                body += "\n".join(database.iterdump()).encode()
        if any(text.encode() in body for text in texts):
            found.append(str(path.relative_to(home)))
    return found


@pytest.fixture
def clinic(running: Running) -> Iterator[Running]:
    """An orrery that answers, with rows of Mara wherever an orrery keeps any."""
    orrery, settings = running.orrery, running.settings
    orrery.change_contract("tides", Contract.from_toml(MARKS), why="Patients are people.", actor="ann")
    orrery.add_data("tides", visits(), why="clinic", actor="ann", key="first")
    wrong = visits(120, 5).with_columns(moon=pl.lit(99.0))
    assert orrery.add_data("tides", wrong, why="clinic", actor="ann").quarantined == 120
    checkout = write_project(settings.home.parent / "tides", toml=TOML)
    running.push(checkout, "first")
    wait(lambda: orrery.model("tides").waiting())
    approve = httpx.post(
        f"{settings.control_url}/api/models/tides/versions/1/approve", json={"why": "good"}, timeout=60
    )
    assert approve.status_code == 201
    wait(lambda: httpx.get(f"{settings.serving_url}/v2/models/tides/ready").is_success)
    asked = visits(120, 9).drop("height")
    for row in asked.head(60).with_columns(pl.col("at").cast(pl.String)).iter_rows(named=True):
        assert httpx.post(f"{settings.serving_url}/models/tides/predict", json=row, timeout=30).status_code == 200
    known = asked.head(60).select(entity="visit", label=pl.lit(1.0), at=pl.lit(datetime.now(UTC)))
    assert orrery.add_labels("tides", known).new == 60
    assert cli(settings.home, "score", "tides", "--data", "tides", "--out", "scores").returncode == 0
    wait(lambda: list((settings.home / "references").glob("tides-1.*")))
    yield running


@pytest.mark.slow
def test_a_person_is_erased_and_everything_goes_on(clinic: Running, settings: Settings) -> None:
    orrery, home = clinic.orrery, settings.home
    mara = orrery.privacy.pseudonyms.of(MARA) or ""
    before = {path.partition("/")[0] for path in holding(home, mara)}
    assert {"lake", "evidence", "privacy", "cache"} <= before, before
    assert {one.partition("/")[0] for one in numbers(home)} >= {"lake", "artifacts", "evidence", "cache"}

    found = json.loads(cli(home, "privacy", "find", MARA, "--json").stdout)
    rows = {f"{one['folder']}/{one['name']}": (one["rows"], one["mentions"]) for one in found["tables"]}
    assert rows["datasets/tides"] == (10, 12) and rows["quarantine/tides"][0] == 2 and rows["datasets/scores"][0] == 10
    assert rows["predictions/tides"][0] >= 11 and rows["labels/tides"][0] == 1
    assert found["versions"] == {"tides": [1]} and {one["path"].partition("/")[0] for one in found["files"]} >= before

    naming = cli(home, "privacy", "erase", MARA, "--why", f"{MARA} asked.", "--yes")
    assert naming.returncode == 1 and "names the subject" in naming.stderr
    asking = cli(home, "privacy", "erase", MARA, "--why", "Request 17.")
    assert asking.returncode == 1 and "Nobody is here to ask" in asking.stderr
    done = cli(home, "privacy", "erase", MARA, "--why", "Request 17.", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing of it is in any file" in done.stdout

    assert holding(home, mara, mara[:32], MARA) == []
    assert numbers(home) == []
    assert orrery.lake.read("tides", 1).polars().height == 590
    erasure = orrery.states.data().asked[orrery.privacy.grave(MARA)]
    assert erasure.clean and erasure.versions == {"tides": [1]} and erasure.rows >= 30

    wait(lambda: any(run.reason == "erasure" and run.version for run in orrery.model("tides").runs.values()))
    wait(lambda: (champion := orrery.model("tides").champion()) is not None and champion.number == 2)
    wait(lambda: httpx.get(f"{settings.serving_url}/v2/models/tides/ready").is_success)

    again = orrery.add_data("tides", visits(60, 21, "2026-03-01"), why="clinic", actor="ann")
    assert (again.rows, again.reasons) == (59, {ERASED: 1})
    row = visits(60, 22).drop("height").with_columns(pl.col("at").cast(pl.String)).row(7, named=True)
    logged = PredictionLog(orrery.lake, "tides").rows(None, None, None).collect().height
    for one in (row, {**row, "patient": "patient 1", "visit": "another"}):
        assert httpx.post(f"{settings.serving_url}/models/tides/predict", json=one, timeout=30).status_code == 200
    wait(lambda: PredictionLog(orrery.lake, "tides").rows(None, None, None).collect().height >= logged + 2)
    late = pl.DataFrame({"entity": ["g9-7", "late"], "label": [2.0, 2.0], "at": [datetime.now(UTC)] * 2})
    assert orrery.add_labels("tides", late).unknown == 1
    assert set(LabelTable(orrery.lake, "tides").known(None, datetime.now(UTC))["entity"]) & {"g9-7"} == set()
    assert holding(home, mara, MARA) == []
    assert verify(event.to_json() for event in orrery.timeline.read()).holds
    asked_for = [event for event in orrery.timeline.read("", kinds=("subject_searched", "erasure_asked", "erased"))]
    looked = ["subject_searched"] * 3  # found, and looked at before it was erased: once nobody said yes
    assert [event.kind for event in asked_for] == [*looked, "erasure_asked", "erased"]

    (home / "notes.txt").write_text(f"{mara} called again")
    left = cli(home, "privacy", "erase", MARA, "--why", "Request 17.", "--yes")
    assert left.returncode == 1 and "notes.txt" in left.stdout and "still hold it" in left.stderr
