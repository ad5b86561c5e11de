"""Many guardrails, one risk: a challenger that breaks none is refused at most as often as promised."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from orrery import spec as specs
from orrery.rollout.compare import Comparison, look_at_arm
from orrery.stats import BettingE, PairedTest, log_mean_e

ALPHA, METRICS, LOOKS, UNITS = 0.1, 12, 12, 60
BETS = np.geomspace(0.01, 0.9, 16)  # as BettingE has them, without a margin
NAMES = [f"metric-{number}" for number in range(METRICS)]


def policy(metrics: int = METRICS) -> specs.Spec:
    business = {name: {"low": 0.0, "high": 1.0} for name in NAMES[:metrics]}
    rollout = {"primary": "brier", "alpha": ALPHA, "redesign": {"ab": "50%"}, "business": business}
    model = {"name": "tides", "task": "binary", "target": "y", "entity": "who"}
    return specs.from_dict({"model": model, "data": {"t": "t"}, "rollout": rollout})


NOBODY = pl.DataFrame(schema={"output": pl.List(pl.Float64), "label": pl.Int64, "arm": pl.Boolean})


def looked(seed: int, lost: dict[str, float], metrics: int = METRICS) -> list[Comparison]:
    """An A/B of which each metric is drawn apart, looked at again and again; some metrics fall by so much."""
    random, spec, found = np.random.default_rng([seed, 4]), policy(metrics), []
    state: dict[str, Any] = {}
    for _ in range(LOOKS):
        arm = random.random(UNITS) < 0.5
        came = {}
        for name in spec.rollout.business:
            value = (random.random(UNITS) < 0.5 - lost.get(name, 0.0) * arm).astype(float)
            came[name] = pl.DataFrame({"value": value, "arm": arm, "share": 0.5})
        found.append(look_at_arm(state, NOBODY, spec, [0, 1], 0.5, business=came))
        state = found[-1].state
    return found


def alone(found: Comparison) -> bool:
    """Say whether one guardrail would be enough, had it the whole risk for itself."""
    return any(PairedTest.from_state(one).decision == "abort" for one in found.state["tests"].values())


def test_the_risk_is_that_of_all_together_and_each_for_itself_would_break_it() -> None:
    """Guardrails at the edge of what is tolerated, looked at after every unit; what decides is their mean."""
    runs, units = 300, 800
    d = np.random.default_rng(4).choice([-1.0, 1.0], (runs, METRICS, units))
    log_e = np.logaddexp.reduce([np.log1p(bet * d).cumsum(axis=2) for bet in BETS]) - np.log(len(BETS))
    same = BettingE()
    same.update(d[0, 0])
    assert same.log_e == pytest.approx(log_e[0, 0, -1])
    e = np.exp(log_e)
    refused = (e.mean(axis=1).max(axis=1) >= 1 / ALPHA).mean()
    unsplit = (e.max(axis=(1, 2)) >= 1 / ALPHA).mean()
    limit = ALPHA + 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5
    assert refused <= limit < unsplit
    assert log_mean_e(log_e[0, :, -1]) == pytest.approx(np.log(e[0, :, -1].mean()))


@pytest.mark.parametrize("broken", [1, METRICS])
def test_what_falls_is_found_among_many_and_named(broken: int) -> None:
    fallen = dict.fromkeys(NAMES[:broken], 0.4)
    looks = looked(1, fallen)
    found = next(one for one in looks if one.decision == "abort")
    assert found.broken and all(any(text.startswith(name) for name in fallen) for text in found.broken)
    if broken == 1:  # by itself it would have been enough before: the others' share of the risk is paid for
        assert any(alone(one) and one.decision == "undecided" and not one.broken for one in looks)
