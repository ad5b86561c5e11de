"""Fairness in production: who is named, what needs labels, and the three outcomes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from orrery import spec as specs
from orrery.monitors.fairness import FairnessMonitor
from orrery.monitors.monitor import Finding, View
from orrery.stats import TableSketch
from orrery.testing.monitor_contract import Simulated, check_finding


def outcomes(world: Simulated, change: str, looks: int, monitor: FairnessMonitor | None = None) -> list[Finding]:
    monitor = monitor or FairnessMonitor.resume(world.view(), {})
    found = [monitor.look(world.view(change)) for _ in range(looks)]
    for finding in found:
        check_finding(finding)
    return found


def test_insufficient_data_then_a_pass() -> None:
    found = [one.outcome for one in outcomes(Simulated(1, 1000), "", 60)]
    assert found[0] == "insufficient data" and found[-1] == "pass" and "fail" not in found
    assert found.index("pass") > 5  # it takes thousands of rows to say so


def test_a_group_that_is_treated_worse_is_named_and_fails() -> None:
    found = outcomes(Simulated(2), "unfair", 30)
    alarm = next(one for one in found if one.alarm)
    assert alarm.why.startswith("Groups are no longer treated alike: the selection rate of harbour north is ")
    assert alarm.outcome == "fail" and not alarm.trains and not alarm.calm
    assert alarm.blame[0][0].startswith("harbour north: ") and found[-1].outcome == "fail"


def without_labels(view: View) -> View:
    return msgspec.structs.replace(view, matured=view.matured.clear())


def without_requests(view: View) -> View:
    return msgspec.structs.replace(view, requests=view.requests.clear())


@pytest.mark.parametrize("seen", [without_labels, without_requests])
def test_selection_needs_no_labels_and_labels_that_come_later_are_not_lost(seen: Any) -> None:
    world = Simulated(3)
    monitor = FairnessMonitor.resume(world.view(), {})
    found = [monitor.look(seen(world.view("unfair"))) for _ in range(40)]
    rates = "selection rate" if seen is without_labels else "positive rate"
    assert rates in next(one.why for one in found if one.alarm)
    assert not any(one.insufficient for one in found)


def test_requests_that_do_not_say_who_asks_are_insufficient_data() -> None:
    view = msgspec.structs.replace(Simulated(4).view(), protected=TableSketch({}))
    monitor = FairnessMonitor.resume(view, {})
    finding = monitor.look(view)
    assert finding.insufficient and finding.why == "The requests do not bring what is protected: harbour."
    again = FairnessMonitor.resume(view, json.loads(json.dumps(monitor.to_state())))
    assert again.look(view) == finding
    check_finding(finding)


def test_only_binary_models_that_declare_what_is_protected_are_watched() -> None:
    view = Simulated(5).view()
    assert FairnessMonitor.applies(view)
    for change in ({"protected": []}, {"task": "multiclass"}):
        fields: dict[str, Any] = {"model": {"name": "t", "task": "binary", "target": "y", "protected": ["harbour"]}}
        fields["model"] |= change
        spec = specs.from_dict({**fields, "data": {"t": "t"}})
        assert not FairnessMonitor.applies(msgspec.structs.replace(view, spec=spec))


def test_codes_truths_and_nothing_are_groups_as_training_had_them() -> None:
    """A flag is a number in the log and a truth in training; who does not say counts nowhere."""
    rng = np.random.default_rng(6)
    reference = TableSketch.fit({"flag": np.array([0.0, 1.0] * 50)}, categories=["flag"])
    base = Simulated(6).view()
    fields = specs.to_dict(base.spec)
    fields["model"] = {**fields["model"], "protected": ["flag"]}
    flags: list[Any] = [True, False, None] * 40
    for kind in (pl.Boolean, pl.Float64):
        said = [[0.9 if flag or rng.random() < 0.1 else 0.1] for flag in flags]
        requests = pl.DataFrame({"flag": pl.Series(flags).cast(kind), "_output": said})
        view = msgspec.structs.replace(
            base,
            spec=specs.from_dict(fields),
            requests=requests,
            matured=base.matured.clear(),
            protected=reference,
        )
        finding = FairnessMonitor.resume(view, {}).look(view)
        assert "selection rate of flag" in finding.why and " of 40, the others'" in finding.why
        assert {name for name, _ in finding.blame} <= {
            f"flag {flag}: {words}" for flag in (0, 1) for words in ("selected less", "selected more")
        }
