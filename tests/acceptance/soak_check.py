"""What a soak must show: counted from what the clients were told and from what stands in the prediction log."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

GROWTH = 12.0
"""Megabytes by which the inference server's own process may grow over the soak, as a line through its samples."""
WARM_UP = 0.25
"""Share of the samples that is left out at the beginning."""
FEWEST_SAMPLES = 120
"""Fewer say nothing about growth."""
BESIDE = ("shadow", "guard")
"""Roles that see a request and do not answer it."""


@dataclass
class Told:
    """What the clients were told.

    Parameters
    ----------
    acknowledged : id of each request that was answered with 200, and the version that it was told.
    failed : requests that were answered otherwise, or lost their connection while the inference server was up.
    unanswered : requests without an answer between the kill of the inference server and its return. They may have
        been written down, at most once.
    """

    acknowledged: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    unanswered: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Line:
    """One promise: what was counted, what is allowed."""

    what: str
    found: str
    allowed: str
    kept: bool


def judge(told: Told, rows: pl.DataFrame, memory: list[tuple[float, float]], kills: Counter[str]) -> list[Line]:
    """Return a line for each promise.

    Parameters
    ----------
    rows : the whole prediction log as it is stored, nothing removed.
    memory : seconds and resident megabytes of the inference server's own process.
    kills : processes that were killed, by kind.
    """
    answers = rows.filter(~pl.col("_role").is_in(BESIDE))
    copies: Counter[str] = Counter(answers.get_column("_id").str.strip_suffix("#0").to_list())
    version = dict(zip(answers["_id"].str.strip_suffix("#0"), answers["_version"], strict=True))
    lost = [one for one in told.acknowledged if one not in copies]
    doubled = [one for one, count in copies.items() if count > 1]
    beside = rows.filter(pl.col("_role").is_in(BESIDE)).group_by("_id", "_version", "_role").len()
    doubled_beside = beside.filter(pl.col("len") > 1).height
    other = [one for one, said in told.acknowledged.items() if one in version and version[one] != said]
    unknown = [one for one in copies if one not in told.acknowledged and one not in told.unanswered]
    lines = [
        Line("requests answered", f"{len(told.acknowledged)}", "more than 0", bool(told.acknowledged)),
        _none("failed requests", told.failed),
        _none("acknowledged rows that are not in the log", lost),
        _none("answers that are in the log twice", doubled),
        Line("challengers' rows that are in the log twice", f"{doubled_beside}", "0", not doubled_beside),
        _none("rows whose version is not the one that was told", other),
        _none("rows of answers that nobody asked for", [one for one in unknown if one not in told.failed]),
        Line("processes killed", ", ".join(f"{name} {count}" for name, count in kills.items()), "", True),
        Line("without an answer while the inference server was killed", f"{len(told.unanswered)}", "stated", True),
    ]
    grown = growth(memory)
    if grown is None:
        return [*lines, Line("memory of the inference server", f"{len(memory)} samples: too few", "", True)]
    shown = f"{grown:+.1f} MB over {memory[-1][0] - memory[0][0]:.0f} s, at {memory[-1][1]:.0f} MB"
    return [*lines, Line("memory of the inference server", shown, f"at most +{GROWTH:g} MB", grown <= GROWTH)]


def _none(what: str, found: list[str]) -> Line:
    shown = f" ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})" if found else ""
    return Line(what, f"{len(found)}{shown}", "0", not found)


def growth(memory: list[tuple[float, float]]) -> float | None:
    """Return by how much the line through the samples rises after the warm-up; nothing where they are too few.

    Examples
    --------
    >>> growth([(float(second), 100.0 + second / 10) for second in range(400)])
    29.9
    """
    if len(memory) < FEWEST_SAMPLES:
        return None
    kept = memory[int(WARM_UP * len(memory)) :]
    times, sizes = [at for at, _ in kept], [size for _, size in kept]
    middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
    spread = sum((at - middle) ** 2 for at in times)
    slope = sum((at - middle) * (size - mean) for at, size in kept) / spread
    return round(slope * (times[-1] - times[0]), 3)


def table(lines: list[Line]) -> str:
    """Return the verdict as a table."""
    words = ["| promise | found | allowed | |", "|---|---|---|---|"]
    words += [f"| {one.what} | {one.found} | {one.allowed} | {'kept' if one.kept else '**broken**'} |" for one in lines]
    return "\n".join(words)


def spoil(log: Path, how: str) -> None:
    """Do to a prediction log what the soak exists to find: ``lost`` takes a row out, ``doubled`` adds one again."""
    from deltalake import DeltaTable, write_deltalake

    stored = DeltaTable(os.fspath(log))
    frame = pl.read_delta(stored)
    row = frame.filter(~pl.col("_role").is_in(BESIDE)).sort("_id").head(1)
    if how == "lost":
        stored.delete(f"_id = '{row['_id'][0]}'")
    elif how == "doubled":
        write_deltalake(stored, row.to_arrow(), mode="append")
    else:
        raise ValueError(how)
