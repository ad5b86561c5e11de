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
    recalibrate : days between two blind recalibrations (Platt, the labels since its training); 0 is none.
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

    What several of them do alike, in either year, is computed once, and counted for each.

    Parameters
    ----------
    project, bad : folders with the honest project and with the bad commit.
    cache : the content cache of the trainings.
    served : days to serve.
    """

    def __init__(self, project: Path, bad: Path, cache: Path, served: list[date]) -> None:
        self._cache = Cache(cache)
        self._served = served
        self._pipelines = {
            name: Pipeline(load_module(folder), ("flights", "late"))
            for name, folder in (("honest", project), ("bad", bad))
        }
        self._costs: dict[str, float] = {}
        self._said: dict[str, np.ndarray[Any, Any]] = {}

    def play(self, policy: Policy, told: pl.DataFrame, incidents: bool) -> Outcome:
        """Serve every day of the year by a policy.

        Parameters
        ----------
        told : the flights as the feeds give them.
        incidents : whether the bad commit is pushed.
        """
        outcome = Outcome(policy.name)
        year = told.with_columns(pl.col("scheduled").dt.date().alias("_day"))
        pieces: list[pl.DataFrame] = []
        steps = range(0, len(self._served), policy.every or len(self._served))
        for start in steps:
            days = self._served[start : start + policy.every] if policy.every else self._served
            commit = "bad" if incidents and flights.BAD_COMMIT <= days[0] < flights.CORRECTION else "honest"
            known = year.filter((pl.col("_day") < days[0]) & pl.col("late").is_not_null())
            if policy.window:
                known = known.filter(pl.col("_day") >= days[0] - timedelta(days=policy.window))
            rows = year.filter(pl.col("_day").is_between(days[0], days[-1]))
            said, cost = self._answers(commit, known.drop("_day"), rows.drop("_day", *flights.OUTCOMES))
            outcome.trainings += 1
            outcome.promotions += start > 0
            outcome.cpu_seconds += cost
            answers = rows.select("flight_id", "_day", "late", raw=pl.Series(said), said=pl.Series(said))
            pieces.append(_recalibrated(answers, days, policy.recalibrate) if policy.recalibrate else answers)
        outcome.said = pl.concat(pieces).select("flight_id", "said")
        return outcome

    def _answers(self, commit: str, known: pl.DataFrame, requests: pl.DataFrame) -> tuple[np.ndarray[Any, Any], float]:
        """Return what a model of a commit that has learned from some flights says of others, and what it cost."""
        trained, asked = (digest(rows.hash_rows(0).to_numpy().tobytes()) for rows in (known, requests))
        training = f"{commit}/{trained}"
        if (said := self._said.get(f"{training}/{asked}")) is None:
            said = self._said[f"{training}/{asked}"] = self._computed(commit, training, trained, known, requests)
        return said, self._costs[training]

    def _computed(
        self, commit: str, training: str, key: str, known: pl.DataFrame, requests: pl.DataFrame
    ) -> np.ndarray[Any, Any]:
        pipeline = self._pipelines[commit]
        inputs = {"flights": Input(known, key), "late": Input(known["late"], f"{key}/late")}
        result = pipeline.run("model", inputs, {}, self._cache, "demo")
        self._costs.setdefault(training, sum(report.cpu_seconds for report in result.reports))
        said: np.ndarray[Any, Any] = result.values["model"].predict_proba(pipeline.module.features(requests))[:, 1]
        return said


def _recalibrated(answers: pl.DataFrame, days: list[date], every: int) -> pl.DataFrame:
    """Return answers of one model, blindly recalibrated every so many days by what was known of them then."""
    parts = []
    for number in range(0, len(days), every):
        part = answers.filter(pl.col("_day").is_between(days[number], days[: number + every][-1]))
        known = answers.filter(pl.col("_day") < days[number]).drop_nulls("late")
        if known["late"].n_unique() == 2:
            repair = platt(known["raw"].to_numpy(), known["late"].to_numpy().astype(float))
            part = part.with_columns(said=pl.Series(apply_platt(part["raw"].to_numpy(), *repair)))
        parts.append(part)
    return pl.concat(parts)


def play_all(
    truth: pl.DataFrame, project: Path, bad: Path, cache: Path, served: list[date]
) -> Iterator[tuple[Outcome, bool]]:
    """Play every policy on the year with the incidents, and without them; the second value says which."""
    calendar = Calendar(project, bad, cache, served)
    for told, incidents in ((flights.with_incidents(truth), True), (truth, False)):
        for policy in POLICIES:
            yield calendar.play(policy, told, incidents), incidents
