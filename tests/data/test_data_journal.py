"""From the server's journal into the log: exactly once, whatever dies when."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from orrery.app import Orrery
from orrery.data.journal import FOLDER, HEAD, Journal, finished, frames, segments
from orrery.data.labels import LabelTable
from orrery.data.lake import Lake
from orrery.data.log import PredictionLog
from orrery.data.ship import ship
from orrery.data.table import Table, Write
from orrery.errors import NotAllowed
from orrery.settings import Settings
from orrery.stats.anomaly import AnomalyScore
from orrery.timeline.event import Draft

AT = 1_357_000_000_000_000


def rows(ids: list[str], **inputs: list[object]) -> dict[str, list[object]]:
    n = len(ids)
    return {
        "_id": list(ids),
        "_at": [AT] * n,
        "_version": [1] * n,
        "_role": ["champion"] * n,
        "_entity": [f"e-{name}" for name in ids],
        "_output": [[0.25]] * n,
        "_latency": [0.001] * n,
        "_broken": [[] for _ in ids],
        **inputs,
    }


def shipped(lake: Lake, model: str = "m") -> pl.DataFrame:
    return PredictionLog(lake, model).rows(None, None, None).sort("_id").collect()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_rows_arrive_once_and_finished_segments_go(tmp_path: Path, lake: Lake) -> None:
    folder = tmp_path / "journal"
    with Journal(folder, "one") as journal:
        journal.append("m", "production", rows(["a", "b"], temp=[35, 36]))
        assert ship(folder, lake) == 2
        assert ship(folder, lake) == 0
        assert len(segments(folder)) == 1  # still being written
        journal.append("m", "production", rows(["c"], temp=[35.5]))
        journal.append("other", "staging", rows(["d"]))
    assert ship(folder, lake) == 2
    assert segments(folder) == [] and not list(folder.glob("*.shipped"))
    log = shipped(lake)
    assert log["_id"].to_list() == ["a", "b", "c"]
    assert log["temp"].to_list() == [35.0, 36.0, 35.5]
    assert log["_environment"].unique().to_list() == ["production"]
    assert log["_at"].dt.epoch("us").unique().to_list() == [AT]
    assert log["_day"].cast(pl.String).unique().to_list() == ["2013-01-01"]
    assert shipped(lake, "other")["_id"].to_list() == ["d"]


def test_a_value_of_another_type_stops_nothing(tmp_path: Path, lake: Lake) -> None:
    with Journal(tmp_path / "j", "one") as journal:
        journal.append("m", "production", rows(["a"], temp=[1], name=["x"], flag=[True], never=[None]))
        ship(tmp_path / "j", lake)
        journal.append("m", "production", rows(["b"], temp=["hot"], name=[5], flag=["no"], never=[None]))
        journal.append("m", "production", rows(["c"], temp=[None], name=[["list"]], flag=[None], later=[2]))
    assert ship(tmp_path / "j", lake) == 2
    log = shipped(lake)
    assert log["temp"].to_list() == [1.0, None, None]
    assert log["name"].to_list() == ["x", "5", '["list"]']
    assert log["flag"].to_list() == [True, None, None]
    assert log["later"].to_list() == [None, None, 2.0]
    assert "never" not in log.columns


def test_a_torn_frame_is_not_there_and_hides_nothing(tmp_path: Path, lake: Lake) -> None:
    with Journal(tmp_path / "j", "one") as journal:
        journal.append("m", "production", rows(["a"]))
        journal.append("m", "production", rows(["b"]))
    (path,) = segments(tmp_path / "j")
    whole = path.read_bytes()
    ends = [end for end, _ in frames(whole)]
    for cut in (ends[0] + 1, ends[0] + HEAD.size, ends[1] - 1):
        assert [end for end, _ in frames(whole[:cut])] == ends[:1]
    assert [end for end, _ in frames(whole + bytes(64))] == ends  # zeros after a power cut
    path.write_bytes(whole[:-1])
    assert ship(tmp_path / "j", lake) == 1
    assert shipped(lake)["_id"].to_list() == ["a"]


def test_a_damaged_frame_is_kept_aside(tmp_path: Path, lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    with Journal(tmp_path / "j", "one") as journal:
        for name in "abc":
            journal.append("m", "production", rows([name]))
        journal.append("Not A Model", "production", rows(["d"]))
    (path,) = segments(tmp_path / "j")
    data = bytearray(path.read_bytes())
    first, second, _, _ = (end for end, _ in frames(bytes(data)))
    data[second - 3] ^= 0xFF
    path.write_bytes(bytes(data))
    with caplog.at_level(logging.ERROR):
        assert ship(tmp_path / "j", lake) == 2
    assert shipped(lake)["_id"].to_list() == ["a", "c"]
    assert len(list((tmp_path / "j" / "damaged").iterdir())) == 2
    assert f"ends at byte {second}" in caplog.text and first


def test_a_full_disk_is_an_error_and_tears_nothing(tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "j", "one") as journal:
        journal.append("m", "production", rows(["a"]))
        write, budget = os.write, [10]

        def almost_full(file: int, data: bytes) -> int:
            taken = write(file, data[: budget[0]]) if budget[0] else 0
            budget[0] -= taken
            if not taken:
                raise OSError(28, "No space left on device")
            return taken

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", almost_full)
            with pytest.raises(NotAllowed, match="No space left"):
                journal.append("m", "production", rows(["b"]))
        journal.append("m", "production", rows(["c"]))
    assert ship(tmp_path / "j", lake) == 2
    assert shipped(lake)["_id"].to_list() == ["a", "c"]


def test_a_column_of_one_value_is_written_once_and_read_for_every_row(tmp_path: Path, lake: Lake) -> None:
    columns = {name: values for name, values in rows(["a", "b"]).items() if name not in ("_version", "_broken")}
    with Journal(tmp_path / "j", "one") as journal:
        journal.append("m", "production", columns, {"_version": 3, "_broken": []})
        journal.append("m", "production", rows(["c"]))  # as it was written before
    assert ship(tmp_path / "j", lake) == 3
    log = shipped(lake)
    assert log["_version"].to_list() == [3, 3, 1]
    assert log["_broken"].to_list() == [[], [], []]


def test_an_append_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()
    force = os.fdatasync

    def stuck(file: int) -> None:
        begun.set()
        assert go.wait(30)
        force(file)

    monkeypatch.setattr(os, "fdatasync", stuck)
    monkeypatch.setattr("orrery.data.journal.SEGMENT", 300)
    with Journal(tmp_path / "j", "one") as journal:
        journal.append("m", "production", rows(["a"]))
        assert begun.wait(30)  # the disk is busy now, for as long as we like
        for name in "bcdef":
            journal.append("m", "production", rows([name]))
        found = segments(tmp_path / "j")
        assert len(found) == 6 and not any(finished(path) for path in found)
        go.set()
    assert all(finished(path) for path in found)


def test_segments_rotate_and_threads_share_one_journal(
    tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orrery.data.journal.SEGMENT", 4000)
    with Journal(tmp_path / "j", "one", fsync="always") as journal:

        def work(thread: int) -> None:
            for i in range(20):
                journal.append("m", "production", rows([f"{thread:02}-{i:02}"]))

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(segments(tmp_path / "j")) > 3
        assert ship(tmp_path / "j", lake) == 100
        assert len(segments(tmp_path / "j")) == 1
    assert shipped(lake)["_id"].n_unique() == 100


@pytest.mark.parametrize("fsync", ["interval", "never", "always"])
def test_what_a_killed_server_wrote_is_there(tmp_path: Path, lake: Lake, fsync: str) -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_data_journal import rows
from orrery.data.journal import Journal
journal = Journal({str(tmp_path / "j")!r}, "one", fsync={fsync!r})
for i in range(50):
    journal.append("m", "production", rows([f"{{i:03}}"]))
print("done", flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL and "done" in done.stdout, done.stderr
    assert ship(tmp_path / "j", lake) == 50
    assert segments(tmp_path / "j") == []


def test_a_shipper_killed_at_any_moment_neither_loses_nor_doubles(tmp_path: Path, lake: Lake) -> None:
    folder, stop, written = tmp_path / "j", threading.Event(), []
    code = f"""
from orrery.data.lake import Lake
from orrery.data.ship import ship
lake = Lake({lake.root!r})
ship({str(folder)!r}, lake)
print("ready", flush=True)
while True:
    ship({str(folder)!r}, lake)
"""

    def serve() -> None:
        with Journal(folder, "one") as journal:
            while not stop.is_set():
                name = f"{len(written):05}"
                journal.append("m", "production", rows([name], temp=[1.5]))
                written.append(name)
                time.sleep(0.001)

    server = threading.Thread(target=serve)
    server.start()
    chance = random.Random(4)
    killed = 0
    while killed < 5 or (killed < 50 and not list(folder.glob("*.shipped"))):  # a busy machine ships little in a second
        killed += 1
        shipper = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert shipper.stdout is not None
        shipper.stdout.readline()
        time.sleep(chance.uniform(0.1, 1.0))
        shipper.send_signal(signal.SIGKILL)
        shipper.wait()
        shipper.stdout.close()
    stop.set()
    server.join()
    before = ship(folder, lake)
    assert before < len(written)  # some of it was brought over by those that died
    assert shipped(lake)["_id"].to_list() == written
    assert segments(folder) == []


def test_frames_handed_in_again_are_not_added_again(tmp_path: Path, lake: Lake) -> None:
    """What a shipper does that died between the commit and its mark."""
    with Journal(tmp_path / "j", "one") as journal:
        journal.append("m", "production", rows(["a"]))
        ship(tmp_path / "j", lake)
        next((tmp_path / "j").glob("*.shipped")).unlink()
        assert ship(tmp_path / "j", lake) == 0
        journal.append("m", "production", rows(["b"]))
        next((tmp_path / "j").glob("*.shipped")).unlink(missing_ok=True)
        assert ship(tmp_path / "j", Lake(lake.root)) == 1
    assert shipped(lake)["_id"].to_list() == ["a", "b"]


def test_the_server_needs_no_heavy_library() -> None:
    code = (
        "import sys, orrery.data.journal; print(sorted({'polars', 'deltalake', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_format_is_what_the_documentation_says(tmp_path: Path) -> None:
    with Journal(tmp_path, "one") as journal:
        journal.append("m", "staging", {"_id": ["a"]})
    data = segments(tmp_path)[0].read_bytes()
    length = int.from_bytes(data[:4], "little")
    body = msgspec.msgpack.decode(data[8 : 8 + length])
    assert body == {"model": "m", "environment": "staging", "columns": {"_id": ["a"]}}


def test_labels_find_predictions_that_are_still_in_the_journal(home: Settings) -> None:
    orrery = Orrery(home)
    project = {"model": {"name": "m", "task": "regression", "target": "y"}, "data": {"t": "t"}}
    pushed = {"commit": "abc", "message": "m", "author": "ann", "spec": project}
    orrery.append([Draft(kind="pushed", actor="ann", why="m", model="m", data=pushed)])
    entities = pl.DataFrame({"entity": ["e-a", "e-b", "e-never"], "label": [1.0, 2.0, 3.0]})
    known = entities.with_columns(at=pl.from_epoch(pl.lit(AT), "us").dt.replace_time_zone("UTC"))
    with Journal(home.folder(FOLDER), "one") as journal:
        for model in ("m", "control"):
            journal.append(model, "production", rows(["a", "b"]))
        by_itself = LabelTable(orrery.lake, "control").append(known)
        assert (by_itself.new, by_itself.unknown) == (0, 3)
        accepted = orrery.add_labels("m", known)
        assert (accepted.new, accepted.unknown) == (2, 1)
    orrery.timeline.engine.dispose()


def a_score() -> AnomalyScore:
    random = np.random.default_rng(0)
    table = {"temp": random.normal(20, 5, 4000), "city": np.array(["Pisa", "Graz"] * 2000, dtype=object)}
    found = AnomalyScore.fit({n: v[:2000] for n, v in table.items()}, {n: v[2000:] for n, v in table.items()})
    assert found is not None
    return found


def test_each_answered_row_gets_the_score_of_the_version_that_answered(tmp_path: Path, lake: Lake) -> None:
    score = a_score()
    columns = rows(
        ["a", "b", "c", "d", "e", "f"],
        temp=[20, 20.5, 900, "cold", None, 20],
        city=["Pisa", "Atlantis", "Pisa", "Pisa", None, "Pisa"],
    )
    columns["_version"] = [1, 1, 1, 1, 1, 2]
    columns["_anomaly"] = [-1.0] * 6  # a request may name a column as it likes
    with Journal(tmp_path / "j", "one") as journal:
        journal.append("m", "production", columns)
        shadow = rows(["a", "b"])
        journal.append("m", "production", {**shadow, "_role": ["shadow", "guard"], "_version": [1, 1]})
        journal.append("unscored", "production", rows(["g"], temp=[900]))
    assert ship(tmp_path / "j", lake, lambda model, version: score if (model, version) == ("m", 1) else None) == 9
    log = shipped(lake).filter(pl.col("_role") == "champion")
    found = dict(log.select("_id", "_anomaly").iter_rows())
    assert found["a"] < 1 and found["f"] is None
    assert {name: round(found[name], 6) for name in "bcde"} == dict.fromkeys("bcde", round(score.highest, 6))
    assert shipped(lake).filter(pl.col("_role") != "champion")["_anomaly"].null_count() == 2
    assert shipped(lake, "unscored")["_anomaly"].to_list() == [None]


def test_a_log_that_is_older_than_score_and_caller_is_read_and_goes_on(tmp_path: Path, lake: Lake) -> None:
    log = PredictionLog(lake, "m")
    frame = (
        pl.DataFrame(rows(["old"], temp=[20.0]))
        .drop("_broken")
        .with_columns(
            pl.from_epoch("_at", time_unit="us").dt.replace_time_zone("UTC"),
            pl.lit("production").alias("_environment"),
            pl.lit(1, pl.Int32).alias("_version"),
        )
    )
    day = frame["_at"].dt.date().alias("_day")
    Table(log.table.uri, {}, partition_by=["_day"]).write(lambda table: Write(frame.with_columns(day)))
    assert not {"_anomaly", "_caller"} & set(log.table.schema())
    assert shipped(lake)["_anomaly"].to_list() == shipped(lake)["_caller"].to_list() == [None]
    with Journal(tmp_path / "j", "one") as journal:
        journal.append("m", "production", rows(["new"], temp=[900], city=["Pisa"]), {"_caller": "app"})
    score = a_score()
    assert ship(tmp_path / "j", lake, lambda model, version: score) == 1
    assert dict(shipped(lake).select("_id", "_caller").iter_rows()) == {"old": None, "new": "app"}
    read = dict(shipped(lake).select("_id", "_anomaly").iter_rows())
    assert read == {"old": None, "new": pytest.approx(score.highest)}
