"""What the year cost and how good the answers were, measured on the labels that were really true."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from orrery.app import Orrery
from orrery.data.predictions import logged
from orrery.demo.baselines import Outcome
from orrery.stats.measure import row_losses
from orrery.timeline.state import Version
from orrery.types import PRODUCTION, parse_instant


@dataclass(frozen=True)
class Row:
    """One policy on one year.

    Parameters
    ----------
    policy, incidents : which, and whether the incidents were injected.
    brier, log_loss : means over all flights that got a label.
    calibration : mean over the months of the distance between what was said and what was seen.
    trainings, cpu_seconds : how many, and their cost, with that of the probes that chose their rows.
    repairs, promotions, rollbacks, refused : what else was done; promotions do not count the first version.
    """

    policy: str
    incidents: bool
    brier: float
    log_loss: float
    calibration: float
    trainings: int
    cpu_seconds: float
    repairs: int = 0
    promotions: int = 0
    rollbacks: int = 0
    refused: int = 0


def of_baseline(outcome: Outcome, truth: pl.DataFrame, incidents: bool) -> Row:
    """Measure a blind calendar."""
    return Row(
        policy=outcome.name,
        incidents=incidents,
        trainings=outcome.trainings,
        cpu_seconds=outcome.cpu_seconds,
        promotions=outcome.promotions,
        **_measured(outcome.said, truth),
    )


def costs_of(orrery: Orrery, name: str) -> dict[str, float]:
    """Return what each step cost when it really ran, whether or not a later training took it from the cache."""
    costs: dict[str, float] = {}
    for version in orrery.model(name).versions.values():
        for step in _steps(version):
            costs[step["key"]] = max(costs.get(step["key"], 0.0), float(step["cpu_seconds"]))
    return costs


def _steps(version: Version) -> list[dict[str, Any]]:
    """Return the steps of a training, with those of the probes that chose its window."""
    tried = (version.facts.get("windows") or {}).get("tried") or []
    return [*(version.facts.get("steps") or []), *(step for one in tried for step in one.get("steps") or [])]


def _cost(steps: Sequence[Mapping[str, Any]], costs: Mapping[str, float]) -> float:
    return sum(costs[step["key"]] for step in steps)


def of_orrery(orrery: Orrery, name: str, truth: pl.DataFrame, incidents: bool) -> Row:
    """Measure what orrery answered, from its own prediction log and timeline."""
    costs = costs_of(orrery, name)
    rows = logged(orrery.lake, name, PRODUCTION, None, parse_instant("2100-01-01"))
    said = rows.select(flight_id="_entity", said=pl.col("_output").list.first())
    model = orrery.model(name)
    trained = [version for version in model.versions.values() if version.change != "repair"]
    events = list(orrery.timeline.read(name, kinds=("promoted", "rolled_back", "gated")))
    moved = [event for event in events if event.environment == PRODUCTION]
    return Row(
        policy="orrery",
        incidents=incidents,
        trainings=len(trained),
        cpu_seconds=sum(_cost(_steps(version), costs) for version in trained),
        repairs=sum(event.data.get("change") == "repair" for event in moved),
        promotions=sum(event.kind == "promoted" and event.data.get("change") != "repair" for event in moved) - 1,
        rollbacks=sum(event.kind == "rolled_back" for event in moved),
        refused=sum(event.kind == "gated" and not event.data["passed"] for event in events),
        **_measured(said, truth),
    )


def _measured(said: pl.DataFrame, truth: pl.DataFrame) -> dict[str, Any]:
    known = said.join(truth.select("flight_id", "late", "scheduled").drop_nulls("late"), on="flight_id", how="inner")
    outputs = known["said"].to_numpy()[:, None]
    labels = known["late"].to_numpy().astype(np.float64)
    months = known.group_by(pl.col("scheduled").dt.month()).agg(
        gap=(pl.col("said").mean() - pl.col("late").mean()).abs()
    )
    return {
        "brier": float(row_losses("brier", outputs, labels).mean()),
        "log_loss": float(row_losses("log_loss", outputs, labels).mean()),
        "calibration": float(months["gap"].mean() or 0.0),  # type: ignore[arg-type]
    }


def verdicts(rows: list[Row]) -> list[str]:
    """Say in sentences whether the goals were met: ahead with incidents, on the frontier without."""
    said = []
    for incidents in (True, False):
        ours = next((row for row in rows if row.policy == "orrery" and row.incidents is incidents), None)
        blind = [row for row in rows if row.policy.startswith("blind") and row.incidents is incidents]
        if ours is None or not blind:
            continue
        best = min(blind, key=lambda row: row.brier)
        gain = 1 - ours.brier / best.brier
        words = "With the incidents" if incidents else "Without them"
        side = "more" if gain >= 0 else "less"
        said.append(
            f"{words} orrery is {abs(gain):.1%} {side} accurate (Brier) than the best blind calendar ({best.policy})."
        )
        calendars = [row for row in blind if "recalibrated" not in row.policy]
        if not incidents and calendars:
            rivals = [row for row in calendars if row.cpu_seconds <= ours.cpu_seconds * 1.05]
            ahead = [row for row in rivals if row.brier < ours.brier * 0.99]
            said.append(
                "No blind calendar of the same training cost is more accurate by more than 1 %: on the frontier."
                if not ahead
                else f"NOT on the frontier: {ahead[0].policy} is more accurate at the same cost."
            )
    return said


def table(rows: list[Row]) -> Any:
    """Return the table of the demo for a terminal."""
    from rich.table import Table

    shown = Table(title="The flights of 2013, February to December", title_justify="left")
    for name in (
        "",
        "Brier",
        "log-loss",
        "calibration",
        "trainings",
        "CPU s",
        "repairs",
        "promoted",
        "back",
        "refused",
    ):
        shown.add_column(name, justify="left" if not name else "right", no_wrap=not name)
    for incidents in (True, False):
        part = [row for row in rows if row.incidents is incidents]
        if part:
            shown.add_section()
            shown.add_row("with the three injected incidents" if incidents else "without incidents", style="bold")
        best = min((row.brier for row in part), default=math.nan)
        for row in part:
            shown.add_row(
                f"  {row.policy}",
                f"{'*' if row.brier == best else ''}{row.brier:.4f}",
                f"{row.log_loss:.4f}",
                f"{row.calibration:.3f}",
                str(row.trainings),
                f"{row.cpu_seconds:.1f}",
                *(str(value) if row.policy == "orrery" else "-" for value in (row.repairs,)),
                str(row.promotions),
                *(str(value) if row.policy == "orrery" else "-" for value in (row.rollbacks, row.refused)),
            )
    return shown


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the rows for scripts."""
    return [asdict(row) for row in rows]
