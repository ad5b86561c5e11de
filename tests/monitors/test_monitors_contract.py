"""Every monitor passes the shipped suite, and the suite fails those that do not keep their word."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orrery.monitors.calibration import CalibrationMonitor
from orrery.monitors.features import FeatureMonitor
from orrery.monitors.monitor import Finding, Monitor, View
from orrery.monitors.watch import MONITORS
from orrery.testing.monitor_contract import check_monitor


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
