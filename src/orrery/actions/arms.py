"""The units of an A/B or a canary: who answered each first, and what came of it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import polars as pl

from orrery.actions.desk import Desk
from orrery.data.labels import LabelTable
from orrery.data.log import INSTANT, PredictionLog
from orrery.rollout.business import by
from orrery.spec import Business, Spec
from orrery.timeline.state import Challenger
from orrery.types import parse_duration


def labelled_units(
    desk: Desk, model: str, environment: str, arm: Challenger, rows: pl.DataFrame, champion: int
) -> pl.DataFrame:
    """Return of each unit of an A/B its first answer, where its label became final since the last look.

    Who comes again was not drawn again: a unit counts once, with the first answer that it got in this trial.
    """
    firsts = _first_answers(desk, model, environment, arm, champion).select("_id")
    found: pl.DataFrame = _units(rows, arm, champion).join(firsts, on="_id", how="semi", maintain_order="left")
    return found.select(pl.col("_output").alias("output"), "label", arm=pl.col("_role") == "arm")


def valued_units(
    desk: Desk,
    model: str,
    environment: str,
    arm: Challenger,
    champion: int,
    policy: Spec,
    since: datetime,
    until: datetime,
) -> dict[str, pl.DataFrame]:
    """Return for each business metric the units whose time was over in ``(since, until]``.

    Columns ``value``, ``arm`` (whether arm or canary answered) and ``share`` (the probability of that, when it did).

    The value is the newest one that came of a unit's first answer within the metric's delay. Where none came, the
    metric says what that is worth: without such units those who stayed would be compared, and these are no draw by lot.
    A unit that a growing canary reaches later was drawn when it came first, and stays where it was then.
    """
    metrics = by(policy.rollout.business, "unit")
    if not metrics:
        return {}
    firsts = _first_answers(desk, model, environment, arm, champion).select(
        "_id", "_at", "_entity", arm=pl.col("_role") == arm.role
    )
    moves = pl.DataFrame(arm.shares, schema={"_at": INSTANT, "share": pl.Float64}, orient="row")
    firsts = firsts.join_asof(moves.sort("_at"), on="_at", allow_exact_matches=False)
    found = {}
    for name, rule in metrics.items():
        delay = parse_duration(rule.delay or policy.model.label_delay)
        due = firsts.filter(pl.col("_at") + delay > since, pl.col("_at") + delay <= until)
        values = LabelTable(desk.orrery.lake, model, name).known(None, until, due["_entity"])
        pairs = due.join(values, left_on="_entity", right_on="entity", how="inner")
        pairs = pairs.filter(pl.col("at") >= pl.col("_at"), pl.col("at") <= pl.col("_at") + delay)
        newest = pairs.sort("at", "seq").group_by("_id").agg(value=pl.col("label").last().cast(pl.Float64))
        joined = due.join(newest, on="_id", how="left", maintain_order="left")
        found[name] = joined.select(pl.col("value").fill_null(rule.absent), "arm", "share")
    return found


def daily_values(desk: Desk, model: str, name: str, rule: Business, policy: Spec, until: datetime) -> dict[date, float]:
    """Return a metric's value of each day that is over, and whose value is final."""
    known = LabelTable(desk.orrery.lake, model, name).known(None, until).sort("at", "seq")
    newest = known.group_by("entity").agg(pl.col("label").last().cast(pl.Float64))
    days = newest.with_columns(day=pl.col("entity").str.to_date("%Y-%m-%d", strict=False)).drop_nulls("day")
    last = (until - parse_duration(rule.delay or policy.model.label_delay)).date()
    return {day: value for day, value in days.select("day", "label").iter_rows() if day < last}


def _first_answers(desk: Desk, model: str, environment: str, arm: Challenger, champion: int) -> pl.DataFrame:
    """Return the first answer of each unit in this trial, in the order in which they were given."""
    began, _ = arm.shares[0]
    log = PredictionLog(desk.orrery.lake, model).rows(environment, began.date(), None)
    answered = _units(log.filter(pl.col("_at") > began), arm, champion).sort("_at", "_id")
    firsts = answered.unique("unit", keep="first", maintain_order=True)
    found: pl.DataFrame = firsts.select("_id", "_at", "_entity", "_role").collect()
    return found


def _units(frame: pl.DataFrame | pl.LazyFrame, arm: Challenger, champion: int) -> Any:
    """Return the answers of arm (or canary) and champion, with the unit that was drawn."""
    request = pl.col("_id").str.replace(r"#\d+$", "")
    held = frame.collect_schema().names()
    unit = pl.coalesce(pl.col(arm.unit).cast(pl.String), request) if arm.unit in held else request
    mine = (pl.col("_version") == arm.version) & (pl.col("_role") == arm.role)
    its = (pl.col("_version") == champion) & (pl.col("_role") == "champion")
    return frame.filter(mine | its).with_columns(unit=unit)
