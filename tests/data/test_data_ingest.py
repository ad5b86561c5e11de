"""Rows into the lake: quarantine, events, idempotence, and a crash between any two steps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from orrery.data import ingest
from orrery.data.contract import Contract
from orrery.data.ingest import add, announce, contract_of
from orrery.data.lake import Lake
from orrery.data.profile import profile
from orrery.timeline import schema
from orrery.timeline.clock import ReplayClock
from orrery.timeline.store import Timeline, connect

NOW = datetime(2013, 2, 1, 6, tzinfo=UTC)
GOOD = pl.DataFrame({"id": [f"f{i}" for i in range(2000)], "x": [float(i % 50) for i in range(2000)]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    clock = ReplayClock(tmp_path / "clock")
    clock.set(NOW)
    timeline = Timeline(connect(f"sqlite:///{tmp_path}/orrery.db"), clock)
    schema.upgrade(timeline.engine)
    return timeline


def kinds(timeline: Timeline) -> list[str]:
    return [event.kind for event in timeline.read("")]


def test_first_rows_make_the_contract_and_later_ones_are_held_to_it(lake: Lake, timeline: Timeline) -> None:
    first = add(lake, timeline, "flights", GOOD, actor="ann", why="January", key="jan")
    assert (first.version, first.rows, first.quarantined) == (1, 2000, 0)
    batch = pl.DataFrame({"id": ["g1", "g2", "f7", "g3"], "x": [1.0, 1e6, 2.0, None]})
    second = add(lake, timeline, "flights", batch, actor="ann", why="more", occurred_at=NOW + timedelta(days=1))
    assert (second.version, second.rows, second.quarantined) == (2, 1, 3)
    assert second.reasons == {"x is above 147": 1, "x is missing": 1, "id is in the dataset already": 1}
    aside = lake.read("flights", folder="quarantine").polars()
    assert dict(aside.select("id", "_why").iter_rows()) == {
        "g2": "x is above 147",
        "g3": "x is missing",
        "f7": "id is in the dataset already",
    }
    assert aside["_at"].unique().to_list() == [NOW + timedelta(days=1)]
    assert kinds(timeline) == ["contract_changed", "data_added", "data_added", "quarantined"]
    added = list(timeline.read("", kinds=("data_added",)))[1]
    assert added.occurred_at == NOW + timedelta(days=1)
    assert (added.actor, added.why) == ("ann", "more")
    assert added.data["digest"] == lake.version("flights").digest
    assert (added.data["version"], added.data["rows"], added.data["quarantined"]) == (2, 1, 3)
    assert contract_of(timeline, "flights") == Contract.infer(GOOD)


def test_the_same_key_changes_nothing(lake: Lake, timeline: Timeline) -> None:
    batch = pl.concat([GOOD, GOOD.head(1)])
    rules = Contract.infer(GOOD)
    first = add(lake, timeline, "flights", batch, contract=rules, actor="ann", why="w", key="k")
    before = kinds(timeline)
    assert add(Lake(lake.root), timeline, "flights", batch, contract=rules, actor="ann", why="w", key="k") == first
    assert kinds(timeline) == before
    assert len(lake.read("flights")) == 2000
    assert len(lake.read("flights", folder="quarantine")) == 1


def test_a_batch_of_bad_rows_makes_no_version(lake: Lake, timeline: Timeline) -> None:
    add(lake, timeline, "flights", GOOD, actor="ann", why="w")
    bad = pl.DataFrame({"id": ["h1", "h2"], "x": ["a", "b"]})
    outcome = add(lake, timeline, "flights", bad, actor="ann", why="w", key="k")
    assert outcome.version is None and outcome.quarantined == 2
    assert add(lake, timeline, "flights", bad, actor="ann", why="w", key="k") == outcome
    assert len(lake.versions("flights")) == 1
    assert kinds(timeline).count("quarantined") == 1
    # Rows of another type than the first ones fit beside them: quarantine keeps text.
    add(lake, timeline, "flights", pl.DataFrame({"id": ["h3"], "x": [1e9]}), actor="ann", why="w")
    assert lake.read("flights", folder="quarantine").polars()["x"].to_list() == ["a", "b", "1000000000.0"]


class Crash(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("step", range(4))
def test_a_crash_between_any_two_steps_heals(
    lake: Lake, timeline: Timeline, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    add(lake, timeline, "flights", GOOD, actor="ann", why="January")
    batch = pl.DataFrame({"id": ["g1", "f7"], "x": [1.0, 1e6]})
    boundaries = iter(range(4))
    write, append = Lake.append, timeline.append

    def crash(before: object, *args: object, **kwargs: object) -> object:
        if next(boundaries) == step:
            raise Crash
        result = before(*args, **kwargs)  # type: ignore[operator]
        if next(boundaries) == step:
            raise Crash
        return result

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "append", lambda *a, **k: crash(write, *a, **k))
        with pytest.raises(Crash):
            add(lake, timeline, "flights", batch, actor="ann", why="w", key="k")
    outcome = add(lake, timeline, "flights", batch, actor="ann", why="w", key="k")
    assert (outcome.version, outcome.rows, outcome.quarantined) == (2, 1, 1)
    assert len(lake.read("flights")) == 2001
    assert len(lake.read("flights", folder="quarantine")) == 1
    assert kinds(timeline) == ["contract_changed", "data_added", "data_added", "quarantined"]
    assert append == timeline.append


def test_commits_without_an_event_are_announced_once(
    lake: Lake, timeline: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(ingest, "_write_events", die)
        with pytest.raises(Crash):
            add(lake, timeline, "flights", GOOD, actor="ann", why="w")
    assert kinds(timeline) == ["contract_changed"]
    assert announce(lake, timeline, "flights") == 1
    assert announce(lake, timeline, "flights") == 0
    (event,) = timeline.read("", kinds=("data_added",))
    assert (event.actor, event.why, event.occurred_at) == ("ann", "w", NOW)
    assert event.data["rows"] == 2000


def test_a_profile_says_what_columns_hold(lake: Lake) -> None:
    rows = pl.DataFrame({"x": [1.0, None, 3.0], "s": ["a", "b", "a"], "d": [NOW, NOW, None], "b": [True, True, False]})
    lake.append("n", rows)
    number, text, instant, boolean = profile(lake.read("n").polars())
    assert (number.min, number.mean, number.max, number.distinct) == (1.0, 2.0, 3.0, 2)
    assert number.missing == pytest.approx(1 / 3)
    assert text.top[0] == ("a", pytest.approx(2 / 3))
    assert instant.type == "instant" and str(instant.min).startswith("2013-02-01")
    assert boolean.mean == pytest.approx(2 / 3)
