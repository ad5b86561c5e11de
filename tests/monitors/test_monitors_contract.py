"""Every monitor passes the shipped suite, and the suite fails those that do not keep their word."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from orrery.monitors import watch
from orrery.monitors.calibration import CalibrationMonitor
from orrery.monitors.features import FeatureMonitor
from orrery.monitors.monitor import Finding, Monitor, View
from orrery.monitors.watch import MONITORS
from orrery.testing.monitor_contract import Simulated, check_monitor
from orrery.types import MonitorName


@pytest.mark.parametrize("kind", MONITORS, ids=lambda kind: str(kind.name))
def test_it_holds_what_a_monitor_must(kind: type[Monitor]) -> None:
    check_monitor(kind)


class Nervous(FeatureMonitor):
    """Alarms whenever a customary limit is passed, as most tools do."""

    def look(self, view: View) -> Finding:
        found = super().look(view)
        alarm = max(found.severity.values(), default=0) > 0.06
        return msgspec.structs.replace(found, alarm=alarm, calm=not alarm)


class Forgetful(CalibrationMonitor):
    def to_state(self) -> dict[str, Any]:
        return {}


class Deaf(CalibrationMonitor):
    def look(self, view: View) -> Finding:
        found = super().look(view)
        return msgspec.structs.replace(found, alarm=False)


class Hoarder(FeatureMonitor):
    def to_state(self) -> dict[str, Any]:
        return super().to_state() | {"everything": "x" * 20_000}


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (Nervous, "quiet looks"),
        (Forgetful, "resumed from its state"),
        (Deaf, "finds none"),
        (Hoarder, "bytes"),
    ],
)
def test_the_suite_finds_a_monitor_that_does_not(kind: type[Monitor], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_monitor(kind)


def test_each_monitor_has_a_name_that_the_project_file_knows_and_a_place_in_the_documents() -> None:
    assert {kind.name for kind in MONITORS} == set(get_args(MonitorName))
    page = (Path(__file__).parents[2] / "docs" / "monitors.md").read_text()
    for kind in MONITORS:
        row = next(line for line in page.splitlines() if line.startswith(f"| **{kind.name}**"))
        assert ("starts a training" in row) is kind.trains, row
    own = Path(watch.__file__).parent
    assert len({inspect.getfile(kind) for kind in MONITORS}) == len(MONITORS), "one file a monitor"
    assert all((own / f"{kind.name}.py").exists() for kind in MONITORS)


SUBJECTS = {
    "features": ("inputs", "noise"),
    "calibration": ("base rate", "groups"),
    "decay": ("noise", "groups"),
    "predictions": ("inputs", "noise"),
    "segments": ("groups", "unfair"),
    "estimated": ("inputs", "noise"),
    "fairness": ("unfair", "inputs"),
    "joint": ("together", "noise"),
    "anomalies": ("strange", "base rate"),
    "probing": ("probed", "noise"),
}
"""For each monitor a change that it must find, and one that is none of its business: there it stays quiet."""


@pytest.mark.parametrize("kind", MONITORS, ids=lambda kind: str(kind.name))
def test_it_finds_what_it_is_for_and_not_what_others_are_for(kind: type[Monitor]) -> None:
    own, other = SUBJECTS[kind.name]

    def alarms(change: str) -> bool:
        world = Simulated(200)
        monitor = kind.resume(world.view(), {})
        assert not any(monitor.look(world.view()).alarm for _ in range(10))
        return any(monitor.look(world.view(change)).alarm for _ in range(40))

    assert alarms(own) and not alarms(other)
