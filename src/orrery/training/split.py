"""Untouched rows: what a candidate is judged on and has never seen."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import polars as pl

from orrery.errors import NotUnderstood
from orrery.spec import Spec, window_length
from orrery.types import parse_duration

_SALT = b"orrery untouched rows 1"
"""Never changes: the same rows are held out in every version of every model."""


def split(frame: pl.DataFrame, spec: Spec) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Divide labelled rows into those to learn from and untouched ones.

    Parameters
    ----------
    frame
        Rows with a label.
    spec
        ``[gates] holdout`` is a length of time, counted back from the newest row by event time, or a share: then a
        row's place follows from a hash of its entity (without one, of all but its target), the same in every version.

    Returns
    -------
    (train, holdout)
        In the order of `frame`.

    Raises
    ------
    NotUnderstood
        If one of the two is empty, or the event time is no time.
    """
    holdout = spec.gates.holdout
    try:
        share = float(holdout)
    except ValueError:
        moments = event_times(frame, spec)
        newest = moments.max()
        held = (moments > newest - parse_duration(holdout)) if isinstance(newest, datetime) else moments.is_not_null()
        held = held.fill_null(False)
    else:
        held = _drawn(frame, spec, share)
    train, untouched = frame.filter(~held), frame.filter(held)
    if train.is_empty() or untouched.is_empty():
        empty = "no row is left to learn from" if train.is_empty() else "no row is left untouched to judge it on"
        raise NotUnderstood(
            f"Of {frame.height} rows with a label {empty} ([gates] holdout = {holdout!r}).",
            safe="Nothing was trained.",
            todo="Bring more rows, or set another [gates] holdout.",
        )
    return train, untouched


def untouched(spec: Spec) -> timedelta:
    """Return for how long the newest rows are held out; nothing where a share of all is."""
    try:
        float(spec.gates.holdout)
    except ValueError:
        return parse_duration(spec.gates.holdout)
    return timedelta()


def recent(frame: pl.DataFrame, spec: Spec, window: str) -> pl.DataFrame:
    """Rows at most `window` older than the newest by event time; all of them for ``"all"`` and ``"0s"``.

    Raises
    ------
    NotUnderstood
        If the project names no event time, or it is no time.
    """
    length = window_length(window)
    if length is None:
        return frame
    if not spec.model.time:
        raise NotUnderstood(
            f"Only rows of the last {window} were asked for, but the project does not say when a row was.",
            todo="Name the column with the event time: [model] time.",
        )
    moments = event_times(frame, spec)
    newest = moments.max()
    if not isinstance(newest, datetime):
        return frame
    return frame.filter((moments > newest - length).fill_null(False))


def event_times(frame: pl.DataFrame, spec: Spec) -> pl.Series:
    """Event time of each row, UTC, null where it is not known.

    Raises
    ------
    NotUnderstood
        If there is no such column, or it holds no times.
    """
    name = spec.model.time
    if name not in frame.columns:
        raise NotUnderstood(f"[model] time = {name!r} is no column of the data.")
    column = frame.get_column(name)
    if isinstance(column.dtype, pl.String):
        column = column.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    if isinstance(column.dtype, pl.Date):
        column = column.cast(pl.Datetime("us"))
    if not isinstance(column.dtype, pl.Datetime):
        raise NotUnderstood(f"[model] time = {name!r} holds {column.dtype}, which is no time.")
    if column.dtype.time_zone is None:
        column = column.dt.replace_time_zone("UTC")
    return column.dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC"))


def _drawn(frame: pl.DataFrame, spec: Spec, share: float) -> pl.Series:
    if spec.model.entity in frame.columns:
        texts = frame.get_column(spec.model.entity).cast(pl.String)
    else:
        # Without the target: two rows that differ in nothing else must not stand on two sides.
        columns = [pl.col(name) for name in sorted(frame.columns) if name != spec.model.target]
        texts = frame.select(pl.struct(columns).struct.json_encode()).to_series()
    limit = int(share * 2**64)
    return pl.Series(
        [
            int.from_bytes(hashlib.blake2b((text or "").encode(), digest_size=8, key=_SALT).digest(), "big") < limit
            for text in texts
        ],
        dtype=pl.Boolean,
    )
