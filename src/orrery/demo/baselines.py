"""What people do today, on the same year: train once, or on a calendar, blindly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from orrery.demo import flights
from orrery.pipeline.pipeline import Cache, Input, Pipeline, load_module
from orrery.stats import apply_platt, platt
from orrery.types import digest


@dataclass(frozen=True)
class Policy:
    """A blind calendar.

    Parameters
    ----------
    name : as the table of the demo calls it.
    every : days between two trainings; 0 is never again.
    window : days of data that a training uses; 0 is all of them.
    recalibrate : days between two blind recalibrations (Platt, the last 30 days of labels); 0 is none.
    """

    name: str
    every: int = 0
    window: int = 0
    recalibrate: int = 0


POLICIES = (
    Policy("never retrained"),
    Policy("blind, every 28 days, all history", 28),
    Policy("blind, every 28 days, last 31 days", 28, 31),
    Policy("blind, every 28 days, all, recalibrated weekly", 28, 0, 7),
)


@dataclass
class Outcome:
    """What a policy did with the year.

    Parameters
    ----------
    said : flight_id -> probability that was given.
    trainings, cpu_seconds : how many, and what they cost.
    promotions : models that took over.
    """

    name: str
    said: pl.DataFrame = field(default_factory=pl.DataFrame)
    trainings: int = 0
    cpu_seconds: float = 0.0
    promotions: int = 0


class Calendar:
    """Plays blind calendars on the year as it was told (with or without the incidents).

    Parameters
    ----------
    year : the flights as the feeds give them.
    project, bad : folders with the honest project and with the bad commit (None: it is never pushed).
    cache : the content cache; a training that two policies share is run once and counted for both.
    """

    def __init__(self, year: pl.DataFrame, project: Path, bad: Path | None, cache: Path, served: list[date]) -> None:
        self.year = year.with_columns(pl.col("scheduled").dt.date().alias("_day"))
        self.cache = Cache(cache)
        self.served = served
        inputs = ("flights", "late")
        self.pipelines = {
            name: Pipeline(load_module(folder), inputs)
            for name, folder in (("honest", project), ("bad", bad))
            if folder is not None
        }
        self.costs: dict[str, float] = {}

    def play(self, policy: Policy) -> Outcome:
        """Serve every day of the year by a policy."""
        outcome = Outcome(policy.name)
        pieces: list[pl.DataFrame] = []
        steps = range(0, len(self.served), policy.every or len(self.served))
        for start in steps:
            days = self.served[start : start + policy.every] if policy.every else self.served
            pipeline = self._newest_commit(days[0])
            model, cost = self._train(pipeline, days[0], policy.window)
            outcome.trainings += 1
            outcome.promotions += start > 0
            outcome.cpu_seconds += cost
            pieces.append(self._served(policy, pipeline, model, days))
        outcome.said = pl.concat(pieces).select("flight_id", "said")
        return outcome

    def _served(self, policy: Policy, pipeline: Pipeline, model: Any, days: list[date]) -> pl.DataFrame:
        """Return what one model says on the days until the next training, blindly recalibrated where asked for."""
        rows = self.year.filter(pl.col("_day").is_between(days[0], days[-1]))
        raw = self._predict(pipeline, model, rows.drop("_day", *flights.OUTCOMES))
        answers = rows.select("flight_id", "_day", "late", raw=pl.Series(raw), said=pl.Series(raw))
        if not policy.recalibrate:
            return answers
        parts = []
        for number in range(0, len(days), policy.recalibrate):
            part = answers.filter(pl.col("_day").is_between(days[number], days[: number + policy.recalibrate][-1]))
            known = answers.filter(pl.col("_day") < days[number]).drop_nulls("late")
            if known["late"].n_unique() == 2:
                repair = platt(known["raw"].to_numpy(), known["late"].to_numpy().astype(float))
                part = part.with_columns(said=pl.Series(apply_platt(part["raw"].to_numpy(), *repair)))
            parts.append(part)
        return pl.concat(parts)

    def _newest_commit(self, day: date) -> Pipeline:
        bad = flights.BAD_COMMIT <= day < flights.CORRECTION
        return self.pipelines["bad" if bad and "bad" in self.pipelines else "honest"]

    def _train(self, pipeline: Pipeline, day: date, window: int) -> tuple[Any, float]:
        known = self.year.filter(pl.col("_day") < day)
        if window:
            known = known.filter(pl.col("_day") >= day - timedelta(days=window))
        known = known.drop("_day").filter(pl.col("late").is_not_null())
        key = digest(known.hash_rows(0).to_numpy().tobytes())
        result = pipeline.run(
            "model",
            {"flights": Input(known, key), "late": Input(known["late"], f"{key}/late")},
            {},
            self.cache,
            "demo",
        )
        cost = sum(report.cpu_seconds for report in result.reports)
        spent = f"{key}/{id(pipeline)}"
        self.costs.setdefault(spent, cost)
        return result.values["model"], self.costs[spent]

    def _predict(self, pipeline: Pipeline, model: Any, requests: pl.DataFrame) -> np.ndarray[Any, Any]:
        features = pipeline.module.features(requests)
        probabilities: np.ndarray[Any, Any] = model.predict_proba(features)[:, 1]
        return probabilities


def play_all(
    truth: pl.DataFrame, project: Path, bad: Path, cache: Path, served: list[date], incidents: bool
) -> Iterator[Outcome]:
    """Play every policy on the year, with or without the incidents."""
    year = flights.with_on_time_labels(flights.with_celsius_feed(truth)) if incidents else truth
    calendar = Calendar(year, project, bad if incidents else None, cache, served)
    for policy in POLICIES:
        yield calendar.play(policy)
