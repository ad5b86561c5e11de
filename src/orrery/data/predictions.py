"""Predictions and the labels that join to them, as of a time.

Everything that is asked of a window ``(after, until]`` is answered the same way whenever it is asked, as long as nothing
older arrives late; windows that follow each other hold each row exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from orrery.data.labels import REACH, Accepted, LabelTable
from orrery.data.lake import Lake
from orrery.data.log import COLUMNS, INSTANT, PredictionLog

__all__ = ["COLUMNS", "Accepted", "LabelTable", "PredictionLog", "logged", "matured"]

ROLES = ("champion", "shadow", "guard")


def logged(
    lake: Lake,
    model: str,
    environment: str,
    after: datetime | None,
    until: datetime,
    role: str = "champion",
) -> pl.DataFrame:
    """Return the predictions made in ``(after, until]`` in one role, in the order in which they were made.

    Parameters
    ----------
    lake, model, environment : whose, where.
    after, until : instants; None is from the beginning.
    role : champion, shadow or guard.
    """
    rows = PredictionLog(lake, model).rows(environment, after.date() if after else None, until.date())
    rows = rows.filter(pl.col("_role") == role, pl.col("_at") <= until)
    if after is not None:
        rows = rows.filter(pl.col("_at") > after)
    return _once(rows.collect())


def matured(
    lake: Lake,
    model: str,
    environment: str,
    after: datetime | None,
    until: datetime,
    delay: timedelta,
    roles: Sequence[str] = ROLES,
) -> pl.DataFrame:
    """Return the predictions whose label became final in ``(after, until]``, with that label.

    A prediction matures when its first label is known and ``delay`` has passed since it was made, whichever is later (early
    labels are biased towards outcomes that are quick to know). Its label is the newest one known at ``until``: a
    correction changes the label of rows that mature later, and lets no row mature twice.

    Parameters
    ----------
    lake, model, environment : whose, where.
    after, until : instants; None is from the beginning.
    delay : label delay of the model.
    roles : only predictions made in these.

    Returns
    -------
    Columns of the log, ``label`` and ``matured_at``, ordered by ``_at``, ``_id`` and ``_version``; a row that was logged twice
    once.
    """
    labels = LabelTable(lake, model).known(until).select("entity", "label", "at", "seq", "predicted").collect()
    first = None
    if after is not None:
        first = (after - delay).date()
        fresh = labels.filter(pl.col("at") > after)
        if fresh.height:
            # A label that comes late reaches back to its prediction.
            oldest = fresh.select(pl.col("predicted").fill_null((pl.col("at") - REACH).dt.date()).min()).item()
            first = min(first, oldest)
    last = until - delay
    rows = PredictionLog(lake, model).rows(environment, first, last.date())
    rows = rows.filter(pl.col("_role").is_in(list(roles)), pl.col("_at") <= last).collect()
    wanted = labels.join(rows.select(entity=pl.col("_entity").unique()), on="entity", how="semi")
    newest = (
        wanted.sort("at", "seq")
        .group_by("entity")
        .agg(pl.col("label").last(), pl.col("at").first())
        .rename({"entity": "_entity", "at": "matured_at"})
    )
    rows = rows.drop("label", "matured_at", strict=False).join(newest, on="_entity", how="inner")
    due = (pl.col("_at") + delay).cast(INSTANT)
    rows = rows.with_columns(pl.max_horizontal("matured_at", due).alias("matured_at"))
    if after is not None:
        rows = rows.filter(pl.col("matured_at") > after)
    return _once(rows)


def _once(rows: pl.DataFrame) -> pl.DataFrame:
    """Order rows, and keep the first of those that a client's or a server's second try logged twice."""
    return rows.sort("_at", "_id", "_version").unique(["_id", "_version"], keep="first", maintain_order=True)
