"""What the monitors of anomalies and of probing say, and that they stand aside where nothing can be told."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
import pytest

from orrery.data.arrays import inputs_of, scored
from orrery.monitors.anomalies import AnomalyMonitor, level_of
from orrery.monitors.monitor import Finding, Monitor, View
from orrery.monitors.probing import ProbingMonitor
from orrery.stats.anomaly import AnomalyScore
from orrery.testing.monitor_contract import Simulated, check_finding


def until_alarm(monitor: Monitor, world: Simulated, change: str) -> Finding:
    """Look ten times at most; return the first finding that alarms, or the last."""
    for _ in range(10):
        finding = monitor.look(world.view(change))
        check_finding(finding)
        if finding.alarm:
            break
    return finding


def test_strange_requests_are_counted_and_named_with_the_column_to_blame() -> None:
    world = Simulated(1)
    monitor = AnomalyMonitor.resume(world.view(), {})
    quiet = monitor.look(world.view())
    assert quiet.calm and not quiet.alarm
    finding = until_alarm(monitor, world, "strange")
    assert finding.alarm and not finding.calm and not finding.trains
    assert finding.severity["strange"] == pytest.approx(0.1, abs=0.02)
    day = world.day
    assert f"such as req-{day}#" in finding.why and "untouched rows" in finding.why
    assert dict(finding.blame)["harbour"] > 0.8 and "To blame: harbour" in finding.why
    assert monitor.look(world.view()).calm, "its cause is gone"


@pytest.mark.parametrize("lacking", ["column", "values"])
def test_rows_of_a_log_that_is_older_than_the_score_say_nothing(lacking: str) -> None:
    world = Simulated(2)
    monitor = AnomalyMonitor.resume(world.view(), {})
    before = monitor.to_state()
    view = world.view("strange")
    older = view.requests.drop("_anomaly") if lacking == "column" else view.requests.with_columns(_anomaly=None)
    finding = monitor.look(msgspec.structs.replace(view, requests=older))
    assert finding.insufficient and "0 scored requests say nothing" in finding.why and monitor.to_state() == before


def test_with_few_untouched_rows_the_level_is_one_in_a_hundred_and_the_promise_is_kept() -> None:
    world = Simulated(3, rows=400)
    past = [inputs_of(world.view().requests, world.score) for _ in range(2)] if world.score else []
    few = AnomalyScore.fit(*past)
    assert few is not None and level_of(few) == 2 and few.highest < 3

    def seen(change: str = "") -> View:
        view = world.view(change)
        rows = view.requests.with_columns(_role=pl.lit("champion"), _version=pl.lit(1))
        return msgspec.structs.replace(view, score=few, requests=scored(rows, lambda version: few))

    monitor = AnomalyMonitor.resume(seen(), {})
    assert not any(monitor.look(seen()).alarm for _ in range(60))
    found = [monitor.look(seen("strange")) for _ in range(5)]
    assert any(one.alarm for one in found) and "one in 100 untouched rows" in found[-1].why


def test_a_walk_is_told_from_ordinary_requests_and_shown() -> None:
    world = Simulated(4)
    monitor = ProbingMonitor.resume(world.view(), {})
    quiet = monitor.look(world.view())
    assert quiet.calm and quiet.why.startswith("The requests are as far from each other as training rows")
    finding = until_alarm(monitor, world, "probed")
    assert finding.alarm and not finding.calm and not finding.trains
    assert "50% of the requests are small changes of another one" in finding.why
    assert "differ in wind" in finding.why and f"such as req-{world.day}#" in finding.why
    assert finding.severity["near"] == pytest.approx(0.5, abs=0.05)


def test_a_client_that_repeats_itself_is_no_alarm() -> None:
    world = Simulated(5)
    monitor = ProbingMonitor.resume(world.view(), {})
    for _ in range(60):
        view = world.view()
        places = np.where(np.arange(len(view.requests)) % 10 < 9, 0, np.arange(len(view.requests)))
        assert not monitor.look(msgspec.structs.replace(view, requests=view.requests[places.tolist()])).alarm


@pytest.mark.parametrize("kind", [AnomalyMonitor, ProbingMonitor])
def test_a_champion_that_learned_no_score_is_not_watched_for_it(kind: type[Monitor]) -> None:
    view = Simulated(6).view()
    assert kind.applies(view) and not kind.applies(msgspec.structs.replace(view, score=None))


@pytest.mark.parametrize("kind", [AnomalyMonitor, ProbingMonitor])
def test_requests_of_other_types_than_in_training_are_strange_and_stop_nothing(kind: type[Monitor]) -> None:
    world = Simulated(7)
    monitor = kind.resume(world.view(), {})
    for wrong in (pl.lit("calm"), pl.lit([1.0, 2.0]), pl.date(2013, 1, 1), pl.lit(None)):
        view = world.view()
        rows = view.requests.with_columns(wind=wrong, _role=pl.lit("champion"), _version=pl.lit(1))
        assert view.score is not None
        found = scored(rows, lambda version, score=view.score: score)
        assert (found["_anomaly"] >= 2.5).all(), "a value that is never missing is"
        check_finding(monitor.look(msgspec.structs.replace(view, requests=found)))
