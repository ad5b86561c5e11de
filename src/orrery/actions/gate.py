"""Judge a version: gather the evidence, let the gates look at it, write the verdicts down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import polars as pl

from orrery.actions.desk import Desk, owner_of
from orrery.actions.losses import own_losses
from orrery.data.predictions import matured
from orrery.gates.judge import in_words, judge, passed
from orrery.gates.serving import clear
from orrery.gates.verdict import Evidence, Form
from orrery.pipeline.artifact import read_manifest
from orrery.pipeline.client import ModelProcess
from orrery.pipeline.verdict import read_verdict
from orrery.stats.checks import FloatArray
from orrery.stats.measure import encode
from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState, Version
from orrery.training.sight import plain
from orrery.types import PRODUCTION, digest, parse_duration, parse_instant
from orrery.workers.action import Action

One = TypeVar("One")
TIMED_ROWS, WARM_UPS = 180, 20
REPLAYED_DAYS = 14
REPLAYED_ROWS = 500


def gate(desk: Desk, model: ModelState, action: Action) -> list[Draft]:
    """Judge the version of an action."""
    version = model.versions[action.version or 0]
    spec = model.spec_of(version.commit)
    folder = desk.evidence(model.name, version.run)
    rows = pl.read_parquet(folder / "holdout.parquet")
    manifest = read_manifest(desk.artifact(version))
    champion = model.champion()
    answers = _Answers()
    if version.change == "repair":  # its process is that of the version it repairs, and what both say is known
        answers.champion = np.load(folder / "champion_output.npy")
    else:
        answers = _asked(desk, model, version, rows)
    evidence = Evidence(
        spec=spec,
        rows=rows,
        labels=encode(rows[spec.model.target].to_list(), manifest.classes),
        outputs=np.load(folder / "probe_output.npy"),
        champion=answers.champion,
        champion_name=f"version {champion.number}" if champion else "champion",
        blocks=blocks_of(rows, spec.model.time),
        latencies=answers.latencies,
        timed=answers.timed,
        left=answers.left,
        replayed=answers.replayed,
        row_wise=version.facts.get("row_wise"),
        uses_target=tuple(version.facts.get("uses_target") or ()),
    )
    with own_losses(desk, model, version.commit, manifest.classes) as own:
        verdicts = judge(msgspec.structs.replace(evidence, own=own))
    ok = passed(verdicts)
    why = in_words(verdicts)
    drafts = [
        Draft(
            id=action.event_id(),
            kind="gated",
            actor="orrery/gates",
            why=why,
            model=model.name,
            version=version.number,
            data={"passed": ok, "gates": {name: msgspec.to_builtins(one) for name, one in verdicts.items()}},
        )
    ]
    if not ok:
        owner = owner_of(model, version.commit)
        title = f"The gates refused version {version.number}. {why}"
        facts = {"issue": digest(action.key)[:12], "title": title, "owner": owner, "cause": f"refused:{action.version}"}
        drafts.append(
            Draft(
                id=action.event_id("issue"),
                kind="issue_opened",
                actor="orrery/gates",
                why=title,
                model=model.name,
                version=version.number,
                data=facts,
            )
        )
    return drafts


class _Answers(msgspec.Struct):
    """What the candidate and the champion say when they are asked."""

    champion: FloatArray | None = None
    latencies: FloatArray | None = None
    timed: Form = "python"
    left: int = 0
    replayed: tuple[FloatArray, FloatArray, list[str]] | None = None


def _asked(desk: Desk, model: ModelState, version: Version, rows: pl.DataFrame) -> _Answers:
    """Ask the candidate for single rows and logged requests, and the champion for the untouched rows.

    Both are asked in one process where they were built in one environment: most of a process's life is its start.
    """
    champion = model.champion()
    answers = _Answers(timed=_form(desk.artifact(version)))
    limit = model.spec_of(version.commit).gates.latency.p99_ms
    # What is compiled is the model that answers, not the probe that it is judged by.
    with desk.model_process(model, version, "probe" if answers.timed == "python" else "model") as process:
        if answers.timed == "compiled":
            answers.latencies, answers.left = _timed_as_served(process, rows, limit)
        else:
            answers.latencies = _timed(process, rows, limit)
        if champion is None:
            return answers
        if answers.timed != "python":
            process.load(desk.artifact(version), "probe")
        answers.replayed = _replayed(desk, model, version, process, rows)
        which = unseen_by(model, version, champion, rows)
        if desk.python_of(model.commits[champion.commit]) == desk.python_of(model.commits[version.commit]):
            process.load(desk.artifact(champion), which)
            answers.champion = process.predict(rows)
            return answers
    with desk.model_process(model, champion, which) as process:
        answers.champion = process.predict(rows)
    return answers


def unseen_by(model: ModelState, version: Version, champion: Version, rows: pl.DataFrame) -> str:
    """Return which model of the champion has not seen the rows: what answers, or the probe it was judged by."""
    column, until = model.spec_of(version.commit).model.time, champion.facts.get("trained_until")
    if column and until and column in rows.columns and rows[column].dtype.is_temporal():
        first: Any = rows[column].min()
        return "model" if parse_instant(until) < parse_instant(first) else "probe"
    return "probe"


def _timed(process: ModelProcess, rows: pl.DataFrame, limit_ms: float) -> FloatArray:
    """Return the processor time of single rows in seconds, in as many rounds as it takes to tell."""

    def ask(row: pl.DataFrame) -> float:
        process.predict(row)
        return process.cpu_seconds

    return _rounds(ask, [rows[number : number + 1] for number in range(min(TIMED_ROWS, len(rows)))], limit_ms)


def _timed_as_served(process: ModelProcess, rows: pl.DataFrame, limit_ms: float) -> tuple[FloatArray, int]:
    """Return the same of a compiled version, and how many of the rows its own Python answers."""
    left: set[int] = set()

    def ask(number: int) -> float:
        seconds, compiled = process.time({name: values[number : number + 1] for name, values in asked.items()}, 1)
        if not compiled:
            left.add(number)
        return seconds

    asked = plain(rows[:TIMED_ROWS])
    return _rounds(ask, range(min(TIMED_ROWS, len(rows))), limit_ms), len(left)


def _rounds(ask: Callable[[One], float], singly: Sequence[One], limit_ms: float) -> FloatArray:
    for number in range(WARM_UPS):
        ask(singly[number % len(singly)])
    rounds: list[list[float]] = []
    while not rounds or not clear(np.asarray(rounds), limit_ms):
        rounds.append([ask(one) for one in singly])
    return np.asarray(rounds)


def _form(artifact: Path) -> Form:
    """Return what will answer for a version."""
    compiled = read_verdict(artifact)
    if compiled is None or compiled.why:
        return "python"
    return "compiled" if compiled.whole else "features in python"


def _replayed(
    desk: Desk, model: ModelState, version: Version, process: ModelProcess, rows: pl.DataFrame
) -> tuple[FloatArray, FloatArray, list[str]] | None:
    """Answer logged requests from the log and, by entity, from the dataset's rows."""
    spec = model.spec_of(version.commit)
    entity, now = spec.model.entity, desk.orrery.clock.now()
    if not entity or entity not in rows.columns:
        return None
    delay = parse_duration(spec.model.label_delay)
    logged = matured(
        desk.orrery.lake, model.name, PRODUCTION, now - timedelta(days=REPLAYED_DAYS), now, delay, roles=("champion",)
    )
    logged = logged.filter(pl.col("_broken").list.len() == 0) if len(logged) else logged
    known = rows.with_columns(pl.col(entity).cast(pl.String).alias("_entity"))
    both = logged.unique("_entity", keep="last", maintain_order=True).filter(
        pl.col("_entity").is_in(known["_entity"].implode())
    )[:REPLAYED_ROWS]
    if not len(both):
        return None
    wanted = both.select("_entity").join(known, on="_entity", how="left", maintain_order="left")
    inputs = [name for name in both.columns if not name.startswith("_") and name not in ("label", "matured_at")]
    brought = {name for name in inputs if both[name].null_count() < len(both)}
    known_only = [name for name in rows.columns if name not in brought and wanted[name].null_count() < len(wanted)]
    absent = [name for name in known_only if name not in (spec.model.target, entity)]
    return process.predict(both.select(inputs)), process.predict(wanted.drop("_entity")), absent


def blocks_of(rows: pl.DataFrame, column: str) -> np.ndarray[Any, Any] | None:
    """Return the day of each row: rows of one day depend on each other."""
    for name in (column, "_at"):
        if name and name in rows.columns and rows[name].dtype.is_temporal():
            return rows[name].dt.epoch("d").to_numpy()
    return None
