"""Labels and the join as of a time."""

from __future__ import annotations

import itertools
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.data.lake import Lake
from orrery.data.predictions import Accepted, LabelTable, PredictionLog, logged, matured
from orrery.data.table import Table, Write
from orrery.errors import ContractBroken, NotUnderstood

START = datetime(2013, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def predict(lake: Lake, *entries: tuple[str, datetime], version: int = 1, role: str = "champion", **more: Any) -> None:
    frame = pl.DataFrame(
        {
            "_id": [f"r-{entity}" for entity, _ in entries],
            "_at": [at for _, at in entries],
            "_environment": ["production"] * len(entries),
            "_version": [version] * len(entries),
            "_role": [role] * len(entries),
            "_entity": [entity for entity, _ in entries],
            "_output": [[0.5]] * len(entries),
            **more,
        }
    )
    PredictionLog(lake, "m").append(frame)


def label(lake: Lake, *entries: tuple[str, object, datetime], key: str | None = None) -> Accepted:
    columns = (
        {"entity": [], "label": [], "at": []}
        if not entries
        else dict(zip(("entity", "label", "at"), map(list, zip(*entries, strict=True)), strict=True))
    )
    return LabelTable(lake, "m").append(pl.DataFrame(columns), key)


def ask(lake: Lake, after: datetime | None, until: datetime, delay: timedelta = DAY) -> dict[str, object]:
    rows = matured(lake, "m", "production", after, until, delay)
    return dict(rows.select("_id", "label").iter_rows())


def test_a_prediction_matures_when_label_and_delay_are_there(lake: Lake) -> None:
    predict(lake, ("early", START), ("late", START), ("never", START), temp=[1.0, 2.0, 3.0])
    assert label(lake, ("early", True, START + HOUR), ("late", False, START + 5 * DAY)).new == 2
    assert ask(lake, START, START + DAY - HOUR) == {}
    assert ask(lake, START, START + DAY) == {"r-early": 1.0}
    assert ask(lake, START + DAY, START + 4 * DAY) == {}
    assert ask(lake, START + 4 * DAY, START + 5 * DAY) == {"r-late": 0.0}
    assert ask(lake, None, START + 9 * DAY) == {"r-early": 1.0, "r-late": 0.0}
    rows = matured(lake, "m", "production", None, START + 9 * DAY, DAY)
    assert rows["matured_at"].to_list() == [START + DAY, START + 5 * DAY]
    assert rows["temp"].to_list() == [1.0, 2.0]


def test_labels_are_counted_for_what_they_are(lake: Lake) -> None:
    predict(lake, ("a", START), ("b", START))
    assert label(lake, ("a", True, START + HOUR), ("x", True, START + HOUR)) == Accepted(new=1, unknown=1)
    assert label(lake, ("a", True, START + 2 * HOUR)) == Accepted(duplicate=1)
    assert label(lake, ("a", False, START + 3 * HOUR)) == Accepted(conflicting=1)
    assert label(lake, ("b", 1, START), ("b", 1, START), ("b", 0, START + HOUR)) == Accepted(
        new=1, duplicate=1, conflicting=1
    )
    assert label(lake) == Accepted()


def test_a_correction_holds_from_when_it_is_known_and_matures_nothing_twice(lake: Lake) -> None:
    predict(lake, ("a", START))
    label(lake, ("a", 1, START + HOUR))
    label(lake, ("a", 0, START + 3 * DAY))
    assert ask(lake, None, START + 2 * DAY) == {"r-a": 1.0}  # as it was known then
    assert ask(lake, None, START + 3 * DAY) == {"r-a": 0.0}
    assert ask(lake, START + 2 * DAY, START + 9 * DAY) == {}


def test_the_same_key_adds_once_and_says_the_same(lake: Lake) -> None:
    predict(lake, ("a", START))
    first = label(lake, ("a", 1, START), ("x", 0, START), key="monday")
    assert label(lake, ("a", 1, START), ("x", 0, START), key="monday") == first == Accepted(new=1, unknown=1)


def test_a_label_may_come_before_its_prediction_reaches_the_log(lake: Lake) -> None:
    assert label(lake, ("a", 1, START + 2 * DAY)).unknown == 1
    predict(lake, ("a", START))
    assert ask(lake, START + DAY, START + 2 * DAY) == {"r-a": 1.0}


def test_a_label_may_come_a_year_late(lake: Lake) -> None:
    predict(lake, ("a", START))
    predict(lake, *((f"b{i}", START + i * DAY) for i in range(0, 400, 20)))
    label(lake, ("a", 1, START + 400 * DAY))
    assert ask(lake, START + 399 * DAY, START + 400 * DAY) == {"r-a": 1.0}


def test_a_label_of_long_before_is_of_another_time(lake: Lake) -> None:
    predict(lake, ("customer", START + 60 * DAY))
    label(lake, ("customer", 1, START))
    assert ask(lake, None, START + 90 * DAY) == {}
    label(lake, ("customer", 0, START + 70 * DAY))
    assert ask(lake, None, START + 90 * DAY) == {"r-customer": 0.0}


def test_roles_and_environments_are_told_apart_and_retries_are_not(lake: Lake) -> None:
    predict(lake, ("a", START))
    predict(lake, ("a", START + HOUR))  # the client tried again with the same request id
    predict(lake, ("a", START), version=2, role="shadow")
    label(lake, ("a", 1, START))
    rows = matured(lake, "m", "production", None, START + DAY, timedelta(0))
    assert rows.select("_version", "_at").rows() == [(1, START), (2, START)]
    assert matured(lake, "m", "production", None, START + DAY, timedelta(0), roles=("shadow",)).height == 1
    assert matured(lake, "m", "staging", None, START + DAY, timedelta(0)).height == 0
    assert logged(lake, "m", "production", None, START).height == 1
    assert logged(lake, "m", "production", START, START + DAY).height == 1
    assert logged(lake, "m", "production", None, START + DAY, role="guard").height == 0
    assert logged(lake, "nobody", "production", None, START).height == 0


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame({"entity": ["a"], "label": [None], "at": [START]}), "Row 1 of the labels has no label"),
        (pl.DataFrame({"entity": ["a", ""], "label": [1, 0], "at": [START] * 2}), "Row 2 of the labels has no entity"),
        (pl.DataFrame({"entity": ["a"], "label": [float("nan")], "at": [START]}), "NaN"),
        (pl.DataFrame({"entity": ["a"], "label": [1]}), "need the column 'at'"),
        (pl.DataFrame({"entity": ["a"], "label": [1], "at": ["soon"]}), "'at' of the labels holds text"),
    ],
)
def test_what_is_no_label_is_refused(lake: Lake, frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(NotUnderstood, match=message):
        LabelTable(lake, "m").append(frame)


def test_labels_keep_their_type(lake: Lake) -> None:
    assert label(lake, ("a", "red", START)).unknown == 1
    with pytest.raises(ContractBroken):
        label(lake, ("b", 1, START))
    predict(lake, ("a", START))
    assert ask(lake, None, START + DAY) == {"r-a": "red"}


def test_a_day_on_which_every_flight_is_on_time_is_set_aside(lake: Lake) -> None:
    entities = [f"f{i}" for i in range(900)]
    frame = pl.DataFrame({"entity": entities, "label": [False] * 900, "at": [START] * 900})
    table = LabelTable(lake, "m")
    outcome = table.append(frame, "k", expected={"true": 0.22, "false": 0.78})
    assert outcome.quarantined == 900 and outcome.new == outcome.unknown == 0
    assert "label is true in none of 900 rows" in next(iter(outcome.reasons))
    assert table.append(frame, "k", expected={"true": 0.22, "false": 0.78}) == outcome
    assert len(lake.read("m", folder="quarantined-labels")) == 900
    mixed = frame.with_columns(label=pl.int_range(900) % 9 == 0)
    assert table.append(mixed, expected={"true": 0.22, "false": 0.78}).unknown == 900
    assert table.append(frame.head(20), expected={"true": 0.22}).conflicting > 0  # few rows are no proof


def test_many_small_batches_of_labels_stay_few_files(lake: Lake) -> None:
    for i in range(40):
        label(lake, (f"a{i}", 1, START + i * HOUR))
    assert LabelTable(lake, "m").table.files() <= 18
    assert LabelTable(lake, "m").known(None, START + 99 * DAY).height == 40


def test_values_of_a_business_metric_are_compacted_with_the_rest(lake: Lake) -> None:
    for i in range(5):
        rows = pl.DataFrame({"entity": [f"a{i}"], "label": [1.0], "at": [START + i * HOUR]})
        LabelTable(lake, "m", "revenue").append(rows)
    assert lake.compact() == 5


def naive(
    predictions: list[tuple[str, datetime]],
    labels: list[tuple[str, int, datetime]],
    after: datetime,
    until: datetime,
    delay: timedelta,
) -> dict[str, object]:
    """The definition, spelled out."""
    found: dict[str, object] = {}
    for number, (entity, at) in enumerate(predictions):
        known = sorted(
            (when, place, value) for place, (who, value, when) in enumerate(labels) if who == entity and when <= until
        )
        if known and after < max(known[0][0], at + delay) <= until:
            found[f"r{number}"] = float(known[-1][2])
    return found


hours = st.integers(0, 24 * 20)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    predictions=st.lists(st.tuples(st.sampled_from("abcdef"), hours), min_size=1, max_size=12),
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from("abcdefx"), st.integers(0, 1), hours), max_size=6), min_size=1, max_size=3
    ),
    split=st.integers(0, 12),
    delay=st.integers(0, 48),
    looks=st.lists(st.integers(1, 24 * 24), min_size=2, max_size=4, unique=True),
)
def test_the_join_is_the_definition(
    predictions: list[tuple[str, int]],
    batches: list[list[tuple[str, int, int]]],
    split: int,
    delay: int,
    looks: list[int],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        log, table = PredictionLog(lake, "m"), LabelTable(lake, "m")
        made = [(entity, START + at * HOUR) for entity, at in predictions]
        frame = pl.DataFrame(
            {
                "_id": [f"r{i}" for i in range(len(made))],
                "_at": [at for _, at in made],
                "_environment": ["production"] * len(made),
                "_version": [1] * len(made),
                "_role": ["champion"] * len(made),
                "_entity": [entity for entity, _ in made],
            }
        )
        if split:
            log.append(frame[:split])
        stored: list[tuple[str, int, datetime]] = []
        for batch in batches:
            rows = [(entity, value, START + at * HOUR) for entity, value, at in batch]
            if rows:
                outcome = table.append(pl.DataFrame(rows, schema=["entity", "label", "at"], orient="row"))
                counted = outcome.new + outcome.duplicate + outcome.unknown + outcome.conflicting
                assert counted == len(rows)
            stored += _stored(stored, rows)
        if split < len(made):
            log.append(frame[split:])
        edges = [START, *(START + look * HOUR for look in sorted(looks))]
        for after, until in itertools.pairwise(edges):
            assert ask(lake, after, until, delay * HOUR) == naive(made, stored, after, until, delay * HOUR)


def _stored(
    before: list[tuple[str, int, datetime]], rows: list[tuple[str, int, datetime]]
) -> list[tuple[str, int, datetime]]:
    """A repeated equal label is not stored; one that differs from what holds at its time is."""
    kept: list[tuple[str, int, datetime]] = []
    for entity, value, at in rows:
        held = sorted(
            (when, place, known) for place, (who, known, when) in enumerate([*before, *kept]) if who == entity
        )
        until = [one for one in held if one[0] <= at]
        neighbour = until[-1] if until else held[0] if held else None
        if neighbour is None or neighbour[2] != value:
            kept.append((entity, value, at))
    return kept


def test_a_log_of_many_days_stays_few_files_and_gives_a_day_alone(lake: Lake) -> None:
    for i in range(70):
        predict(lake, (f"a{i}", START + i * DAY))
    log = PredictionLog(lake, "m")
    assert log.table.files() <= 35
    day = (START + 3 * DAY).date()  # lies in a file with the days around it
    assert log.rows(None, day, day).collect()["_entity"].to_list() == ["a3"]


def test_a_log_that_was_divided_by_day_is_read_and_written_on(lake: Lake) -> None:
    uri = f"{lake.root}/predictions/m"
    old = Table(uri, {}, partition_by=["_day"])
    frame = pl.DataFrame({"_day": [START.date()], "_at": [START], "_id": ["r-old"], "_entity": ["old"]})
    frame = frame.with_columns(
        _environment=pl.lit("production"), _version=pl.lit(1, pl.Int32), _role=pl.lit("champion")
    )
    old.write(lambda table: Write(frame))
    predict(lake, ("new", START + DAY))
    log = PredictionLog(lake, "m")
    assert sorted(log.rows("production", None, None).collect()["_entity"]) == ["new", "old"]
    assert log.rows("production", START.date(), START.date()).collect()["_entity"].to_list() == ["old"]
