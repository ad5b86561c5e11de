"""Train a refresh cheaply on each of its windows, and choose by what the newest untouched rows say."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery.actions.desk import Desk
from orrery.actions.gate import blocks_of
from orrery.actions.losses import own_losses
from orrery.actions.project import run_project, span_of
from orrery.errors import ProjectFailed
from orrery.pipeline.artifact import read_manifest
from orrery.spec import Spec
from orrery.stats.checks import FloatArray
from orrery.stats.measure import encode, row_losses
from orrery.timeline.state import ModelState, Run
from orrery.training.split import recent
from orrery.triggers.windows import Choice, candidates, pick


@dataclass(frozen=True)
class Sample:
    """What a probe left: the untouched rows, labels as numbers, its answers and losses, and what the training said."""

    rows: pl.DataFrame
    labels: FloatArray
    outputs: FloatArray
    losses: FloatArray
    result: dict[str, Any]


def windows_of(desk: Desk, run: Run, spec: Spec) -> list[str]:
    """Return the windows that differ on the data of a refresh, the longest first."""
    return candidates(spec, span_of(desk, run, spec))


def try_windows(desk: Desk, model: ModelState, run: Run, spec: Spec) -> tuple[Choice, Sample | None]:
    """Probe each window of a refresh on a share of its rows; return the choice, and the probe of the chosen one.

    A window whose probe fails is out; where all fail, the longest is left and there is no probe: a share may be too
    little for what all rows are enough for. They are compared on the untouched rows that are no older than the
    shortest of them: where untouched rows are drawn by lot from all times, the old ones would speak for the past.
    """
    samples: dict[str, Sample] = {}
    failed: dict[str, str] = {}
    windows = windows_of(desk, run, spec)
    for window in windows:
        try:
            samples[window] = _probed(desk, model, run, spec, window)
        except ProjectFailed as error:
            failed[window] = error.what
    if not samples:
        return pick({}, {}, spec.rollout.primary, failed=failed), None
    choice = _compared(samples, failed, spec, windows[-1])
    return choice, samples[choice.window]


def _probed(desk: Desk, model: ModelState, run: Run, spec: Spec, window: str) -> Sample:
    attempt = msgspec.structs.replace(run, id=f"probe-{run.id}-{window.replace(' ', '')}")
    out = desk.evidence(model.name, attempt.id)
    try:
        result = run_project(desk, model, attempt, spec, out, sample=spec.triggers.probe, window=window)
        rows = pl.read_parquet(out / "holdout.parquet")
        classes = read_manifest(out / "artifact").classes
        labels = encode(rows[spec.model.target].to_list(), classes)
        outputs = np.load(out / "probe_output.npy")
        with own_losses(desk, model, run.commit, classes) as own:
            losses = row_losses(spec.rollout.primary, outputs, labels, own=own)
        return Sample(rows, labels, outputs, losses, result)
    finally:
        shutil.rmtree(out, ignore_errors=True)  # a probe is no version: what it showed is on the timeline


def _compared(samples: dict[str, Sample], failed: dict[str, str], spec: Spec, shortest: str) -> Choice:
    some = next(iter(samples.values()))
    places = recent(some.rows.with_row_index("_place"), spec, shortest)["_place"].to_numpy()
    losses = {name: one.losses[places] for name, one in samples.items()}
    blocks = blocks_of(some.rows, spec.model.time)
    learned = {name: int(one.result["probe_rows"]) for name, one in samples.items()}
    spent = {
        name: [{fact: step[fact] for fact in ("key", "cpu_seconds")} for step in one.result.get("steps") or []]
        for name, one in samples.items()
    }
    here = None if blocks is None else blocks[places]
    return pick(losses, learned, spec.rollout.primary, here, failed, spent)
