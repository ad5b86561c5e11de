"""Datasets: versions, time travel, grouped and concurrent appends, idempotence, compaction."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest

from orrery.data.digest import digest_of
from orrery.data.lake import Lake
from orrery.errors import ContractBroken, NotFound, NotUnderstood


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_each_append_is_a_version_and_old_ones_stay(lake: Lake) -> None:
    first = lake.append("flights", pl.DataFrame({"a": [1, 2]}), note="January")
    second = lake.append("flights", pl.DataFrame({"a": [3], "b": ["x"]}), note="February")
    assert (first.version, first.rows, first.rows_added) == (1, 2, 2)
    assert (second.version, second.rows, second.rows_added) == (2, 3, 1)
    assert lake.read("flights", 1).polars().to_dict(as_series=False) == {"a": [1, 2]}
    assert lake.read("flights").polars().to_dict(as_series=False) == {"a": [1, 2, 3], "b": [None, None, "x"]}
    assert lake.read("flights", after=1).polars()["a"].to_list() == [3]
    assert [version.note for version in lake.versions("flights")] == ["January", "February"]
    assert lake.names() == ["flights"]


def test_every_library_sees_the_same_rows_in_the_order_they_came(lake: Lake) -> None:
    for start in range(0, 50, 5):
        lake.append("n", pl.DataFrame({"i": list(range(start, start + 5))}))
    frame = lake.read("n")
    expected = list(range(50))
    assert frame.polars()["i"].to_list() == expected
    assert frame.pandas()["i"].tolist() == expected
    assert frame.arrow()["i"].to_pylist() == expected
    assert [row[0] for row in frame.duckdb().fetchall()] == expected
    assert frame.lazy().filter(pl.col("i") > 47).collect()["i"].to_list() == [48, 49]
    assert pl.DataFrame(frame)["i"].to_list() == expected  # the Arrow PyCapsule interface
    assert len(frame) == 50


def test_what_a_reader_does_to_a_frame_changes_nothing(lake: Lake) -> None:
    lake.append("n", pl.DataFrame({"i": [1, 2]}))
    frame = lake.read("n")
    pandas = frame.pandas()
    pandas.loc[0, "i"] = 99
    taken = frame.polars()
    taken[0, "i"] = 99
    assert frame.polars()["i"].to_list() == [1, 2]
    assert lake.read("n").polars()["i"].to_list() == [1, 2]


def test_compaction_makes_no_version_and_changes_none(lake: Lake) -> None:
    for i in range(12):
        lake.append("n", pl.DataFrame({"i": [i]}))
    before = [lake.read("n", version).polars() for version in range(1, 13)]
    assert lake.compact() == 12
    assert len(lake.versions("n")) == 12
    assert all(lake.read("n", k + 1).polars().equals(frame) for k, frame in enumerate(before))
    assert lake.append("n", pl.DataFrame({"i": [12]})).version == 13
    fresh = Lake(lake.root)
    assert fresh.read("n").polars()["i"].to_list() == list(range(13))
    assert fresh.version("n", 7).rows == 7


def test_the_same_key_adds_once(lake: Lake) -> None:
    rows = pl.DataFrame({"i": [1]})
    first = lake.append("n", rows, key="monday")
    assert lake.append("n", rows, key="monday") == first
    assert Lake(lake.root).append("n", rows, key="monday") == first
    assert lake.append("n", rows, key="tuesday").version == 2
    assert len(lake.read("n")) == 2


def test_digest_stands_for_the_batches_not_for_the_name_or_home(lake: Lake, tmp_path: Path) -> None:
    other = Lake(str(tmp_path / "elsewhere"))
    one, two = pl.DataFrame({"a": [1, None], "s": ["x", "yz"]}), pl.DataFrame({"a": [5], "s": ["q"]})
    for home, name in ((lake, "left"), (other, "right")):
        home.append(name, one)
        home.append(name, two)
    assert [v.digest for v in lake.versions("left")] == [v.digest for v in other.versions("right")]
    swapped = Lake(str(tmp_path / "swapped"))
    swapped.append("left", two)
    assert swapped.append("left", one).digest != lake.version("left").digest


@pytest.mark.parametrize(
    "other",
    [
        pl.DataFrame({"a": ["a", "bc"]}),
        pl.DataFrame({"b": ["ab", "c"]}),
        pl.DataFrame({"a": ["ab", None]}),
        pl.DataFrame({"a": ["ab", ""]}),
        pl.DataFrame({"a": ["c", "ab"]}),
    ],
)
def test_digest_tells_contents_apart(other: pl.DataFrame) -> None:
    assert digest_of(pl.DataFrame({"a": ["ab", "c"]})) != digest_of(other)


def test_threads_share_commits_and_lose_nothing(lake: Lake) -> None:
    def work(thread: int) -> None:
        for i in range(10):
            version = lake.append("n", pl.DataFrame({"i": [thread * 10 + i]}), key=f"{thread}-{i}")
            # Acknowledged means there, for everybody.
            assert thread * 10 + i in lake.read("n", version.version).polars()["i"].to_list()

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lake.read("n").polars()["i"].to_list()) == list(range(80))
    assert len(lake.versions("n")) < 80


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    code = """
import sys, polars as pl
from orrery.data.lake import Lake
lake = Lake(sys.argv[1])
lake.table("datasets", "n").lock = None if sys.argv[3] == "race" else lake.table("datasets", "n").lock
for i in range(6):
    lake.append("n", pl.DataFrame({"i": [int(sys.argv[2]) * 6 + i]}), key=f"{sys.argv[2]}-{i}")
"""
    root = str(tmp_path / "lake")
    # Without the lock they race on the commits themselves, as on an object store.
    running = [subprocess.Popen([sys.executable, "-c", code, root, str(n), "race"]) for n in range(4)]
    assert [process.wait(120) for process in running] == [0] * 4
    lake = Lake(root)
    assert sorted(lake.read("n").polars()["i"].to_list()) == list(range(24))
    assert [version.version for version in lake.versions("n")] == list(range(1, len(lake.versions("n")) + 1))
    assert lake.version("n").rows == 24


def test_one_bad_batch_does_not_take_others_with_it(lake: Lake) -> None:
    lake.append("n", pl.DataFrame({"i": [0]}))
    outcomes: dict[int, object] = {}

    def work(k: int) -> None:
        try:
            outcomes[k] = lake.append("n", pl.DataFrame({"i": ["x" if k % 2 else k]}, strict=False)).version
        except ContractBroken as error:
            outcomes[k] = error

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(outcomes[k], ContractBroken) == bool(k % 2) for k in range(6))
    assert sorted(lake.read("n").polars()["i"].to_list()) == [0, 0, 2, 4]


def test_types_widen_only_where_no_value_changes(lake: Lake) -> None:
    lake.append("n", pl.DataFrame({"i": [1], "x": [1.5]}, schema={"i": pl.Int8, "x": pl.Float32}))
    lake.append("n", pl.DataFrame({"i": [2.0], "x": [3]}))
    assert lake.read("n").polars().schema == {"i": pl.Int64, "x": pl.Float64}
    with pytest.raises(ContractBroken, match=r"'i' of n holds Int64"):
        lake.append("n", pl.DataFrame({"i": [2.5]}))
    with pytest.raises(ContractBroken, match="'x' of n"):
        lake.append("n", pl.DataFrame({"x": ["3"]}))
    assert len(lake.versions("n")) == 2


def test_what_is_not_there_is_named_with_the_nearest(lake: Lake) -> None:
    lake.append("flights", pl.DataFrame({"i": [1]}))
    with pytest.raises(NotFound, match="Did you mean flights"):
        lake.read("flight")
    with pytest.raises(NotFound, match="It has 1 to 1"):
        lake.read("flights", 7)
    with pytest.raises(NotFound, match="orrery data add zebra"):
        lake.versions("zebra")
    with pytest.raises(NotUnderstood):
        lake.append("../flights", pl.DataFrame({"i": [1]}))
    with pytest.raises(NotUnderstood, match="nothing to add"):
        lake.append("flights", pl.DataFrame({"i": []}))


def test_a_url_is_a_home_too(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    lake = Lake(f"file://{tmp_path}/lake")
    lake.append("n", pl.DataFrame({"i": [1]}))
    lake.append("n", pl.DataFrame({"i": [2]}))
    assert lake.read("n").polars()["i"].to_list() == [1, 2]
    assert lake.names() == ["n"]
