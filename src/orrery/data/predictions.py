"""Predictions and the labels that join to them, as of a time.

Everything that is asked of a window ``(after, until]`` is answered the same way whenever it is asked, as long as
nothing older arrives late; windows that follow each other hold each row exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from orrery.data.labels import REACH, Accepted, LabelTable
from orrery.data.lake import Lake
from orrery.data.log import COLUMNS, INSTANT, PredictionLog

__all__ = ["COLUMNS", "Accepted", "LabelTable", "PredictionLog", "logged", "matured"]

ROLES = ("champion", "canary", "arm", "shadow", "guard")


BATCH = "batch"
"""Role of predictions that no request asked for: a whole dataset was scored."""


def logged(
    lake: Lake,
    model: str,
    environment: str,
    after: datetime | None,
    until: datetime,
    role: str | None = "champion",
) -> pl.DataFrame:
    """Return the predictions made in ``(after, until]`` in one role or all, in the order in which they were made.

    Parameters
    ----------
    lake, model, environment : whose, where.
    after, until : instants; None is from the beginning.
    role : champion, canary, arm, shadow, guard or standby; None for all of those, who were asked or saw what was.
    """
    found = PredictionLog(lake, model).rows(environment, after.date() if after else None, until.date())
    found = found.filter(pl.col("_at") <= until)
    found = found.filter(pl.col("_role") != BATCH if role is None else pl.col("_role") == role)
    if after is not None:
        found = found.filter(pl.col("_at") > after)
    return _once(found.collect())


def matured(
    lake: Lake,
    model: str,
    environment: str,
    after: datetime | None,
    until: datetime,
    delay: timedelta,
    roles: Sequence[str] = ROLES,
    columns: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Return the predictions whose label became final in ``(after, until]``, with that label.

    A prediction matures when its first label is known and ``delay`` has passed since it was made, whichever is later
    (early labels are biased towards outcomes that are quick to know). Its label is the newest one known at ``until``: a
    correction changes the label of rows that mature later, and lets no row mature twice. A label that was known 31 days
    before a prediction is not its label.

    Parameters
    ----------
    lake, model, environment : whose, where.
    after, until : instants; None is from the beginning.
    delay : label delay of the model.
    roles : only predictions made in these.
    columns : of the log, besides ``_id``, ``_at``, ``_entity`` and ``_version``; all if none are named, and those that
        the log does not have are left out. The fewer, the less is read.

    Returns
    -------
    Columns of the log, ``label`` and ``matured_at``, ordered by ``_at``, ``_id`` and ``_version``; a row that was
    logged twice once.
    """
    labels = LabelTable(lake, model)
    last = until - delay
    first = None
    if after is not None:
        first = (after - delay).date()
        fresh = labels.known(after, until)
        if fresh.height:
            # A label that comes late reaches back to its prediction.
            oldest: date = fresh.select(pl.col("predicted").fill_null((pl.col("at") - REACH).dt.date()).min()).item()
            first = min(first, oldest)
    found = PredictionLog(lake, model).rows(environment, first, last.date())
    found = found.filter(pl.col("_role").is_in(list(roles)), pl.col("_at") <= last)
    if columns is not None:
        wanted = dict.fromkeys(["_id", "_at", "_entity", "_version", *columns])
        found = found.select([name for name in found.collect_schema() if name in wanted])
    rows = found.collect()
    start = None if first is None else datetime.combine(first, time(), UTC) - REACH
    joined = _labelled(rows, labels.known(start, until, rows["_entity"]))
    due = (pl.col("_at") + delay).cast(INSTANT)
    joined = joined.with_columns(pl.max_horizontal("matured_at", due).alias("matured_at"))
    if after is not None:
        joined = joined.filter(pl.col("matured_at") > after)
    return _once(joined)


def _labelled(rows: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Join to each row the newest of its labels, and when the first of them was known."""
    rows = rows.drop("label", "matured_at", strict=False).with_row_index("_place")
    pairs = rows.select("_place", "_at", entity="_entity").join(labels, on="entity", how="inner")
    pairs = pairs.filter(pl.col("at") >= pl.col("_at") - REACH).sort("at", "seq")
    ends = pairs.group_by("_place").agg(pl.col("label").last(), matured_at=pl.col("at").first())
    return rows.join(ends, on="_place", how="inner").drop("_place")


def _once(rows: pl.DataFrame) -> pl.DataFrame:
    """Order rows, and keep the first of those that a client's or a server's second try logged twice."""
    return rows.sort("_at", "_id", "_version").unique(["_id", "_version"], keep="first", maintain_order=True)
