"""Joint drift as a monitor: what it says, and that it stands aside where nothing can be told."""

from __future__ import annotations

import msgspec
import polars as pl

from orrery.monitors.features import FeatureMonitor
from orrery.monitors.joint import JointMonitor
from orrery.testing.monitor_contract import Simulated, check_finding


def test_features_that_no_longer_go_together_are_named_where_each_alone_is_quiet() -> None:
    world = Simulated(1)
    joint, alone = JointMonitor.resume(world.view(), {}), FeatureMonitor.resume(world.view(), {})
    for _ in range(20):
        view = world.view("together")
        finding = joint.look(view)
        assert not alone.look(view).alarm
        check_finding(finding)
        if finding.alarm:
            break
    assert finding.alarm and not finding.calm and not finding.trains
    assert "most of all by wind and harbour " in finding.why and dict(finding.blame).keys() == {"wind", "harbour"}
    quiet = [joint.look(world.view()) for _ in range(30)]
    assert quiet[-1].calm and quiet[-1].why.startswith("The requests cannot be told from training rows; evidence ")


def test_words_where_training_has_numbers_are_missing_values() -> None:
    world = Simulated(2)
    monitor = JointMonitor.resume(world.view(), {})
    for _ in range(5):
        view = world.view()
        wordy = view.requests.with_columns(wind=pl.lit("calm"))
        check_finding(monitor.look(msgspec.structs.replace(view, requests=wordy)))


def test_without_two_features_there_is_nothing_to_watch() -> None:
    view = Simulated(3).view()
    assert JointMonitor.applies(view) and not JointMonitor.applies(msgspec.structs.replace(view, joint=None))
