"""One look at production with every monitor that applies."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from orrery.monitors.anomalies import AnomalyMonitor
from orrery.monitors.calibration import CalibrationMonitor
from orrery.monitors.decay import DecayMonitor
from orrery.monitors.estimated import EstimatedMonitor
from orrery.monitors.fairness import FairnessMonitor
from orrery.monitors.features import FeatureMonitor
from orrery.monitors.joint import JointMonitor
from orrery.monitors.monitor import Finding, Monitor, View
from orrery.monitors.predictions import PredictionMonitor
from orrery.monitors.probing import ProbingMonitor
from orrery.monitors.segments import SegmentMonitor
from orrery.spec import METRICS
from orrery.stats.measure import encode, metric

MONITORS: tuple[type[Monitor], ...] = (
    FeatureMonitor,
    CalibrationMonitor,
    DecayMonitor,
    PredictionMonitor,
    SegmentMonitor,
    EstimatedMonitor,
    FairnessMonitor,
    JointMonitor,
    AnomalyMonitor,
    ProbingMonitor,
)
CALM_LOOKS = 3  # looks within the tolerance after which an alarm's cause counts as gone


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at production found.

    Parameters
    ----------
    findings : by monitor.
    quiet : monitors whose cause, if they had alarmed, is gone.
    metrics : of the champion on the labels that matured since the last look, and the base rate.
    states : to go on from at the next look.
    """

    findings: dict[str, Finding]
    quiet: list[str]
    metrics: dict[str, float]
    states: dict[str, Any]


def look(view: View, states: dict[str, Any]) -> Look:
    """Let every monitor look once.

    Parameters
    ----------
    view : what there is to see.
    states : of the last look with this champion; empty at its first.
    """
    findings: dict[str, Finding] = {}
    fresh: dict[str, Any] = {}
    quiet: list[str] = []
    for kind in MONITORS:
        if kind.name in view.spec.monitors.off or not kind.applies(view):
            continue
        before = states.get(kind.name, {})
        monitor = kind.resume(view, before.get("state", {}))
        finding = monitor.look(view)
        calm = 0 if finding.alarm or not finding.calm else int(before.get("calm", 0)) + (not finding.insufficient)
        if calm >= CALM_LOOKS:
            quiet.append(kind.name)
        findings[kind.name] = finding
        fresh[kind.name] = {"state": monitor.to_state(), "calm": calm}
    return Look(findings=findings, quiet=quiet, metrics=_metrics(view), states=fresh)


def _metrics(view: View) -> dict[str, float]:
    rows = view.matured
    if not len(rows):
        return {}
    outputs = np.asarray(rows["output"].to_list(), dtype=np.float64)
    labels = encode(rows["label"].to_list(), view.classes)
    names = (*METRICS[view.spec.model.task], *view.own)
    found = {name: metric(name, outputs, labels, view.own) for name in names}
    if view.spec.model.task == "binary":
        found["said"] = float(outputs[:, 0].mean())
        found["seen"] = float(labels.mean())
    return {name: round(value, 6) for name, value in found.items() if math.isfinite(value)}
