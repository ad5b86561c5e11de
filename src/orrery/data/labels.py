"""The labels of a model: what turned out to be true, for whom, and since when that is known."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
from deltalake import DeltaTable

from orrery.data.lake import Lake
from orrery.data.log import INSTANT, MONTH, PredictionLog
from orrery.data.rules import rows_to_expect
from orrery.data.table import Table, Write, fit, schema_of, within
from orrery.errors import NotUnderstood
from orrery.types import check_name, digest

FOLDER = "labels"
VALUES = "values"
ASIDE = "quarantined-labels"
REACH = timedelta(days=31)
"""How long before a prediction its label may be known; one older than that belongs to an earlier prediction."""

_COUNTER = "labels"  # application id whose number is the rows so far: two writers cannot both add the next
SCHEMA = {"entity": pl.String(), "at": INSTANT, "seq": pl.Int64(), "predicted": pl.Date(), MONTH: pl.Date()}


@dataclass(frozen=True)
class Accepted:
    """What became of labels that were handed in; the counts add up to the rows.

    Parameters
    ----------
    new : stored; the entity was predicted.
    unknown : stored; the entity was never predicted, or its prediction is not here yet.
    conflicting : stored; the entity had another label before. The newest known at a time holds then.
    duplicate : not stored: the entity has this label already.
    quarantined : set aside: the batch as a whole cannot be true. ``reasons`` says why.
    """

    new: int = 0
    duplicate: int = 0
    unknown: int = 0
    conflicting: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class LabelTable:
    """The labels of one model. Any number of writers; none doubles or loses a label.

    Parameters
    ----------
    lake, model : where, and whose.
    metric : the same for values of a business metric: what came of an answer, beside what was true.
    """

    def __init__(self, lake: Lake, model: str, metric: str = "") -> None:
        self.model = model
        self.lake = lake
        folder = f"{VALUES}-{check_name(metric, 'name of a metric')}" if metric else FOLDER
        self.table: Table = lake.table(folder, model)
        self._log = PredictionLog(lake, model)

    def append(
        self, frame: pl.DataFrame, key: str | None = None, *, expected: Mapping[str, float] | None = None
    ) -> Accepted:
        """Add labels; on return they are on disk.

        Parameters
        ----------
        frame : columns ``entity``, ``label`` (a number, a boolean or text) and ``at``: when it became known.
        key : makes the call idempotent: the same key again adds nothing and says what the first said.
        expected : label, as text, -> its share as known from before. A batch so large that a label should occur in it,
            and from which it is absent, is set aside as a whole (a feed that calls every flight on time).

        Raises
        ------
        NotUnderstood
            If a column is not there, or a row has no entity, label or time.
        ContractBroken
            If the labels are of another type than those before.
        """
        rows = _read(frame)
        outcome = Accepted()
        if rows.height == 0:
            return outcome
        absent = _absent(rows["label"], expected or {})
        if absent:
            return self._set_aside(rows, absent, key)

        def decide(table: DeltaTable | None) -> Write | None:
            nonlocal outcome
            done = self._done(key)
            if done is not None:
                outcome = done
                return None
            fitted = fit(rows, schema_of(table), f"the labels of {self.model}")
            stored, outcome = self._weigh(fitted)
            if stored.height == 0:
                return None
            before = self.table.version(_COUNTER) or 0
            sequence = pl.int_range(before, before + stored.height, dtype=pl.Int64).alias("seq")
            numbers = {_COUNTER: before + stored.height}
            if key is not None:
                numbers[_application(key)] = before + stored.height
            return Write(stored.with_columns(sequence), {"key": key, "accepted": asdict(outcome)}, numbers)

        self.table.write(decide)
        return outcome

    def known(self, since: datetime | None, until: datetime, entities: pl.Series | None = None) -> pl.DataFrame:
        """Return ``entity, label, at, seq, predicted`` of the labels known in ``[since, until]``, with corrections.

        Of other than the given entities, some may be among them.
        """
        limits = [f"{MONTH} <= '{until.date()}'"]
        if entities is not None and (bounds := within(entities.alias("entity"))):
            limits.append(bounds)
        if since is not None:
            limits.append(f"{MONTH} >= '{since.date().replace(day=1)}'")
        found = self.table.scan(" AND ".join(limits))
        if not found.collect_schema():
            return pl.DataFrame(schema={**SCHEMA, "label": pl.Float64()})
        inside = pl.col("at") <= until if since is None else pl.col("at").is_between(since, until)
        return found.filter(inside).select("entity", "label", "at", "seq", "predicted").collect()

    def _weigh(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Accepted]:
        """Part what is new from what is known; rows are weighed in order, each after those before it."""
        entities = rows["entity"].unique()
        history: dict[str, list[tuple[datetime, int, Any]]] = defaultdict(list)
        if self.table.schema():
            stored = self.table.scan(within(entities)).filter(pl.col("entity").is_in(entities.implode()))
            for entity, at, seq, label in stored.select("entity", "at", "seq", "label").collect().iter_rows():
                history[entity].append((at, seq, label))
        for held in history.values():
            held.sort(key=lambda one: one[:2])
        earliest: datetime = rows.select(pl.col("at").min()).item()
        days = self._log.first_days(entities, (earliest - REACH).date())
        keep: list[int] = []
        predicted: list[date | None] = []
        counts: dict[str, int] = {"new": 0, "duplicate": 0, "unknown": 0, "conflicting": 0}
        for place, (entity, label, at) in enumerate(rows.select("entity", "label", "at").iter_rows()):
            held = history[entity]
            later = bisect_right(held, at, key=lambda one: one[0])
            # What holds at that time; or, if this is earlier than all that is known, the first that is.
            neighbour = held[later - 1] if later else held[0] if held else None
            if neighbour is not None and neighbour[2] == label:
                counts["duplicate"] += 1
                continue
            counts["conflicting" if held else "new" if entity in days else "unknown"] += 1
            held.insert(later, (at, place, label))
            keep.append(place)
            predicted.append(days.get(entity))
        stored_rows = rows[keep].with_columns(pl.Series("predicted", predicted, dtype=pl.Date))
        stored_rows = stored_rows.with_columns(pl.col("at").dt.date().dt.truncate("1mo").alias(MONTH))
        return stored_rows, Accepted(counts["new"], counts["duplicate"], counts["unknown"], counts["conflicting"])

    def _done(self, key: str | None) -> Accepted | None:
        if key is None or self.table.version(_application(key)) is None:
            return None
        said = next(note for _, note in reversed(self.table.notes()) if note.get("key") == key)
        return Accepted(**said["accepted"])

    def _set_aside(self, rows: pl.DataFrame, why: str, key: str | None) -> Accepted:
        aside = rows.with_columns(pl.col("label").cast(pl.String), pl.lit(why).alias("_why"))
        self.lake.append(self.model, aside, note=why, key=key, folder=ASIDE)
        return Accepted(quarantined=rows.height, reasons={why: rows.height})


def _application(key: str) -> str:
    return f"key:{digest(key)}"


def _read(frame: pl.DataFrame) -> pl.DataFrame:
    for name in ("entity", "label", "at"):
        if name not in frame.columns:
            raise NotUnderstood(f"Labels need the column {name!r}.", todo="They have the columns entity, label and at.")
        empty = (frame[name].is_null() | (frame[name].cast(pl.String) == "")).fill_null(True).arg_true()
        if len(empty):
            raise NotUnderstood(
                f"Row {empty[0] + 1} of the labels has no {name}.",
                safe="Nothing was added.",
                todo="Leave out what is not known yet; it can be added later.",
            )
    label, at = frame["label"], frame["at"]
    if at.dtype == pl.String:
        raise NotUnderstood("The column 'at' of the labels holds text.", todo="Give dates or instants.")
    if isinstance(at.dtype, pl.Datetime) and at.dtype.time_zone is None:
        at = at.dt.replace_time_zone("UTC")
    kind = pl.String() if not (label.dtype.is_numeric() or label.dtype == pl.Boolean) else pl.Float64()
    if label.dtype.is_float() and label.is_nan().any():
        raise NotUnderstood("A label is NaN.", safe="Nothing was added.", todo="Leave out what is not known yet.")
    return pl.DataFrame([frame["entity"].cast(pl.String), label.cast(kind), at.cast(INSTANT)])


def _absent(labels: pl.Series, expected: Mapping[str, float]) -> str:
    """Say which label should occur among these and does not; nothing if none."""
    seen = {_spoken(label) for label in labels.unique().to_list()}
    for label, share in expected.items():
        if _spoken(label) not in seen and labels.len() > rows_to_expect(share):
            return f"label is {label} in none of {labels.len()} rows, and in {share:.0%} of those before"
    return ""


def _spoken(label: Any) -> Any:
    """Bring ``true``, ``1`` and ``1.0`` to one."""
    text = str(label)
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    try:
        return float(text)
    except ValueError:
        return text
