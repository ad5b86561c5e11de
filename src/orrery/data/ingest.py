"""How rows come into the lake: checked against their contract, added as one version, the rest set aside, all noted.

The order makes a crash harmless: rows to be set aside, then rows to be added, then the events. Each of the three is
written once for a key, so the same call again finishes what is missing; and the commits carry all that the events say,
so :func:`announce` can write them without the rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import polars as pl

from orrery.data.check import WHY, Checked
from orrery.data.contract import Contract
from orrery.data.files import read_files
from orrery.data.lake import DatasetVersion, Lake
from orrery.data.personal import ERASED, Privacy
from orrery.data.profile import summary
from orrery.data.table import within
from orrery.errors import NotAllowed
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline
from orrery.types import check_name, digest, format_instant, parse_instant

__all__ = ["Added", "add", "announce", "contract_of", "read_files"]

QUARANTINE = "quarantine"
AT = "_at"


@dataclass(frozen=True)
class Added:
    """What became of rows that were handed in.

    Parameters
    ----------
    version : the dataset's version that holds them; None where none was good.
    rows : how many were added.
    quarantined : how many were set aside.
    reasons : reason -> rows.
    """

    version: int | None
    rows: int
    quarantined: int
    reasons: dict[str, int] = field(default_factory=dict)


def add(
    lake: Lake,
    timeline: Timeline,
    name: str,
    frame: pl.DataFrame,
    *,
    contract: Contract | None = None,
    actor: str,
    why: str,
    key: str | None = None,
    occurred_at: datetime | None = None,
    privacy: Privacy | None = None,
) -> Added:
    """Add rows to a dataset; those that break its contract go to its quarantine table, with the reason.

    Parameters
    ----------
    name, frame : dataset and rows.
    contract : what to check by; None takes the one on the timeline, and infers one from the rows where there is none.
        What was declared before the first rows is completed from them.
    privacy : keeps what the contract marks as personal from being written in the clear.
    actor, why, occurred_at : who, for what reason, when (now, if it does not say).
    key : makes the call idempotent.

    Raises
    ------
    NotUnderstood, ContractBroken
        If there are no rows, or a column has another type than the dataset's.
    NotAllowed
        If a column is personal and nothing keeps it from being written in the clear.
    """
    check_name(name, "name of a dataset")
    at = occurred_at or timeline.clock.now()
    said = {"actor": actor, "why": why, "occurred_at": format_instant(at)}
    done = lake.committed(name, key) if key is not None else None
    if done is not None:
        _write_events(lake, timeline, name, [done], _quarantined_by(lake, name, key))
        return _added(done, key)
    rules = contract or contract_of(timeline, name)
    if rules is None:
        rules = _first_contract(timeline, name, frame, said)
    elif lake.table("datasets", name).snapshot() is None:
        rules = _completed(timeline, name, rules, frame, said)
    checked, erased = _checked(lake, name, rules, frame, privacy)
    if not checked.good.height and not checked.bad.height and erased:
        return Added(None, 0, 0, {ERASED: erased})
    aside = [_set_aside(lake, name, checked, key, said, at)] if checked.bad.height else []
    if checked.good.height == 0 and aside:
        _write_events(lake, timeline, name, [], aside)
        return Added(None, 0, checked.bad.height, checked.reasons)
    about = {
        **said,
        "key": key or "",
        "rows": checked.good.height,
        "quarantined": checked.bad.height,
        "reasons": checked.reasons,
        "summary": summary(checked.good.drop(rules.personal, strict=False)),
    }
    version = lake.append(name, checked.good, note=why, key=key, about=about, at=at)
    _write_events(lake, timeline, name, [version], aside)
    reasons = {**checked.reasons, **({ERASED: erased} if erased else {})}
    return Added(version.version, checked.good.height, checked.bad.height, reasons)


def announce(lake: Lake, timeline: Timeline, name: str) -> int:
    """Write the events of commits that have none, because their writer died in between; return how many."""
    kinds = ("data_added", "quarantined")
    before = sum(1 for event in timeline.read("", kinds=kinds) if event.data.get("dataset") == name)
    aside = lake.versions(name, folder=QUARANTINE) if name in lake.names(folder=QUARANTINE) else []
    versions = lake.versions(name) if name in lake.names() else []
    _write_events(lake, timeline, name, versions, aside)
    return sum(1 for event in timeline.read("", kinds=kinds) if event.data.get("dataset") == name) - before


def contract_of(timeline: Timeline, name: str) -> Contract | None:
    """Return the contract of a dataset that is in force on the timeline."""
    for event in timeline.read("", kinds=("contract_changed",), newest_first=True):
        if event.data["dataset"] == name:
            return Contract.from_dict(event.data["contract"])
    return None


def _checked(
    lake: Lake, name: str, rules: Contract, frame: pl.DataFrame, privacy: Privacy | None
) -> tuple[Checked, int]:
    """Part the rows, as they may be written; and say how many were left out because their subject was erased."""
    erased = 0
    if rules.personal:
        if privacy is None:
            raise NotAllowed(f"{name} has personal columns, and here is no key for them.", safe="Nothing was added.")
        frame, erased = privacy.without_erased(rules, privacy.named(rules, frame))
    checked = _without_known(lake, name, rules, rules.check(frame))
    if privacy is not None and rules.personal:
        good, bad = (privacy.shut(rules, part, name) for part in (checked.good, checked.bad))
        checked = replace(checked, good=good, bad=bad)
    return checked, erased


def _set_aside(
    lake: Lake, name: str, checked: Checked, key: str | None, said: Mapping[str, str], at: datetime
) -> DatasetVersion:
    """Write the rows that break the contract to the quarantine table, as text."""
    about = {**said, "rows": checked.bad.height, "reasons": checked.reasons}
    rows = _as_text(checked.bad).with_columns(pl.lit(at).cast(pl.Datetime("us", "UTC")).alias(AT))
    return lake.append(name, rows, note="; ".join(checked.reasons), key=key, folder=QUARANTINE, about=about, at=at)


def _completed(
    timeline: Timeline, name: str, declared: Contract, frame: pl.DataFrame, said: Mapping[str, str]
) -> Contract:
    """Return a contract that was declared before the first rows, with rules for what it does not name."""
    contract = declared.completed(frame)
    if contract == declared:
        return declared
    why = f"What was declared, and rules for the other columns, inferred from the first {frame.height} rows."
    return _in_force(timeline, name, contract, why, said)


def _first_contract(timeline: Timeline, name: str, frame: pl.DataFrame, said: Mapping[str, str]) -> Contract:
    why = f"Inferred from the first {frame.height} rows."
    return _in_force(timeline, name, Contract.infer(frame), why, said)


def _in_force(timeline: Timeline, name: str, contract: Contract, why: str, said: Mapping[str, str]) -> Contract:
    draft = Draft(
        id=digest(f"contract/{name}/first"),
        kind="contract_changed",
        actor=said["actor"],
        why=why,
        occurred_at=parse_instant(said["occurred_at"]),
        data={"dataset": name, "contract": contract.to_dict(), "digest": contract.digest},
    )
    # Of two that are first at the same time, one contract holds: the one that is on the timeline.
    return Contract.from_dict(timeline.append([draft])[0].data["contract"])


def _without_known(lake: Lake, name: str, rules: Contract, checked: Checked) -> Checked:
    """Set aside good rows whose unique value the dataset has already."""
    unique = [column for column, rule in rules.columns.items() if rule.unique and column in checked.good.columns]
    if not unique:
        return checked
    table = lake.table("datasets", name)
    good, bad, reasons = checked.good, [checked.bad], dict(checked.reasons)
    there = table.schema()
    for column in unique:
        if column not in there or there[column] != good.schema[column]:
            continue
        stored = table.scan(within(good[column])).select(column)
        known = stored.join(good.lazy().select(column), on=column, how="semi").collect()[column]
        again = good.filter(pl.col(column).is_in(known.implode()))
        if again.height:
            reason = f"{column} is in the dataset already"
            good = good.filter(~pl.col(column).is_in(known.implode()))
            bad.append(again.with_columns(pl.lit(reason).alias(WHY)))
            reasons[reason] = again.height
    return Checked(good, pl.concat([_as_text(part) for part in bad], how="diagonal"), reasons)


def _as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Write every value as text: what is wrong with a row is often its type, and one table takes them all."""
    columns = []
    for series in frame.get_columns():
        if series.dtype.is_nested():
            texts = [None if value is None else json.dumps(value, default=str) for value in series.to_list()]
            columns.append(pl.Series(series.name, texts, dtype=pl.String))
        else:
            columns.append(series.cast(pl.String))
    return pl.DataFrame(columns)


def _quarantined_by(lake: Lake, name: str, key: str | None) -> list[DatasetVersion]:
    aside = lake.committed(name, key, folder=QUARANTINE) if key is not None else None
    return [aside] if aside else []


def _added(version: DatasetVersion, key: str | None) -> Added:
    for about in version.about:
        if about.get("key") == key:
            return Added(version.version, about["rows"], about["quarantined"], dict(about["reasons"]))
    return Added(version.version, version.rows_added, 0)


def _write_events(
    lake: Lake,
    timeline: Timeline,
    name: str,
    versions: list[DatasetVersion],
    aside: list[DatasetVersion],
) -> None:
    drafts = [_data_added(name, version) for version in versions]
    drafts += [_quarantined(name, version) for version in aside]
    timeline.append(drafts)


def _data_added(name: str, version: DatasetVersion) -> Draft:
    data = {
        "dataset": name,
        "version": version.version,
        "rows": version.rows_added,
        "quarantined": sum(about.get("quarantined", 0) for about in version.about),
        "digest": version.digest,
        "note": version.note,
        "summary": version.about[-1].get("summary", {}) if version.about else {},
    }
    return _draft("data_added", name, version, data)


def _quarantined(name: str, version: DatasetVersion) -> Draft:
    reasons: dict[str, int] = {}
    for about in version.about:
        for reason, rows in about["reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + rows
    data = {"dataset": name, "version": version.version, "rows": version.rows_added, "reasons": reasons}
    return _draft("quarantined", name, version, data)


def _draft(kind: str, name: str, version: DatasetVersion, data: dict[str, Any]) -> Draft:
    said = version.about[-1] if version.about else {}
    return Draft(
        id=digest(f"{kind}/{name}/{version.version}"),
        kind=kind,
        actor=said.get("actor", "orrery/data"),
        why=said.get("why") or version.note or "Rows were added to the lake.",
        occurred_at=version.at,
        data=data,
    )
