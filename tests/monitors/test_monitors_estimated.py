"""Estimated decay: the promise kept on the edge of the tolerance, and *insufficient data* where nothing can be said."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import polars as pl

from orrery import spec as specs
from orrery.monitors.decay import DecayMonitor
from orrery.monitors.estimated import EstimatedMonitor
from orrery.monitors.monitor import View
from orrery.stats.estimate import Untouched
from orrery.testing.monitor_contract import Simulated

ARL, LOOKS, ROWS = 20, 400, 100


def edge() -> View:
    view = Simulated(0).view(rows=0)
    fields = specs.to_dict(view.spec)
    fields["monitors"] = {**fields["monitors"], "arl": ARL, "decay_tolerance": 0.02}
    exact = np.array([[share] for share in (0.1, 0.5, 0.9) for _ in range(1000)])  # its probabilities come true
    labels = np.array([float(n < 1000 * share) for share in (0.1, 0.5, 0.9) for n in range(1000)])
    spec, untouched = specs.from_dict(fields), Untouched(exact, labels)
    return msgspec.structs.replace(view, spec=spec, untouched=untouched, joint=None)


EDGE = edge()


def view_of(rng: np.random.Generator, expected: float) -> View:
    """Answers whose Brier score will be `expected` on average, with days that are harder and easier."""
    variance = np.clip(expected + rng.uniform(-0.04, 0.04) + rng.uniform(-0.03, 0.03, ROWS), 0, 0.25)
    said = (1 - np.sqrt(1 - 4 * variance)) / 2
    requests = pl.DataFrame({"_output": [[value] for value in said.tolist()]})
    return msgspec.structs.replace(EDGE, requests=requests, expected_loss=0.14)


def alarms(expected: float) -> int:
    rng = np.random.default_rng(1)
    monitor = EstimatedMonitor.resume(view_of(rng, expected), {})
    return sum(monitor.look(view_of(rng, expected)).alarm for _ in range(LOOKS))


def test_it_keeps_its_promise_on_the_edge_of_the_tolerance() -> None:
    promised = LOOKS / ARL
    assert alarms(0.16) <= promised + 3 * math.sqrt(promised)
    assert alarms(0.20) > promised  # the control: beyond the tolerance it alarms more often


def test_harder_requests_are_found_before_their_labels_come() -> None:
    world = Simulated(1)
    estimated, decay = EstimatedMonitor.resume(world.view(), {}), DecayMonitor.resume(world.view(), {})
    for _ in range(60):
        view = world.view("inputs")
        unlabelled = msgspec.structs.replace(view, matured=view.matured.clear())
        finding = estimated.look(unlabelled)
        assert decay.look(unlabelled).insufficient
        if finding.alarm:
            break
    assert finding.alarm and finding.reason == "decay" and not finding.trains
    assert finding.why.startswith("Without labels brier 0.2") and "they became harder" in finding.why
    blind = EstimatedMonitor.resume(world.view(), {})
    assert not any(blind.look(world.view("noise")).alarm for _ in range(40)), "it cannot see what only labels show"


def test_it_says_when_it_cannot_tell() -> None:
    view = Simulated(2).view()
    monitor = EstimatedMonitor.resume(view, {})
    found = monitor.look(msgspec.structs.replace(view, untouched=None))
    assert found.insufficient and "no untouched rows" in found.why
    assert view.untouched is not None and view.untouched.encoded is not None
    few = Untouched(view.untouched.outputs[:99], view.untouched.labels[:99], view.untouched.encoded[:99])
    found = monitor.look(msgspec.structs.replace(view, untouched=few))
    assert found.insufficient and "too few to calibrate" in found.why
    far = view.requests.with_columns(wind=pl.lit(9.0))  # nobody ever asked like this
    found = monitor.look(msgspec.structs.replace(view, requests=far))
    assert found.insufficient and found.why.startswith("Of 5,000 untouched rows only as much as"), found.why
    assert not monitor.look(view).insufficient
    fields = specs.to_dict(view.spec)
    for task, applies in (("binary", True), ("multiclass", True), ("regression", False)):
        spec = specs.from_dict(
            {"model": {**fields["model"], "task": task}, "data": fields["data"], "monitors": fields["monitors"]}
        )
        assert EstimatedMonitor.applies(msgspec.structs.replace(view, spec=spec)) is applies
    assert not EstimatedMonitor.applies(msgspec.structs.replace(view, expected_loss=math.nan))
