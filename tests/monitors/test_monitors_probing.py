"""Probing: who of the callers it is, and what is written down about it."""

from __future__ import annotations

import json

import msgspec
import polars as pl

from orrery.monitors.monitor import View
from orrery.monitors.probing import ProbingMonitor
from orrery.testing.monitor_contract import ARL, Simulated


def named(view: View, probed: bool) -> View:
    """Every other request is one caller's, who probes or not; of the others some say who they are."""
    place = pl.int_range(pl.len())
    others = pl.when(place % 4 == 1).then(pl.lit("app"))
    caller = pl.when(place % 2 == 0).then(pl.lit("mallory" if probed else "web")).otherwise(others)
    return msgspec.structs.replace(view, requests=view.requests.with_columns(_caller=caller))


def test_the_caller_is_named_and_the_promise_is_shared() -> None:
    world = Simulated(3)
    monitor = ProbingMonitor.resume(world.view(), {})
    for _ in range(10):
        quiet = monitor.look(named(world.view(), probed=False))
        assert not quiet.alarm and quiet.why.endswith("; 2 callers were looked at alone.")
    for _ in range(40):
        monitor = ProbingMonitor.resume(world.view(), json.loads(json.dumps(monitor.to_state())))
        found = monitor.look(named(world.view("probed"), probed=True))
        if found.alarm:
            break
    assert found.alarm and found.statistic >= ARL and not found.calm
    alone = ProbingMonitor.resume(world.view(), {})
    for _ in range(40):
        found = alone.look(msgspec.structs.replace(named(world.view("probed"), probed=True)))
        if "mallory" in found.why:
            break
        alone.stream = ProbingMonitor.resume(world.view(), {}).stream  # all together are forgotten
    assert found.alarm and found.why.startswith("100% of the newest of 50 requests of mallory are small changes of")
    assert "They differ in wind (100%)" in found.why


def test_without_callers_nobody_is_looked_at_alone_and_an_older_state_begins_anew() -> None:
    world = Simulated(4)
    view = world.view()
    monitor = ProbingMonitor.resume(view, {})
    assert monitor.look(view).why.endswith("very far.")
    absent = msgspec.structs.replace(view, requests=view.requests.with_columns(_caller=pl.lit(None, pl.String)))
    assert monitor.look(absent).why.endswith("very far.") and not monitor.callers.places
    older = ProbingMonitor.resume(view, monitor.stream.to_state())
    assert older.to_state() == ProbingMonitor.resume(view, {}).to_state()
