"""Rows that leave a table for good: the rows, the files they were in, and what the table's log says of them.

A Delta table deletes by writing files anew. The old ones stay until they are vacuumed, and the log keeps the smallest
and largest values of every file that ever was; so after a deletion the table is vacuumed, gets a checkpoint, and what
its older commits say of values is taken out of them. What the versions are (the notes of the commits) stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable

from orrery.data.gaps import ranges_of
from orrery.data.lake import ERASED, ROW
from orrery.data.table import META, Table, schema_of
from orrery.errors import NotAllowed

ONCE = 500
"""Values that one condition names, at most."""


class Condition:
    r"""Rows that hold one of some values in one of some columns, for Polars and for SQL.

    Parameters
    ----------
    schema : of the table; columns that it has not are left out.
    wanted : column -> values, as text.

    Examples
    --------
    >>> condition = Condition({"who": pl.String(), "age": pl.Int64()}, {"who": ["o'Neill"], "age": ["41", "x"]})
    >>> condition.sql
    '("who" IN (\'o\'\'Neill\')) OR ("age" IN (41))'
    """

    def __init__(self, schema: Mapping[str, pl.DataType], wanted: Mapping[str, Iterable[str]]) -> None:
        held = {name: typed(schema[name], values) for name, values in wanted.items() if name in schema}
        self._held = {name: values for name, values in held.items() if values}

    def __bool__(self) -> bool:
        return bool(self._held)

    @property
    def rows(self) -> pl.Expr:
        """The condition for Polars."""
        found = [pl.col(name).is_in(values) for name, values in self._held.items()]
        return pl.any_horizontal(found).fill_null(False) if found else pl.lit(False)

    @property
    def sql(self) -> str:
        """The condition for SQL."""
        return " OR ".join(f"({quoted(name)} IN ({', '.join(map(_literal, v))}))" for name, v in self._held.items())


def typed(kind: pl.DataType, values: Iterable[str]) -> list[Any]:
    """Return those of the values that a column of a type can hold."""
    found: list[Any] = []
    for value in sorted(set(values)):
        if kind == pl.String:
            found.append(value)
        elif kind.is_integer() and value.lstrip("-").isdigit():
            found.append(int(value))
        elif kind.is_float() and value.lstrip("-").replace(".", "", 1).isdigit():
            found.append(float(value))
    return found


def quoted(column: str) -> str:
    """Return a column's name as SQL has it."""
    return '"' + column.replace('"', '""') + '"'


def _literal(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def remove(table: Table, wanted: Mapping[str, Sequence[str]]) -> int:
    """Delete the rows that hold one of the values in one of the columns; return how many those were.

    A dataset's commit remembers their places, so that the rows that are left keep their numbers.
    """
    total = 0
    for part in _portions(wanted):
        with table.alone() as delta:
            condition = Condition(schema_of(delta), part)
            if delta is not None and condition:
                total += _delete(table, delta, condition.rows, condition.sql)
    return total


def remove_places(table: Table, ranges: Iterable[tuple[int, int]]) -> int:
    """Delete the rows of a dataset at some places, given as ranges; return how many there were."""
    total = 0
    for start, stop in ranges:
        with table.alone() as delta:
            if delta is not None:
                inside = (pl.col(ROW) >= start) & (pl.col(ROW) < stop)
                total += _delete(table, delta, inside, f"{ROW} >= {start} AND {ROW} < {stop}")
    return total


def remove_before(table: Table, column: str, limit: datetime) -> int:
    """Delete the rows that are older than that by a column of instants; return how many there were."""
    with table.alone() as delta:
        if delta is None or column not in (schema := schema_of(delta)):
            return 0
        old = pl.col(column).cast(schema[column]) < pl.lit(limit)
        return _delete(table, delta, old, f"{quoted(column)} < '{limit:%Y-%m-%dT%H:%M:%S.%fZ}'")


def blank(table: Table, columns: Iterable[str], values: Sequence[str]) -> int:
    """Empty the cells of some columns that hold one of the values; return how many those were."""
    total = 0
    for name in columns:
        with table.alone() as delta:
            condition = Condition(schema_of(delta), {name: values})
            if delta is None or not condition:
                continue
            count = int(table.scan().filter(condition.rows).select(pl.len()).collect().item())
            if count:
                delta.update(updates={quoted(name): "NULL"}, predicate=condition.sql)
                table.sync(delta)
            total += count
    return total


def purge(table: Table, told: Sequence[str]) -> None:
    """Remove the files that hold no row of the table any more, and what its log says of values.

    Parameters
    ----------
    told : texts that no file of the log may hold afterwards.

    Raises
    ------
    NotAllowed
        If the table is in an object store.
    """
    if "://" in table.uri:
        raise NotAllowed(
            f"The lake is in an object store, and old files of {table.uri} cannot be purged there.",
            safe="Rows that were deleted are in no version any more; their files are.",
            todo="Let the store's own rules remove old versions of objects.",
        )
    with table.alone() as delta:
        if delta is None:
            return
        # Nobody else writes now, so that a file which the log does not name is of a writer that was killed.
        delta.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
        delta.update_incremental()
        delta.create_checkpoint()
        log, newest = Path(table.uri) / "_delta_log", delta.version()
        for checkpoint in log.glob("*.checkpoint*"):
            if int(checkpoint.name.partition(".")[0]) != newest:
                checkpoint.unlink()
        for commit in log.glob("*.json"):
            if commit.stem.isdigit() and int(commit.stem) <= newest:
                _silence(commit, told)
        for rest in log.glob("*.tmp*"):
            rest.unlink()


def _silence(commit: Path, told: Sequence[str]) -> None:
    """Take out of a commit what it says of the values of its files; the checkpoint stands for it."""
    text = commit.read_text(encoding="utf-8")
    if not any(one in text for one in told):
        return
    lines = []
    for line in text.splitlines():
        action = json.loads(line)
        for kind in ("add", "remove"):
            if kind in action:
                action[kind].pop("stats", None)
        if "commitInfo" in action:
            action["commitInfo"].get("operationParameters", {}).pop("predicate", None)
        lines.append(json.dumps(action, separators=(",", ":"), ensure_ascii=False))
    fresh = commit.with_name(f".{commit.name}.new")
    fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(commit)


def _delete(table: Table, delta: DeltaTable, rows: pl.Expr, sql: str) -> int:
    found = table.scan().filter(rows)
    placed = ROW in schema_of(delta)
    hit = found.select(ROW if placed else pl.len()).collect()
    count = hit.height if placed else int(hit.item())
    if count:
        note = {ERASED: ranges_of(sorted(hit[ROW].to_list()))} if placed else {}
        properties = CommitProperties(custom_metadata={META: json.dumps(note)}) if placed else None
        delta.delete(sql, commit_properties=properties)
        table.sync(delta)
    return count


def _portions(wanted: Mapping[str, Sequence[str]]) -> Iterable[dict[str, Sequence[str]]]:
    """Divide long lists of values among several conditions."""
    longest = max((len(values) for values in wanted.values()), default=0)
    for start in range(0, longest, ONCE):
        yield {name: values[start : start + ONCE] for name, values in wanted.items() if values[start : start + ONCE]}
